"""Reads the table of a safetensors file, and refuses every file that is not exactly one.

The file may come from anybody. Nothing is taken on trust: the table is bounded before it is
parsed, and every tensor must lie within the file, without overlap and without gaps. Weights are
data, never code: other formats, pickles above all, are refused by name.
"""

import json
import math
import mmap
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from wire.errors import ModelRefused

HEADER_BYTES_MAX = 4 << 20
TENSORS_MAX = 16_384
SHAPE_MAX = 8
NAME_CHARS_MAX = 256
_ITEM_BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1}
_ITEM_BYTES |= {"U64": 8, "U32": 4, "U16": 2, "U8": 1, "BOOL": 1}
# The kinds that are run, as they lie in a file; BF16 is the upper half of a 32-bit float.
_RUN = {"F32": "<f4", "F16": "<f2", "BF16": "<u2"}
Array = np.ndarray[Any, np.dtype[np.float32]]


@dataclass(frozen=True, slots=True)
class TensorEntry:
    """One row of the table: where a tensor lies, from the beginning of the file."""

    kind: str
    shape: tuple[int, ...]
    begin: int
    end: int


@dataclass(frozen=True, slots=True)
class TensorTable:
    """The checked table of one file."""

    path: Path
    tensors: Mapping[str, TensorEntry]

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a tensor of floats that are run; ModelRefused if there is none of it."""
        tensor = self.tensors.get(name)
        if tensor is None:
            raise ModelRefused(f"{self.path.name} lacks the tensor {name}")
        if tensor.kind not in _RUN:
            raise ModelRefused(f"{name} is {tensor.kind}; {', '.join(_RUN)} are run here")
        return tensor.shape

    @property
    def copied_bytes(self) -> int:
        """What `floats` takes beside the file: its smaller floats, as 32-bit ones."""
        halves = (it for it in self.tensors.values() if it.kind != "F32" and it.kind in _RUN)
        return sum(4 * math.prod(it.shape) for it in halves)

    def floats(self, names: Mapping[str, tuple[int, ...]]) -> dict[str, Array]:
        """32-bit floats for these names and shapes; ModelRefused if one is off.

        Where a file has them as such they are read-only views that share its pages: several
        workers on one machine hold them once. Smaller floats are copied, every one exactly.
        """
        for name, shape in names.items():
            if (own := self.shape(name)) != shape:
                raise ModelRefused(f"{name} is {list(own)}, expected {list(shape)}")
        with self.path.open("rb") as file:
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        views = {}
        for name, shape in names.items():
            tensor = self.tensors[name]
            kind = np.dtype(_RUN[tensor.kind])
            count = (tensor.end - tensor.begin) // kind.itemsize
            found = np.frombuffer(mapped, kind, count, tensor.begin).reshape(shape)
            if tensor.kind == "BF16":
                found = (found.astype(np.uint32) << 16).view(np.float32)
            views[name] = found.astype(np.float32, copy=False)
            if not np.isfinite(views[name]).all():
                raise ModelRefused(f"{name} holds numbers that are not finite")
        return views


def read_table(path: Path) -> TensorTable:
    """Read and check the table of a file; ModelRefused says what is wrong with it."""
    file_bytes = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(8)
        size = int.from_bytes(head, "little")
        if head[:2] in (b"PK", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05"):
            raise ModelRefused(f"{path.name} is a pickle: it could run code of its maker")
        if len(head) < 8 or size > min(HEADER_BYTES_MAX, file_bytes - 8):
            raise ModelRefused(f"{path.name} is not safetensors, or it was cut short")
        header = file.read(size)
    table = _parse(path.name, header)
    tensors = {name: _tensor(name, row, 8 + size) for name, row in table.items()}
    at = 8 + size
    for name, tensor in sorted(tensors.items(), key=lambda pair: (pair[1].begin, pair[1].end)):
        if tensor.begin != at:
            raise ModelRefused(f"{path.name}: {name} overlaps another tensor or leaves a gap")
        at = tensor.end
    if at != file_bytes:
        raise ModelRefused(f"{path.name} has {file_bytes} bytes, its table says {at}")
    return TensorTable(path, tensors)


def _parse(where: str, header: bytes) -> dict[str, Any]:
    try:
        table = json.loads(header.decode("utf-8"), object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        raise ModelRefused(f"{where}: its table is not JSON: {error}") from error
    if not isinstance(table, dict):
        raise ModelRefused(f"{where}: its table is not a map")
    table.pop("__metadata__", None)
    if not 0 < len(table) <= TENSORS_MAX:
        raise ModelRefused(f"{where}: {len(table)} tensors, 1 to {TENSORS_MAX} are read")
    return table


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name occurs twice")
    return found


def _tensor(name: str, row: Any, data_at: int) -> TensorEntry:
    fields: dict[str, Any] = row if isinstance(row, dict) else {}
    kind: Any = fields.get("dtype")
    shape: Any = fields.get("shape")
    span: Any = fields.get("data_offsets")
    if len(name) > NAME_CHARS_MAX or len(fields) != 3 or str(kind) not in _ITEM_BYTES:
        raise ModelRefused(f"{name[:80]!r} has a kind that is not read here: {str(kind)[:20]}")
    if not _counts(shape) or len(shape) > SHAPE_MAX or not _counts(span) or len(span) != 2:
        raise ModelRefused(f"{name!r}: its shape or its place is not a list of counts")
    begin, end = span
    if end - begin != math.prod(shape) * _ITEM_BYTES[kind]:
        raise ModelRefused(f"{name!r}: {end - begin} bytes do not hold {kind} of shape {shape}")
    return TensorEntry(kind, tuple(shape), data_at + begin, data_at + end)


def _counts(value: Any) -> bool:
    return isinstance(value, list) and all(
        type(item) is int and 0 <= item <= 1 << 48 for item in value
    )
