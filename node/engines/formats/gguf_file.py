"""Reads the head of a GGUF file: its metadata and its table of tensors, and nothing of their data.

The file may come from anybody. Every length is checked against what is left of the file before it
is used, every count is bounded, and every tensor must lie within the file, whole and aligned.
"""

import math
import mmap
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wire.errors import ModelRefused

MAGIC = b"GGUF"
KEYS_MAX = 4096
TENSORS_MAX = 16_384
NAME_BYTES_MAX = 512
TEXT_BYTES_MAX = 1 << 20
# Of all lists together: a tokenizer of 150,000 words takes a third of it.
ITEMS_SUM_MAX = 2 << 20
ITEMS_MAX = 1 << 20
DIMENSIONS_MAX = 4
ALIGNMENT_MAX = 1 << 16

# The types of numbers: items in a block, bytes of a block. These are run here.
BLOCKS = {
    0: ("F32", 1, 4),
    1: ("F16", 1, 2),
    2: ("Q4_0", 32, 18),
    3: ("Q4_1", 32, 20),
    6: ("Q5_0", 32, 22),
    7: ("Q5_1", 32, 24),
    8: ("Q8_0", 32, 34),
    12: ("Q4_K", 256, 144),
    13: ("Q5_K", 256, 176),
    14: ("Q6_K", 256, 210),
    18: ("IQ3_XXS", 256, 98),
    21: ("IQ3_S", 256, 110),
    22: ("IQ2_S", 256, 82),
    23: ("IQ4_XS", 256, 136),
    30: ("BF16", 1, 2),
    39: ("MXFP4", 32, 17),
}
# Known by name, so that a refusal can say what it met.
NOT_RUN = {10: "Q2_K", 11: "Q3_K", 15: "Q8_K", 16: "IQ2_XXS", 17: "IQ2_XS", 19: "IQ1_S"}
NOT_RUN |= {20: "IQ4_NL", 24: "I8", 25: "I16", 26: "I32", 27: "I64", 28: "F64", 29: "IQ1_M"}
NOT_RUN |= {34: "TQ1_0", 35: "TQ2_0", 40: "NVFP4", 41: "Q1_0"}

AGAIN = "download it again"

_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q"}
_SCALARS |= {12: "d"}
_TEXT, _ARRAY = 8, 9

Metadata = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class GgufTensor:
    """One row of the table. `shape` has the outermost dimension first, as numpy has it."""

    kind: int
    shape: tuple[int, ...]
    begin: int
    end: int

    @property
    def items(self) -> int:
        return math.prod(self.shape)


@dataclass(frozen=True, slots=True)
class GgufFile:
    """The checked head of one file."""

    path: Path
    metadata: Metadata
    tensors: Mapping[str, GgufTensor]


@dataclass(frozen=True, slots=True)
class GgufPart:
    """A file that may be one of several, and where each key with its value lies in it."""

    file: GgufFile
    keys: Mapping[str, tuple[int, int]]


class _Cursor:
    """Reads one thing after the other, never beyond the end."""

    def __init__(self, name: str, data: mmap.mmap) -> None:
        self.name = name
        self.data = data
        self.at = 0
        self.items = 0

    def take(self, size: int) -> bytes:
        if size > len(self.data) - self.at:
            raise ModelRefused(
                f"{self.name} is cut short, {size} bytes at {self.at} are not there", todo=AGAIN
            )
        self.at += size
        return self.data[self.at - size : self.at]

    def number(self, form: str) -> Any:
        return struct.unpack("<" + form, self.take(struct.calcsize("<" + form)))[0]

    def count(self, what: str, most: int) -> int:
        found: int = self.number("Q")
        if found > most:
            raise ModelRefused(f"{self.name}: {found} {what}, at most {most} are read")
        return found

    def text(self, most: int) -> str:
        data = self.take(self.count("bytes of text", most))
        try:
            return data.decode()
        except UnicodeDecodeError as error:
            raise ModelRefused(f"{self.name}: a text at {self.at} is not UTF-8") from error

    def value(self, kind: int) -> Any:
        if kind == _TEXT:
            return self.text(TEXT_BYTES_MAX)
        if kind in _SCALARS:
            return self.number(_SCALARS[kind])
        raise ModelRefused(f"{self.name}: metadata of the unknown type {kind}")

    def array(self) -> list[Any]:
        kind, count = self.number("I"), self.count("items in a list", ITEMS_MAX)
        self.items += count
        if self.items > ITEMS_SUM_MAX:
            raise ModelRefused(f"{self.name}: over {ITEMS_SUM_MAX} items in lists")
        if kind in _SCALARS:
            form = f"<{count}{_SCALARS[kind]}"
            return list(struct.unpack(form, self.take(struct.calcsize(form))))
        # Lists of lists do not occur in the models that are run here.
        return [self.value(kind) for _ in range(count)]


def read_gguf(path: Path) -> GgufFile:
    """Read and check the head of a file; ModelRefused says what is wrong with it."""
    return _open(path, part=False).file


