"""What an asker's own recomputation says of an answer, and of the verdicts of others on it.

Pure. Strangers who agree with each other may all lie, so their word alone bans nobody; what this
peer computed itself does. A verdict that is further off than honest devices can be is a lie; one
that is off by less may be their noise, and costs little.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from node.checking.votes import disputed_by
from wire.content import PeerId
from wire.operations import OPERATIONS, Comparison
from wire.receipt import Receipt, Verdict
from wire.signed import Signed

# Two honest engines differ by one tolerance at most, so what two of them say of a third one's row
# is not further apart than that; beyond four of them nothing honest is left.
NOISE_TIMES = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnFinding:
    """This peer's own verdict on a leg, of each row that it looked at.

    `exact`: engines of its profile give the same bits. `tolerance_ppb` is what the model allows
    between others.
    """

    verdict: Verdict
    exact: bool
    tolerance_ppb: int

    def decides(self, receipt: Receipt) -> bool:
        """Whether it says who is right: outputs that are compared byte for byte may honestly
        differ between kinds of devices.
        """
        mine = self.verdict
        if not mine.could_check:
            return False
        operation = OPERATIONS.get(receipt.operation)
        by_bytes = operation is None or operation.comparison in (
            *(Comparison.BYTES, Comparison.REPLAY),
        )
        return not by_bytes or bool(mine.replay) or mine.profile == receipt.profile

    def untrue(self, others: Iterable[Signed[Verdict]]) -> dict[PeerId, bool]:
        """Who gave a verdict that this finding contradicts, and whether no noise explains it."""
        found = {}
        for other in others:
            said = other.record
            if not said.could_check or said.agrees is self.verdict.agrees:
                continue
            apart_ppb = self._apart_ppb(said)
            if apart_ppb is not None:
                same_bits = self.exact and said.profile == self.verdict.profile
                limit_ppb = 0 if same_bits else NOISE_TIMES * self.tolerance_ppb
                found[other.signer] = apart_ppb > limit_ppb and (same_bits or limit_ppb > 0)
        return found

    def _apart_ppb(self, said: Verdict) -> int | None:
        """How far a verdict is from this one on the rows that decide; None if it is on others."""
        mine = dict(zip(self.verdict.sampled, self.verdict.worst_ppb, strict=True))
        if self.verdict.agrees:
            rows = disputed_by(said)
            if not rows or not rows <= mine.keys():
                return None
        elif self.verdict.reason:
            # Whoever looks at all sees it, whatever its rows are.
            return max(self.verdict.worst_ppb, default=None)
        else:
            rows = frozenset(it for it, worst in mine.items() if worst > self.tolerance_ppb)
            rows &= frozenset(said.sampled)
            if not rows:
                return None
        theirs = dict(zip(said.sampled, said.worst_ppb, strict=True))
        return max(abs(mine[it] - theirs[it]) for it in rows)
