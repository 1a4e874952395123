"""What an audit says part by part: nothing is left out, and the place that breaks is named."""

from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest

from node.checking.audit import audit
from node.checking.report import PROMISED, AuditReport, ReceiptPart, Status
from tests.checking.answers import (
    NOW_MS,
    SIGNED_ONLY,
    WORKER,
    answer_to,
    changed,
    have,
)
from tests.node.asking import EMBED_PASSAGES, MANIFEST, MODEL, complete
from wire.content import ContentId
from wire.kinds import Level, Role
from wire.receipt import Answer, Receipt
from wire.signed import Signed, open_signed, sign
from wire.task import Stage
from wire.tree import name_of

ANSWER = answer_to()


def all_at_hand(content_id: ContentId) -> bytes | None:
    return MANIFEST.to_bytes() if content_id == MODEL else have(content_id)


def nothing(_: ContentId) -> bytes | None:
    return None


def statuses(report: AuditReport) -> dict[ReceiptPart, str]:
    return {part: report.of_part(part).status.value for part in ReceiptPart}


def first(report: AuditReport) -> str:
    assert report.first_bad is not None
    return report.first_bad.what


def places(raw: bytes) -> dict[str, range]:
    """Where each signed record stands in an answer; the whole last."""
    answer = open_signed(raw, Answer).record
    inside = {"the task": answer.task}
    inside |= {f"the receipt of leg {at}": it for at, it in enumerate(answer.receipts, 1)}
    inside |= {f"verdict {at}": it for at, it in enumerate(answer.verdicts, 1)}
    found = {what: raw.index(it) for what, it in inside.items()}
    spans = {what: range(at, at + len(inside[what])) for what, at in found.items()}
    return spans | {"the answer": range(len(raw))}


def test_an_answer_altered_in_any_byte_fails_and_the_place_is_named() -> None:
    raw, spans = ANSWER.raw, places(ANSWER.raw)
    assert audit(raw, all_at_hand).holds
    exact = 0
    for at in range(len(raw)):
        altered = raw[:at] + bytes((raw[at] ^ 1 << at % 8,)) + raw[at + 1 :]
        report = audit(altered, all_at_hand)
        assert not report.holds, at
        assert report.of_part(ReceiptPart.SIGNATURES).status is Status.FAILS, at
        named = next(what for what in spans if first(report).startswith(what))
        # The record that the byte is in, or the one around it where it cannot be read.
        assert at in spans[named], (at, named)
        exact += named == next(what for what, span in spans.items() if at in span)
    # Only bytes that hold the pieces together are told by what is around them.
    assert exact > 0.99 * len(raw)


def test_an_answer_cut_short_anywhere_or_with_a_byte_too_many_fails() -> None:
    for size in range(len(ANSWER.raw)):
        assert not audit(ANSWER.raw[:size], all_at_hand).holds
    assert not audit(ANSWER.raw + b"\0", all_at_hand).holds


def test_every_part_of_a_checked_answer_is_spoken_of() -> None:
    assert statuses(audit(ANSWER.raw, all_at_hand, now_ms=NOW_MS + 10_000)) == {
        "signatures": "holds",
        "request": "holds",
        "model": "holds",
        "input": "holds",
        "output": "holds",
        "sampler": "holds",
        "replay": "cannot be known",
        "selection": "holds",
        "verdicts": "holds",
        "cost": "holds",
        "log": "cannot be known",
    }


def test_every_part_of_an_unchecked_answer_without_content_is_spoken_of() -> None:
    report = audit(answer_to(checking=SIGNED_ONLY).raw, nothing)
    assert statuses(report) == {
        "signatures": "holds",
        "request": "holds",
        "model": "cannot be known",
        "input": "cannot be known",
        "output": "cannot be known",
        "sampler": "holds",
        "replay": "cannot be known",
        "selection": "cannot be known",
        "verdicts": "cannot be known",
        "cost": "holds",
        "log": "cannot be known",
    }
    assert all(
        report.of_part(part).why for part in ReceiptPart if statuses(report)[part] != "holds"
    )
    # It keeps what its level promises, and that is little.
    assert report.holds
    assert report.promised == {ReceiptPart.SIGNATURES, ReceiptPart.REQUEST}


def test_a_file_that_is_no_receipt_speaks_of_every_part_too() -> None:
    report = audit(b"# Baton", nothing)
    assert not report.holds
    assert statuses(report)[ReceiptPart.SIGNATURES] == "fails"
    assert all(report.of_part(part).why for part in ReceiptPart)


def test_words_that_chance_chose_are_known_only_by_a_replay() -> None:
    stage = Stage(
        role=Role.INFER, operation="generate", model=MODEL, parameters={"temperature": 0.8}
    )
    report = audit(answer_to(stage, checking=SIGNED_ONLY).raw, nothing)
    result = report.of_part(ReceiptPart.SAMPLER)
    assert result.status is Status.UNKNOWN
    assert "temperature 0.8, seed 0" in result.why
    assert any("other seeds" in it.what and it.is_limit for it in report.points)
    greedy = audit(answer_to(complete(3), checking=SIGNED_ONLY).raw, nothing)
    assert not any("other seeds" in it.what for it in greedy.points)


