"""One agreement on how an epoch ends: rounds of a proposal and two votes, among members. Pure.

After Buchman, Kwon and Milosevic, "The latest gossip on BFT consensus" (2018), with one height. Who
leads turns with the rounds. A leader that proposes something again attaches the prevotes that were
for it, and whoever has decided passes the decision on: without either, some runs never end.

Values are ids of headers. What they stand for, and whether it is right, is found out elsewhere:
`on_proposal` is told so. Every method gives what is to be done now, in order.
"""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import IntEnum

from node.ledger.committee import Committee
from wire.checkpoint import AgreementPhase
from wire.content import ContentId

PREVOTE, PRECOMMIT = AgreementPhase.PREVOTE, AgreementPhase.PRECOMMIT
# Of one member in one phase of a round: an honest one has one.
VALUES_MAX = 2
# Rounds further ahead than this are of nobody honest.
ROUNDS_AHEAD_MAX = 1000
PROPOSE_S, VOTE_S, LONGER_EACH_ROUND_S = 3.0, 1.0, 0.5


class RoundStep(IntEnum):
    """Where a member is in a round."""

    PROPOSING = 0
    PREVOTED = 1
    PRECOMMITTED = 2


@dataclass(frozen=True, slots=True)
class Propose:
    """Lead this round: propose `value` again, for it was valid in `valid_round`; or what is new."""

    round: int
    value: ContentId | None
    valid_round: int | None


@dataclass(frozen=True, slots=True)
class Cast:
    """Sign this vote, write it, and tell everybody."""

    phase: AgreementPhase
    round: int
    value: ContentId | None


@dataclass(frozen=True, slots=True)
class Wait:
    """Come back with `on_timeout` after so many seconds."""

    step: RoundStep
    round: int
    delay_s: float


@dataclass(frozen=True, slots=True)
class Decide:
    """A quorum has precommitted this in this round: it is how the epoch ends."""

    value: ContentId
    round: int


Action = Propose | Cast | Wait | Decide
# Who voted for what. A bad member may be among those of several values: its vote for each counts,
# or else one that it had told before would make the prevotes that a leader attaches too few.
_Votes = dict[ContentId | None, set[int]]


