"""Results of keepers that do not count, because another keeper's history holds: kept to be named.

Of a slot and a keeper one is kept, so keepers that show ever others fill nobody's disk.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from node.workflows.branches import with_results
from store import Row, Store, Table, Write
from wire.content import ContentId
from wire.feed import FeedEntry, FeedRecord
from wire.signed import Envelope, Signed

_LOST = b"lost\0"
_ROWS_AT_ONCE = 500
# Of one feed so many are kept.
LOST_MAX = 10_000


@dataclass(frozen=True, slots=True)
class LostEntries:
    """The entries of one feed that do not count, by their slots."""

    store: Store
    record: FeedRecord

    def rows(self, entries: Iterable[Signed[FeedEntry]]) -> list[Row]:
        """What keeps those of `entries` that have a result."""
        return [
            Row(Table.WORKFLOWS, self._key(slot_ms, it), it.raw)
            for slot_ms, it in with_results(entries).items()
            if it.signer in self.record.keepers
        ]

    async def keep(self, entries: Iterable[Signed[FeedEntry]]) -> None:
        """Keep entries that others showed, if there is room."""
        rows = [it for it in self.rows(entries) if self.store.read(it.table, it.key) is None]
        if rows and len(self._scan(LOST_MAX)) + len(rows) <= LOST_MAX:
            await self.store.commit(Write(rows=tuple(rows)))

    def of_slot(self, slot_ms: int) -> list[Signed[FeedEntry]]:
        """What does not count of a slot."""
        found = self.store.scan(Table.WORKFLOWS, prefix=self._prefix(slot_ms), limit=8)
        return [_checked(value) for _, value in found]

    def until(self, slot_ms: int) -> list[Row]:
        """What removes those of a slot and of earlier ones."""
        end = self._prefix(slot_ms + 1)
        found = self._scan(_ROWS_AT_ONCE)
        return [Row(Table.WORKFLOWS, key, None) for key, _ in found if key < end]

    async def forget(self) -> None:
        """Remove all of them."""
        while rows := self._scan(_ROWS_AT_ONCE):
            gone = tuple(Row(Table.WORKFLOWS, key, None) for key, _ in rows)
            await self.store.commit(Write(rows=gone))

    def _scan(self, limit: int) -> list[tuple[bytes, bytes]]:
        return self.store.scan(Table.WORKFLOWS, prefix=self._prefix(), limit=limit)

    def _prefix(self, slot_ms: int | None = None) -> bytes:
        tail = b"" if slot_ms is None else slot_ms.to_bytes(8, "big")
        return _LOST + bytes(self.record.id) + tail

    def _key(self, slot_ms: int, entry: Signed[FeedEntry]) -> bytes:
        place = self.record.keepers.index(entry.signer)
        return self._prefix(slot_ms) + bytes((place,))


def _checked(raw: bytes) -> Signed[FeedEntry]:
    """An entry that was checked when it was kept."""
    envelope = Envelope.read(raw, FeedEntry)
    return Signed(envelope.claimed(), envelope.signer, raw, ContentId.of(raw))
