"""ONNX models in the worker: what onnxruntime gives, and the same bits alone and among others."""

from pathlib import Path

import numpy as np
import pytest
import trio
from onnx import helper

from tests.engines.conftest import OpenEngine
from tests.engines.onnx_models import (
    FLOAT,
    FOLDER,
    INT64,
    KEPT,
    TensorProto,
    call,
    golden,
    kept_at,
    made,
    manifest_of,
    to_arrays,
    value,
)
from wire.errors import Malformed, ModelRefused

TOLERANCE = 1e-5


# Variants of what is tried anyway; compiling each takes its seconds.
VARIANTS = {
    *("sklearn_boosting_digits", "sklearn_boosting_regressor", "sklearn_forest_binary"),
    *("sklearn_logistic_binary", "torch_encoder_legacy"),
}


@pytest.mark.parametrize(
    "name",
    [pytest.param(it, marks=pytest.mark.soak) if it in VARIANTS else it for it in KEPT],
)
async def test_a_model_gives_what_onnxruntime_gives_and_each_row_the_same_alone(
    open_engine: OpenEngine, name: str
) -> None:
    inputs, wanted = golden(name)
    manifest, files = manifest_of(FOLDER / f"{name}.onnx")
    rows = len(next(iter(inputs.values())))
    async with open_engine() as engine:
        await engine.load(manifest, files)
        # More rows than one run takes.
        together = to_arrays((await engine.infer(call(manifest.id, inputs))).data)
        assert list(together) == list(wanted)
        for key, array in wanted.items():
            found = together[key]
            assert (found.dtype, found.shape) == (array.dtype, array.shape)
            apart = np.abs(found.astype(float) - array.astype(float)).max()
            assert apart <= TOLERANCE * max(1, np.abs(array).max()), key
        alone: dict[int, dict[str, np.ndarray]] = {}

        async def one(row: int, count: int) -> None:
            part = {key: it[row : row + count] for key, it in inputs.items()}
            alone[row] = to_arrays((await engine.infer(call(manifest.id, part))).data)

        # By itself in the worker, then beside others, in jobs of several sizes.
        await one(rows - 1, 1)
        async with trio.open_nursery() as nursery:
            for row in range(20):
                nursery.start_soon(one, row, 1)
            for row in range(20, rows - 1, 7):
                nursery.start_soon(one, row, min(7, rows - 1 - row))
    for key, array in together.items():
        parts = np.concatenate([alone[row][key] for row in sorted(alone)])
        assert parts.tobytes() == array.tobytes(), key


def pair(folder: Path) -> Path:
    """Two inputs of several kinds, row by row; the first is handed through as well."""
    nodes = [
        helper.make_node("Cast", ["words"], ["as_double"], to=TensorProto.DOUBLE),
        helper.make_node("Add", ["as_double", "numbers"], ["sum"]),
        helper.make_node("Not", ["flags"], ["turned"]),
        helper.make_node("Identity", ["words"], ["same"]),
    ]
    inputs = [
        value("words", INT64, "n", 2),
        value("numbers", TensorProto.DOUBLE, "n", 2),
        value("flags", TensorProto.BOOL, "n", 3),
    ]
    outputs = [
        value("sum", TensorProto.DOUBLE, "n", 2),
        value("turned", TensorProto.BOOL, "n", 3),
        value("same", INT64, "n", 2),
    ]
    return kept_at(folder, made(nodes, inputs, outputs), "pair")


PAIR = {
    "words": np.array([[1, 2], [3, 2**40]]),
    "numbers": np.array([[0.5, 0.25], [1e-12, 1.0]]),
    "flags": np.array([[True, False, True], [False, False, True]]),
}


async def test_integers_doubles_and_truth_values_go_in_and_come_out(
    tmp_path: Path, open_engine: OpenEngine
) -> None:
    manifest, files = manifest_of(pair(tmp_path))
    async with open_engine() as engine:
        await engine.load(manifest, files)
        found = to_arrays((await engine.infer(call(manifest.id, PAIR))).data)
        assert np.array_equal(found["sum"], PAIR["words"] + PAIR["numbers"])
        assert np.array_equal(found["turned"], ~PAIR["flags"])
        assert np.array_equal(found["same"], PAIR["words"])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"words": None}, "words: int64"),
        ({"more": PAIR["words"]}, "more"),
        ({"words": PAIR["words"].astype(np.int32)}, "int32"),
        ({"words": PAIR["words"][:, :1]}, "2, 1"),
        ({"words": PAIR["words"].reshape(-1)}, r"words: int64\[4\]"),
        ({"flags": PAIR["flags"][:1]}, r"bool\[1, 3\]"),
        ({key: it[:0] for key, it in PAIR.items()}, "nothing"),
    ],
)
async def test_a_call_that_does_not_fit_is_told_what_the_model_reads(
    tmp_path: Path, open_engine: OpenEngine, change, said: str
) -> None:
    manifest, files = manifest_of(pair(tmp_path))
    arrays = {key: it for key, it in (PAIR | change).items() if it is not None}
    async with open_engine() as engine:
        await engine.load(manifest, files)
        with pytest.raises(Malformed, match=said):
            await engine.infer(call(manifest.id, arrays))
        with pytest.raises(Malformed):
            await engine.infer(call(manifest.id, arrays, input=b"no tensors"))
        assert (await engine.infer(call(manifest.id, PAIR))).units == 1
        assert engine.statistics().restarts == 0


