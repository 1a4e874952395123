"""Who is offered a leg first: peers that delivered before, and sometimes a stranger on trial.

A pure core. A claim costs nothing, so a stranger (a peer that never did a leg for us) ranks behind
peers that did, however fast it claims to be. Strangers get a share of the legs as trials, one at a
time, each hedged as soon as it takes longer than expected. If no peer has delivered yet, all are
strangers: then each further one is given the leg after less than half the wait before. However many
of them do nothing, all are asked within twice the expected time of one leg.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from node.dispatch.route import Candidate, drawn

# Strangers' share of the legs while peers that delivered are not busy; it is larger until
# DELIVERED_WANTED peers have delivered, because one or two may leave.
DELIVERED_WANTED = 4
TRIAL_SHARE_FIRST = 1 / 8
TRIAL_SHARE = 1 / 16
# A peer that would take this many times its idle time is busy: then a stranger gets a trial.
BUSY_TIMES = 2.0
BUSY_S = 0.5
# How late any machine may be; no leg is given to another sooner.
LATE_TIMES = 1.2
HEDGE_S_MIN = 0.25
# Each further wait is so much shorter: however many peers sit, all are asked within twice the
# expected time, and a newcomer's first leg is done in three times.
HEDGE_SHRINKS = 0.4
# The budget of hedges for strangers' legs: the most at once, and more for each delivered leg.
HEDGES_MAX = 16.0
HEDGES_PER_LEG = 0.25


def is_busy(one: Candidate) -> bool:
    """Whether this peer has so much other work that a stranger gets a trial."""
    return one.full or one.expected_s > BUSY_TIMES * one.idle_s + BUSY_S


def best(rated: Sequence[Candidate]) -> Candidate | None:
    """The peer that is done first; strangers come after idle peers that delivered."""
    known = [it for it in rated if it.delivered and not is_busy(it)]
    return min(known or rated, key=lambda it: it.expected_s, default=None)


@dataclass(slots=True)
class Trials:
    """How one peer gets to know those who never did a leg for it."""

    under_way: int = 0
    _hedges: float = HEDGES_MAX

    def pool(self, choices: Sequence[Candidate], random: Random) -> list[Candidate]:
        """Of `choices`, those to draw from now."""
        best = min((it.unwelcome for it in choices), default=False)
        welcome = [it for it in choices if it.unwelcome == best]
        known = [it for it in welcome if it.delivered]
        strangers = [it for it in welcome if not it.delivered]
        if not known or not strangers:
            return welcome
        if self.under_way:
            return known
        first = min(known, key=lambda it: it.expected_s)
        share = TRIAL_SHARE if len(known) >= DELIVERED_WANTED else TRIAL_SHARE_FIRST
        return strangers if is_busy(first) or random.random() < share else known

    def to_ask(self, choices: Sequence[Candidate], random: Random) -> list[Candidate]:
        """One or two peers to ask for a quote; the first gets the leg if none is asked."""
        pool = self.pool(choices, random)
        two = drawn(pool, random)
        if len(two) == 1 and two[0].delivered and not self.under_way:
            # The peer may say that it is busy; then the stranger gets the leg.
            two += drawn([it for it in choices if not it.delivered], random, 1)
        return two

    def hedge_after_s(self, expected_s: float, hedged: int) -> float:
        """Seconds until a stranger's leg is also given to one more peer, since it was last given.

        `hedged` is how many more peers have it already.
        """
        return max(HEDGE_S_MIN, LATE_TIMES * expected_s * HEDGE_SHRINKS**hedged)

    def spend(self) -> bool:
        """Whether one more peer may be given such a leg; if so, it is counted."""
        if self._hedges < 1.0:
            return False
        self._hedges -= 1.0
        return True

    def delivered(self) -> None:
        """Note that a peer did a leg: it pays for a part of a hedge."""
        self._hedges = min(HEDGES_MAX, self._hedges + HEDGES_PER_LEG)
