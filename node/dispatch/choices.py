"""Why a task went where it went: who could have done a leg, who was asked, and what came of it.

A pure core. What is noted with every task is what was made for it anyway; words are found only when
somebody asks. The latest tasks are kept, and of each of their legs the latest choices.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from node.dispatch.route import Candidate
from wire.content import ContentId, PeerId
from wire.latest import Latest

TASKS_KEPT = 32
CHOICES_KEPT = 8
FAILURES_KEPT = 16
# Peers that are told of one choice: those that were asked or failed, then the soonest of the rest.
TOLD_MAX = 12


@dataclass(frozen=True, slots=True)
class Decision:
    """One decision: of the `able` peers `asked` were drawn, and `chosen` got the leg."""

    stage: int
    able: Sequence[Candidate]
    asked: Sequence[Candidate]
    chosen: PeerId
    at_s: float


@dataclass(slots=True)
class TaskChoices:
    """The decisions about one task, in their order, and who failed, with the words."""

    choices: list[Decision] = field(default_factory=list)
    failures: dict[PeerId, str] = field(default_factory=dict)


@dataclass(slots=True)
class Choices:
    """The latest tasks that this peer handed on."""

    _tasks: Latest[ContentId, TaskChoices] = field(default_factory=lambda: Latest(TASKS_KEPT))

    def note(self, task: ContentId, decision: Decision) -> None:
        """Keep a decision."""
        found = self._of(task)
        found.choices.append(decision)
        if len(found.choices) > CHOICES_KEPT:
            del found.choices[0]

    def failed(self, task: ContentId, peer: PeerId, why: str) -> None:
        """Keep why a peer did not do what it was asked for."""
        found = self._of(task)
        if len(found.failures) < FAILURES_KEPT:
            found.failures[peer] = why

    def _of(self, task: ContentId) -> TaskChoices:
        found = self._tasks.get(task)
        if found is None:
            found = self._tasks[task] = TaskChoices()
        return found

    def latest(self) -> list[tuple[ContentId, TaskChoices]]:
        """The tasks, latest first."""
        return [(it, self._tasks[it]) for it in reversed(list(self._tasks))]


@dataclass(frozen=True, slots=True)
class Weighed:
    """One peer in one decision: `part` is chosen, asked, failed or passed over; why, in words."""

    peer: PeerId
    part: str
    why: str
    expected_s: float | None


def weighed(choice: Decision, failures: Mapping[PeerId, str]) -> tuple[list[Weighed], int]:
    """Every peer of a decision with its reason, at most `TOLD_MAX`; and how many are left out."""
    asked = {it.peer for it in choice.asked}
    by_peer = {it.peer: it for it in (*choice.able, *choice.asked)}
    rows = [
        _weighed(it, choice, it.peer in asked, failures.get(it.peer, "")) for it in by_peer.values()
    ]
    rows += [Weighed(it, "failed", why, None) for it, why in failures.items() if it not in by_peer]
    order = ("chosen", "asked", "failed", "passed over")
    rows.sort(key=lambda it: (order.index(it.part), it.expected_s or 0.0, it.peer))
    return rows[:TOLD_MAX], max(0, len(rows) - TOLD_MAX)


def _weighed(one: Candidate, choice: Decision, was_asked: bool, failure: str) -> Weighed:
    if one.peer == choice.chosen:
        why = "it got the leg" + (f", and then: {failure}" if failure else "")
        return Weighed(one.peer, "chosen", why, one.expected_s)
    if failure:
        return Weighed(one.peer, "failed", failure, one.expected_s)
    if was_asked:
        return Weighed(one.peer, "asked", "asked too; the other is done sooner", one.expected_s)
    return Weighed(one.peer, "passed over", _why_not(one, choice), one.expected_s)


def _why_not(one: Candidate, choice: Decision) -> str:
    """What told against a peer, the strongest reason first."""
    if one.unwelcome and any(not it.unwelcome for it in choice.able):
        return "it failed or sat on legs lately, and others did not"
    if not one.delivered and any(it.delivered for it in choice.able):
        return "it never did such a leg for this peer; strangers get a share of trials"
    if one.full:
        return "it said that it is full"
    dearest = max((it.price for it in choice.asked), default=0)
    if one.price > dearest:
        return "it asks for more"
    soonest = min((it.expected_s for it in choice.asked), default=0.0)
    if one.expected_s > 2 * soonest:
        return "it is slower or busier, so it is drawn less often"
    return "not drawn: two are drawn at random, so that not all askers choose the same"
