"""Any bytes at all give a record or a WireError, and nothing else.

Random bytes seldom get past the codec, so the same is asked of golden records with a byte flipped,
with a piece cut, doubled or moved, with a field of any value, and of such bodies truly signed.
"""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.repeats import repeats
from tests.wire.samples import BY_NAME, KEY, MESSAGES, MODEL, SAMPLES, SIGNED, TREE, name_of
from wire.codec import pack, unpack
from wire.errors import WireError
from wire.message import Message, decode, encode
from wire.schema import Record
from wire.signed import SignedRecord, open_signed, sign
from wire.tree import TreeNode

every_record = pytest.mark.parametrize("record", SAMPLES, ids=name_of)
every_message = pytest.mark.parametrize("message", MESSAGES, ids=name_of)
every_signed_record = pytest.mark.parametrize("record", SIGNED, ids=name_of)

NODES = (TreeNode(600_000, (MODEL, MODEL, MODEL)), TreeNode((1 << 30) + 5, (TREE, TREE)))


def read_whole(data: bytes, read: Callable[[bytes], Any], write: Callable[[Any], bytes]) -> None:
    """Either the bytes are refused, or what is read from them has exactly these bytes."""
    try:
        found = read(data)
    except WireError:
        return
    assert write(found) == data


def flips(data: bytes) -> list[bytes]:
    """`data` with bits of each byte flipped, and each of its first bytes set to others.

    Three bits of a byte are enough: one that makes a number odd, one in the middle of a msgpack
    tag, and the one that turns a small number into a tag. Of the others every seventh is set, and
    with --soak all.
    """
    step = repeats(7, soak=1)
    found = [
        data[:at] + bytes((data[at] ^ 1 << bit,)) + data[at + 1 :]
        for at in range(len(data))
        for bit in (0, 4, 7)
    ]
    found += [
        data[:at] + bytes((value,)) + data[at + 1 :]
        for at in range(min(8, len(data)))
        for value in range(at % step, 256, step)
        if value != data[at]
    ]
    return found


@st.composite
def mangled(draw: st.DrawFn, data: bytes) -> bytes:
    """`data` after a few cuts, doublings, moves and strange bytes."""
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(data)))
        end = draw(st.integers(start, min(len(data), start + 40)))
        piece = draw(st.sampled_from([b"", data[start:end] * 2]) | st.binary(max_size=6))
        data = data[:start] + piece + data[end:]
    return data


scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=12)
    | st.binary(max_size=40)
    | st.sampled_from([bytes(32), bytes(KEY.peer), bytes(MODEL), bytes(TREE), 0, 1, 2**62, 1.0])
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner),
    max_leaves=8,
)


@every_record
@given(st.binary(max_size=200))
@settings(max_examples=repeats(12, soak=30))
def test_any_bytes_are_a_record_or_refused(record: Record, data: bytes) -> None:
    read_whole(data, type(record).from_bytes, Record.to_bytes)


@given(st.binary(max_size=200))
@settings(max_examples=300)
def test_any_bytes_are_a_message_a_node_or_refused(data: bytes) -> None:
    read_whole(data, decode, encode)
    read_whole(data, TreeNode.from_bytes, TreeNode.to_bytes)


@every_signed_record
@given(st.binary(max_size=300))
@settings(max_examples=repeats(12, soak=30))
def test_any_bytes_are_no_signed_record(record: SignedRecord, data: bytes) -> None:
    with pytest.raises(WireError):
        open_signed(data, type(record))


@every_record
def test_a_record_with_a_bit_flipped_is_refused_or_another_value(record: Record) -> None:
    for data in flips(record.to_bytes()):
        read_whole(data, type(record).from_bytes, Record.to_bytes)


@every_message
def test_a_message_with_a_bit_flipped_is_refused_or_another_message(message: Message) -> None:
    for data in flips(encode(message)):
        read_whole(data, decode, encode)


@every_signed_record
def test_an_envelope_with_a_bit_flipped_is_refused(record: SignedRecord) -> None:
    for data in flips(sign(record, KEY).raw):
        with pytest.raises(WireError):
            open_signed(data, type(record))


