"""Float models become integer ones that answer alike, or are refused by what is in the way."""

from pathlib import Path

import numpy as np
import pytest
from onnx import helper

from node.engines.exact.overflow import prove
from node.engines.exact.quantise import float_outputs, quantise
from node.engines.exact.reference import run
from node.engines.formats.onnx_file import describe
from node.models.exact_models import make_exact
from tests.engines.exact.samples import made as made_exact
from tests.engines.onnx_models import FLOAT, FOLDER, golden, kept_at, made, value
from wire.errors import InputError, ModelRefused

CHANCE = np.random.default_rng(5)
ROWS = CHANCE.standard_normal((64, 40)).astype(np.float32)
PICTURES = CHANCE.standard_normal((32, 3, 8, 8)).astype(np.float32)
WEIGHTS = (CHANCE.standard_normal((40, 40)) / 4).astype(np.float32)
KERNELS = CHANCE.standard_normal((5, 3, 3, 3)).astype(np.float32)


@pytest.mark.parametrize(
    ("name", "same"), [("sklearn_mlp", 1.0), ("torch_cnn", 1.0), ("sklearn_logistic", 1.0)]
)
def test_the_kept_models_choose_as_their_makers_engine_does(name: str, same: float) -> None:
    inputs, outputs = golden(name)
    model = made_exact(name)
    assert prove(model) > 0
    found = run(model, list(inputs.values()))
    for output, answer in zip(model.outputs, found, strict=True):
        wanted = outputs[output.name]
        assert (answer.shape, answer.dtype) == (wanted.shape, wanted.dtype)
        chosen = [it.argmax(axis=1) if it.ndim > 1 else it for it in (answer, wanted)]
        assert (chosen[0] == chosen[1]).mean() >= same


def test_floats_are_what_the_makers_engine_gives() -> None:
    for name in ("sklearn_mlp", "torch_mlp", "torch_cnn", "sklearn_linear"):
        inputs, outputs = golden(name)
        model = describe(FOLDER / f"{name}.onnx")
        answers = float_outputs(model, list(inputs.values()))
        for output, found in zip(model.outputs, answers, strict=True):
            wanted = outputs[output.name]
            assert np.abs(found - wanted).max() <= 1e-5 * max(1.0, np.abs(wanted).max())


def node(operator: str, *inputs: str, out: str = "y", **attributes: object) -> object:
    return helper.make_node(operator, list(inputs), [out], **attributes)


ROW_NODES = {
    "two paths that meet": [
        node("MatMul", "x", "w", out="a"),
        node("Relu", "a", out="b"),
        node("Add", "a", "b"),
    ],
    "scaled and shifted": [
        node("Mul", "x", "two", out="a"),
        node("Sub", "a", "row", out="b"),
        node("Gemm", "b", "w", transB=1, alpha=0.5),
    ],
    "divided after": [node("MatMul", "x", "w", out="a"), node("Div", "a", "two")],
    **{
        name: [node("MatMul", "x", "w", out="a"), node(name, "a")]
        for name in ("Tanh", "Sigmoid", "LeakyRelu", "Elu", "HardSigmoid", "Softplus", "Erf")
    },
    "clipped": [node("MatMul", "x", "w", out="a"), node("Clip", "a", "minus", "two")],
    "shares": [node("MatMul", "x", "w", out="a"), node("Softmax", "a", axis=-1)],
}


@pytest.mark.parametrize("name", ROW_NODES)
def test_each_operator_comes_close_to_its_floats(name: str, tmp_path: Path) -> None:
    constants = {
        "w": WEIGHTS,
        "two": np.array(2.0, np.float32),
        "minus": np.array(-1.0, np.float32),
        "row": ROWS[:1],
    }
    file = made(
        ROW_NODES[name], [value("x", FLOAT, "n", 40)], [value("y", FLOAT, "n", 40)], constants
    )
    close(tmp_path, file, ROWS)


PICTURE_NODES = {
    "padded and strided": [node("Conv", "x", "k", strides=[2, 1], pads=[1, 1, 1, 0])],
    "normalised": [
        node("Conv", "x", "k", out="a"),
        node("BatchNormalization", "a", "five", "five", "five", "five", out="b"),
        node("Relu", "b"),
    ],
    "largest": [node("MaxPool", "x", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])],
    "mean": [node("AveragePool", "x", kernel_shape=[2, 3])],
    "mean of all": [node("Relu", "x", out="a"), node("GlobalAveragePool", "a")],
    "flat": [node("Flatten", "x", out="a"), node("Tanh", "a")],
    "a residual": [
        node("Conv", "x", "same", pads=[1, 1, 1, 1], out="a"),
        node("Relu", "a", out="b"),
        node("Add", "b", "x"),
    ],
}


