"""Segments of a stream fit each other and the receipt that names them, or the chain is none."""

import hashlib
from typing import Any

import pytest

from tests.wire.samples import MODEL, OTHER_KEY, altered
from tests.wire.test_chain import FIRST, signed_task
from wire import limits
from wire.chain import check_chain, doers_of, segments_of
from wire.content import ContentId
from wire.errors import WireError
from wire.kinds import Role
from wire.receipt import Receipt
from wire.segment import Segment, is_of, open_segments, standing
from wire.signed import Signed, sign
from wire.signing import SigningKey
from wire.task import Stage

OUTPUT = bytes(range(200))
GENERATE = Stage(role=Role.INFER, operation="generate", model=MODEL, parameters={"tokens": 20})
TASK = signed_task(stages=(GENERATE,), input=ContentId.of(b"asked"))
EMBED = Stage(role=Role.INFER, operation="embed", model=MODEL, parameters={})
SIGNERS = tuple(SigningKey(bytes([it]) * 32) for it in range(1, 10))


def segment(
    key: SigningKey,
    first: int,
    end: int,
    before: Signed[Segment] | None = None,
    /,
    **changes: Any,
) -> Signed[Segment]:
    """What a peer signs of `OUTPUT`, in which a unit is ten bytes."""
    fields: dict[str, Any] = {
        "task": TASK.id,
        "stage": 0,
        "first": first,
        "units": end - first,
        "size_bytes": end * 10,
        "shown": hashlib.sha256(OUTPUT[: end * 10]).digest(),
        "built_on": None if before is None else before.id,
        "profile": "hash-1 exact",
        "signed_at_ms": 1,
    }
    return sign(Segment(**(fields | changes)), key)


A = segment(SIGNERS[0], 0, 5)
B = segment(SIGNERS[1], 5, 9, A)
C = segment(SIGNERS[2], 9, 12, B)


def receipt(*segments: Signed[Segment], **changes: Any) -> Signed[Receipt]:
    fields: dict[str, Any] = {
        **FIRST,
        "task": TASK.id,
        "role": Role.INFER,
        "operation": "generate",
        "model": MODEL,
        "input": TASK.record.input,
        "output_size_bytes": len(OUTPUT),
        "units": 20,
        "segments": tuple(it.raw for it in segments),
    }
    record = altered("Receipt", **(fields | changes))
    assert isinstance(record, Receipt)
    return sign(record, OTHER_KEY)


def test_a_receipt_names_who_made_what_before_its_signer() -> None:
    found = receipt(A, B, C)
    check_chain(TASK, [found])
    assert segments_of(found) == [A, B, C]
    assert doers_of(found) == (A.signer, B.signer, C.signer, OTHER_KEY.peer)
    assert standing([A, B, C], OUTPUT) == (A, B, C)
    assert standing([A, B, C], OUTPUT[:90] + bytes(90)) == (A, B)
    assert standing([A, B, C], b"") == ()
    # A stream may be cut short by who signs for all of it, but not within what others signed.
    check_chain(TASK, [receipt(A, B, C, units=12, output_size_bytes=120)])


@pytest.mark.parametrize(
    ("segments", "why"),
    [
        ([B], "names another segment"),
        ([A, C], "names another segment"),
        ([B, A], "names another segment"),
        ([A, A], "names another segment"),
        ([A, segment(SIGNERS[1], 6, 9, A)], "begins at 6, where 5 is due"),
        ([A, segment(SIGNERS[1], 4, 9, A)], "begins at 4, where 5 is due"),
        ([segment(SIGNERS[1], 1, 9)], "begins at 1, where 0 is due"),
        ([segment(SIGNERS[0], 0, 5, task=ContentId.of(b"another"))], "of another task"),
        ([segment(SIGNERS[0], 0, 5, stage=1)], "of another leg"),
        ([A, segment(SIGNERS[1], 5, 9, A, size_bytes=50)], "units of no bytes"),
        ([A, segment(SIGNERS[1], 5, 21, A)], "more than its output"),
        ([A, segment(SIGNERS[1], 5, 9, A, size_bytes=201)], "more than its output"),
    ],
    ids=[
        *("the first left out", "one left out", "in another order", "doubled", "a gap"),
        *("an overlap", "not from the start", "of another task", "of another leg", "no bytes"),
        *("too many units", "too many bytes"),
    ],
)
def test_segments_that_do_not_fit_are_no_chain(segments: list[Signed[Segment]], why: str) -> None:
    with pytest.raises(WireError, match=why):
        check_chain(TASK, [receipt(*segments)])


def test_only_a_stream_has_segments() -> None:
    task = signed_task(stages=(EMBED,), input=TASK.record.input)
    with pytest.raises(WireError, match="is no stream"):
        check_chain(task, [receipt(A, task=task.id, operation="embed")])


def many(count: int) -> list[bytes]:
    found: list[Signed[Segment]] = []
    for number in range(count):
        before = found[-1] if found else None
        found.append(segment(SIGNERS[number], number, number + 1, before))
    return [it.raw for it in found]


def test_one_answer_has_as_many_segments_as_a_task_has_attempts() -> None:
    most = limits.SEGMENTS_BEFORE_MAX
    assert len(open_segments(TASK.id, 0, many(most))) == most
    with pytest.raises(WireError, match="are the most"):
        open_segments(TASK.id, 0, many(most + 1))


def test_a_segment_that_is_altered_in_any_byte_is_not_read() -> None:
    """Nobody makes up what another has signed, nor changes it."""
    for at in range(len(A.raw)):
        raw = bytearray(A.raw)
        raw[at] ^= 1
        with pytest.raises(WireError):
            open_segments(TASK.id, 0, [bytes(raw)])


def test_a_segment_is_of_outputs_that_begin_with_it() -> None:
    assert is_of(A.record, OUTPUT)
    assert is_of(A.record, OUTPUT[:50])
    assert not is_of(A.record, OUTPUT[:49])
    assert not is_of(A.record, bytes(200))
