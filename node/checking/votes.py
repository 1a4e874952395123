"""Counting verdicts: a row that one verifier proves wrong is not outvoted by who never looked.

Pure; used while a leg is checked and when its receipt is audited. Each verifier looks at other
rows. So a verdict that names a wrong row opens a dispute about that row, and from then on only
verdicts of verifiers that recomputed it count for the answer.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from wire import limits
from wire.content import PeerId
from wire.receipt import Verdict
from wire.signed import Signed


def disputed_by(verdict: Verdict) -> frozenset[int]:
    """The rows that a verdict puts in dispute: those that are furthest off; none if it agrees.

    Its signer says that at least one row is beyond the tolerance. Then the furthest is, so others
    need to look at that alone, and nobody has to know the tolerance.
    """
    if verdict.agrees or not verdict.could_check or not verdict.sampled:
        return frozenset()
    worst = max(verdict.worst_ppb)
    pairs = zip(verdict.sampled, verdict.worst_ppb, strict=True)
    furthest = sorted(row for row, apart_ppb in pairs if apart_ppb == worst)
    return frozenset(furthest[: limits.DISPUTED_ROWS_MAX])


@dataclass(slots=True)
class Votes:
    """The verdicts on one leg, one of each signer; `needed` of `verifiers` have to agree."""

    needed: int
    verifiers: int
    latest: dict[PeerId, Signed[Verdict]] = field(default_factory=dict)
    # Which part each was asked to recompute; 0 for who recomputed what it drew, or the whole.
    parts: dict[PeerId, int] = field(default_factory=dict)
    # Every row that is in dispute.
    disputed: frozenset[int] = frozenset()

    def add(self, verdict: Signed[Verdict], part: int = 0) -> None:
        """Count a verdict. A later one of the same signer replaces it, but none takes a no back."""
        before = self.latest.get(verdict.signer)
        if before is None or before.record.agrees:
            self.latest[verdict.signer] = verdict
            self.parts[verdict.signer] = part
            # One that is replaced agreed, and put nothing in dispute.
            self.disputed |= disputed_by(verdict.record)

    @property
    def agreeing(self) -> list[Signed[Verdict]]:
        """The verdicts that count for the answer: of who looked at every row in dispute."""
        disputed = self.disputed
        return [it for it in self._agree() if disputed.issubset(it.record.sampled)]

    @property
    def not_looked(self) -> list[PeerId]:
        """Who agreed without having looked at every row in dispute."""
        disputed = self.disputed
        return [it.signer for it in self._agree() if not disputed.issubset(it.record.sampled)]

    def _agree(self) -> list[Signed[Verdict]]:
        return [it for it in self.latest.values() if it.record.agrees]

    @property
    def against(self) -> int:
        """How many say no. What was withheld from a verifier counts as a failed check."""
        return sum(not it.record.agrees for it in self.latest.values())

    @property
    def counted(self) -> int:
        """How many count for the answer; of those with the same part only one does."""
        parts = [self.parts[it.signer] for it in self.agreeing]
        return parts.count(0) + len({it for it in parts if it})

    @property
    def accepted(self) -> bool | None:
        """Whether the answer is accepted; None while more verdicts can decide it."""
        if self.counted >= self.needed:
            return True
        # So many say no that the others cannot reach `needed`.
        if self.against > self.verifiers - self.needed:
            return False
        return None

    def part_wanted(self, taken: Sequence[int]) -> int:
        """The part that the next verifier recomputes: the one that the fewest have.

        `taken` are the parts of those that were asked and have not answered yet.
        """
        held = [*taken, *(self.parts[it.signer] for it in self._agree())]
        return min(range(1, self.needed + 1), key=lambda part: (held.count(part), part))

    def in_order(self) -> list[Signed[Verdict]]:
        """All verdicts, those first that decide: a record holds so many of them at most."""
        rest = set(self.not_looked)
        return sorted(self.latest.values(), key=lambda it: it.signer in rest)
