"""Records: frozen dataclasses whose annotations are their wire format and their bounds.

A bound is checked when a record is made, so no illegal record is ever in memory: the same line
finds an illegal record of ours and one of another peer.
"""

import dataclasses
import functools
import math
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Annotated, Any, ClassVar, Self, Union, get_args, get_origin

from wire import limits
from wire.annotations import (
    Between,
    Digest,
    Inline,
    Int,
    Name,
    Omitted,
    Parameters,
    Reason,
    Row,
    Scalar,
)
from wire.codec import NotPlain, pack, pack_plain, unpack, unpack_plain
from wire.compiled import compiled
from wire.content import ContentId, PeerId
from wire.errors import Malformed, Oversize, WireError

# Annotations and records are imported from here together.
__all__ = [
    "Between",
    "Digest",
    "Inline",
    "Int",
    "Name",
    "Omitted",
    "Parameters",
    "Reason",
    "Record",
    "Row",
    "Scalar",
]


@dataclass(frozen=True, slots=True)
class _Form:
    """How one field is read from a decoded value, bounded, and written into one.

    `read` checks the type alone: bounds are checked when the record is made. `items` is how many
    encoded values the field has at most.
    """

    read: Callable[[Any, str], Any]
    bound: Callable[[Any, str], None]
    write: Callable[[Any], Any]
    omitted: Omitted | None = None
    items: int = 1


class Record:
    """Base of every record. Subclasses are `@dataclass(frozen=True, slots=True, kw_only=True)`.

    Fields without a bound of their own are bounded by `SIZE_BYTES_MAX` of the whole.
    """

    __slots__ = ()
    SIZE_BYTES_MAX: ClassVar[int] = limits.FRAME_BYTES_MAX

    def __post_init__(self) -> None:
        if not compiled(type(self)).holds(self):
            self.check_bounds()
        self.check()

    def check_bounds(self) -> None:
        """WireError for the first field that is not of its type or not within its bounds."""
        for name, form in _forms(type(self)).items():  # type: ignore[arg-type]
            form.bound(getattr(self, name), name)

    def check(self) -> None:
        """Check what a bound on one field cannot say; WireError if it does not hold."""

    def to_fields(self) -> dict[str, Any]:
        """The record as an encodable map."""
        forms = _forms(type(self))  # type: ignore[arg-type]
        return {
            name: form.write(value)
            for name, form in forms.items()
            for value in [getattr(self, name)]
            if form.omitted is None or value != form.omitted.value
        }

    @classmethod
    def from_fields(cls, fields: object) -> Self:
        """Read a decoded map: exactly this record's fields, each of its type and in its bounds."""
        forms = _forms(cls)  # type: ignore[arg-type]
        if not isinstance(fields, dict):
            raise Malformed(f"{cls.__name__} is a map, not {type(fields).__name__}")
        later = {name for name, form in forms.items() if form.omitted is not None}
        if fields.keys() | later != forms.keys():
            odd = sorted(map(str, (fields.keys() | later) ^ forms.keys()))[0]
            raise Malformed(f"{cls.__name__} lacks or does not know the field {odd[:40]!r}")
        found = {
            name: form.read(fields[name], name) for name, form in forms.items() if name in fields
        }
        for name in later & found.keys():
            if (omitted := forms[name].omitted) is not None and found[name] == omitted.value:
                raise Malformed(f"{cls.__name__}: {name} is left out if it has its default")
        return cls(**found)

    def to_bytes(self) -> bytes:
        try:
            data = pack_plain(compiled(type(self)).write(self))
        except NotPlain:
            data = pack(self.to_fields())
        if len(data) > self.SIZE_BYTES_MAX:
            raise Oversize(
                f"{type(self).__name__} of {len(data)} bytes, at most {self.SIZE_BYTES_MAX}"
            )
        return data

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """The record these bytes encode; WireError for any other bytes, nothing else."""
        fast = compiled(cls)
        if data[:1] in fast.heads and len(data) <= cls.SIZE_BYTES_MAX:
            try:
                fields = unpack_plain(data, fast.length_max, items_max(cls))
                record: Self = fast.read(fields)
                if pack_plain(fields) == data:
                    return record
            except (NotPlain, WireError):
                pass
        return cls.read_slowly(data)

    @classmethod
    def read_slowly(cls, data: bytes) -> Self:
        """What `from_bytes` does with bytes that the fast way does not take."""
        return cls.from_fields(
            unpack(data, size_bytes_max=cls.SIZE_BYTES_MAX, items_max=items_max(cls))
        )


# With some more than there are, so that bytes with a field too many are told which it is.
_ITEMS_TOO_MANY = 32


def items_max(cls: type[Record]) -> int:
    """How many encoded values a record of this kind has at most, itself and its names included.

    A sender pays a byte for each and its reader a microsecond, so bytes with more are not read on.
    """
    return min(limits.ITEMS_MAX, _ITEMS_TOO_MANY + _items(cls))  # type: ignore[arg-type]


@functools.cache
def _items(cls: type[Record]) -> int:
    forms = _forms(cls).values()  # type: ignore[arg-type]
    return 1 + sum(1 + form.items for form in forms)


@functools.cache
def _forms(cls: type[Record]) -> dict[str, _Form]:
    hints = typing.get_type_hints(cls, include_extras=True)
    return {
        field.name: _form(hints[field.name], Between(-math.inf, math.inf))
        for field in dataclasses.fields(cls)  # type: ignore[arg-type]
    }


