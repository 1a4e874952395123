"""Standing of peers: a few kinds of offence, and a pure sum of their costs.

Only what we saw ourselves counts: no peer's report lowers the standing of another, and what
strangers say of one makes it at most less welcome, for a while. Offences cost less as time passes,
so a peer that behaves well again is asked again.
"""

from dataclasses import dataclass, field
from enum import Enum, IntEnum, auto

from wire.content import PeerId


class Offence(IntEnum):
    """Kinds of offence, few and coarse on purpose; the value is the cost.

    `DOUBTED` is what strangers said of a peer, and no offence of its own: it never bans.
    """

    SLOW = 1
    UNANSWERED = 4
    DOUBTED = 13
    MALFORMED = 16
    UNTRUE_VERDICT = 20
    WRONG_ANSWER = 64


class Standing(Enum):
    """A GOOD peer is asked; an UNWELCOME one only if no other can do it; a BANNED one never."""

    GOOD = auto()
    UNWELCOME = auto()
    BANNED = auto()


# Guesses: four unanswered calls make a peer unwelcome, one wrong answer bans it.
UNWELCOME_FROM = 12.0
BANNED_FROM = 48.0
COST_MAX = 256.0
SILENCE_COST_MAX = 40.0
HALF_LIFE_S = 600.0


@dataclass(frozen=True, slots=True)
class Score:
    """The cost of past offences as of `at_s` (any monotonic clock)."""

    cost: float = 0.0
    at_s: float = 0.0

    def cost_at(self, now_at_s: float) -> float:
        return float(self.cost * 0.5 ** (max(0.0, now_at_s - self.at_s) / HALF_LIFE_S))

    def after(self, offence: Offence, now_at_s: float) -> "Score":
        """The score once this offence, committed at `now_at_s`, counts as well."""
        before = self.cost_at(now_at_s)
        # Silence, however long, never bans: a laptop that slept has done no harm. Nor does doubt.
        most = COST_MAX if offence >= Offence.MALFORMED else max(before, SILENCE_COST_MAX)
        return Score(min(most, before + offence), now_at_s)

    def standing(self, now_at_s: float) -> Standing:
        """The standing that this score means at `now_at_s`."""
        cost = self.cost_at(now_at_s)
        if cost >= BANNED_FROM:
            return Standing.BANNED
        return Standing.UNWELCOME if cost >= UNWELCOME_FROM else Standing.GOOD


@dataclass(slots=True)
class Scores:
    """A score for each peer that committed an offence, for at most `peers_max` peers."""

    # Guess: more offenders than a view has peers, so that a ban outlives a reconnect.
    peers_max: int = 4000
    _scores: dict[PeerId, Score] = field(default_factory=dict)

    def note(self, peer: PeerId, offence: Offence, now_at_s: float) -> None:
        """Count an offence of a peer; beyond `peers_max` peers the mildest score is forgotten."""
        self._scores[peer] = self._scores.pop(peer, Score()).after(offence, now_at_s)
        if len(self._scores) > self.peers_max:
            # The mildest score is forgotten: a flood of fresh keys must not remove a ban.
            self._scores.pop(min(self._scores, key=lambda it: self._scores[it].cost_at(now_at_s)))

    def forget(self, peer: PeerId) -> None:
        """Count nothing against a peer any more."""
        self._scores.pop(peer, None)

    def standing(self, peer: PeerId, now_at_s: float) -> Standing:
        """A peer's standing at `now_at_s`; an unknown peer is GOOD."""
        return self._scores.get(peer, Score()).standing(now_at_s)

    def banned(self, now_at_s: float) -> set[PeerId]:
        """Who is banned at `now_at_s`."""
        return {it for it in self._scores if self.standing(it, now_at_s) is Standing.BANNED}

    def unwelcome(self, now_at_s: float) -> set[PeerId]:
        """Who is not a good peer at `now_at_s`."""
        return {it for it in self._scores if self.standing(it, now_at_s) is not Standing.GOOD}

    def cost(self, peer: PeerId, now_at_s: float) -> float:
        return self._scores.get(peer, Score()).cost_at(now_at_s)
