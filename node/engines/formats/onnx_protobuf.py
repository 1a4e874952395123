"""Reads protobuf as far as ONNX files need it: a table of fields in, values out.

The bytes may come from anybody. Every length is checked against what holds it, and the number of
fields in a file is bounded, so that a small file cannot keep us busy for long.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Any

import numpy as np

from wire.errors import ModelRefused

FIELDS_MAX = 4_000_000
VARINT_BYTES_MAX = 10
TEXT_BYTES_MAX = 4096
# How much of a list is looked at together: little at first, for it may end at once.
RUN_BYTES = 320
RUN_BYTES_MAX = 320 << 8
Array = np.ndarray[Any, np.dtype[Any]]


class FieldKind(Enum):
    """How the values of a field are read."""

    INTS = auto()
    FLOATS = auto()
    DOUBLES = auto()
    TEXTS = auto()
    PARTS = auto()


# What each kind is written as: one at a time, or (numbers) many in one piece.
_VARINT, _FIXED64, _PIECE, _FIXED32 = 0, 1, 2, 5
_ALONE = {
    FieldKind.INTS: _VARINT,
    FieldKind.FLOATS: _FIXED32,
    FieldKind.DOUBLES: _FIXED64,
    FieldKind.TEXTS: _PIECE,
    FieldKind.PARTS: _PIECE,
}
_FIXED_BYTES = {_FIXED64: 8, _FIXED32: 4}
Table = Mapping[int, tuple[str, FieldKind]]


@dataclass(slots=True)
class ByteSource:
    """All bytes of one file, and how many fields of it may still be read."""

    name: str
    data: memoryview
    fields_left: int = FIELDS_MAX

    def refuse(self, why: str) -> ModelRefused:
        return ModelRefused(
            f"{self.name} is no whole ONNX file, {why}",
            todo="is this the right file? if so, download it again",
        )


@dataclass(slots=True)
class Fields:
    """The values of one message by name; a number or a text alone is the last one written."""

    source: ByteSource
    ints: dict[str, list[int | Array]] = field(default_factory=dict)
    pieces: dict[str, list[memoryview]] = field(default_factory=dict)
    texts: dict[str, list[str]] = field(default_factory=dict)
    parts: dict[str, list["Span"]] = field(default_factory=dict)

    def has(self, name: str) -> bool:
        """Whether the message had a field of this name."""
        return any(name in kind for kind in (self.ints, self.pieces, self.texts, self.parts))

    def text(self, name: str) -> str:
        return self.texts.get(name, [""])[-1]

    def number(self, name: str, default: int = 0) -> int:
        """The last integer of this field, as protobuf has it of what occurs twice."""
        found = self.integers(name)
        return int(found[-1]) if len(found) else default

    def integers(self, name: str) -> Array:
        """All integers of a field, in order, as signed numbers of 64 bits."""
        chunks = [
            it if isinstance(it, np.ndarray) else np.array([it], np.uint64).view(np.int64)
            for it in self.ints.get(name, [])
        ]
        return np.concatenate(chunks) if chunks else np.zeros(0, np.int64)

    def floats(self, name: str, kind: str) -> Array:
        """All floats of a field as one array; `kind` is numpy's, `<f4` or `<f8`."""
        pieces = self.pieces.get(name, [])
        data = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        if len(data) % np.dtype(kind).itemsize:
            raise self.source.refuse("a list of floats ends in the middle of one")
        return np.frombuffer(data, kind)


