"""Shapes are worked out before anything is loaded: right where they are known, and bounded."""

import functools
import subprocess
import sys
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import helper
from onnx.backend.test.case.node import collect_testcases

from node.engines.formats.onnx_file import describe
from node.engines.formats.onnx_graph import OnnxModel
from node.engines.formats.onnx_operators import OPERATORS, STANDARD
from node.engines.formats.onnx_shapes import bucket_rows, footprint, input_shapes, memory_bytes
from node.models.inspect import describe as inspected
from tests.engines.onnx_models import FLOAT, FOLDER, INT64, KEPT, golden, kept_at, made, value
from wire.errors import ModelRefused

# Their cases give in floats what is looked at here as integers only, or are of refused kinds.
NOT_KNOWN = {"CastLike", "OneHot", "Range"}


@functools.cache
def cases() -> dict[str, list[Any]]:
    """By operator: the cases of one node; making all of them takes a few seconds."""
    found: dict[str, list[Any]] = {}
    with warnings.catch_warnings():
        # Some cast what overflows, on purpose.
        warnings.simplefilter("ignore")
        for case in collect_testcases(None):
            if case.model is not None and len(case.model.graph.node) == 1:
                found.setdefault(case.model.graph.node[0].op_type, []).append(case)
    return found


def with_constants(model: OnnxModel, arrays: Sequence[np.ndarray]) -> tuple[OnnxModel, list[Any]]:
    """A model whose few whole numbers do not come in: they make shapes. And the other shapes."""
    fixed = {
        it.name: array
        for it, array in zip(model.inputs, arrays, strict=True)
        if array.size <= 16 and array.dtype.kind in "iu"
    }
    graph = replace(
        model.graph,
        constants={**model.graph.constants, **fixed},
        inputs=tuple(it for it in model.inputs if it.name not in fixed),
    )
    left = [it.shape for at, it in enumerate(arrays) if model.inputs[at].name not in fixed]
    return replace(model, graph=graph), left


# Making all cases takes some ten seconds of a core.
@pytest.mark.soak
@pytest.mark.parametrize("operator", sorted(OPERATORS[STANDARD] - NOT_KNOWN))
def test_known_shapes_are_those_of_the_onnx_projects_own_cases(
    tmp_path: Path, operator: str
) -> None:
    known = 0
    for case in cases().get(operator, ()):
        inputs, outputs = case.data_sets[0]
        if not all(isinstance(it, np.ndarray) for it in (*inputs, *outputs)):
            continue
        try:
            model = describe(kept_at(tmp_path, case.model))
        except ModelRefused:
            continue
        model, shapes = with_constants(model, inputs)
        found = footprint(model, shapes).outputs
        for shape, wanted in zip(found, outputs, strict=True):
            assert shape in (None, wanted.shape), case.name
            known += shape is not None
    assert known or not cases().get(operator)


@pytest.mark.parametrize("name", KEPT)
def test_the_shapes_of_whole_models_are_known(name: str) -> None:
    inputs, outputs = golden(name)
    model = describe(FOLDER / f"{name}.onnx")
    found = footprint(model, [inputs[it.name].shape for it in model.inputs])
    if name.startswith("torch"):
        assert found.whole
        assert found.outputs == tuple(outputs[it.name].shape for it in model.outputs)


HUGE = 2**60
X = value("x", FLOAT, 1)
WIDE = value("x", FLOAT, 1, 4096)


def doubled(operator: str) -> list[Any]:
    return [
        helper.make_node(operator, [f"x{at}", f"x{at}"], [f"x{at + 1}"], axis=0) for at in range(40)
    ]


def node(operator: str, *inputs: str, **more: Any) -> list[Any]:
    return [helper.make_node(operator, list(inputs), ["y"], **more)]


def numbers(*them: int) -> np.ndarray:
    return np.array(them, np.int64)