@pytest.mark.parametrize("node", NODES, ids=["of blocks", "of nodes"])
def test_a_node_with_a_bit_flipped_is_refused_or_another_node(node: TreeNode) -> None:
    for data in flips(node.to_bytes()):
        read_whole(data, TreeNode.from_bytes, TreeNode.to_bytes)


@every_record
def test_a_record_cut_anywhere_is_refused(record: Record) -> None:
    data = record.to_bytes()
    for end in range(len(data)):
        with pytest.raises(WireError):
            type(record).from_bytes(data[:end])


@every_signed_record
def test_an_envelope_cut_anywhere_is_refused(record: SignedRecord) -> None:
    data = sign(record, KEY).raw
    for end in range(len(data)):
        with pytest.raises(WireError):
            open_signed(data[:end], type(record))


@every_message
def test_a_message_with_anything_after_it_is_refused(message: Message) -> None:
    for tail in (b"\0", b"\xc0", encode(message)):
        with pytest.raises(WireError):
            decode(encode(message) + tail)


@every_record
@given(st.data())
@settings(max_examples=repeats(12, soak=30))
def test_a_mangled_record_is_refused_or_another_value(record: Record, data: st.DataObject) -> None:
    read_whole(data.draw(mangled(record.to_bytes())), type(record).from_bytes, Record.to_bytes)


@every_signed_record
@given(st.data())
@settings(max_examples=repeats(30, soak=100))
def test_a_mangled_body_under_a_true_signature_is_refused_or_another_value(
    record: SignedRecord, data: st.DataObject
) -> None:
    body = data.draw(mangled(record.to_bytes()))
    signature = KEY.sign(record.KIND.name.lower(), body)
    raw = pack([int(record.KIND), body, bytes(KEY.peer), signature])
    read_whole(raw, lambda raw: open_signed(raw, type(record)), lambda found: found.raw)
    read_whole(
        raw,
        lambda raw: open_signed(raw, type(record)).record,
        lambda found: sign(found, KEY).raw,
    )


@every_record
@given(st.data())
@settings(max_examples=repeats(12, soak=30))
def test_a_record_with_fields_of_any_value_is_refused_or_another_value(
    record: Record, data: st.DataObject
) -> None:
    fields = unpack(record.to_bytes())
    for name in data.draw(st.lists(st.sampled_from(sorted(fields)), min_size=1, max_size=2)):
        fields[name] = data.draw(values)
    read_whole(pack(fields), type(record).from_bytes, Record.to_bytes)


@given(st.integers(0, 255) | st.booleans(), values)
@settings(max_examples=300)
def test_any_value_under_any_number_is_a_message_or_refused(number: int, fields: Any) -> None:
    read_whole(pack([number, fields]), decode, encode)


@pytest.mark.parametrize(
    "value",
    [
        None,
        1,
        "a",
        [],
        [12],
        [12, {}, {}],
        {"kind": 12},
        [True, {}],
        [1, {}],
        [255, {}],
        ["12", {}],
    ],
    ids=repr,
)
def test_what_is_not_a_kind_and_its_fields_is_no_message(value: Any) -> None:
    with pytest.raises(WireError):
        decode(pack(value))


def test_only_what_says_when_a_leg_will_be_done_looks_alike_but_for_its_number() -> None:
    alike = set()
    for message in MESSAGES:
        for other in MESSAGES:
            try:
                decode(pack([int(other.KIND), message.to_fields()]))
            except WireError:
                continue
            alike.add((name_of(message), name_of(other)))
    themselves = {(name_of(message), name_of(message)) for message in MESSAGES}
    assert alike - themselves == {("Accept", "Quoted"), ("Quoted", "Accept")}


@given(st.data())
def test_values_inside_values_are_checked_as_well(data: st.DataObject) -> None:
    fields = unpack(BY_NAME["Task"].to_bytes())
    stage = fields["stages"][data.draw(st.integers(0, 1))]
    stage[data.draw(st.sampled_from(sorted(stage)))] = data.draw(values)
    read_whole(pack(fields), type(BY_NAME["Task"]).from_bytes, Record.to_bytes)
