"""Which blocks the eviction spares: those read lately, of a running put, and softly pinned."""

from wire.content import ContentId

# Ids of blocks that were read lately; at 256 KiB a block, this covers 16 GiB of reading.
RECENT_MAX = 65_536


class Recency:
    """What readers and the one writer share in memory: ids only.

    Readers add ids and the writer removes them, in different threads. Every step is one operation
    on a dict or a set, so no lock is needed.
    """

    __slots__ = ("_read", "guards", "soft")

    def __init__(self) -> None:
        self._read: dict[bytes, None] = {}
        # The blocks of large puts that are running: they are in use before anything can pin them.
        self.guards: list[set[bytes]] = []
        # The blocks of each soft pin. The dictionary is replaced and never changed.
        self.soft: dict[bytes, frozenset[bytes]] = {}

    def touch(self, content_id: ContentId) -> None:
        """Remember that this was read; if the memory is full, all earlier reads are forgotten."""
        if len(self._read) >= RECENT_MAX:
            self._read = {}
        self._read[content_id] = None

    def take(self, content_id: ContentId) -> bool:
        """Forget that this content was read; True if it had been read."""
        return self._read.pop(content_id, self) is None

    def guarded(self, content_id: ContentId) -> bool:
        return any(content_id in guard for guard in tuple(self.guards))

    def soft_pinned(self, content_id: ContentId) -> bool:
        return any(content_id in blocks for blocks in self.soft.values())
