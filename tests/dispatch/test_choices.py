"""Why a peer got a leg and others did not, told in words out of what was weighed."""

from dataclasses import replace
from random import Random

import pytest

from node.dispatch.choices import (
    CHOICES_KEPT,
    FAILURES_KEPT,
    TASKS_KEPT,
    TOLD_MAX,
    Choices,
    Decision,
    weighed,
)
from node.dispatch.route import Candidate
from wire.content import ContentId, PeerId

PEERS = [PeerId(Random(it).randbytes(32)) for it in range(40)]
TASK = ContentId.of(b"task")


def one(number: int, **changes: object) -> Candidate:
    plain = Candidate(PEERS[number], False, False, 1.0, 1.0, 1.0, observed=True, delivered=True)
    return replace(plain, **changes)  # type: ignore[arg-type]


def told(number: int, decision: Decision, failures: dict[PeerId, str] | None = None) -> str:
    rows, _ = weighed(decision, failures or {})
    (found,) = [it for it in rows if it.peer == PEERS[number]]
    return f"{found.part}: {found.why}"


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (one(2, unwelcome=True), "passed over: it failed or sat on legs lately"),
        (one(2, delivered=False), "passed over: it never did such a leg"),
        (one(2, full=True), "passed over: it said that it is full"),
        (one(2, price=9), "passed over: it asks for more"),
        (one(2, expected_s=9.0), "passed over: it is slower or busier"),
        (one(2), "passed over: not drawn"),
    ],
)
def test_who_was_not_asked_is_told_the_strongest_reason(other: Candidate, words: str) -> None:
    asked = (one(0), one(1, expected_s=2.0))
    decision = Decision(0, (*asked, other), asked, PEERS[0], 0.0)
    assert told(2, decision).startswith(words)
    assert told(0, decision) == "chosen: it got the leg"
    assert told(1, decision).startswith("asked: asked too")


def test_who_failed_is_told_with_its_own_words() -> None:
    asked = (one(0), one(1))
    decision = Decision(0, asked, asked, PEERS[0], 0.0)
    failures = {PEERS[0]: "it fell silent", PEERS[1]: "it is full", PEERS[2]: "no such model"}
    assert told(0, decision, failures) == "chosen: it got the leg, and then: it fell silent"
    assert told(1, decision, failures) == "failed: it is full"
    assert told(2, decision, failures) == "failed: no such model"


def test_what_is_told_of_one_choice_is_bounded_and_says_what_it_leaves_out() -> None:
    able = [one(it) for it in range(40)]
    rows, left_out = weighed(Decision(0, able, able[:2], PEERS[1], 0.0), {})
    assert len(rows) == TOLD_MAX
    assert left_out == 40 - TOLD_MAX
    assert rows[0].peer == PEERS[1]


def test_tasks_choices_and_failures_are_bounded() -> None:
    kept, able = Choices(), (one(0),)
    for number in range(TASKS_KEPT + 5):
        kept.note(ContentId.of(b"%d" % number), Decision(0, able, able, PEERS[0], float(number)))
    assert len(kept.latest()) == TASKS_KEPT
    assert kept.latest()[0][0] == ContentId.of(b"%d" % (TASKS_KEPT + 4))
    for number in range(CHOICES_KEPT + 5):
        kept.note(TASK, Decision(number, able, able, PEERS[0], 0.0))
    for peer in PEERS:
        kept.failed(TASK, peer, "no")
    found = dict(kept.latest())[TASK]
    assert [it.stage for it in found.choices] == list(range(5, CHOICES_KEPT + 5))
    assert len(found.failures) == FAILURES_KEPT
