"""A receipt whose times cannot all be right says whose clock differs, and by how much."""

import pytest

from node.checking.audit import audit
from node.checking.report import Point, Status
from tests.node.asking import SECRET, VECTORS, receipt_of, task_of
from tests.p2p.transports import key_of
from wire.receipt import Answer, Verdict
from wire.signed import Signed, sign
from wire.task import Task

NOW_S = 1_800_000_000.0
ASKER, WORKER = key_of("asker"), key_of("worker")


def answer_of(
    worker_s: float, verifiers_s: tuple[float, ...] = (0.0, 0.0), answered_s: float = 1.0
) -> Signed[Answer]:
    """An answer whose signers' clocks are off by so much."""
    task: Signed[Task] = task_of(ASKER, NOW_S)
    receipt = receipt_of(task, WORKER, VECTORS, started_at_ms=int((NOW_S + worker_s) * 1000))
    verdicts = [
        sign(
            Verdict(
                receipt=receipt.id,
                secret=SECRET,
                agrees=False,
                could_check=False,
                rows=0,
                sampled=(),
                worst_ppb=(),
                profile="hash-1 exact",
                reason="",
                checked_at_ms=int((NOW_S + 1.0 + off_s) * 1000),
                duration_ms=1,
            ),
            key_of(f"verifier {number}"),
        )
        for number, off_s in enumerate(verifiers_s)
    ]
    record = Answer(
        task=task.raw,
        receipts=(receipt.raw,),
        secret=SECRET,
        candidates=(),
        verdicts=tuple(it.raw for it in verdicts),
        attempts=1,
        answered_at_ms=int((NOW_S + answered_s) * 1000),
        duration_ms=1000,
    )
    return sign(record, ASKER)


def clocks(answer: Signed[Answer]) -> list[Point]:
    points = audit(answer.raw, lambda _: None).points
    return [it for it in points if "clock" in it.detail]


def test_clocks_that_agree_are_not_spoken_of() -> None:
    assert clocks(answer_of(0.0)) == []
    assert clocks(answer_of(-290.0, (290.0, 0.0))) == []


@pytest.mark.parametrize(("off_s", "way"), [(-7200.0, "behind"), (7200.0, "ahead of")])
def test_one_clock_that_differs_is_the_odd_one(off_s: float, way: str) -> None:
    (point,) = clocks(answer_of(off_s))
    assert point.status is Status.UNKNOWN
    assert point.what == "when leg 1 was done"
    named = f"the clock of {WORKER.peer.short} was {7200 - (off_s > 0)} s {way} the asker's"
    assert point.detail.startswith(named)
    assert point.detail.endswith(f"the odd one is that of {WORKER.peer.short}")


def test_an_asker_whose_clock_all_others_contradict_is_the_odd_one() -> None:
    points = clocks(answer_of(7200.0, (7200.0, 7200.0)))
    assert len(points) == 3
    assert all(it.detail.endswith("the odd one is the asker's") for it in points)


def test_a_clock_that_was_set_back_during_a_task_is_named() -> None:
    found = audit(answer_of(0.0, (), answered_s=-3600.0).raw, lambda _: None).points
    (point,) = [it for it in found if it.what == "the answer came within the task's deadline"]
    assert point.status is Status.FAILS
    assert "was set back by at least 3600.0 s" in point.detail
