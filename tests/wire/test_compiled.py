"""The fast ways take only what the slow way takes, with the same value, and take what is usual."""

import dataclasses
import math
import sys
import threading
import tracemalloc
import types
from enum import IntEnum
from typing import Annotated, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.wire.samples import BLOCK, BY_NAME, KEY, MESSAGES, SAMPLES, SIGNED, altered, name_of
from tests.wire.test_fuzz import flips, mangled, values
from wire import codec, limits
from wire.codec import NotPlain, pack, pack_plain, unpack, unpack_plain
from wire.compiled import compiled
from wire.content import ContentId
from wire.errors import Malformed, WireError
from wire.kinds import Role
from wire.message import Message, decode, decode_slowly, encode
from wire.schema import Between, Omitted, Parameters, Record
from wire.signed import SignedRecord, open_signed, sign
from wire.task import Stage

every_record = pytest.mark.parametrize("record", SAMPLES, ids=name_of)
every_message = pytest.mark.parametrize("message", MESSAGES, ids=name_of)


def taken(kind: type[Record], data: bytes) -> Record | None:
    """What the fast way alone makes of the bytes; None if it leaves them to the slow way."""
    fast = compiled(kind)
    try:
        fields = unpack_plain(data, fast.length_max, limits.ITEMS_MAX)
        record: Record = fast.read(fields)
        return record if pack_plain(fields) == data else None
    except (NotPlain, WireError):
        return None


def shape(value: Any) -> Any:
    """The value with the type of each part of it: True is not 1 here, nor a list a tuple."""
    if isinstance(value, Record):
        names = [field.name for field in dataclasses.fields(value)]  # type: ignore[arg-type]
        return type(value), [(name, shape(getattr(value, name))) for name in names]
    if isinstance(value, (tuple, list)):
        return type(value), [shape(item) for item in value]
    if isinstance(value, types.MappingProxyType | dict):
        return type(value), [(key, shape(item)) for key, item in value.items()]
    return type(value), repr(value)


def judged_alike(kind: type[Record], data: bytes) -> None:
    """What the fast way takes, the slow way takes with the same value."""
    found = taken(kind, data)
    if found is not None:
        assert shape(kind.read_slowly(data)) == shape(found)


@every_record
def test_the_fast_way_takes_what_is_usual(record: Record) -> None:
    data = record.to_bytes()
    assert shape(taken(type(record), data)) == shape(type(record).read_slowly(data))
    # An enum's member where a number is due is legal, but not plain: see `Refuse.code`.
    assert compiled(type(record)).holds(type(record).from_bytes(data))
    assert pack_plain(compiled(type(record)).write(record)) == data == pack(record.to_fields())


@pytest.mark.parametrize("name", ["Generation", "Vectors"])
def test_it_takes_a_record_without_its_later_fields_too(name: str) -> None:
    kind = type(BY_NAME[name])
    hints = kind.__annotations__
    later = {
        field: extra.value
        for field, hint in hints.items()
        for extra in getattr(hint, "__metadata__", ())
        if isinstance(extra, Omitted)
    }
    assert later
    plain = altered(name, **later)
    assert later.keys().isdisjoint(plain.to_fields())
    assert shape(taken(kind, plain.to_bytes())) == shape(plain)
    for field, value in later.items():
        fields = BY_NAME[name].to_fields()
        fields[field] = list(value) if isinstance(value, tuple) else value
        assert taken(kind, pack(fields)) is None


@every_record
def test_with_a_bit_flipped_it_takes_nothing_that_the_slow_way_refuses(record: Record) -> None:
    for data in flips(record.to_bytes())[::3]:
        judged_alike(type(record), data)


@given(st.data())
@settings(max_examples=60)
def test_whatever_the_fields_hold_both_ways_judge_alike(data: Any) -> None:
    record = data.draw(st.sampled_from(SAMPLES))
    judged_alike(type(record), data.draw(mangled(record.to_bytes())))
    fields = unpack(record.to_bytes())
    if not fields:
        return
    for name in data.draw(st.lists(st.sampled_from(sorted(fields)), min_size=1, max_size=2)):
        fields[name] = data.draw(values)
    judged_alike(type(record), pack(fields))
    # And with the keys in another order, which is another encoding.
    keys = data.draw(st.permutations(sorted(fields)))
    judged_alike(type(record), pack_plain({key: fields[key] for key in keys}))


@every_message
def test_a_message_is_read_and_written_alike(message: Message) -> None:
    data = encode(message)
    assert data == pack([int(message.KIND), message.to_fields()])
    assert shape(decode(data)) == shape(decode_slowly(data))
    assert decode(data) == message
    with pytest.raises(WireError):
        decode(pack([True, message.to_fields()]))


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Odd(Record):
    """Every kind of field that a record may have, some of which no record has together."""

    flag: bool
    number: Annotated[int, Between(-5, 5)]
    share: Annotated[float, Between(0, 1)]
    any_share: float
    name: Annotated[str, Between(1, 4)]
    any_name: str
    blob: Annotated[bytes, Between(0, 3)]
    role: Role | None
    content: ContentId | None
    names: Annotated[tuple[Annotated[str, Between(1, 4)], ...], Between(1, 2)] | None
    rows: tuple[Annotated[tuple[int, ...], Between(0, 2)], ...]
    stages: tuple[Stage, ...]
    parameters: Parameters


