"""Beside onnxruntime: where it is installed, a model that gives something else is not run."""

import numpy as np
import pytest

from node.engines.formats.onnx_file import describe
from node.engines.worker.onnx_reference import check_agrees, reference
from tests.engines.onnx_models import FOLDER, golden
from wire.errors import ModelRefused

ROW = np.array([[1.0, 2.0, 1000.0]], np.float32)


@pytest.mark.parametrize(
    ("theirs", "words"),
    [
        (ROW + np.float32(0.2), "by up to 0.2"),
        (ROW[:, :2], "3.* numbers here"),
        (np.full_like(ROW, np.nan), "by up to"),
    ],
    ids=["other numbers", "fewer", "none"],
)
def test_other_numbers_are_refused_by_the_name_of_the_output(
    theirs: np.ndarray, words: str
) -> None:
    with pytest.raises(ModelRefused, match=f"the output scores is not .*{words}"):
        check_agrees(["scores"], [ROW], [theirs])


def test_labels_have_to_be_the_same() -> None:
    labels = np.array([1, 0, 1])
    with pytest.raises(ModelRefused, match="2 of 3 differ"):
        check_agrees(["label"], [labels], [1 - labels + np.array([0, 0, 1])])


def test_what_the_order_of_sums_explains_is_no_difference() -> None:
    check_agrees(["scores"], [ROW], [ROW * np.float32(1.00001)])
    check_agrees(["scores"], [ROW], None)


@pytest.mark.parametrize("name", ["torch_cnn", "sklearn_boosting"])
def test_it_is_asked_where_it_is_installed(name: str) -> None:
    pytest.importorskip("onnxruntime")
    inputs, outputs = golden(name)
    model = describe(FOLDER / f"{name}.onnx")
    names = [it.name for it in model.inputs]
    theirs = reference(FOLDER / f"{name}.onnx", names, [inputs[it] for it in names])
    assert theirs is not None
    ours = [outputs[it.name] for it in model.outputs]
    check_agrees([it.name for it in model.outputs], ours, theirs)


def test_a_file_that_it_does_not_take_leaves_it_without_a_say(tmp_path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(b"nothing")
    assert reference(path, ["x"], [ROW]) is None
