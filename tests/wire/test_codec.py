"""One value has one encoding: what `pack` writes is all that `unpack` reads."""

import math
import struct
import tracemalloc
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from wire import limits
from wire.codec import pack, unpack
from wire.errors import Malformed, Oversize, WireError

# Written by hand from the msgpack specification, one for every head that may be used.
ENCODINGS: dict[str, Any] = {
    "c0": None,
    "c2": False,
    "c3": True,
    "00": 0,
    "7f": 127,
    "cc80": 128,
    "ccff": 255,
    "cd0100": 256,
    "cdffff": 65_535,
    "ce00010000": 65_536,
    "ceffffffff": 2**32 - 1,
    "cf0000000100000000": 2**32,
    "cfffffffffffffffff": 2**64 - 1,
    "ff": -1,
    "e0": -32,
    "d0df": -33,
    "d080": -128,
    "d1ff7f": -129,
    "d18000": -(2**15),
    "d2ffff7fff": -(2**15) - 1,
    "d280000000": -(2**31),
    "d3ffffffff7fffffff": -(2**31) - 1,
    "d38000000000000000": -(2**63),
    "cb3ff8000000000000": 1.5,
    "cb0000000000000000": 0.0,
    "a0": "",
    "a3e282ac": "€",
    "bf" + "61" * 31: "a" * 31,
    "d920" + "61" * 32: "a" * 32,
    "da0100" + "61" * 256: "a" * 256,
    "db00010000" + "61" * 65_536: "a" * 65_536,
    "c400": b"",
    "c4ff" + "00" * 255: bytes(255),
    "c50100" + "00" * 256: bytes(256),
    "c600010000" + "00" * 65_536: bytes(65_536),
    "90": [],
    "9201c0": [1, None],
    "dc0010" + "00" * 16: [0] * 16,
    "80": {},
    "82a16101a16202": {"a": 1, "b": 2},
    "82a2616101a16202": {"aa": 1, "b": 2},
    "de0010" + "".join(f"a1{97 + at:02x}00" for at in range(16)): dict.fromkeys(
        "abcdefghijklmnop", 0
    ),
}

REFUSED = {
    "nothing at all": "",
    "a small number in one byte more": "cc7f",
    "a number in 16 bits that fits 8": "cd00ff",
    "a number in 32 bits that fits 16": "ce0000ffff",
    "a number in 64 bits that fits 32": "cf00000000ffffffff",
    "a positive number with a signed head": "d07f",
    "a positive number with a signed 64-bit head": "d30000000000000001",
    "a negative number in one byte more": "d0ff",
    "a negative number in 16 bits that fits 8": "d1ff80",
    "a negative number in 64 bits that fits 32": "d3ffffffff80000000",
    "a short text with a long head": "d90161",
    "a text in 16 bits that fits 8": "da000161",
    "a text in 32 bits that fits 16": "db0000000161",
    "bytes in 16 bits that fit 8": "c5000100",
    "bytes in 32 bits that fit 16": "c60000000100",
    "a short list with a long head": "dc000100",
    "a list in 32 bits that fits 16": "dd0000000100",
    "a short map with a long head": "de0001a16100",
    "a map in 32 bits that fits 16": "df00000001a16100",
    "keys out of order": "82a16200a16100",
    "a key twice, the same value": "82a16100a16100",
    "a key twice, two values": "82a16100a16101",
    "a number for a key": "810000",
    "bytes for a key": "81c4016100",
    "nil for a key": "81c000",
    "a list for a key": "819000",
    "a float of 32 bits": "ca3fc00000",
    "not a number": "cb7ff8000000000000",
    "infinity": "cb7ff0000000000000",
    "minus infinity": "cbfff0000000000000",
    "the tag that is never used": "c1",
    "a fixed extension of 1 byte": "d40100",
    "a fixed extension of 16 bytes": "d801" + "00" * 16,
    "an extension": "c7010100",
    "an extension of 16 bits": "c800010100",
    "an extension of 32 bits": "c9000000010100",
    "a timestamp": "d6ff00000000",
    "text that is not UTF-8": "a1ff",
    "text that ends within a character": "a2e282",
    "text in an overlong form": "a2c080",
    "text that is half a surrogate pair": "a3eda080",
    "a key that is not UTF-8": "81a1ff00",
    "a byte too many": "0000",
    "a nil too many": "9201c0c0",
}


@pytest.mark.parametrize("encoding", ENCODINGS, ids=lambda encoding: encoding[:18])
def test_a_value_has_exactly_this_encoding(encoding: str) -> None:
    value = ENCODINGS[encoding]
    assert pack(value) == bytes.fromhex(encoding)
    back = unpack(bytes.fromhex(encoding))
    assert (type(back), back) == (type(value), value)


@pytest.mark.parametrize("case", REFUSED)
def test_another_encoding_is_refused(case: str) -> None:
    with pytest.raises(Malformed):
        unpack(bytes.fromhex(REFUSED[case]))


@pytest.mark.parametrize("case", REFUSED)
def test_another_encoding_is_refused_inside_a_value_too(case: str) -> None:
    with pytest.raises(Malformed):
        unpack(b"\x91" + bytes.fromhex(REFUSED[case]))


VALUE: dict[str, Any] = {
    "a": [1, -40, 1.5, None, True],
    "b": {"text": "€" * 20, "blob": bytes(300)},
    "c": 2**40,
}


