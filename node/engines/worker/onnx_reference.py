"""Whether onnxruntime gives what our graphs give. Tried when a model is loaded, where it is there.

It is an extra (`pip install baton[onnx]`), and never answers anybody: a model on which the two do
not agree is refused, with the output that differs.
"""

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from node.engines.formats.onnx_protobuf import Array
from wire.errors import ModelRefused

# Of the largest number in an output. Sums in another order differ by a hundredth of this.
TOLERANCE = 1e-4


def reference(path: Path, names: Sequence[str], inputs: Sequence[Array]) -> list[Array] | None:
    """What onnxruntime answers; None where it is not installed or does not take the model."""
    try:
        runtime: Any = importlib.import_module("onnxruntime")
        state = importlib.import_module("onnxruntime.capi.onnxruntime_pybind11_state")
    except ImportError:
        return None
    # They have no class in common but Exception.
    errors = [it for it in vars(state).values() if isinstance(it, type)]
    failed: Any = (RuntimeError, *[it for it in errors if issubclass(it, Exception)])
    options = runtime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    try:
        session = runtime.InferenceSession(
            str(path), sess_options=options, providers=["CPUExecutionProvider"]
        )
        return list(session.run(None, dict(zip(names, inputs, strict=True))))
    except failed:
        return None


def check_agrees(
    outputs: Sequence[str], ours: Sequence[Array], theirs: Sequence[Array] | None
) -> None:
    """ModelRefused if numbers differ by more than how sums are ordered explains."""
    for name, mine, other in zip(outputs, ours, theirs or ours, strict=True):
        expected = np.asarray(other)
        if mine.shape != expected.shape:
            words = f"{list(mine.shape)} numbers here, {list(expected.shape)} there"
        elif mine.dtype.kind != "f":
            if np.array_equal(mine, expected):
                continue
            words = f"{int(np.sum(mine != expected))} of {mine.size} differ"
        else:
            most = float(np.max(np.abs(expected), initial=0.0))
            if np.allclose(mine, expected, rtol=0, atol=TOLERANCE * max(1.0, most), equal_nan=True):
                continue
            words = f"by up to {float(np.max(np.abs(mine - expected))):.3g}"
        raise ModelRefused(
            f"the output {name} is not what onnxruntime gives: {words}",
            todo="tell the makers of Baton which model it is",
        )
