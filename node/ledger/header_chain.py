"""The chain of checkpoints' headers, followed by whoever keeps no accounts. Pure.

Each header is believed by the signatures of more than two thirds of the members that the one before
it names, so that nothing but genesis is trusted.
"""

from dataclasses import dataclass, field

from node.ledger.committee import Committee
from wire.checkpoint import Checkpoint, CheckpointHeader
from wire.errors import Malformed
from wire.ledger import Genesis


@dataclass(slots=True)
class HeaderChain:
    """How far the chain is known; `tip` is None before the end of epoch 0."""

    genesis: Genesis
    tip: CheckpointHeader | None = None
    committee: Committee = field(init=False)

    def __post_init__(self) -> None:
        self._begin_epoch()

    def _begin_epoch(self) -> None:
        members = self.genesis.members if self.tip is None else self.tip.members
        self.committee = Committee(members)

    @property
    def epoch(self) -> int:
        """The epoch whose end is not known yet."""
        return 0 if self.tip is None else self.tip.epoch + 1

    def accept(self, checkpoint: Checkpoint) -> CheckpointHeader:
        """Go on by how the epoch ended; WireError unless a quorum of its members signed that."""
        header = CheckpointHeader.from_bytes(checkpoint.header)
        previous = None if self.tip is None else self.tip.id
        named = (header.network, header.epoch, header.previous)
        if named != (self.genesis.id, self.epoch, previous):
            raise Malformed(f"a checkpoint of another chain, or not of epoch {self.epoch}")
        if header.supply != self.genesis.supply:
            raise Malformed("the checkpoint does not sum up to the supply of the network")
        self.committee.check_checkpoint(checkpoint, header)
        self.tip = header
        self._begin_epoch()
        return header