def _form(hint: Any, bound: Between) -> _Form:
    origin = get_origin(hint)
    if origin is Annotated:
        base, *extras = get_args(hint)
        form = _form(base, next((e for e in extras if isinstance(e, Between)), bound))
        omitted = next((e for e in extras if isinstance(e, Omitted)), None)
        return form if omitted is None else dataclasses.replace(form, omitted=omitted)
    if hint == Parameters:
        items = 1 + 2 * limits.PARAMETERS_MAX
        return _Form(_read_parameters, _bound_parameters, dict, items=items)
    if origin in (Union, types.UnionType):
        (inner,) = (option for option in get_args(hint) if option is not types.NoneType)
        return _optional(_form(inner, bound))
    if origin is tuple:
        return _tuple(_form(get_args(hint)[0], Between(-math.inf, math.inf)), bound)
    if hint in _SCALARS:
        return _scalar(hint, bound)
    if issubclass(hint, IntEnum):
        return _Form(functools.partial(_read_enum, hint), _instance(hint), int)
    if issubclass(hint, (ContentId, PeerId)):
        return _identifier(hint)
    assert issubclass(hint, Record), f"{hint} has no wire form"
    # The bounds of a record within a record were checked when it was made.
    items = _items(hint)
    return _Form(lambda raw, _: hint.from_fields(raw), _instance(hint), hint.to_fields, items=items)


_SCALARS = (bool, int, float, str, bytes)


def _is(value: object, kind: type) -> bool:
    return isinstance(value, kind) and (kind is bool or not isinstance(value, bool))


def _measure(value: Any, where: str) -> float:
    """The size that a bound limits: a number itself, or the bytes of a text or of bytes."""
    if isinstance(value, str):
        try:
            return len(value.encode())
        except UnicodeEncodeError as error:
            raise Malformed(f"{where} is not text: {error}") from error
    return len(value) if isinstance(value, bytes) else value


def _scalar(kind: type, limit: Between) -> _Form:
    low, high = limit.low, limit.high

    def read(raw: Any, where: str) -> Any:
        if type(raw) is not kind and not _is(raw, kind):
            raise Malformed(f"{where} is {kind.__name__}, not {type(raw).__name__}")
        return raw

    def bound(value: Any, where: str) -> None:
        if not (kind is float and _is(value, int)):
            read(value, where)
        if kind is not bool and not low <= (size := _measure(value, where)) <= high:
            raise Oversize(f"{where} of {size} outside [{low}, {high}]")

    return _Form(read, bound, float if kind is float else _as_it_is)


def _as_it_is(value: Any) -> Any:
    return value


def _optional(inner: _Form) -> _Form:
    def bound(value: Any, where: str) -> None:
        if value is not None:
            inner.bound(value, where)

    return _Form(
        lambda raw, where: None if raw is None else inner.read(raw, where),
        bound,
        lambda value: None if value is None else inner.write(value),
        items=inner.items,
    )


def _tuple(inner: _Form, limit: Between) -> _Form:
    def count(items: Any, where: str) -> None:
        if not limit.low <= len(items) <= limit.high:
            raise Oversize(f"{len(items)} {where}, outside [{limit.low}, {limit.high}]")

    def read(raw: Any, where: str) -> Any:
        if not isinstance(raw, list):
            raise Malformed(f"{where} is a list, not {type(raw).__name__}")
        count(raw, where)
        return tuple([inner.read(item, where) for item in raw])

    def bound(value: Any, where: str) -> None:
        if not isinstance(value, tuple):
            raise Malformed(f"{where} is a tuple, not {type(value).__name__}")
        count(value, where)
        for item in value:
            inner.bound(item, where)

    items = 1 + int(min(limit.high, limits.ITEMS_MAX)) * inner.items
    return _Form(read, bound, lambda value: [inner.write(item) for item in value], items=items)


def _identifier(kind: Any) -> _Form:
    def read(raw: Any, where: str) -> Any:
        if not isinstance(raw, bytes):
            raise Malformed(f"{where} is bytes, not {type(raw).__name__}")
        return kind(raw)

    return _Form(read, _instance(kind), bytes)


def _instance(kind: type) -> Callable[[Any, str], None]:
    def bound(value: Any, where: str) -> None:
        if not isinstance(value, kind):
            raise Malformed(f"{where} is {kind.__name__}, not {type(value).__name__}")

    return bound


def _read_enum(kind: Any, raw: Any, where: str) -> Any:
    if not _is(raw, int):
        raise Malformed(f"{where} is a number, not {type(raw).__name__}")
    try:
        return kind(raw)
    except ValueError as error:
        raise Malformed(f"{where} {raw} is not known here") from error


def _read_parameters(raw: Any, where: str) -> Any:
    _bound_parameters(raw, where)
    return types.MappingProxyType(raw)


def _bound_parameters(value: Any, where: str) -> None:
    if not isinstance(value, Mapping):
        raise Malformed(f"{where} is a map, not {type(value).__name__}")
    if len(value) > limits.PARAMETERS_MAX:
        raise Oversize(f"{len(value)} {where}, at most {limits.PARAMETERS_MAX}")
    for name, item in value.items():
        if not isinstance(name, str) or not isinstance(item, _SCALARS):
            raise Malformed(f"{where} maps names to scalars")
        sized = [part for part in (name, item) if isinstance(part, str | bytes)]
        if max(_measure(part, where) for part in sized) > limits.PARAMETER_BYTES_MAX:
            raise Oversize(f"{where}: {name[:40]!r} beyond {limits.PARAMETER_BYTES_MAX} bytes")
        if isinstance(item, float) and not math.isfinite(item):
            raise Malformed(f"{where}: {name[:40]!r} is {item}, not a finite number")
        if isinstance(item, int) and not -(2**63) <= item < 2**64:
            raise Oversize(f"{where}: {name[:40]!r} is beyond 64 bits")
