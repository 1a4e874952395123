"""Rows of weights as a GGUF file has them, as floats and in panels of eight. Numpy alone. Worker.

In a file a row is cut into blocks whose numbers share scales. Each number is q * scale + minimum,
where q has four to eight bits. All products are exact in 32-bit floats, and one addition rounds:
whoever unpacks a number, in numpy or in a kernel, gets the same bits.

A panel has eight rows side by side, so that one load gives eight numbers of eight rows. Its blocks
are of 32 numbers, whatever the file's are; what a form keeps of each is in `PanelForm.fields`.
"""

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from node.engines.formats.gguf_file import BLOCKS
from wire.errors import ModelRefused

Array = np.ndarray[Any, Any]

F32, F16, BF16 = 0, 1, 30
Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q4_K, Q5_K, Q6_K = 2, 3, 6, 7, 8, 12, 13, 14
LANES = 8
TERMS = 32
# Blocks of 32 in one of the larger blocks that have a scale of their scales.
LARGE = 8
# So many rows are unpacked at a time: what is between a file and its panels stays small.
SLAB_ROWS = 256


@dataclass(frozen=True, slots=True)
class BlockForm:
    """How one type of blocks is laid out. `parts`: the fields of a file's block, in its order.

    `fields` are those of a panel: name, type, and how many there are of it in 32 numbers' block;
    a fraction is of a larger block. Each is for eight lanes, but for bits of eight lanes in one.
    """

    bits: int
    parts: Mapping[str, tuple[str, int]]
    fields: Mapping[str, tuple[str, float]]


_NIBBLES: Mapping[str, tuple[str, float]] = {"low": ("uint8", 16)}
_LARGE: Mapping[str, tuple[str, float]] = {
    "scales": ("uint8", 1),
    "minima": ("uint8", 1),
    "scale": ("float16", 1 / LARGE),
    "minimum": ("float16", 1 / LARGE),
}
_SCALE, _MINIMUM = {"scale": ("<f2", 1)}, {"minimum": ("<f2", 1)}
_SCALE_FIELD: Mapping[str, tuple[str, float]] = {"scale": ("float16", 1)}
_MINIMUM_FIELD: Mapping[str, tuple[str, float]] = {"minimum": ("float16", 1)}
# One bit, or two, of eight lanes together.
_FIFTH: Mapping[str, tuple[str, float]] = {"high": ("uint8", TERMS / LANES)}
_SIXTH: Mapping[str, tuple[str, float]] = {"high": ("uint16", TERMS / LANES)}
FORMS: Mapping[int, BlockForm] = {
    F32: BlockForm(32, {"numbers": ("<f4", 1)}, {"numbers": ("float32", TERMS)}),
    F16: BlockForm(16, {"numbers": ("<f2", 1)}, {"numbers": ("float16", TERMS)}),
    BF16: BlockForm(16, {"numbers": ("<u2", 1)}, {"numbers": ("uint16", TERMS)}),
    Q8_0: BlockForm(8, _SCALE | {"q": ("i1", 32)}, {"numbers": ("int8", 32), **_SCALE_FIELD}),
    Q4_0: BlockForm(4, _SCALE | {"q": ("u1", 16)}, {**_NIBBLES, **_SCALE_FIELD}),
    Q4_1: BlockForm(
        4, _SCALE | _MINIMUM | {"q": ("u1", 16)}, {**_NIBBLES, **_SCALE_FIELD, **_MINIMUM_FIELD}
    ),
    Q5_0: BlockForm(
        5, _SCALE | {"high": ("u1", 4), "q": ("u1", 16)}, {**_NIBBLES, **_FIFTH, **_SCALE_FIELD}
    ),
    Q5_1: BlockForm(
        5,
        _SCALE | _MINIMUM | {"high": ("u1", 4), "q": ("u1", 16)},
        {**_NIBBLES, **_FIFTH, **_SCALE_FIELD, **_MINIMUM_FIELD},
    ),
    Q4_K: BlockForm(
        4, _SCALE | _MINIMUM | {"scales": ("u1", 12), "q": ("u1", 128)}, {**_NIBBLES, **_LARGE}
    ),
    Q5_K: BlockForm(
        5,
        _SCALE | _MINIMUM | {"scales": ("u1", 12), "high": ("u1", 32), "q": ("u1", 128)},
        {**_NIBBLES, **_FIFTH, **_LARGE},
    ),
    Q6_K: BlockForm(
        6,
        {"q": ("u1", 128), "high": ("u1", 64), "scales": ("i1", 16), **_SCALE},
        {**_NIBBLES, **_SIXTH, "scales": ("int8", 2), "scale": ("float16", 1 / LARGE)},
    ),
}
# What is taken from every q.
OFFSETS = {Q4_0: 8, Q5_0: 16, Q6_K: 32}


