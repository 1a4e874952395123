"""Operators that ended the worker: whole numbers divided by anything, and three that never ran."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import helper
from onnx.reference import ReferenceEvaluator

from tests.engines.conftest import OpenEngine
from tests.engines.onnx_models import (
    FLOAT,
    INT64,
    TensorProto,
    call,
    kept_at,
    made,
    manifest_of,
    to_arrays,
    value,
)

KINDS = {
    "int8": TensorProto.INT8,
    "int16": TensorProto.INT16,
    "int32": TensorProto.INT32,
    "int64": TensorProto.INT64,
    "uint8": TensorProto.UINT8,
    "uint64": TensorProto.UINT64,
}
OPERATORS = {"Div": {}, "Mod": {}, "Fmod": {"fmod": 1}}


def pairs(kind: str) -> Iterator[tuple[int, int]]:
    """The smallest and the largest by everything, zero and minus one above all."""
    least, most = np.iinfo(kind).min, np.iinfo(kind).max
    for left in (least, most, 7, 0, max(least, -7)):
        for right in {0, 1, 2, 3, least, most, max(least, -1), max(least, -3)}:
            yield left, right


def expected(operator: str, left: int, right: int, kind: str) -> int:
    """As C has it, where C has it; nothing by zero, and the smallest by -1 wraps round."""
    if not right:
        return 0
    quotient = abs(left) // abs(right) * (1 if (left < 0) == (right < 0) else -1)
    exact = {"Div": quotient, "Mod": left % right, "Fmod": left - quotient * right}[operator]
    return int(np.array([exact & (2**64 - 1)], np.uint64).astype(kind)[0])


def dividing() -> Any:
    nodes = [
        helper.make_node(
            operator.replace("Fm", "M"), [f"x {kind}", f"y {kind}"], [f"{operator} {kind}"], **more
        )
        for kind in KINDS
        for operator, more in OPERATORS.items()
    ]
    # A divisor that is worked out, and one that is a constant of zeros.
    nodes.append(helper.make_node("Sub", ["y int32", "y int32"], ["nothing"]))
    nodes.append(helper.make_node("Div", ["x int32", "nothing"], ["by nothing"]))
    nodes.append(helper.make_node("Mod", ["x int32", "zero"], ["by zero"]))
    inputs = [value(f"{name} {kind}", KINDS[kind], "n") for kind in KINDS for name in "xy"]
    outputs = [value(f"{it} {kind}", KINDS[kind], "n") for kind in KINDS for it in OPERATORS]
    outputs += [value(it, TensorProto.INT32, "n") for it in ("by nothing", "by zero")]
    return made(nodes, inputs, outputs, {"zero": np.zeros(1, np.int32)})


async def test_whole_numbers_are_divided_by_zero_and_by_minus_one_and_nothing_ends(
    tmp_path: Path, open_engine: OpenEngine
) -> None:
    manifest, files = manifest_of(kept_at(tmp_path, dividing()))
    rows = max(len(list(pairs(kind))) for kind in KINDS)
    arrays: dict[str, np.ndarray] = {}
    for kind in KINDS:
        both = [*pairs(kind), *[(1, 1)] * rows][:rows]
        arrays[f"x {kind}"] = np.array([left for left, _ in both], kind)
        arrays[f"y {kind}"] = np.array([right for _, right in both], kind)
    async with open_engine() as engine:
        await engine.load(manifest, files)
        found = to_arrays((await engine.infer(call(manifest.id, arrays))).data)
        assert engine.statistics().restarts == 0
    for kind in KINDS:
        lefts, rights = arrays[f"x {kind}"].tolist(), arrays[f"y {kind}"].tolist()
        for operator in OPERATORS:
            wanted = [expected(operator, *it, kind) for it in zip(lefts, rights, strict=True)]
            assert found[f"{operator} {kind}"].tolist() == wanted, (operator, kind)
    assert not found["by nothing"].any()
    assert not found["by zero"].any()


def odd_ones() -> Any:
    nodes = [
        helper.make_node("Size", ["x"], ["size"]),
        helper.make_node("EyeLike", ["x"], ["eye"]),
        helper.make_node("EyeLike", ["x"], ["above"], k=2, dtype=INT64),
        helper.make_node("EyeLike", ["x"], ["below"], k=-1),
        helper.make_node("Dropout", ["x"], ["kept", "mask"]),
        helper.make_node("Dropout", ["x", "ratio", "training"], ["also kept", "other mask"]),
        helper.make_node("Shape", ["x"], ["shape"], start=-1),
        helper.make_node("Neg", ["x"], ["turned"]),
    ]
    outputs = [
        value("size", INT64),
        value("eye", FLOAT, 3, 5),
        value("above", INT64, 3, 5),
        value("below", FLOAT, 3, 5),
        value("kept", FLOAT, 3, 5),
        value("mask", TensorProto.BOOL, 3, 5),
        value("also kept", FLOAT, 3, 5),
        value("other mask", TensorProto.BOOL, 3, 5),
        value("shape", INT64, 1),
        value("turned", FLOAT, 3, 5),
    ]
    constants = {"ratio": np.array(0.75, np.float32), "training": np.array(False)}
    return made(nodes, [value("x", FLOAT, 3, 5)], outputs, constants)


def alone(operator: str, kind: int, *shape: int) -> Any:
    """A model of nothing else: what it gives is known before anything comes in."""
    node = helper.make_node(operator, ["x"], ["y"])
    return made([node], [value("x", FLOAT, 3, 5)], [value("y", kind, *shape)])


@pytest.mark.parametrize(
    "model", [odd_ones(), alone("EyeLike", FLOAT, 3, 5)], ids=["all", "EyeLike"]
)
async def test_what_depends_on_shapes_alone_gives_what_the_standard_says(
    tmp_path: Path, open_engine: OpenEngine, model: Any
) -> None:
    manifest, files = manifest_of(kept_at(tmp_path, model))
    x = np.random.default_rng(1).standard_normal((3, 5)).astype(np.float32)
    wanted = ReferenceEvaluator(model).run(None, {"x": x})
    async with open_engine() as engine:
        await engine.load(manifest, files)
        for _ in range(2):
            found = to_arrays((await engine.infer(call(manifest.id, {"x": x}))).data)
            for name, array in zip([it.name for it in model.graph.output], wanted, strict=True):
                assert found[name].dtype == array.dtype, name
                assert np.array_equal(found[name], array), name
        assert engine.statistics().restarts == 0
