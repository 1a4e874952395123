"""Standing of peers: a small vocabulary of offences and a pure fold over them.

Only what we saw ourselves counts; nobody's word lowers another's standing. Offences weigh less as
time passes, so a peer that mends its ways comes back.
"""

from dataclasses import dataclass, field
from enum import Enum, IntEnum, auto

from wire.content import PeerId


class Offence(IntEnum):
    """Few and coarse on purpose; the value is the cost."""

    SLOW = 1
    UNANSWERED = 4
    MALFORMED = 16
    WRONG_ANSWER = 64


class Standing(Enum):
    """GOOD is asked; UNWELCOME only when nobody else can; BANNED never."""

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
        # Silence makes unwelcome, however long: a laptop that slept has done nobody any harm.
        most = COST_MAX if offence >= Offence.MALFORMED else max(before, SILENCE_COST_MAX)
        return Score(min(most, before + offence), now_at_s)

    def standing(self, now_at_s: float) -> Standing:
        """How a peer with this score is regarded at `now_at_s`."""
        cost = self.cost_at(now_at_s)
        if cost >= BANNED_FROM:
            return Standing.BANNED
        return Standing.UNWELCOME if cost >= UNWELCOME_FROM else Standing.GOOD


@dataclass(slots=True)
class Scores:
    """A score for each peer that ever offended, the latest `peers_max` of them."""

    # Guess: more offenders than a view has peers, so that a ban outlives a reconnect.
    peers_max: int = 4000
    _scores: dict[PeerId, Score] = field(default_factory=dict)

    def note(self, peer: PeerId, offence: Offence, now_at_s: float) -> None:
        """Count an offence of a peer; beyond `peers_max` peers the mildest score is forgotten."""
        self._scores[peer] = self._scores.pop(peer, Score()).after(offence, now_at_s)
        if len(self._scores) > self.peers_max:
            # The mildest goes: a flood of fresh keys must not wash out a ban.
            self._scores.pop(min(self._scores, key=lambda it: self._scores[it].cost_at(now_at_s)))

    def standing(self, peer: PeerId, now_at_s: float) -> Standing:
        """How a peer is regarded at `now_at_s`; a stranger is good."""
        return self._scores.get(peer, Score()).standing(now_at_s)

    def cost(self, peer: PeerId, now_at_s: float) -> float:
        return self._scores.get(peer, Score()).cost_at(now_at_s)
