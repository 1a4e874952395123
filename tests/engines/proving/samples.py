"""The digits' MLP as a model to be proved, what it is asked, and SRS files."""

from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

from node.engines.proving.circuit import LOGROWS
from node.engines.proving.interface import ProvableModel
from tests.engines.onnx_models import FOLDER, golden
from wire.content import ContentId
from wire.tensors import Tensor, Tensors

MLP = "sklearn_mlp"
DATA = (FOLDER / f"{MLP}.onnx").read_bytes()
DIGITS = ProvableModel("digits", ContentId.of(DATA), DATA)


def asked(rows: np.ndarray) -> bytes:
    """A call of the digits' MLP."""
    data = rows.astype("<f4").tobytes()
    return Tensors(
        tensors=(Tensor(name="X", kind="float32", shape=rows.shape, data=data),)
    ).to_bytes()


def digit(first: int = 0, count: int = 1) -> bytes:
    """A call with so many of the digits."""
    return asked(golden(MLP)[0]["X"][first : first + count])


def srs_file(folder: Path, *, height: int = LOGROWS, fill: bytes = b"\0", more: int = 0) -> Path:
    """A file as large as an SRS, of no points."""
    file = folder / "srs"
    size = (128 << height) + 256 + more
    file.write_bytes(height.to_bytes(4, "little") + fill * size)
    return file


def another() -> ProvableModel:
    """The digits' MLP with one weight of the other sign."""
    model = onnx.load_from_string(DATA)
    first = next(it for it in model.graph.initializer if numpy_helper.to_array(it).ndim == 2)
    weights = numpy_helper.to_array(first).copy()
    weights.flat[np.abs(weights).argmax()] *= -1
    first.CopyFrom(numpy_helper.from_array(weights, first.name))
    data = model.SerializeToString()
    return ProvableModel("another", ContentId.of(data), data)