async def test_rows_that_look_at_each_other_are_never_put_together(
    tmp_path: Path, open_engine: OpenEngine
) -> None:
    nodes = [
        helper.make_node("ReduceSum", ["x", "zero"], ["sum"], keepdims=1),
        helper.make_node("Sub", ["x", "sum"], ["y"]),
    ]
    model = made(
        nodes, [value("x", FLOAT, "n", 2)], [value("y", FLOAT, "n", 2)], {"zero": np.array([0])}
    )
    manifest, files = manifest_of(kept_at(tmp_path, model))
    async with open_engine() as engine:
        await engine.load(manifest, files)
        answers = {}

        async def one(rows: int) -> None:
            x = np.arange(2 * rows, dtype=np.float32).reshape(rows, 2)
            found = to_arrays((await engine.infer(call(manifest.id, {"x": x}))).data)
            answers[rows] = np.array_equal(found["y"], x - x.sum(0))

        async with trio.open_nursery() as nursery:
            for rows in (1, 2, 3, 5):
                nursery.start_soon(one, rows)
    assert answers == {1: True, 2: True, 3: True, 5: True}


async def test_shapes_that_are_open_elsewhere_are_run_one_by_one(
    tmp_path: Path, open_engine: OpenEngine
) -> None:
    nodes = [helper.make_node("MatMul", ["x", "y"], ["z"])]
    model = made(
        nodes,
        [value("x", FLOAT, "a", "b"), value("y", FLOAT, "b", "c")],
        [value("z", FLOAT, "a", "c")],
    )
    manifest, files = manifest_of(kept_at(tmp_path, model))
    chance = np.random.default_rng(1)
    async with open_engine() as engine:
        await engine.load(manifest, files)
        for a, b, c in ((1, 2, 3), (4, 3, 1), (1, 2, 3)):
            x, y = chance.random((a, b), np.float32), chance.random((b, c), np.float32)
            found = to_arrays((await engine.infer(call(manifest.id, {"x": x, "y": y}))).data)
            assert np.allclose(found["z"], x @ y, atol=1e-6)
        x, y = np.ones((2, 3), np.float32), np.ones((4, 2), np.float32)
        with pytest.raises(Malformed, match="b"):
            await engine.infer(call(manifest.id, {"x": x, "y": y}))


async def test_numbers_that_point_outside_a_table_hurt_nobody(
    tmp_path: Path, open_engine: OpenEngine
) -> None:
    table = np.arange(1, 9, dtype=np.float32).reshape(4, 2)
    model = made(
        [helper.make_node("Gather", ["table", "i"], ["row"])],
        [value("i", INT64, "n")],
        [value("row", FLOAT, "n", 2)],
        {"table": table},
    )
    manifest, files = manifest_of(kept_at(tmp_path, model))
    async with open_engine() as engine:
        await engine.load(manifest, files)
        i = np.array([1, 2**40, -(2**40), 99, 3])
        found = to_arrays((await engine.infer(call(manifest.id, {"i": i}))).data)["row"]
        assert np.array_equal(found[[0, 4]], table[[1, 3]])
        # What lies outside is nothing, never somebody else's memory.
        assert not found[1:4].any()
        assert engine.statistics().restarts == 0


async def test_a_shape_made_of_what_comes_in_is_refused(
    tmp_path: Path, open_engine: OpenEngine
) -> None:
    model = made(
        [
            helper.make_node("Cast", ["sides"], ["shape"], to=INT64),
            helper.make_node("Reshape", ["x", "shape"], ["y"]),
        ],
        # Integers would be taken for what they are; these are any numbers.
        [value("x", FLOAT, 4), value("sides", FLOAT, 2)],
        [value("y", FLOAT, None, None)],
    )
    manifest, files = manifest_of(kept_at(tmp_path, model))
    async with open_engine() as engine:
        with pytest.raises(ModelRefused, match="Reshape wants 'shape' to be constant"):
            await engine.load(manifest, files)
        assert engine.statistics().restarts == 0


async def test_an_operator_that_cannot_do_what_it_is_given_is_named(
    tmp_path: Path, open_engine: OpenEngine
) -> None:
    model = made(
        [helper.make_node("Add", ["x", "w"], ["y"])],
        [value("x", FLOAT, "n", 2)],
        [value("y", FLOAT, "n", 2)],
        {"w": np.ones(3, np.float32)},
    )
    manifest, files = manifest_of(kept_at(tmp_path, model))
    async with open_engine() as engine:
        with pytest.raises(ModelRefused, match="Add cannot be run"):
            await engine.load(manifest, files)
        assert engine.statistics().restarts == 0


async def test_what_a_constant_would_grow_into_is_refused_before_it_grows(
    tmp_path: Path, open_engine: OpenEngine
) -> None:
    model = made(
        [
            helper.make_node("ConstantOfShape", ["shape"], ["big"]),
            helper.make_node("Add", ["x", "big"], ["y"]),
        ],
        [value("x", FLOAT, 1)],
        [value("y", FLOAT, None)],
        {"shape": np.array([2**40])},
    )
    manifest, files = manifest_of(kept_at(tmp_path, model))
    async with open_engine() as engine:
        with pytest.raises(ModelRefused, match="ConstantOfShape gives 1099511627776 numbers"):
            await engine.load(manifest, files)
        assert engine.statistics().restarts == 0


async def test_a_call_that_nobody_waits_for_leaves_the_queue(
    tmp_path: Path, open_engine: OpenEngine
) -> None:
    manifest, files = manifest_of(pair(tmp_path))
    async with open_engine() as engine:
        await engine.load(manifest, files)
        with trio.CancelScope() as scope:
            scope.cancel()
            await engine.infer(call(manifest.id, PAIR))
        assert scope.cancelled_caught
        assert engine.statistics().jobs_queued == 0
        assert (await engine.infer(call(manifest.id, PAIR))).units == 1
        await engine.unload(manifest.id)
        with pytest.raises(ModelRefused, match="not loaded"):
            await engine.infer(call(manifest.id, PAIR))