@dataclass(slots=True)
class Agreement:
    """One member's side of the agreement on one epoch."""

    committee: Committee
    place: int
    # Who leads the first round.
    first: int
    round: int = -1
    step: RoundStep = RoundStep.PROPOSING
    locked: ContentId | None = None
    locked_round: int = -1
    valid: ContentId | None = None
    valid_round: int = -1
    decided: Decide | None = None
    _proposals: dict[int, tuple[ContentId, int, bool]] = field(default_factory=dict)
    _votes: dict[tuple[AgreementPhase, int], _Votes] = field(
        default_factory=lambda: defaultdict(dict)
    )
    _heard: dict[int, set[int]] = field(default_factory=lambda: defaultdict(set))
    _cast: set[tuple[AgreementPhase, int]] = field(default_factory=set)
    _waits: set[tuple[RoundStep, int]] = field(default_factory=set)
    _polka: set[int] = field(default_factory=set)

    @property
    def running(self) -> int:
        """The round that runs; the first one before this member has begun."""
        return max(self.round, 0)

    @property
    def since(self) -> int:
        """The first round whose proposal still matters: this one, or that of what is valid."""
        return min(self.running, self.valid_round) if self.valid_round >= 0 else self.running

    def leader(self, number: int) -> int:
        """The place of who leads a round."""
        return (self.first + number) % len(self.committee.members)

    def restore(self, phase: AgreementPhase, number: int, value: ContentId | None) -> None:
        """Remember a vote of our own from before a stop; in the order of rounds."""
        self._cast.add((phase, number))
        self._note(self.place, phase, number, value)
        if number >= self.round:
            self.round = number
            self.step = RoundStep.PREVOTED if phase is PREVOTE else RoundStep.PRECOMMITTED
        if phase is PRECOMMIT and value is not None and number >= self.locked_round:
            self.locked = self.valid = value
            self.locked_round = self.valid_round = number

    def begin(self) -> list[Action]:
        """Take part from now on."""
        if self.round < 0:
            return [*self._start(0), *self._advance()]
        step = RoundStep.PROPOSING if self.step is RoundStep.PROPOSING else self.step
        return [Wait(step, self.round, self._delay_s(step, self.round)), *self._advance()]

    def on_proposal(
        self, number: int, value: ContentId, valid_round: int | None, *, good: bool
    ) -> list[Action]:
        """The leader of a round proposes `value`, and we know whether it is right.

        If it was proposed before, the prevotes of `valid_round` were told with `on_vote` first.
        """
        earlier = -1 if valid_round is None else valid_round
        self._proposals.setdefault(number, (value, earlier, good))
        self._heard[number].add(self.leader(number))
        return self._advance()

    def on_vote(
        self,
        member: int,
        phase: AgreementPhase,
        number: int,
        value: ContentId | None,
        *,
        proven: bool = False,
    ) -> list[Action]:
        """A member has voted; it is `proven` if it is one of a quorum for the same value."""
        if number > max(self.round, 0) + ROUNDS_AHEAD_MAX:
            return []
        votes = self._votes[phase, number]
        if not proven and sum(member in voters for voters in votes.values()) >= VALUES_MAX:
            return []
        self._note(member, phase, number, value)
        return self._advance()

    def on_timeout(self, step: RoundStep, number: int) -> list[Action]:
        """A wait is over."""
        if self.decided is not None or number != self.round:
            return []
        found: list[Action] = []
        if step is RoundStep.PRECOMMITTED:
            found += self._start(number + 1)
        elif step is self.step:
            found += self._vote(PREVOTE if step is RoundStep.PROPOSING else PRECOMMIT, None)
        return [*found, *self._advance()]

    def voters(self, phase: AgreementPhase, number: int, value: ContentId | None) -> list[int]:
        """The places of those who voted so."""
        return sorted(self._votes.get((phase, number), {}).get(value, ()))

    # Inside

    def _note(
        self, member: int, phase: AgreementPhase, number: int, value: ContentId | None
    ) -> None:
        self._votes[phase, number].setdefault(value, set()).add(member)
        self._heard[number].add(member)

    def _delay_s(self, step: RoundStep, number: int) -> float:
        return (PROPOSE_S if step is RoundStep.PROPOSING else VOTE_S) + LONGER_EACH_ROUND_S * number

    def _start(self, number: int) -> Iterator[Action]:
        self.round, self.step = number, RoundStep.PROPOSING
        if self.leader(number) == self.place:
            earlier = self.valid_round if self.valid is not None else None
            yield Propose(number, self.valid, earlier)
        yield Wait(RoundStep.PROPOSING, number, self._delay_s(RoundStep.PROPOSING, number))

    def _vote(self, phase: AgreementPhase, value: ContentId | None) -> Iterator[Action]:
        self.step = RoundStep.PREVOTED if phase is PREVOTE else RoundStep.PRECOMMITTED
        if (phase, self.round) not in self._cast:
            self._cast.add((phase, self.round))
            yield Cast(phase, self.round, value)

    def _quorum(self, phase: AgreementPhase, number: int, value: ContentId | None) -> bool:
        return self.committee.is_quorum(self.voters(phase, number, value))

    def _any_quorum(self, phase: AgreementPhase, number: int) -> bool:
        votes = self._votes.get((phase, number), {})
        return self.committee.is_quorum(set().union(*votes.values()))

    def _wait_once(self, step: RoundStep) -> Iterator[Action]:
        if (step, self.round) not in self._waits:
            self._waits.add((step, self.round))
            yield Wait(step, self.round, self._delay_s(step, self.round))

    def _advance(self) -> list[Action]:
        """Everything that the votes known so far lead to."""
        if self.decided is not None:
            return []
        if (decision := self._decision()) is not None:
            self.decided = decision
            return [decision]
        if self.round < 0:
            return []
        found = [*self._prevote(), *self._precommit()]
        if self._any_quorum(PRECOMMIT, self.round):
            found += self._wait_once(RoundStep.PRECOMMITTED)
        later = [
            number
            for number, members in self._heard.items()
            if number > self.round and self.committee.has_honest(members)
        ]
        if later:
            found += self._start(max(later))
            found += self._advance()
        return found

    def _decision(self) -> Decide | None:
        for (phase, number), votes in self._votes.items():
            for value in votes if phase is PRECOMMIT else ():
                if value is not None and self._quorum(PRECOMMIT, number, value):
                    return Decide(value, number)
        return None

    def _prevote(self) -> Iterator[Action]:
        if (
            self.step is not RoundStep.PROPOSING
            or (at_hand := self._proposals.get(self.round)) is None
        ):
            return
        value, earlier, good = at_hand
        free = self.locked is None or self.locked == value or self.locked_round <= earlier
        if earlier >= 0 and not self._quorum(PREVOTE, earlier, value):
            return
        yield from self._vote(PREVOTE, value if good and free else None)

    def _precommit(self) -> Iterator[Action]:
        number = self.round
        if self.step is RoundStep.PREVOTED and self._any_quorum(PREVOTE, number):
            yield from self._wait_once(RoundStep.PREVOTED)
        at_hand = self._proposals.get(number)
        if at_hand is not None and at_hand[2] and self.step is not RoundStep.PROPOSING:
            value = at_hand[0]
            if number not in self._polka and self._quorum(PREVOTE, number, value):
                self._polka.add(number)
                if self.step is RoundStep.PREVOTED:
                    self.locked, self.locked_round = value, number
                    yield from self._vote(PRECOMMIT, value)
                self.valid, self.valid_round = value, number
        if self.step is RoundStep.PREVOTED and self._quorum(PREVOTE, number, None):
            yield from self._vote(PRECOMMIT, None)
