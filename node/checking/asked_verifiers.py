"""Which verifiers were asked about one leg, for which rows, and how many more are to be. Pure."""

from dataclasses import dataclass, field, replace

from node.checking.votes import Votes
from wire import limits
from wire.content import PeerId
from wire.lottery import Share

# A guess: for so long a verifier that says it is busy is waited for while rows are in dispute.
BUSY_IN_DISPUTE_S = 5.0


@dataclass(slots=True)
class Quorum:
    """Who was asked what, who is being asked since when, and the votes."""

    votes: Votes
    # The parts of the rows that verifiers are told of; one for each needed verdict if 0.
    told_parts: int = 0
    asked: dict[PeerId, Share] = field(default_factory=dict)
    under_way: dict[PeerId, float] = field(default_factory=dict)
    # Since when each verifier says that it is busy; any other answer of it ends that.
    busy_since_at_s: dict[PeerId, float] = field(default_factory=dict)
    disputed_since_at_s: float | None = None

    @property
    def parts(self) -> int:
        """How many parts the rows are in."""
        return self.told_parts or self.votes.needed

    def wanted(self, slow_since_at_s: float) -> int:
        """How many more to ask now; verifiers asked before `slow_since_at_s` do not count."""
        votes = self.votes
        awaited = sum(asked_at_s > slow_since_at_s for asked_at_s in self.under_way.values())
        heard = votes.counted + votes.against + awaited
        wanted = min(votes.needed - votes.counted - awaited, votes.verifiers - heard)
        return max(0, min(wanted, limits.VERIFIERS_MAX - len(votes.latest)))

    def next_share(self, slow_since_at_s: float) -> Share:
        """What the next verifier is asked for."""
        taken = [
            self.asked[it].part for it, at_s in self.under_way.items() if at_s > slow_since_at_s
        ]
        part = self.votes.part_wanted(taken)
        return Share(part, self.parts, self.votes.disputed)

    def again(self) -> dict[PeerId, Share]:
        """Who agreed without having looked at what is disputed now, and is to look at it."""
        disputed = self.votes.disputed
        return {
            it: replace(self.asked[it], rows=disputed)
            for it in self.votes.not_looked
            if it not in self.under_way and not disputed <= self.asked[it].rows
        }

    def is_busy(self, verifier: PeerId, now_at_s: float) -> None:
        """A verifier is to be asked again for what it was asked for now."""
        self.busy_since_at_s.setdefault(verifier, now_at_s)
        if verifier in self.votes.latest:
            self.asked[verifier] = replace(self.asked[verifier], rows=frozenset())
        else:
            del self.asked[verifier]

    def stalling(self, now_at_s: float) -> set[PeerId]:
        """Who has been busy for too long in a dispute: it may still answer, but nobody waits."""
        if not self.votes.disputed:
            return set()
        if self.disputed_since_at_s is None:
            self.disputed_since_at_s = now_at_s
        # Who began to look in time may take as long as any other.
        return {
            it
            for it, since_at_s in self.busy_since_at_s.items()
            if self.under_way.get(it, now_at_s) - max(since_at_s, self.disputed_since_at_s)
            >= BUSY_IN_DISPUTE_S
        }