@pytest.mark.parametrize("name", PICTURE_NODES)
def test_pictures_come_close_to_their_floats(name: str, tmp_path: Path) -> None:
    constants = {
        "k": KERNELS,
        "same": CHANCE.standard_normal((3, 3, 3, 3)).astype(np.float32),
        "five": np.linspace(0.5, 2, 5, dtype=np.float32),
    }
    file = made(
        PICTURE_NODES[name], [value("x", FLOAT, "n", 3, 8, 8)], [value("y", FLOAT, "n")], constants
    )
    close(tmp_path, file, PICTURES)


def close(folder: Path, file: object, rows: np.ndarray) -> None:
    """The integer model is proved, and within two steps of 127 of the floats."""
    model = describe(kept_at(folder, file))
    exact = quantise(model, [rows])
    prove(exact)
    (found,), (wanted,) = run(exact, [rows]), float_outputs(model, [rows])
    assert found.shape == wanted.shape
    error = np.sqrt(np.mean((found - wanted) ** 2)) / np.abs(wanted).max()
    assert error < 0.015, error


@pytest.mark.parametrize(
    ("nodes", "words"),
    [
        ([node("Conv", "x", "k", dilations=[2, 2])], "Conv cannot be made exact"),
        ([node("Conv", "x", "g", group=3)], "Conv cannot be made exact"),
        ([node("InstanceNormalization", "x", "three", "three")], "InstanceNormalization"),
        ([node("Mul", "x", "x")], "both of its inputs"),
        ([node("MaxPool", "x", kernel_shape=[2, 2], auto_pad="SAME_UPPER")], "auto_pad"),
        ([node("ReduceMean", "x")], "ReduceMean"),
        ([node("Softmax", "x", axis=-1)], "Softmax"),
    ],
)
def test_what_cannot_be_exact_is_refused_by_its_name(
    nodes: list[object], words: str, tmp_path: Path
) -> None:
    constants = {
        "k": KERNELS,
        "g": KERNELS[:3, :1],
        "three": np.ones(3, np.float32),
    }
    file = made(nodes, [value("x", FLOAT, "n", 3, 8, 8)], [value("y", FLOAT, "n")], constants)
    with pytest.raises(ModelRefused, match=words):
        quantise(describe(kept_at(tmp_path, file)), [PICTURES])


@pytest.mark.parametrize("name", ["torch_encoder", "sklearn_boosting", "sklearn_forest"])
def test_trees_and_encoders_are_refused_by_what_is_in_the_way(name: str) -> None:
    inputs, _ = golden(name)
    with pytest.raises(ModelRefused):
        quantise(describe(FOLDER / f"{name}.onnx"), list(inputs.values()))


def test_the_cost_is_measured_on_other_rows_and_kept_in_the_file(tmp_path: Path) -> None:
    inputs, outputs = golden("sklearn_mlp")
    rows, out = tmp_path / "rows.npz", tmp_path / "mlp.exact"
    np.savez(rows, X=inputs["X"], labels=outputs["label"])
    made_now = make_exact(FOLDER / "sklearn_mlp.onnx", out, rows)
    figures = made_now.accuracy
    assert (figures["rows"], figures["synthetic"]) == (35, False)
    assert 0 < figures["error probabilities"] < 0.02
    assert figures["same label"] >= 0.97
    assert figures["right in floats label"] == 1.0
    assert "same label_per_tensor" in figures
    assert out.read_bytes() == made_now.to_bytes()
    assert make_exact(FOLDER / "sklearn_mlp.onnx", out).accuracy["synthetic"] is True


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({}, "no numbers for the input"),
        ({"X": np.zeros((9, 63))}, "no numbers for the input"),
        ({"X": np.zeros((7, 64))}, "rows"),
        ({"X": np.full((9, 64), np.nan)}, "finite"),
        ({"X": np.zeros((9, 64)), "labels": np.zeros(8)}, "rows"),
    ],
)
def test_rows_that_do_not_fit_are_refused(
    arrays: dict[str, np.ndarray], words: str, tmp_path: Path
) -> None:
    np.savez(tmp_path / "rows.npz", **arrays)
    with pytest.raises(InputError, match=words):
        make_exact(FOLDER / "sklearn_mlp.onnx", tmp_path / "o.exact", tmp_path / "rows.npz")
    (tmp_path / "cut.npz").write_bytes((tmp_path / "rows.npz").read_bytes()[:-20])
    with pytest.raises(InputError):
        make_exact(FOLDER / "sklearn_mlp.onnx", tmp_path / "o.exact", tmp_path / "cut.npz")
    with pytest.raises(InputError, match=r"o\.exact"):
        make_exact(FOLDER / "sklearn_mlp.onnx", tmp_path / "o.model")
    assert not (tmp_path / "o.model").exists()