def read_part(path: Path) -> GgufPart:
    """Read and check the head of a file that may be a part of a model; ModelRefused."""
    return _open(path, part=True)


def _open(path: Path, *, part: bool) -> GgufPart:
    with path.open("rb") as file:
        magic = file.read(4)
        if magic != MAGIC:
            raise ModelRefused(
                f"{path.name} is not GGUF, which begins with the letters GGUF",
                todo="is this the right file?",
            )
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return _read(path, _Cursor(path.name, data), part)


def _read(path: Path, cursor: _Cursor, part: bool) -> GgufPart:
    cursor.take(len(MAGIC))
    version = cursor.number("I")
    if version in (2 << 24, 3 << 24):
        raise ModelRefused(
            f"{path.name} is a big-endian file; little-endian ones are read",
            todo="get the little-endian file of this model",
        )
    if version not in (2, 3):
        raise ModelRefused(f"{path.name} is GGUF of version {version}; 2 and 3 are read")
    tensors = cursor.count("tensors", TENSORS_MAX)
    count = cursor.count("keys of metadata", KEYS_MAX)
    metadata, keys = _metadata(cursor, count)
    if len(metadata) != count:
        raise ModelRefused(f"{path.name}: a key of its metadata occurs twice")
    if not part:
        _check_whole(path, metadata)
    alignment = alignment_of(path, metadata)
    rows = dict(_rows(cursor, tensors))
    if len(rows) != tensors:
        raise ModelRefused(f"{path.name}: a tensor occurs twice")
    base = -(-cursor.at // alignment) * alignment
    return GgufPart(GgufFile(path, metadata, _placed(cursor, rows, base, alignment)), keys)


def alignment_of(path: Path, metadata: Metadata) -> int:
    """To what the places of a file's tensors are even; ModelRefused."""
    alignment = metadata.get("general.alignment", 32)
    if type(alignment) is not int or not 1 <= alignment <= ALIGNMENT_MAX:
        raise ModelRefused(
            f"{path.name}: its alignment is not a number from 1 to {ALIGNMENT_MAX}", todo=AGAIN
        )
    return alignment


def _check_whole(path: Path, metadata: Metadata) -> None:
    """ModelRefused for a file that is one part of a model."""
    parts, number = metadata.get("split.count", 0), metadata.get("split.no", 0)
    if type(parts) is int and parts > 1:
        which = number + 1 if type(number) is int else "?"
        raise ModelRefused(
            f"{path.name} is part {which} of {parts} of a model, and is nothing alone",
            todo="keep the model by its first part, all are taken: python -m node models add FILE",
        )


def _metadata(cursor: _Cursor, count: int) -> tuple[dict[str, Any], dict[str, tuple[int, int]]]:
    """The values, and where they lie, by their keys."""
    values, places = {}, {}
    for _ in range(count):
        begin = cursor.at
        name, kind = cursor.text(NAME_BYTES_MAX), cursor.number("I")
        values[name] = cursor.array() if kind == _ARRAY else cursor.value(kind)
        places[name] = begin, cursor.at
    return values, places


def _rows(cursor: _Cursor, count: int) -> Iterator[tuple[str, GgufTensor]]:
    for _ in range(count):
        name = cursor.text(NAME_BYTES_MAX)
        dimensions = cursor.number("I")
        if not 1 <= dimensions <= DIMENSIONS_MAX:
            raise ModelRefused(f"{cursor.name}: {name[:80]} has {dimensions} dimensions")
        shape = tuple(cursor.count("rows", 1 << 40) for _ in range(dimensions))[::-1]
        kind, offset = cursor.number("I"), cursor.count("bytes before a tensor", 1 << 48)
        if kind not in BLOCKS:
            known = NOT_RUN.get(kind, "of the unknown type")
            raise ModelRefused(f"{cursor.name}: {name[:80]} is {known} ({kind}), which is not run")
        label, items, size = BLOCKS[kind]
        sizes = " by ".join(map(str, shape))
        if not all(shape) or shape[-1] % items:
            raise ModelRefused(f"{cursor.name}: {name[:80]} of {sizes} is no {label}")
        yield name, GgufTensor(kind, shape, offset, offset + math.prod(shape) // items * size)


def _placed(
    cursor: _Cursor, rows: Mapping[str, GgufTensor], base: int, alignment: int
) -> dict[str, GgufTensor]:
    """The tensors with their places in the file, none over another or beyond its end."""
    at, found = 0, {}
    for name, row in sorted(rows.items(), key=lambda pair: pair[1].begin):
        if row.begin < at or row.begin % alignment:
            raise ModelRefused(f"{cursor.name}: {name[:80]} overlaps another tensor or is not even")
        at = row.end
        if base + at > len(cursor.data):
            raise ModelRefused(
                f"{cursor.name} is cut short, {name[:80]} ends at {base + at}"
                f" of {len(cursor.data)} bytes",
                todo=AGAIN,
            )
        found[name] = GgufTensor(row.kind, row.shape, base + row.begin, base + row.end)
    return found