HOSTILE: dict[str, tuple[list[Any], Any, dict[str, np.ndarray]]] = {
    "Expand": (node("Expand", "x", "s"), X, {"s": numbers(HUGE)}),
    "Expand by many axes": (node("Expand", "x", "s"), X, {"s": numbers(*[1 << 10] * 6, 1)}),
    "Expand beyond 64 bits": (node("Expand", "x", "s"), X, {"s": numbers(*[1 << 40] * 7, 1)}),
    "ConstantOfShape": (node("ConstantOfShape", "s"), X, {"s": numbers(HUGE)}),
    "ConstantOfShape that wraps to nothing": (
        node("ConstantOfShape", "s"),
        X,
        {"s": numbers(1 << 32, 1 << 32)},
    ),
    "Range": (
        node("Range", "a", "b", "c"),
        X,
        {"a": np.array(0), "b": np.array(HUGE), "c": np.array(1)},
    ),
    "Range downwards": (
        node("Range", "a", "b", "c"),
        X,
        {"a": np.array(HUGE), "b": np.array(-HUGE), "c": np.array(-3)},
    ),
    "Tile": (node("Tile", "x", "s"), X, {"s": numbers(HUGE)}),
    "Pad": (node("Pad", "x", "s"), X, {"s": numbers(0, HUGE)}),
    "OneHot": (
        node("OneHot", "i", "d", "v"),
        X,
        {"i": numbers(1), "d": np.array(HUGE), "v": np.array([0.0, 1.0], np.float32)},
    ),
    "40 doublings": (
        [helper.make_node("Identity", ["x"], ["x0"]), *doubled("Concat"), *node("Neg", "x40")],
        X,
        {},
    ),
    "40 doublings by Add of broadcasts": (
        [
            helper.make_node("Transpose", ["x"], ["t"]),
            helper.make_node("MatMul", ["t", "x"], ["m"]),
            helper.make_node("Unsqueeze", ["m", "one"], ["u"]),
            helper.make_node("Unsqueeze", ["m", "two"], ["v"]),
            *node("Add", "u", "v"),
        ],
        WIDE,
        {"one": numbers(0), "two": numbers(2)},
    ),
    "a shape that is worked out": (
        [
            helper.make_node("Shape", ["x"], ["s"]),
            helper.make_node("Mul", ["s", "k"], ["t"]),
            helper.make_node("Mul", ["t", "k"], ["u"]),
            *node("Expand", "x", "u"),
        ],
        X,
        {"k": numbers(1 << 40)},
    ),
    "a convolution of padding": (
        node("Conv", "x", "w", pads=[1 << 30, 1 << 30]),
        value("x", FLOAT, 1, 1, 8),
        {"w": np.ones((1, 1, 1), np.float32)},
    ),
    "a pool of padding": (
        node("MaxPool", "x", kernel_shape=[1], pads=[1 << 30, 1 << 30]),
        value("x", FLOAT, 1, 1, 8),
        {},
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_is_too_large_is_refused_with_its_operator_before_it_is_loaded(
    tmp_path: Path, name: str
) -> None:
    nodes, given, constants = HOSTILE[name]
    path = kept_at(tmp_path, made(nodes, [given], [value("y", FLOAT, None)], constants))
    with pytest.raises(ModelRefused, match=r"\w+ gives \d{9,} numbers at once"):
        inspected(path)


@pytest.mark.parametrize("size", [1 << 30, 1 << 60])
def test_what_resizes_beyond_measure_is_refused_where_it_is_run(size: int) -> None:
    program = (
        "from tinygrad import Tensor\n"
        "from node.engines.worker.onnx_resize import resize\n"
        f"resize(Tensor.ones(1, 1, 2, 2), None, None, [1, 1, {size}, 2], mode='linear')"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=False)
    assert b"numbers at once" in done.stderr


def test_what_fits_alone_and_not_in_many_rows_is_run_row_by_row(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Unsqueeze", ["x", "one"], ["u"]),
        helper.make_node("Unsqueeze", ["x", "two"], ["v"]),
        helper.make_node("Mul", ["u", "v"], ["m"]),
        helper.make_node("ReduceMax", ["m"], ["y"], axes=[2], keepdims=0),
    ]
    constants = {"one": numbers(1), "two": numbers(2)}
    given, gives = [value("x", FLOAT, "n", 4096)], [value("y", FLOAT, "n", 4096)]
    model = describe(kept_at(tmp_path, made(nodes, given, gives, constants)))
    assert bucket_rows(model) == [1, 8]
    assert footprint(model, input_shapes(model, 8)).work_bytes >= 8 * 4096 * 4096 * 4
    assert memory_bytes(model) >= 9 * 4096 * 4096 * 4


def test_what_is_not_used_any_more_does_not_count(tmp_path: Path) -> None:
    nodes = [helper.make_node("Neg", ["x"], ["a0"])]
    nodes += [helper.make_node("Neg", [f"a{at}"], [f"a{at + 1}"]) for at in range(50)]
    nodes.append(helper.make_node("Neg", ["a50"], ["y"]))
    given, gives = [value("x", FLOAT, 1000)], [value("y", FLOAT, 1000)]
    model = describe(kept_at(tmp_path, made(nodes, given, gives)))
    # What a node reads, and what it gives.
    assert footprint(model, [(1000,)]).work_bytes == 2 * 4000


def test_shapes_that_the_file_does_not_know_are_none(tmp_path: Path) -> None:
    nodes = node("Expand", "x", "s")
    given = [X, value("s", INT64, 1)]
    model = describe(kept_at(tmp_path, made(nodes, given, [value("y", FLOAT, None)])))
    found = footprint(model, [(1,), (1,)])
    assert (found.whole, found.outputs) == (False, (None,))
