"""Canonical msgpack: one value has one encoding.

What is hashed or signed must never be open to two readings, so `unpack` accepts exactly what
`pack` writes: map keys are strings in order, integers and strings take their shortest form, floats
are finite and 64 bits wide, extension types do not exist. Size, depth and number of items are
bounded before anything is built in memory.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import msgpack

from wire import limits
from wire.errors import Malformed, Oversize


class NotPlain(Exception):
    """The fast way does not take this; the slow way has to look at it. Never leaves `wire`."""


Value = None | bool | int | float | str | bytes | Sequence["Value"] | Mapping[str, "Value"]


def _ordered(value: Any) -> Any:
    # Exact types are tested first: this runs for each value of each message, and most are plain.
    if type(value) in _PLAIN or isinstance(value, (int, str, bytes)):
        return value
    if isinstance(value, (list, tuple)):
        return [item if type(item) in _PLAIN else _ordered(item) for item in value]
    if isinstance(value, float):
        if not math.isfinite(value):
            raise Malformed(f"{value} is not a finite number")
        return value
    if isinstance(value, (dict, Mapping)):
        for key in value:
            if not isinstance(key, str):
                raise Malformed(f"a map key is {type(key).__name__}, not text")
        return {key: _ordered(value[key]) for key in sorted(value)}
    raise Malformed(f"{type(value).__name__} has no encoding")


_PLAIN = frozenset((bool, type(None), int, str, bytes))


def pack(value: Value) -> bytes:
    """The one encoding of `value`; Malformed if it has none."""
    try:
        packed: bytes = msgpack.packb(_ordered(value), use_bin_type=True)
    except (OverflowError, UnicodeEncodeError, ValueError) as error:
        raise Malformed(f"cannot be encoded: {error}") from error
    return packed


def unpack(
    data: bytes,
    *,
    size_bytes_max: int = limits.FRAME_BYTES_MAX,
    items_max: int = limits.ITEMS_MAX,
) -> Any:
    """The value whose one encoding is `data`: Oversize or Malformed for anything else."""
    if len(data) > size_bytes_max:
        raise Oversize(f"{len(data)} bytes, at most {size_bytes_max} are read")
    _survey(data, items_max)
    try:
        value = msgpack.unpackb(data, raw=False, strict_map_key=True, use_list=True)
    except (ValueError, TypeError, msgpack.UnpackException) as error:
        raise Malformed(f"not msgpack: {error}") from error
    if pack(value) != data:
        raise Malformed("not the canonical encoding of its value")
    return value


# Small data with short lists may be unpacked before it is known whether it is what is due.
_UNSEEN_BYTES_MAX = 32 << 10
_UNSEEN_LENGTH_MAX = 512
# It is never used by two at once: packing holds the interpreter's lock from begin to end.
_packer = msgpack.Packer(use_bin_type=True, autoreset=True)


def pack_plain(value: Any) -> bytes:
    """As `pack`, for a value whose maps are in order and whose floats are finite.

    The caller has seen to that; NotPlain for whatever has no encoding.
    """
    try:
        packed: bytes = _packer.pack(value)
    except (TypeError, ValueError, OverflowError) as error:
        raise NotPlain from error
    return packed


def unpack_plain(data: bytes, length_max: int, items_max: int) -> Any:
    """What msgpack makes of `data`, from which `pack_plain` has to give `data` again.

    NotPlain for what is no msgpack, or has a list of more than `length_max`. Large data is surveyed
    first, and WireError if it has more than `items_max` values in all.
    """
    # Nothing has more items than bytes: small data has no long list, whatever it may have.
    length_max = min(length_max, len(data))
    if len(data) > _UNSEEN_BYTES_MAX or length_max > _UNSEEN_LENGTH_MAX:
        # Each item is larger in memory than it is here, and msgpack makes room for a list as long
        # as its head says, at every level.
        _survey(data, items_max)
    try:
        return msgpack.unpackb(
            data,
            max_array_len=length_max,
            max_map_len=limits.PARAMETERS_MAX,
        )
    except (ValueError, TypeError, msgpack.UnpackException) as error:
        raise NotPlain from error


# Tag byte -> bytes that follow it (fixed), or width of the length that follows it (the others).
_FIXED = {0xC0: 0, 0xC2: 0, 0xC3: 0, 0xCB: 8, 0xCC: 1, 0xCD: 2, 0xCE: 4, 0xCF: 8}
_FIXED |= {0xD0: 1, 0xD1: 2, 0xD2: 4, 0xD3: 8}
_SIZED = {0xC4: 1, 0xC5: 2, 0xC6: 4, 0xD9: 1, 0xDA: 2, 0xDB: 4}
_ARRAYS = {0xDC: 2, 0xDD: 4}
_MAPS = {0xDE: 2, 0xDF: 4}


def _survey(data: bytes, items_max: int) -> None:
    """Walk the tags without building anything: bounds depth and items, finds truncation."""
    at, items = 0, 0
    pending = [1]
    while pending:
        if pending[-1] == 0:
            pending.pop()
            continue
        pending[-1] -= 1
        items += 1
        if items > items_max:
            raise Oversize(f"more than {items_max} items")
        if at >= len(data):
            raise Malformed("ends in the middle of a value")
        skip, children = _step(data, at)
        at += skip
        if children is not None:
            if len(pending) > limits.DEPTH_MAX:
                raise Oversize(f"nested deeper than {limits.DEPTH_MAX}")
            pending.append(children)
    if at != len(data):
        raise Malformed(f"{len(data) - at} bytes beyond the value, or fewer than it says")


def _step(data: bytes, at: int) -> tuple[int, int | None]:
    """How many bytes the item's own head and body take, and its children if it is a container."""
    tag = data[at]
    if tag <= 0x7F or tag >= 0xE0:
        return 1, None
    if tag <= 0x8F:
        return 1, 2 * (tag & 0x0F)
    if tag <= 0x9F:
        return 1, tag & 0x0F
    if tag <= 0xBF:
        return 1 + (tag & 0x1F), None
    if tag in _FIXED:
        return 1 + _FIXED[tag], None
    if tag in _SIZED:
        width = _SIZED[tag]
        return 1 + width + _length(data, at, width), None
    if tag in _ARRAYS:
        width = _ARRAYS[tag]
        return 1 + width, _length(data, at, width)
    if tag in _MAPS:
        width = _MAPS[tag]
        return 1 + width, 2 * _length(data, at, width)
    raise Malformed(f"tag 0x{tag:02x} is not used here")


def _length(data: bytes, at: int, width: int) -> int:
    head = data[at + 1 : at + 1 + width]
    if len(head) < width:
        raise Malformed("ends in the middle of a length")
    return int.from_bytes(head, "big")
