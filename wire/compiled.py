"""Readers and writers of records, compiled from the annotations of their fields.

They take what is plainly right: exact types, values within bounds, keys in order. For all else they
raise `NotPlain`, and the slow way (`wire.schema`) takes it after all, or says what is wrong with
it. So errors are worded in one place, and what is accepted is decided in one place; the tests hold
the fast ways to it: what they take, the slow way takes with the same value.

The compiled source consists of names and numbers from annotations of our own classes. Nothing that
comes from outside is ever compiled.
"""

import dataclasses
import functools
import math
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Annotated, Any, Union, get_args, get_origin

from wire import limits
from wire.annotations import Between, Omitted, Parameters, Scalar
from wire.codec import NotPlain
from wire.content import ContentId, PeerId

# The head of a msgpack map is this and its length, which is below 16.
_SHORT_MAP = 0x80
# From so many fields on, the number of fields does not fit the first byte.
_LONG_MAP, _LONG_MAP_COUNT = 0xDE, 16
_UNBOUNDED = Between(-math.inf, math.inf)
# A Python expression, from the expression of its operand.
_Expression = Callable[[str], str]


@dataclass(frozen=True, slots=True)
class Compiled:
    """The fast ways of one class of records.

    `read` makes a record of a decoded map, and `write` makes the map, keys in order; both raise
    NotPlain for what only the slow way judges. `holds` says whether every field of a record is
    plainly within its bounds. The encoded map begins with one of `heads`, and no list in it is
    longer than `length_max`.
    """

    read: Callable[[Any], Any]
    write: Callable[[Any], dict[str, Any]]
    holds: Callable[[Any], bool]
    heads: frozenset[bytes]
    length_max: int


def _always(_: str) -> str:
    return ""


def _as_it_is(value: str) -> str:
    return value


@dataclass(frozen=True, slots=True)
class _Field:
    """How one field is read and written.

    A decoded value that passes `test` is turned into the field's value by `read`. A field's value
    that passes `holds` is plainly legal, and is turned into what is encoded by `write`.
    """

    test: _Expression
    holds: _Expression
    read: _Expression = _as_it_is
    write: _Expression = _as_it_is
    length_max: int = 0


def _compile(kind: type) -> Compiled:
    names: dict[str, Any] = {
        "NotPlain": NotPlain,
        "absent": object(),
        "kind": kind,
        "new": object.__new__,
        "parameters_hold": _parameters_hold,
        "in_order": _in_order,
        "sorted_parameters": _sorted_parameters,
        "finite": _finite,
        "read_only": types.MappingProxyType,
        "text_bytes": _text_bytes,
    }
    assert len(dataclasses.fields(kind)) <= limits.PARAMETERS_MAX, "the codec reads no longer map"
    hints = typing.get_type_hints(kind, include_extras=True)
    fields: dict[str, _Field] = {}
    later = set()
    for field in dataclasses.fields(kind):
        hint = hints[field.name]
        fields[field.name] = _field(hint, _UNBOUNDED, names)
        names[f"set_{field.name}"] = getattr(kind, field.name).__set__
        for extra in getattr(hint, "__metadata__", ()):
            if isinstance(extra, Omitted):
                later.add(field.name)
                names[f"default_{field.name}"] = extra.value
    names["later"] = frozenset(later)
    lines = [*_reader(fields, later), *_writer(fields, later), *_holder(fields)]
    exec("\n".join(lines), names)  # noqa: S102 - of annotations alone, as the module's text says
    length_max = max((field.length_max for field in fields.values()), default=0)
    counts = range(len(fields) - len(later), len(fields) + 1)
    heads = frozenset(
        bytes((_SHORT_MAP + it if it < _LONG_MAP_COUNT else _LONG_MAP,)) for it in counts
    )
    return Compiled(names["read"], names["write"], names["holds"], heads, length_max)


# The fast ways of a class of records, made when they are first asked for.
compiled: Callable[[type], Compiled] = functools.cache(_compile)


