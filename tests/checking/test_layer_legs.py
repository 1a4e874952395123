"""What a receipt says of who ran which layers fits together, or the audit says what does not."""

from dataclasses import replace
from typing import Any

import pytest

from node.checking.layer_legs import check_layers
from node.checking.report import AuditReport, ReceiptPart, Status
from tests.wire.samples import BY_NAME, KEY, MODEL
from wire.receipt import Receipt
from wire.signed import Signed, sign
from wire.signing import SigningKey
from wire.stage import StageLeg

FIRST, SECOND = (SigningKey(bytes([it]) * 32) for it in (1, 2))


def leg(first: int, last: int, number: int, **changes: Any) -> StageLeg:
    """Layers whose rows are called by numbers: they take `number`, and give the next one."""
    fields: dict[str, Any] = {
        "model": MODEL,
        "first": first,
        "last": last,
        "asker": KEY.peer,
        "rows": 9,
        "input": bytes([number]) * 32,
        "output": bytes([number + 1]) * 32,
        "signed_at_ms": 1,
    }
    return StageLeg(**{**fields, **changes})


def receipt(*legs: bytes) -> Signed[Receipt]:
    record = BY_NAME["Receipt"]
    assert isinstance(record, Receipt)
    return sign(replace(record, layers=legs), KEY)


def judged(*legs: bytes) -> AuditReport:
    report = AuditReport()
    check_layers(report, [receipt(*legs)])
    return report


def test_each_stage_is_told_with_who_signed_for_it() -> None:
    report = judged(sign(leg(3, 5, 1), FIRST).raw, sign(leg(6, 8, 2), SECOND).raw)
    assert {it.status for it in report.points} == {Status.HOLDS}
    told = [f"{it.what}: {it.detail}" for it in report.points]
    assert told == [
        f"layers 3-5 of leg 2 are signed for: 9 rows, by {FIRST.peer}",
        f"layers 6-8 of leg 2 are signed for: 9 rows, by {SECOND.peer}",
        f"the layers of leg 2 are those of its model, in order: 0-2 at {KEY.peer.short},"
        f" 3-5 at {FIRST.peer.short}, 6-8 at {SECOND.peer.short}",
    ]


def test_a_leg_without_others_is_not_spoken_of() -> None:
    assert not judged().points


@pytest.mark.parametrize(
    ("second", "why"),
    [
        (leg(6, 8, 5), "what went into layer 6 is not what came out before it"),
        (leg(6, 8, 2, rows=8), "what went into layer 6 is not what came out before it"),
        (leg(5, 8, 2), "layers 3-5 come before 5-8"),
        (leg(0, 2, 2), "signed for the first layers"),
        (leg(6, 8, 2, model=MODEL.of(b"other")), "signed for another model"),
        (leg(6, 8, 2, asker=FIRST.peer), "who did not sign"),
    ],
)
def test_stages_that_do_not_fit_together_fail(second: StageLeg, why: str) -> None:
    report = judged(sign(leg(3, 5, 1), FIRST).raw, sign(second, SECOND).raw)
    (wrong,) = [it for it in report.points if it.status is Status.FAILS]
    assert wrong.part is ReceiptPart.MODEL
    assert why in wrong.detail


def test_between_two_may_be_one_that_does_not_sign() -> None:
    report = judged(sign(leg(3, 4, 1), FIRST).raw, sign(leg(7, 8, 5), SECOND).raw)
    assert {it.status for it in report.points} == {Status.HOLDS}


@pytest.mark.parametrize("at", [3, 60, -70, -1])
def test_a_stage_that_is_altered_fails(at: int) -> None:
    raw = bytearray(sign(leg(3, 5, 1), FIRST).raw)
    raw[at] ^= 1
    (point,) = judged(bytes(raw)).points
    assert point.status is Status.FAILS
    assert point.part is ReceiptPart.SIGNATURES