@dataclass(frozen=True, slots=True)
class PanelForm:
    """So many rows of so many numbers in panels."""

    kind: int
    rows: int
    columns: int

    @property
    def fields(self) -> dict[str, tuple[str, int]]:
        """The type and the number of items of each array, in the order in which they are kept."""
        blocks = self.rows * self.columns / TERMS
        return {
            name: (dtype, round(blocks * count))
            for name, (dtype, count) in FORMS[self.kind].fields.items()
        }


@dataclass(frozen=True, slots=True)
class BlockRows:
    """Rows of one tensor as its file has them: `raw` is [rows, bytes of a row].

    `kind` is one of `FORMS`.
    """

    name: str
    kind: int
    columns: int
    raw: Array

    @property
    def form(self) -> PanelForm:
        return PanelForm(self.kind, len(self.raw), self.columns)

    def taken(self, order: Any) -> "BlockRows":
        """Rows of it, in that order."""
        return BlockRows(self.name, self.kind, self.columns, self.raw[order])

    def padded(self, multiple: int) -> "BlockRows":
        """With rows of nothing after it, up to a multiple."""
        spare = -len(self.raw) % multiple
        if not spare:
            return self
        nothing = np.zeros((spare, self.raw.shape[1]), np.uint8)
        return BlockRows(self.name, self.kind, self.columns, np.concatenate([self.raw, nothing]))

    def floats(self) -> Array:
        """All numbers: [rows, columns]. ModelRefused if one is not finite."""
        numbers, scale, minimum = self.numbers()
        found = numbers.astype(np.float32)
        if scale is not None:
            # Scales for 32, or for 16 each.
            shape = (*found.shape[:2], scale.shape[2], -1)
            found = found.reshape(shape) * scale[..., None]
            found += minimum[..., None] if minimum is not None else 0
        return self._finite(found.reshape(len(self.raw), self.columns))

    def checked(self) -> "BlockRows":
        """Itself; ModelRefused if a number of it is not finite."""
        for begin in range(0, len(self.raw), SLAB_ROWS):
            part = self.taken(slice(begin, begin + SLAB_ROWS))
            if self.kind in (F32, F16, BF16):
                part.floats()
            else:
                part._split()
        return self

    def write_panels(self, targets: Sequence[Array]) -> None:
        """Fill the flat arrays of `form.fields`; the rows are a multiple of eight. ModelRefused."""
        fields = list(self.form.fields)
        for begin in range(0, len(self.raw), SLAB_ROWS):
            slab = self.taken(slice(begin, begin + SLAB_ROWS))
            arrays = slab._panels()
            for name, target in zip(fields, targets, strict=True):
                part = arrays[name].reshape(-1)
                at = len(target) * begin // len(self.raw)
                target[at : at + len(part)] = part

    def _finite(self, numbers: Array) -> Array:
        if not np.isfinite(numbers).all():
            raise ModelRefused(f"{self.name} holds numbers that are not finite")
        return numbers

    def _split(self) -> dict[str, Array]:
        """The fields of the file's blocks: [rows, blocks, items]; ModelRefused by their scales."""
        parts = FORMS[self.kind].parts
        dtype = np.dtype([(name, kind, (count,)) for name, (kind, count) in parts.items()])
        blocks = np.ascontiguousarray(self.raw).view(dtype)
        for name in ("scale", "minimum"):
            if name in parts and not np.isfinite(blocks[name]).all():
                raise ModelRefused(f"{self.name} has scales that are not finite")
        return {name: blocks[name] for name in parts}

    def numbers(self) -> tuple[Array, Any, Any]:
        """The q of every number, [rows, blocks, 32], and 32-bit scales and minima, or None.

        Of each block there is one of them, or one for each half. ModelRefused.
        """
        parts = self._split()
        rows = len(self.raw)
        if self.kind == BF16:
            wide = parts["numbers"].astype(np.uint32) << 16
            return wide.view(np.float32), None, None
        if self.kind in (F32, F16):
            return parts["numbers"], None, None
        q = _UNPACKED[self.kind](parts).reshape(rows, -1, TERMS)
        scale = parts["scale"].astype(np.float32)
        minimum = parts["minimum"].astype(np.float32) if "minimum" in parts else None
        if self.kind in (Q4_K, Q5_K):
            scales, minima = _six_bits(parts["scales"])
            scale = (scale * scales).reshape(rows, -1, 1)
            minimum = -(minimum * minima).reshape(rows, -1, 1)
        elif self.kind == Q6_K:
            scale = (scale * parts["scales"]).reshape(rows, -1, 2)
        if (offset := OFFSETS.get(self.kind)) is not None:
            minimum = scale * np.float32(-offset)
        return q, scale, minimum

    def _panels(self) -> dict[str, Array]:
        """The fields of a panel, each [panels, ..., lanes]."""
        if self.kind in (F32, F16, BF16):
            self.floats()
            return {"numbers": _lanes(self._split()["numbers"])}
        parts, rows = self._split(), len(self.raw)
        q = _UNPACKED[self.kind](parts).reshape(rows, -1, TERMS)
        found: dict[str, Array] = {
            name: _lanes(parts[name]) for name in ("scale", "minimum") if name in parts
        }
        if self.kind in (Q4_K, Q5_K):
            scales, minima = _six_bits(parts["scales"])
            found |= {"scales": _lanes(scales), "minima": _lanes(minima)}
        elif self.kind == Q6_K:
            found["scales"] = _lanes(parts["scales"])
        bits = FORMS[self.kind].bits
        if bits == LANES:
            return found | {"numbers": _lanes(q)}
        low = q & 15
        found["low"] = _lanes(low[..., :16] | low[..., 16:] << 4)
        high = _lanes(q >> 4)
        if bits == 5:
            found["high"] = np.packbits(high, axis=-1, bitorder="little")
        elif bits == 6:
            shifts = np.arange(0, 2 * LANES, 2, dtype=np.uint16)
            found["high"] = (high.astype(np.uint16) << shifts).sum(-1, dtype=np.uint16)
        return found