@dataclass(frozen=True, slots=True)
class Span:
    """A message, a text or plain bytes: where it lies in its file."""

    source: ByteSource
    begin: int
    end: int

    def data(self) -> memoryview:
        return self.source.data[self.begin : self.end]

    def text(self) -> str:
        if self.end - self.begin > TEXT_BYTES_MAX:
            raise self.source.refuse(f"a text of {self.end - self.begin} bytes")
        try:
            return bytes(self.data()).decode()
        except UnicodeDecodeError as error:
            raise self.source.refuse("a name or a text is not UTF-8") from error

    def read(self, table: Table) -> Fields:
        """The fields that `table` knows, by their numbers; others are passed over."""
        found, at, source = Fields(self.source), self.begin, self.source
        while at < self.end:
            tag, at = self._varint(at)
            source.fields_left -= 1
            if source.fields_left < 0:
                raise source.refuse(f"it has more than {FIELDS_MAX} fields")
            number, form = tag >> 3, tag & 7
            name, kind = table.get(number, ("", None))
            if kind is not None and form not in (_ALONE[kind], _PIECE):
                raise source.refuse(f"the field {name} is written as something else")
            if form == _VARINT:
                value, at = self._varint(at)
                if kind is not None:
                    found.ints.setdefault(name, []).append(value)
                    at = self._more_ints(found.ints[name], tag, at)
                continue
            if form == _PIECE:
                size, at = self._varint(at)
            elif form in _FIXED_BYTES:
                size = _FIXED_BYTES[form]
            else:
                raise source.refuse(f"there is no kind of field {form}")
            if not number or size > self.end - at:
                raise source.refuse("it is cut short, or something else altogether")
            part, at = Span(source, at, at + size), at + size
            if kind is not None:
                _keep(found, name, kind, part)
            if kind is FieldKind.FLOATS and form == _FIXED32:
                at = self._more_floats(found.pieces[name], tag, at)
        return found

    def _more_ints(self, into: list[int | Array], tag: int, at: int) -> int:
        """Lists of numbers are often written one by one: take all that follow at once."""
        size = RUN_BYTES
        while at + 1 < self.end and tag < 0x80 and self.source.data[at] == tag:
            raw = np.frombuffer(self.source.data[at : min(self.end, at + size)], np.uint8)
            size = min(2 * size, RUN_BYTES_MAX)
            ends = np.flatnonzero(raw < 0x80)
            ends = ends[: len(ends) // 2 * 2]
            # Each number has its tag of one byte before it.
            tags, lasts = ends[::2], ends[1::2]
            right = (raw[tags] == tag) & (tags == np.concatenate([[0], lasts[:-1] + 1]))
            count = len(right) if right.all() else int(right.argmin())
            if not count:
                break
            into.append(_decoded(self.source, raw, tags[:count] + 1, lasts[:count]))
            at += int(lasts[count - 1]) + 1
        return at

    def _more_floats(self, into: list[memoryview], tag: int, at: int) -> int:
        """The same for floats."""
        size = RUN_BYTES
        while at + 5 <= self.end and tag < 0x80 and self.source.data[at] == tag:
            end = at + min(self.end - at, size) // 5 * 5
            size = min(2 * size, RUN_BYTES_MAX)
            rows = np.frombuffer(self.source.data[at:end], np.uint8).reshape(-1, 5)
            right = rows[:, 0] == tag
            count = len(right) if right.all() else int(right.argmin())
            into.append(memoryview(rows[:count, 1:].tobytes()))
            at += 5 * count
        return at

    def _varint(self, at: int) -> tuple[int, int]:
        data, value = self.source.data, 0
        for place in range(min(VARINT_BYTES_MAX, self.end - at)):
            byte = data[at + place]
            value |= (byte & 0x7F) << 7 * place
            if byte < 0x80:
                return value & (1 << 64) - 1, at + place + 1
        raise self.source.refuse("it is cut short, or something else altogether")


def _keep(found: Fields, name: str, kind: FieldKind, part: Span) -> None:
    match kind:
        case FieldKind.TEXTS:
            found.texts.setdefault(name, []).append(part.text())
        case FieldKind.PARTS:
            found.parts.setdefault(name, []).append(part)
        case FieldKind.INTS:
            found.ints.setdefault(name, []).append(_varints(found.source, part.data()))
        case FieldKind.FLOATS | FieldKind.DOUBLES:
            found.pieces.setdefault(name, []).append(part.data())


def _varints(source: ByteSource, data: memoryview) -> Array:
    """Many integers written one after the other, all at once."""
    raw = np.frombuffer(data, np.uint8)
    ends = np.flatnonzero(raw < 0x80)
    if not len(raw):
        return np.zeros(0, np.int64)
    if not len(ends) or ends[-1] != len(raw) - 1:
        raise source.refuse("a list of integers ends in the middle of one")
    return _decoded(source, raw, np.concatenate([[0], ends[:-1] + 1]), ends)


def _decoded(source: ByteSource, raw: Array, starts: Array, ends: Array) -> Array:
    """The integers from each start to its end."""
    sizes = ends - starts + 1
    if sizes.max() > VARINT_BYTES_MAX:
        raise source.refuse("an integer is longer than integers are")
    values = np.zeros(len(ends), np.uint64)
    for place in range(int(sizes.max())):
        longer = sizes > place
        digits = (raw[starts[longer] + place] & 0x7F).astype(np.uint64)
        values[longer] |= digits << np.uint64(7 * place)
    return values.view(np.int64)
