"""Whom a leg is offered to first: peers that delivered, and now and then a stranger on trial.

A pure core. A claim costs nothing, so who never did a leg for us ranks behind who did, however fast
it says it is. A stranger gets its chance as a trial: a share of the legs, one at a time, and hedged
as soon as it has taken as long as it was expected to. Where nobody has delivered yet all are
strangers, and then each further one is given the leg after half as long as the one before: however
many of them sit, all were asked in two and a half times what one leg was expected to take.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from node.dispatch.route import Candidate, drawn

# Of the legs, what strangers get while there are peers that delivered and are not busy: more until
# so many have delivered, for one or two may leave.
DELIVERED_WANTED = 4
TRIAL_SHARE_FIRST = 1 / 8
TRIAL_SHARE = 1 / 16
# A peer that would take so much longer than if it were idle is busy: then a stranger is worth it.
BUSY_TIMES = 2.0
BUSY_S = 0.5
# What is due to any machine beyond what was expected; no leg is given to another sooner.
LATE_TIMES = 1.2
HEDGE_S_MIN = 0.25
# Strangers' legs that may be given to another besides, at once and for each leg that is delivered.
HEDGES_MAX = 16.0
HEDGES_PER_LEG = 0.25


def is_busy(one: Candidate) -> bool:
    """Whether it has so much else to do that a stranger is worth a trial."""
    return one.full or one.expected_s > BUSY_TIMES * one.idle_s + BUSY_S


def best(rated: Sequence[Candidate]) -> Candidate | None:
    """Who is done first; no stranger comes before who delivered and is not busy."""
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
        """Two to ask for a quote, or one; whoever is to get the leg unasked is the first."""
        pool = self.pool(choices, random)
        two = drawn(pool, random)
        if len(two) == 1 and two[0].delivered and not self.under_way:
            # It may say that it is busy, and then there is a stranger.
            two += drawn([it for it in choices if not it.delivered], random, 1)
        return two

    def hedge_after_s(self, expected_s: float, hedged: int) -> float:
        """When a stranger's leg is given to one more besides, from when it was last given.

        `hedged` is to how many it was given besides already.
        """
        return max(HEDGE_S_MIN, LATE_TIMES * expected_s * 0.5**hedged)

    def spend(self) -> bool:
        """Whether one more may be given such a leg; it counts as done."""
        if self._hedges < 1.0:
            return False
        self._hedges -= 1.0
        return True

    def delivered(self) -> None:
        self._hedges = min(HEDGES_MAX, self._hedges + HEDGES_PER_LEG)
