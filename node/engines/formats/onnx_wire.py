"""What the two sides of the worker tell each other of an ONNX model: its signature.

A model works row by row where its first dimension is a batch of any size and the worker has seen
that a row's numbers are the same whatever lies beside it. Rows of many calls then share a run.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from node.engines.formats.onnx_graph import Dimension, Value
from wire import limits
from wire.codec import Value as Plain
from wire.errors import Malformed
from wire.tensors import RANK_MAX, Tensor, Tensors

# One call travels to the worker, and its answer back, in one frame each.
CALL_BYTES_MAX = limits.TENSORS_BYTES_MAX - (64 << 10)


@dataclass(frozen=True, slots=True)
class Signature:
    """What a model reads and gives. `rows`: how many rows share a run; 0 where none do.

    `runs` are how many full runs one message to the worker may bring.
    """

    inputs: tuple[Value, ...]
    outputs: tuple[tuple[str, str], ...]
    rows: int
    runs: int = 1

    def to_plain(self) -> dict[str, Plain]:
        """The signature as the frames of the worker's pipe carry it; `of` reads it."""
        inputs = [
            {"name": it.name, "kind": it.kind, "shape": list(it.shape or ())} for it in self.inputs
        ]
        outputs = [list(it) for it in self.outputs]
        return {"inputs": inputs, "outputs": outputs, "rows": self.rows, "runs": self.runs}

    @classmethod
    def of(cls, plain: dict[str, Any]) -> "Signature":
        """The signature that `to_plain` wrote; it comes from a worker of our own."""
        inputs = tuple(Value(it["name"], it["kind"], tuple(it["shape"])) for it in plain["inputs"])
        outputs = tuple((name, kind) for name, kind in plain["outputs"])
        return cls(inputs, outputs, plain["rows"], plain["runs"])

    def read(self, data: bytes) -> tuple[tuple[Tensor, ...], int]:
        """The inputs of a call in the model's order, and its rows (1 where there are none).

        Malformed says what the model wants.
        """
        tensors = {it.name: it for it in Tensors.from_bytes(data).tensors}
        if set(tensors) != {it.name for it in self.inputs}:
            raise self._refuse(f"{', '.join(sorted(tensors))} came")
        ordered = tuple(tensors[it.name] for it in self.inputs)
        sizes: dict[str, int] = {}
        for value, tensor in zip(self.inputs, ordered, strict=True):
            came = f"{tensor.name}: {tensor.kind}[{', '.join(map(str, tensor.shape))}] came"
            if tensor.kind != value.kind or not _fits(value.shape or (), tensor.shape, sizes):
                raise self._refuse(came)
            if not all(tensor.shape):
                raise Malformed(f"{came}: there is nothing in it")
        size_bytes = sum(len(it.data) for it in ordered)
        rows = ordered[0].shape[0] if self.rows else 1
        if self.rows and any(it.shape[0] != rows for it in ordered):
            raise self._refuse("their first dimensions differ")
        if size_bytes // rows > CALL_BYTES_MAX:
            raise Malformed(f"{size_bytes} bytes in one call, at most {CALL_BYTES_MAX} are read")
        return ordered, rows

    def _refuse(self, came: str) -> Malformed:
        return Malformed(f"the model reads {'; '.join(map(str, self.inputs))}, and {came}")


def _fits(wanted: Iterable[Dimension], came: tuple[int, ...], sizes: dict[str, int]) -> bool:
    """Whether a shape is as it should be; sizes with the same name are the same."""
    dims = tuple(wanted)
    if len(dims) != len(came):
        return False
    return all(
        size == (sizes.setdefault(dim, size) if isinstance(dim, str) else dim)
        for dim, size in zip(dims, came, strict=True)
        if dim is not None
    )


def row_bytes(value: Value) -> int:
    """The bytes of one row of an input whose other dimensions are known."""
    shape = [it for it in (value.shape or ())[1:] if isinstance(it, int)]
    return math.prod(shape) * np.dtype(value.kind).itemsize


def is_batch(inputs: tuple[Value, ...]) -> bool:
    """Whether all inputs begin with one dimension of any size, and have no other such."""
    shapes = [it.shape for it in inputs]
    if not shapes or not all(shapes):
        return False
    first = {shape[0] for shape in shapes if shape}
    return (
        len(first) == 1
        and not isinstance(first.pop(), int)
        and all(isinstance(it, int) for shape in shapes if shape for it in shape[1:])
    )


def answer(signature: Signature, shapes: list[Any], data: list[bytes]) -> bytes:
    """The output of a call as it goes back to who asked."""
    tensors = tuple(
        Tensor(name=name, kind=kind, shape=tuple(shape), data=part)
        for (name, kind), shape, part in zip(signature.outputs, shapes, data, strict=True)
    )
    assert all(len(it.shape) <= RANK_MAX for it in tensors)
    return Tensors(tensors=tensors).to_bytes()
