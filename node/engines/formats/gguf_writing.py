"""Writes a GGUF file: the keys of another one as they are there, some of its own, and tensors."""

import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import IO

from node.engines.formats.gguf_file import BLOCKS, MAGIC, GgufPart, alignment_of

_VERSION = 3
_UNSIGNED, _DOUBLE = 4, 12


@dataclass(frozen=True, slots=True)
class NewTensor:
    """A tensor to write: its type as GGUF numbers them, its shape, and what makes its bytes."""

    name: str
    kind: int
    shape: tuple[int, ...]
    make: Callable[[], bytes]

    @property
    def size_bytes(self) -> int:
        _, items, size = BLOCKS[self.kind]
        count = 1
        for side in self.shape:
            count *= side
        return count // items * size


def write_gguf(
    out: IO[bytes],
    source: GgufPart,
    own: Mapping[str, int | float],
    tensors: Sequence[NewTensor],
) -> None:
    """Write a whole file; the tensors' bytes are made one after the other. OSError."""
    alignment = alignment_of(source.file.path, source.file.metadata)
    keys = [place for name, place in source.keys.items() if name not in own]
    out.write(MAGIC + struct.pack("<IQQ", _VERSION, len(tensors), len(keys) + len(own)))
    with source.file.path.open("rb") as file:
        for begin, end in keys:
            file.seek(begin)
            out.write(file.read(end - begin))
    for name, value in own.items():
        kind, form = (_UNSIGNED, "I") if isinstance(value, int) else (_DOUBLE, "d")
        out.write(_text(name) + struct.pack(f"<I{form}", kind, value))
    at = 0
    for tensor in tensors:
        out.write(_text(tensor.name) + struct.pack("<I", len(tensor.shape)))
        sides = tensor.shape[::-1]
        out.write(struct.pack(f"<{len(sides)}QIQ", *sides, tensor.kind, at))
        at += -(-tensor.size_bytes // alignment) * alignment
    for tensor in tensors:
        out.write(bytes(-out.tell() % alignment))
        data = tensor.make()
        assert len(data) == tensor.size_bytes, "a tensor has as many bytes as its shape says"
        out.write(data)


def _text(text: str) -> bytes:
    data = text.encode()
    return struct.pack("<Q", len(data)) + data