ODD: dict[str, Any] = {
    "flag": True,
    "number": -5,
    "share": 1.0,
    "any_share": -0.0,
    "name": "abcd",
    "any_name": "",
    "blob": b"abc",
    "role": Role.STORE,
    "content": BLOCK,
    "names": ("a", "€"),
    "rows": ((), (1, 2)),
    "stages": (BY_NAME["Stage"],),
    "parameters": {"a": 1, "b": "x", "c": b"y", "d": 0.5, "e": False},
}
# Field -> values of which the constructor takes some and refuses some.
VALUES: dict[str, list[Any]] = {
    "flag": [False, 1, 0, None],
    "number": [5, 6, -6, True, 1.0, None],
    "share": [0.0, 1, True, -1e-300, 1.0000001, math.nan, math.inf],
    "any_share": [1e308, 7, math.nan, math.inf, -math.inf],
    "name": ["", "abcde", "€", "€€", "\ud800", b"a"],
    "any_name": ["x" * 1000, "\ud800", b"", None],
    "blob": [b"", b"abcd", bytearray(b"a"), "a", None],
    "role": [None, 3, True, 9],
    "content": [None, bytes(BLOCK), KEY.peer],
    "names": [None, (), ("a",), ("a", "b", "c"), ["a"], ("",), (1,), "ab"],
    "rows": [(), ((1, 2, 3),), ([1],), ((True,),), [()]],
    "stages": [(), (BY_NAME["CheckPolicy"],), [BY_NAME["Stage"]]],
    "parameters": [
        {},
        types.MappingProxyType({"b": 1, "a": 2}),
        {"a": None},
        {1: 1},
        [],
        {"a": 2**64},
    ],
}


class Sized(IntEnum):
    FOUR = 4


class Text(str):
    __slots__ = ()


@pytest.mark.parametrize("name", VALUES)
def test_a_field_of_any_kind_is_judged_alike_where_a_record_is_born(name: str) -> None:
    assert ODD.keys() == VALUES.keys()
    for value in [*VALUES[name], Sized.FOUR, Text("ab")]:
        fields = {**ODD, name: value}
        try:
            record = Odd(**fields)
        except WireError:
            # The slow way refused it, so the fast one must not have taken it.
            assert not compiled(Odd).holds(types.SimpleNamespace(**fields))
            continue
        record.check_bounds()
        try:
            slow = pack(record.to_fields())
        except WireError:
            with pytest.raises(WireError):
                record.to_bytes()
            continue
        assert record.to_bytes() == slow
        assert shape(Odd.from_bytes(slow)) == shape(Odd.read_slowly(slow))
        judged_alike(Odd, slow)


ODD_PLAIN = Odd(**ODD).to_bytes()


@given(st.data())
@settings(max_examples=60)
def test_a_record_of_all_kinds_of_fields_is_judged_alike(data: Any) -> None:
    assert taken(Odd, ODD_PLAIN) is not None
    judged_alike(Odd, data.draw(mangled(ODD_PLAIN)))
    fields = unpack(ODD_PLAIN)
    for name in data.draw(st.lists(st.sampled_from(sorted(fields)), min_size=1, max_size=2)):
        fields[name] = data.draw(values)
    judged_alike(Odd, pack(fields))


def test_parameters_that_changed_since_are_not_written_as_they_are() -> None:
    parameters: dict[str, Any] = {"b": 1, "a": 2}
    stage = Stage(role=Role.DATA, operation="fetch", model=None, parameters=parameters)
    assert stage.to_bytes() == pack(stage.to_fields())
    for value in (math.nan, {1, 2}, "\ud800"):
        parameters["a"] = value
        with pytest.raises(Malformed):
            stage.to_bytes()
    # What could not be packed leaves nothing behind for the next record.
    parameters["a"] = 2
    assert Stage.from_bytes(stage.to_bytes()) == stage


@pytest.mark.parametrize("record", SIGNED, ids=name_of)
def test_an_envelope_in_another_encoding_is_refused(record: SignedRecord) -> None:
    raw = sign(record, KEY).raw
    parts = unpack(raw)
    assert open_signed(raw, type(record)).raw == raw
    # The head of a list in 16 bits, and a body with a longer head than it needs.
    for odd in (b"\xdc\x00\x04" + raw[1:], raw[:2] + b"\xc6" + len(parts[1]).to_bytes(4, "big")):
        with pytest.raises(Malformed):
            open_signed(odd + raw[len(odd) :], type(record))


@pytest.mark.parametrize("head", ["dc01ff", "dc0800", "dc1000", "ddffffffff", "93", "9f", "8fa161"])
def test_nested_lists_take_no_memory_before_they_are_refused(head: str) -> None:
    data = bytes.fromhex(head) * (codec._UNSEEN_BYTES_MAX // (len(head) // 2))
    for kind in (type(BY_NAME[name]) for name in ("Task", "Index", "Generation", "Answer")):
        tracemalloc.start()
        try:
            with pytest.raises((NotPlain, WireError)):
                compiled(kind).read(unpack_plain(data, compiled(kind).length_max, limits.ITEMS_MAX))
            with pytest.raises(WireError):
                kind.from_bytes(data[: kind.SIZE_BYTES_MAX])
            _, peak_bytes = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert peak_bytes < 8 << 20


def test_threads_that_write_at_once_do_not_mix_their_bytes() -> None:
    expected = [(record, pack(record.to_fields())) for record in SAMPLES]
    wrong: list[str] = []

    def write() -> None:
        for record, data in expected * 40:
            if record.to_bytes() != data:
                wrong.append(name_of(record))

    before_s = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=write) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(before_s)
    assert not wrong
