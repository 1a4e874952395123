"""The store in memory, for simulations: no threads, so it works with a clock that jumps.

It uses the same catalog as the store on disk, over sorted tables. Nothing is kept after the block.
"""

from bisect import bisect_left, insort
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeVar

import trio

from store.catalog import Catalog
from store.content_store import ContentStore
from store.group_commit import Action, CommitStatistics
from store.placed import PlacedRows
from store.quota import Quota
from store.recency import Recency
from store.seam import Store

T = TypeVar("T")


class _SortedTable:
    """A dict that knows the order of its keys."""

    __slots__ = ("keys", "values")

    def __init__(self) -> None:
        self.keys: list[bytes] = []
        self.values: dict[bytes, bytes] = {}


class MemoryRows:
    """See `store.rows.Rows`. There is one transaction at a time, as actions never wait."""

    def __init__(self) -> None:
        self._tables: defaultdict[str, _SortedTable] = defaultdict(_SortedTable)

    def get(self, table: str, key: bytes) -> bytes | None:
        return self._tables[table].values.get(key)

    def size(self, table: str, key: bytes) -> int | None:
        value = self._tables[table].values.get(key)
        return None if value is None else len(value)

    def put(self, table: str, key: bytes, value: bytes) -> None:
        """Write a value under a key of a table, in place of an earlier one."""
        kept = self._tables[table]
        if key not in kept.values:
            insort(kept.keys, bytes(key))
        kept.values[bytes(key)] = value

    def put_many(self, table: str, rows: Sequence[tuple[bytes, bytes]]) -> None:
        for key, value in rows:
            self.put(table, key, value)

    def insert(self, table: str, key: bytes, value: bytes) -> bool:
        if key in self._tables[table].values:
            return False
        self.put(table, key, value)
        return True

    def delete(self, table: str, key: bytes) -> bool:
        kept = self._tables[table]
        if kept.values.pop(key, None) is None:
            return False
        del kept.keys[bisect_left(kept.keys, key)]
        return True

    def scan(self, table: str, start: bytes, limit: int) -> list[tuple[bytes, bytes]]:
        kept = self._tables[table]
        at = bisect_left(kept.keys, start)
        return [(key, kept.values[key]) for key in kept.keys[at : at + limit]]

    def sizes(self, table: str, start: bytes, limit: int) -> list[tuple[bytes, int]]:
        return [(key, len(value)) for key, value in self.scan(table, start, limit)]


class MemoryBackend:
    """Runs every action at once, on the loop: two commits never run at the same time."""

    def __init__(
        self, rows: MemoryRows, quota: Quota, recency: Recency, files: Path | None = None
    ) -> None:
        self._rows = PlacedRows(rows, files)
        self._quota = quota
        self._recency = recency
        self._puts = 0

    async def commit(self, action: Action[T], size_bytes: int = 0) -> T:
        await trio.lowlevel.checkpoint()
        return self._run(action)

    def offer(self, action: Action[object]) -> bool:
        self._run(action)
        return True

    @contextmanager
    def reading(self) -> Iterator[PlacedRows]:
        yield self._rows

    async def run_in_thread(self, work: Callable[[], T]) -> T:
        await trio.lowlevel.checkpoint()
        return work()

    def statistics(self) -> CommitStatistics:
        """Each write is a commit of its own here."""
        return CommitStatistics(
            commits=self._puts, puts=self._puts, largest_group=min(1, self._puts)
        )

    def _run(self, action: Action[T]) -> T:
        self._puts += 1
        catalog = Catalog(self._rows, self._quota, self._recency)
        try:
            return action(catalog)
        finally:
            # An action that was refused changed nothing but, at most, the order of the queue.
            catalog.finish()


@asynccontextmanager
async def open_memory_store(*, quota_bytes: int) -> AsyncIterator[Store]:
    """A store for as long as the block runs. Only content kept as files is on a disk."""
    recency, quota = Recency(), Quota(quota_bytes)
    with TemporaryDirectory(prefix="baton-") as folder:
        backend = MemoryBackend(MemoryRows(), quota, recency, Path(folder))
        yield ContentStore(backend, recency, quota, Path(folder))