def test_what_a_replay_finds_stands_in_its_part() -> None:
    def replay(report: AuditReport) -> None:
        report.note(ReceiptPart.REPLAY, False, "the model gives this output", "token 3 of leg 1")

    report = audit(ANSWER.raw, all_at_hand, replay=replay)
    assert report.of_part(ReceiptPart.REPLAY).why == "the model gives this output: token 3 of leg 1"
    assert not report.holds


def test_each_level_promises_no_less_than_the_one_below() -> None:
    assert PROMISED.keys() == set(Level)
    levels = sorted(PROMISED)
    for lower, higher in pairwise(levels):
        assert PROMISED[lower] <= PROMISED[higher]


@pytest.mark.parametrize(
    ("changes", "part", "words"),
    [
        ({"verdicts": ()}, ReceiptPart.VERDICTS, "0 of 2 needed verdicts"),
        ({"candidates": ()}, ReceiptPart.SELECTION, "among the candidates"),
        ({"secret": bytes(32)}, ReceiptPart.SELECTION, "secret"),
        ({"attempts": 2}, ReceiptPart.SELECTION, "secret"),
        ({"answered_at_ms": NOW_MS - 1}, ReceiptPart.REQUEST, "deadline"),
    ],
)
def test_what_its_asker_signs_anew_fails_in_its_part(
    changes: dict[str, Any], part: ReceiptPart, words: str
) -> None:
    report = audit(changed(ANSWER, **changes).raw, all_at_hand)
    result = report.of_part(part)
    assert result.status is Status.FAILS
    assert words in result.why


def test_an_answer_from_the_future_is_not_one_of_now() -> None:
    now = audit(ANSWER.raw, nothing, now_ms=NOW_MS)
    assert now.holds
    before = audit(ANSWER.raw, nothing, now_ms=NOW_MS - 400_000)
    assert not before.holds
    result = before.of_part(ReceiptPart.REQUEST)
    assert result.why.startswith("it is not from the future: it says that it is from 401 s after")


def of_another_stage(receipt: Receipt) -> Receipt:
    return replace(receipt, stage=3)


def of_another_task(receipt: Receipt) -> Receipt:
    return replace(receipt, task=name_of(b"another task"))


def of_another_model(receipt: Receipt) -> Receipt:
    return replace(receipt, model=name_of(b"another model"))


@pytest.mark.parametrize("change", [of_another_stage, of_another_task, of_another_model])
def test_a_receipt_of_something_else_does_not_pass_and_nothing_is_said_of_its_legs(
    change: Any,
) -> None:
    receipt = change(open_signed(ANSWER.record.receipts[0], Receipt).record)
    report = audit(changed(ANSWER, receipts=(sign(receipt, WORKER).raw,)).raw, all_at_hand)
    assert report.of_part(ReceiptPart.REQUEST).why.startswith("the receipts belong to the task")
    assert statuses(report)[ReceiptPart.VERDICTS] == "cannot be known"
    assert statuses(report)[ReceiptPart.OUTPUT] == "cannot be known"


def test_two_receipts_of_one_leg_do_not_pass() -> None:
    again = ANSWER.record.receipts * 2
    report = audit(changed(ANSWER, receipts=again).raw, all_at_hand)
    assert "2 receipts for 1 legs" in report.of_part(ReceiptPart.REQUEST).why


def test_a_manifest_of_another_model_or_operation_fails() -> None:
    other = replace(MANIFEST, operations=("generate",))

    def lying(content_id: ContentId) -> bytes | None:
        return other.to_bytes() if content_id == MODEL else None

    def broken(content_id: ContentId) -> bytes | None:
        return b"\x80" if content_id == MODEL else None

    for source in (lying, broken):
        assert audit(ANSWER.raw, source).of_part(ReceiptPart.MODEL).status is Status.FAILS


def test_a_model_that_embeds_texts_also_embeds_passages() -> None:
    assert EMBED_PASSAGES.operation not in MANIFEST.operations
    report = audit(answer_to(EMBED_PASSAGES).raw, {MODEL: MANIFEST.to_bytes()}.get)
    assert report.of_part(ReceiptPart.MODEL).status is Status.HOLDS
    call = replace(EMBED_PASSAGES, operation="call")
    report = audit(answer_to(call).raw, {MODEL: MANIFEST.to_bytes()}.get)
    assert report.of_part(ReceiptPart.MODEL).status is Status.FAILS


def test_a_task_of_a_data_leg_alone_says_that_nothing_could_be_checked() -> None:
    fetch = Stage(role=Role.DATA, operation="fetch", model=None, parameters={"source": "pydoc:try"})
    answer: Signed[Answer] = answer_to(fetch, checking=SIGNED_ONLY)
    report = audit(answer.raw, nothing)
    assert report.of_part(ReceiptPart.MODEL).status is Status.HOLDS