def _reader(fields: Mapping[str, _Field], later: set[str]) -> list[str]:
    keys, must = tuple(sorted(fields)), tuple(sorted(fields.keys() - later))
    lines = ["def read(fields):", "    if type(fields) is not dict: raise NotPlain"]
    if later:
        # In order, none unknown, and none missing that was there from the beginning.
        lines.append(f"    found = tuple([key for key in {keys!r} if key in fields])")
        lines.append("    if tuple(fields) != found: raise NotPlain")
        lines.append(
            f"    if len(later & fields.keys()) + {len(must)} != len(found): raise NotPlain"
        )
        lines += [f"    f_{name} = fields[{name!r}]" for name in must]
        lines += [f"    f_{name} = fields.get({name!r}, absent)" for name in sorted(later)]
    else:
        lines.append(f"    if tuple(fields) != {keys!r}: raise NotPlain")
        lines.append(f"    {''.join(f'f_{name}, ' for name in keys)} = fields.values()")
    tests = [fields[name].test(f"f_{name}") for name in must]
    tests += [f"(f_{it} is absent or {fields[it].test(f'f_{it}') or True})" for it in sorted(later)]
    lines += [f"    if not ({_every(tests)}): raise NotPlain", "    record = new(kind)"]
    for name in fields:
        value = fields[name].read(f"f_{name}")
        if name in later:
            value = f"default_{name} if f_{name} is absent else {value}"
        lines.append(f"    set_{name}(record, {value})")
    for name in sorted(later):
        lines.append(f"    if f_{name} is not absent and record.{name} == default_{name}:")
        lines.append("        raise NotPlain")
    return [*lines, "    record.check()", "    return record"]


def _writer(fields: Mapping[str, _Field], later: set[str]) -> list[str]:
    lines = ["def write(record):", "    fields = {}"]
    for name in sorted(fields):
        line = f"fields[{name!r}] = {fields[name].write(f'record.{name}')}"
        if name in later:
            line = f"if record.{name} != default_{name}: {line}"
        lines.append(f"    {line}")
    return [*lines, "    return fields"]


def _holder(fields: Mapping[str, _Field]) -> list[str]:
    lines = ["def holds(record):"]
    lines += [f"    f_{name} = record.{name}" for name in fields]
    return [*lines, f"    return {_every(fields[it].holds(f'f_{it}') for it in fields)}"]


def _every(tests: Iterable[str]) -> str:
    return " and ".join(test for test in tests if test) or "True"


def _field(hint: Any, bound: Between, names: dict[str, Any]) -> _Field:
    origin = get_origin(hint)
    if origin is Annotated:
        base, *extras = get_args(hint)
        return _field(base, next((e for e in extras if isinstance(e, Between)), bound), names)
    if hint == Parameters:
        return _Field(
            test=lambda value: f"in_order({value}) and parameters_hold({value})",
            holds=lambda value: f"parameters_hold({value})",
            read=lambda value: f"read_only({value})",
            write=lambda value: f"sorted_parameters({value})",
        )
    if origin in (Union, types.UnionType):
        (inner,) = (option for option in get_args(hint) if option is not types.NoneType)
        return _optional(_field(inner, bound, names))
    if origin is tuple:
        return _tuple(_field(get_args(hint)[0], _UNBOUNDED, names), bound)
    if hint in (bool, int, float, str, bytes):
        return _scalar(hint, bound)
    return _instance(hint, names)


def _scalar(kind: type, bound: Between) -> _Field:
    size: _Expression = _as_it_is
    if kind is str:
        bound = Between(max(bound.low, 0), bound.high)
        size = "(len({0}) if {0}.isascii() else text_bytes({0}))".format
    elif kind is bytes:
        size = "len({})".format

    def test(value: str) -> str:
        tests = [f"type({value}) is {kind.__name__}"]
        if kind is not bool:
            tests.append(_within(bound, size(value)))
        if kind is float and bound == _UNBOUNDED:
            # Neither infinite nor no number at all.
            tests.append(f"{value} - {value} == 0.0")
        return _every(tests)

    write: _Expression = _as_it_is
    if kind is float:
        write = ("finite({})" if math.inf in (bound.high, -bound.low) else "float({})").format
    return _Field(test, test, write=write)