def test_a_value_cut_anywhere_is_refused() -> None:
    data = pack(VALUE)
    for end in range(len(data)):
        with pytest.raises(Malformed):
            unpack(data[:end])


def test_any_byte_after_the_value_is_refused() -> None:
    for tail in range(256):
        with pytest.raises(WireError):
            unpack(pack(VALUE) + bytes((tail,)))


@pytest.mark.parametrize("head", ["c6", "db", "dd", "df"])
@pytest.mark.parametrize("length", ["ffffffff", "7fffffff", "00100000"])
def test_a_huge_declared_length_takes_no_memory(head: str, length: str) -> None:
    data = bytes.fromhex(head + length) + bytes(8)
    tracemalloc.start()
    try:
        with pytest.raises(WireError):
            unpack(data)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak_bytes < 64 << 10


def test_many_nested_huge_lengths_take_no_memory() -> None:
    data = bytes.fromhex("ddffffffff") * 1000
    tracemalloc.start()
    try:
        with pytest.raises(WireError):
            unpack(data)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak_bytes < 64 << 10


def nested(depth: int) -> bytes:
    return b"\x91" * depth + b"\xc0"


def test_depth_is_bounded_and_the_bound_itself_is_legal() -> None:
    unpack(nested(limits.DEPTH_MAX))
    with pytest.raises(Oversize):
        unpack(nested(limits.DEPTH_MAX + 1))
    with pytest.raises(Oversize):
        unpack(nested(100_000))


def test_maps_are_as_deep_as_lists() -> None:
    unpack(b"\x81\xa1a" * limits.DEPTH_MAX + b"\xc0")
    with pytest.raises(Oversize):
        unpack(b"\x81\xa1a" * (limits.DEPTH_MAX + 1) + b"\xc0")


def test_siblings_do_not_count_as_depth() -> None:
    assert unpack(pack([[[]]] * 100)) == [[[]]] * 100


def test_items_are_bounded_and_the_bound_itself_is_legal() -> None:
    assert len(unpack(pack([None] * (limits.ITEMS_MAX - 1)))) == limits.ITEMS_MAX - 1
    with pytest.raises(Oversize):
        unpack(pack([None] * limits.ITEMS_MAX))


def test_items_are_counted_in_the_whole_value_keys_included() -> None:
    row = dict.fromkeys("abcdefg", 0)
    rows = (limits.ITEMS_MAX - 1) // 15
    assert unpack(pack([row] * rows)) == [row] * rows
    with pytest.raises(Oversize):
        unpack(pack([row] * (rows + 1)))


def test_size_is_bounded_before_anything_is_read() -> None:
    data = pack(bytes(98))
    assert unpack(data, size_bytes_max=100) == bytes(98)
    with pytest.raises(Oversize):
        unpack(data, size_bytes_max=99)
    with pytest.raises(Oversize):
        unpack(b"\xc1" * (limits.FRAME_BYTES_MAX + 1))


@pytest.mark.parametrize(
    "value",
    [
        math.nan,
        math.inf,
        -math.inf,
        2**64,
        -(2**63) - 1,
        "\ud800",
        {"\udfff": 1},
        {1: 2},
        {b"a": 1},
        {None: 1},
        {1, 2},
        object(),
        bytearray(b"a"),
        1j,
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_has_no_encoding_is_not_packed(value: Any) -> None:
    for wrapped in (value, [value], {"a": value}):
        with pytest.raises(Malformed):
            pack(wrapped)


def test_the_order_in_which_a_map_was_filled_does_not_matter() -> None:
    assert pack({"b": 1, "a": {"d": 1, "c": 2}}) == pack({"a": {"c": 2, "d": 1}, "b": 1})


def test_keys_are_in_the_order_of_their_bytes() -> None:
    keys = ["\U0001f600", "\uffff", "é", "z", "a", "Z", ""]
    assert list(unpack(pack(dict.fromkeys(keys, 0)))) == sorted(keys, key=str.encode)


def test_a_float_comes_back_bit_for_bit() -> None:
    for value in (0.0, -0.0, 5e-324, 1.7976931348623157e308, 0.1):
        assert struct.pack(">d", unpack(pack(value))) == struct.pack(">d", value)


def test_kinds_of_number_are_never_confused() -> None:
    assert len({pack(1), pack(1.0), pack(True), pack("1"), pack(b"1")}) == 5
    assert [type(unpack(pack(value))) for value in (1, 1.0, True)] == [int, float, bool]


scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=40)
    | st.binary(max_size=300)
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=20) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=30,
)


@given(values)
def test_what_is_packed_comes_back_the_same(value: Any) -> None:
    data = pack(value)
    back = unpack(data)
    assert back == value
    assert pack(back) == data


@given(st.binary(max_size=200))
@example(b"\xdf\xff\xff\xff\xff")
@settings(max_examples=1000)
def test_any_bytes_are_a_value_in_its_one_encoding_or_refused(data: bytes) -> None:
    try:
        value = unpack(data)
    except WireError:
        return
    assert pack(value) == data


@given(values, st.data())
def test_an_altered_encoding_is_another_value_or_refused(value: Any, data: st.DataObject) -> None:
    packed = bytearray(pack(value))
    at = data.draw(st.integers(0, len(packed) - 1))
    packed[at] ^= data.draw(st.integers(1, 255))
    try:
        other = unpack(bytes(packed))
    except WireError:
        return
    assert pack(other) == packed
