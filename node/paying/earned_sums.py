"""What each payer was charged for which work, over all its channels, kept over restarts."""

from dataclasses import dataclass, field
from typing import Any, NamedTuple

from store import Store, Table
from wire.codec import pack, unpack
from wire.content import ContentId, PeerId
from wire.latest import Latest

SUM = b"sum:"
SUMS_MAX = 10_000
_PEER_BYTES = 32


class EarnedSum(NamedTuple):
    """What one payer was charged for one model or service; bytes are those that were passed on."""

    charged: int = 0
    tasks: int = 0
    size_bytes: int = 0


@dataclass(slots=True)
class EarnedSums:
    """The sums of one payee, by payer and work; None stands for verdicts."""

    store: Store
    _sums: Latest[tuple[PeerId, ContentId | None], EarnedSum] = field(
        default_factory=lambda: Latest(SUMS_MAX)
    )

    def load(self) -> None:
        """Go on with the sums that are kept here."""
        for key, value in self.store.scan(Table.CHANNELS, prefix=SUM, limit=SUMS_MAX):
            model, *found = unpack(value)
            payer = PeerId(key.removeprefix(SUM)[:_PEER_BYTES])
            work = None if model is None else ContentId(model)
            self._sums[payer, work] = EarnedSum(*found)

    def note(self, payer: PeerId, work: ContentId | None, more: EarnedSum) -> None:
        """Count what was charged."""
        before = self._sums.get((payer, work), EarnedSum())
        self._sums[payer, work] = EarnedSum(
            before.charged + more.charged,
            before.tasks + more.tasks,
            before.size_bytes + more.size_bytes,
        )

    def keep_soon(self, payer: PeerId, work: ContentId | None) -> None:
        """Keep one sum, with the next commit."""
        found = self._sums.get((payer, work), EarnedSum())
        row = pack([None if work is None else bytes(work), *found])
        self.store.write_soon(Table.CHANNELS, SUM + payer + (work or b""), row)

    def rows(self) -> list[dict[str, Any]]:
        """All of them, for people and programs."""
        return [
            {
                "peer": str(payer),
                "model": None if work is None else str(work),
                "charged": it.charged,
                "tasks": it.tasks,
                "bytes": it.size_bytes,
            }
            for (payer, work), it in self._sums.items()
        ]