def joined(parts: Sequence[BlockRows]) -> list[BlockRows]:
    """The same rows in as few pieces as there are changes of type."""
    found: list[BlockRows] = []
    for _, run in itertools.groupby(parts, key=lambda part: part.kind):
        same = list(run)
        raw = np.concatenate([part.raw for part in same]) if len(same) > 1 else same[0].raw
        names = ", ".join(part.name for part in same)
        found.append(BlockRows(names, same[0].kind, same[0].columns, raw))
    return found


def _lanes(array: Array) -> Array:
    """[rows, ...] as [panels, ..., lanes]."""
    return np.moveaxis(array.reshape(-1, LANES, *array.shape[1:]), 1, -1)


def _six_bits(packed: Array) -> tuple[Array, Array]:
    """Eight scales and eight minima of six bits each, from twelve bytes."""
    first, second, third = packed[..., :4], packed[..., 4:8], packed[..., 8:]
    scales = np.concatenate([first & 63, third & 15 | first >> 6 << 4], -1)
    minima = np.concatenate([second & 63, third >> 4 | second >> 6 << 4], -1)
    return scales, minima


def _halves(q: Array) -> Array:
    """Nibbles of terms 0 to 15, and then of 16 to 31."""
    return np.concatenate([q & 15, q >> 4], -1)


def _with_fifth(parts: Mapping[str, Array]) -> Array:
    bits: Array = np.unpackbits(parts["high"], axis=-1, bitorder="little")
    found: Array = _halves(parts["q"]) | bits << 4
    return found


def _large_nibbles(parts: Mapping[str, Array]) -> Array:
    """Each 32 bytes have the low and then the high nibbles of two blocks."""
    q = parts["q"].reshape(*parts["q"].shape[:2], 4, TERMS)
    return np.stack([q & 15, q >> 4], 3).reshape(*parts["q"].shape[:2], LARGE, TERMS)


def _large_with_fifth(parts: Mapping[str, Array]) -> Array:
    bits = np.arange(LARGE, dtype=np.uint8)[:, None]
    high = parts["high"][:, :, None, :] >> bits & 1
    found: Array = _large_nibbles(parts) | high << 4
    return found


def _large_with_sixth(parts: Mapping[str, Array]) -> Array:
    """Of each 128 numbers, 64 bytes have the nibbles and 32 bytes the two high bits."""
    shape = parts["q"].shape[:2]
    low = parts["q"].reshape(*shape, 2, 1, 64)
    low = np.concatenate([low & 15, low >> 4], 3).reshape(*shape, 2, 4, TERMS)
    shifts = np.arange(0, 8, 2, dtype=np.uint8)[:, None]
    high = parts["high"].reshape(*shape, 2, 1, TERMS) >> shifts & 3
    found: Array = low | high << 4
    return found


_UNPACKED: Mapping[int, Callable[[Mapping[str, Array]], Array]] = {
    Q8_0: lambda parts: parts["q"],
    Q4_0: lambda parts: _halves(parts["q"]),
    Q4_1: lambda parts: _halves(parts["q"]),
    Q5_0: _with_fifth,
    Q5_1: _with_fifth,
    Q4_K: _large_nibbles,
    Q5_K: _large_with_fifth,
    Q6_K: _large_with_sixth,
}


def row_bytes(kind: int, columns: int) -> int:
    """How long a row is in the file."""
    _, items, size = BLOCKS[kind]
    return columns // items * size
