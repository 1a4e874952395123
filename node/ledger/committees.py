"""Who keeps the ledger in each epoch, as far as it is known here: by them it is judged. Pure.

A motion may change the members, so an order of an earlier epoch is judged by those of that epoch.
Only changes are kept: whoever follows the chain of headers learns of each as it comes.
"""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field

from node.ledger.committee import Committee
from wire.checkpoint import CheckpointHeader
from wire.codec import Value, pack, unpack
from wire.content import PeerId
from wire.errors import Refused, WireError
from wire.kinds import RefusalCode
from wire.ledger import Genesis, Member

# The row in which changes are kept.
SEATED = b"w"
# Orders of before so many changes are judged by nobody here.
CHANGES_MAX = 64


@dataclass(slots=True)
class Committees:
    """Who keeps which epoch. `epoch` is the last one whose members are known."""

    genesis: Genesis
    epoch: int = 0
    # The first epochs of the committees that are known, in order.
    _since: list[int] = field(default_factory=list)
    _seated: list[Committee] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._since, self._seated = [0], [Committee(self.genesis.members)]

    @property
    def latest(self) -> Committee:
        """The members of the last epoch that is known."""
        return self._seated[-1]

    def of(self, epoch: int) -> Committee:
        """The members of an epoch, of one that is not known yet the last ones; Refused if these
        were others, too long ago.
        """
        at = bisect_right(self._since, epoch) - 1
        if at < 0:
            raise Refused(
                f"who kept the ledger in epoch {epoch} is not known here any more",
                code=RefusalCode.NOT_FOUND,
            )
        return self._seated[at]

    def note(self, header: CheckpointHeader) -> bool:
        """Take in the header of a checkpoint that was checked; whether it changes the members."""
        begins = header.epoch + 1
        if begins <= self.epoch:
            return False
        self.epoch = begins
        if tuple(header.members) == tuple(self.latest.members):
            return False
        self._add(begins, header.members)
        return True

    def _add(self, begins: int, members: Sequence[Member]) -> None:
        self._since.append(begins)
        self._seated.append(Committee(members))
        del self._since[:-CHANGES_MAX], self._seated[:-CHANGES_MAX]

    def to_bytes(self) -> bytes:
        """The row."""
        found: list[Value] = [
            [begins, [[bytes(it.key), it.weight] for it in committee.members]]
            for begins, committee in zip(self._since, self._seated, strict=True)
        ]
        return pack(found)

    def restore(self, row: bytes | None, tip: CheckpointHeader | None) -> None:
        """Be as before a stop: by the row, and by the last checkpoint, which may be newer."""
        if row is not None:
            self._since, self._seated = [], []
            try:
                for begins, members in unpack(row):
                    self._add(begins, [Member(key=PeerId(key), weight=it) for key, it in members])
                self.epoch = self._since[-1]
            except (WireError, ValueError, TypeError, IndexError):
                self.__post_init__()
        if tip is not None:
            self.note(tip)
