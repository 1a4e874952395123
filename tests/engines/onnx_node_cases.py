"""The node cases of `onnx.backend.test`, each run as a model that came from anybody.

`outcomes` runs cases in this process: the tests give each share of them a process of its own, so
that a case that would end one is found by its name.
"""

import json
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from node.engines.formats.onnx_file import describe
from node.engines.worker.onnx_graph import CompiledGraph
from wire.errors import ModelRefused

# As a share of the largest number, as models are held to.
TOLERANCE = 1e-3


def cases() -> list[Any]:
    """All node cases that are tensors in and out, by name; expanded forms are other models."""
    from onnx.backend.test.case.node import collect_testcases

    found = collect_testcases(None)
    return sorted(found, key=lambda it: it.name)


def of_floats(case: Any) -> bool:
    """Whether all that comes in and goes out is of the common kinds of numbers."""
    values = [*case.data_sets[0][0], *case.data_sets[0][1]] if case.data_sets else []
    kinds = {str(np.asarray(it).dtype) for it in values if isinstance(it, np.ndarray)}
    common = {"float32", "float64", "int32", "int64", "bool"}
    domains = {it.domain for it in case.model.graph.node}
    plain = all(isinstance(it, np.ndarray) for it in values)
    whole = plain and bool(kinds & {"float32", "float64"}) and kinds <= common
    return whole and domains <= {"", "ai.onnx"} and "_expanded" not in case.name


def outcome(case: Any, folder: Path) -> str:
    """`right`, `refused: why` or `wrong: how`.

    Where an operator wants constants, as exporters write them, all inputs but the first are made
    constants of the file.
    """
    found = _outcome(case, case.model, folder)
    return _outcome(case, _folded(case), folder) if "to be constant" in found else found


def _folded(case: Any) -> Any:
    from onnx import ModelProto, numpy_helper

    model = ModelProto()
    model.CopyFrom(case.model)
    for value, given in list(zip(case.model.graph.input, case.data_sets[0][0], strict=True))[1:]:
        model.graph.initializer.append(numpy_helper.from_array(np.asarray(given), value.name))
    return model


def _outcome(case: Any, proto: Any, folder: Path) -> str:
    path = folder / "case.onnx"
    path.write_bytes(proto.SerializeToString())
    try:
        model = describe(path)
        given, expected = case.data_sets[0]
        names = [it.name for it in case.model.graph.input]
        by_name = dict(zip(names, given, strict=True))
        arrays = [np.asarray(by_name[it.name], it.kind) for it in model.inputs]
        graph = CompiledGraph(model)
        shapes = tuple(it.shape for it in arrays)
        found = graph.run(
            graph.capture(shapes, arrays, by_value=True), graph.sources(shapes), arrays
        )
    except ModelRefused as error:
        return f"refused: {error.message}"
    from onnx import TensorProto, numpy_helper

    for mine, theirs in zip(found, expected, strict=True):
        # Some cases hold what they expect as it stands in a file.
        in_file = isinstance(theirs, TensorProto)
        wanted = numpy_helper.to_array(theirs) if in_file else np.asarray(theirs)
        if difference := _difference(mine, wanted):
            return f"wrong: {difference}"
    return "right"


def _difference(mine: Any, theirs: Any) -> str:
    if mine.shape != theirs.shape or mine.dtype != theirs.dtype:
        return f"{mine.dtype}{mine.shape} for {theirs.dtype}{theirs.shape}"
    if mine.dtype.kind != "f":
        return "" if np.array_equal(mine, theirs) else "other whole numbers"
    finite = theirs[np.isfinite(theirs)]
    most = max(1.0, float(np.max(np.abs(finite), initial=0.0)))
    if np.allclose(mine, theirs, rtol=0, atol=TOLERANCE * most, equal_nan=True):
        return ""
    return f"by up to {float(np.nanmax(np.abs(mine - theirs))):.3g}"


def outcomes(names: Iterable[str]) -> None:
    """Print one line of JSON for each case, before and after it ran."""
    wanted = set(names)
    with tempfile.TemporaryDirectory() as folder:
        for case in cases():
            if case.name in wanted:
                print(json.dumps([case.name, "began"]), flush=True)
                print(json.dumps([case.name, outcome(case, Path(folder))]), flush=True)


if __name__ == "__main__":
    outcomes(json.loads(sys.stdin.read()))