def _within(bound: Between, size: str) -> str:
    low = "" if bound.low == -math.inf else f"{bound.low!r} <= "
    high = "" if bound.high == math.inf else f" <= {bound.high!r}"
    return f"{low}{size}{high}" if low or high else ""


def _optional(inner: _Field) -> _Field:
    def test_of(test: _Expression) -> _Expression:
        return lambda value: f"({value} is None or {test(value)})" if test(value) else ""

    def value_of(turn: _Expression) -> _Expression:
        if turn is _as_it_is:
            return turn
        return lambda value: f"(None if {value} is None else {turn(value)})"

    return _Field(
        test_of(inner.test),
        test_of(inner.holds),
        value_of(inner.read),
        value_of(inner.write),
        inner.length_max,
    )


def _tuple(inner: _Field, bound: Between) -> _Field:
    def test_of(kind: str, test: _Expression) -> _Expression:
        each = test("item")

        def whole(value: str) -> str:
            tests = [f"type({value}) is {kind}", _within(bound, f"len({value})")]
            return _every([*tests, f"all([{each} for item in {value}])" if each else ""])

        return whole

    def value_of(turn: _Expression, otherwise: _Expression) -> _Expression:
        if turn is _as_it_is:
            return otherwise
        return lambda value: f"tuple([{turn('item')} for item in {value}])"

    return _Field(
        test_of("list", inner.test),
        test_of("tuple", inner.holds),
        value_of(inner.read, "tuple({})".format),
        value_of(inner.write, _as_it_is),
        int(max(inner.length_max, min(bound.high, limits.ITEMS_MAX))),
    )


def _instance(kind: Any, names: dict[str, Any]) -> _Field:
    name = kind.__name__
    names[name] = kind

    def holds(value: str) -> str:
        return f"type({value}) is {name}"

    if issubclass(kind, IntEnum):
        names[f"members_{name}"] = {int(member): member for member in kind}
        return _Field(
            # The type comes first: True is found under 1.
            lambda value: f"type({value}) is int and {value} in members_{name}",
            holds,
            lambda value: f"members_{name}[{value}]",
        )
    if issubclass(kind, (ContentId, PeerId)):
        return _Field("type({}) is bytes".format, holds, f"{name}({{}})".format)
    inner = compiled(kind)
    names[f"read_{name}"], names[f"write_{name}"] = inner.read, inner.write
    return _Field(
        _always,
        holds,
        lambda value: f"read_{name}({value})",
        lambda value: f"write_{name}({value})",
        inner.length_max,
    )


def _text_bytes(text: str) -> int:
    """The bytes of a text; -1, which is in no bound, if it has none."""
    if text.isascii():
        return len(text)
    try:
        return len(text.encode())
    except UnicodeEncodeError:
        return -1


def _finite(number: float) -> float:
    if not math.isfinite(number):
        raise NotPlain
    return float(number)


def _in_order(parameters: object) -> bool:
    if type(parameters) is not dict:
        return False
    return len(parameters) < 2 or list(parameters) == sorted(parameters)


def _parameters_hold(parameters: Mapping[str, Scalar]) -> bool:
    """Whether these are plainly legal parameters, in any order."""
    if type(parameters) not in _MAPS or len(parameters) > limits.PARAMETERS_MAX:
        return False
    return all(_parameter_holds(*item) for item in parameters.items())


def _parameter_holds(name: object, value: Any) -> bool:
    if type(name) is not str or not 0 <= _text_bytes(name) <= limits.PARAMETER_BYTES_MAX:
        return False
    kind = type(value)
    if kind is str:
        return 0 <= _text_bytes(value) <= limits.PARAMETER_BYTES_MAX
    if kind is bytes:
        return len(value) <= limits.PARAMETER_BYTES_MAX
    if kind is float:
        return math.isfinite(value)
    return kind is bool or (kind is int and -(2**63) <= value < 2**64)


_MAPS = (dict, types.MappingProxyType)


def _sorted_parameters(parameters: Mapping[str, Scalar]) -> dict[str, Scalar]:
    # They may be a mapping of the caller, who could have changed it since the record was made.
    if not _parameters_hold(parameters):
        raise NotPlain
    return {name: parameters[name] for name in sorted(parameters)}
