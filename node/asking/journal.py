"""What this peer has promised to finish: tasks that were accepted together share a row.

A row has the tasks that have not ended, each with its input where that is small; a larger input is
a pinned blob. A task leaves its row in the commit that keeps what came of it, so that after a crash
at any moment it is in its row or has ended, and never both.
"""

from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import trio

from node.asking.run import TaskState
from store import Pin, Row, Store, Table, Write
from wire.codec import pack, unpack
from wire.content import ContentId
from wire.signed import Signed, open_signed
from wire.task import Task

# What a row begins with. Before, each task had a row, which begins with the task.
FORMAT = 2
# Of the entries of one row; each has a head of at most five bytes.
ROW_BYTES_MAX = (64 << 10) - 512
_HEAD_BYTES = 5


@dataclass(frozen=True, slots=True)
class JournalEntry:
    """A task as the journal has it. `input` is None where it is a blob, or there is none."""

    task: Signed[Task]
    seed: bytes
    attempt: int
    owner: bytes
    input: bytes | None

    def pins(self) -> tuple[Pin, ...]:
        """By what the journal holds its input."""
        source = self.task.record.input
        return () if source is None or self.input is not None else (Pin(source, "journal"),)


@dataclass(frozen=True, slots=True)
class Journaled:
    """A task that is to be journaled, with its input, of any size."""

    run: TaskState
    input: bytes | None


@dataclass(frozen=True, slots=True)
class JournalChange:
    """What has to be written in the commit in which tasks end."""

    rows: tuple[Row, ...]
    unpins: tuple[Pin, ...]


@dataclass(slots=True, eq=False)
class _Bundle:
    """A row: its key, and the encoded entries of its tasks."""

    key: bytes
    entries: dict[ContentId, bytes] = field(default_factory=dict)
    size_bytes: int = 0

    def row(self, entries: Iterable[bytes]) -> Row:
        """The row with these entries; to be deleted where there are none."""
        left = [*entries]
        return Row(Table.JOURNAL, self.key, pack([FORMAT, *left]) if left else None)


@dataclass(slots=True)
class Journal:
    """The journal in one peer's store."""

    store: Store
    _bundles: dict[ContentId, _Bundle] = field(default_factory=dict)
    # Of tasks whose inputs are blobs.
    _pins: dict[ContentId, tuple[Pin, ...]] = field(default_factory=dict)
    # A row is changed by one commit after the other: each is worked out from what is durable.
    _changing: trio.Lock = field(default_factory=trio.Lock)

    def read(self, rows_max: int) -> list[JournalEntry]:
        """The tasks that were not finished when this peer stopped, from at most so many rows."""
        found = []
        for key, value in self.store.scan(Table.JOURNAL, limit=rows_max):
            bundle = _Bundle(key)
            for entry in entries_of(value):
                found.append(entry)
                self._note(bundle, entry.task.id, _encoded(entry), entry.pins())
        return found

    async def add(self, tasks: Sequence[Journaled]) -> None:
        """Promise to finish these; StoreError or WireError, and none is promised."""
        bundles: list[_Bundle] = []
        blobs, pins = list[bytes](), dict[ContentId, tuple[Pin, ...]]()
        for one in tasks:
            task_id = one.run.task.id
            data = _encoded(_entry(one.run, one.input))
            if len(data) > ROW_BYTES_MAX and one.input is not None:
                entry = _entry(one.run, None)
                data, pins[task_id] = _encoded(entry), entry.pins()
                blobs.append(one.input)
            size_bytes = len(data) + _HEAD_BYTES
            if not bundles or bundles[-1].size_bytes + size_bytes > ROW_BYTES_MAX:
                bundles.append(_Bundle(task_id))
            bundles[-1].entries[task_id] = data
            bundles[-1].size_bytes += size_bytes
        await self.store.commit(
            Write(
                rows=tuple(it.row(it.entries.values()) for it in bundles),
                blobs=tuple(blobs),
                pins=tuple(pin for some in pins.values() for pin in some),
            )
        )
        for bundle in bundles:
            for task_id, data in bundle.entries.items():
                self._note(bundle, task_id, data, pins.get(task_id, ()))

    async def renew(self, run: TaskState) -> None:
        """Keep the number of a task's attempt."""
        async with self._changing:
            bundle = self._bundles[run.task.id]
            in_row = run.task.id not in self._pins
            data = _encoded(_entry(run, run.inline if in_row else None))
            entries = {**bundle.entries, run.task.id: data}
            await self.store.commit(Write(rows=(bundle.row(entries.values()),)))
            bundle.entries[run.task.id] = data

    @asynccontextmanager
    async def ending_of(self, tasks: Sequence[ContentId]) -> AsyncIterator[JournalChange]:
        """In the block tasks that are journaled are made to end, in one commit with this."""
        async with self._changing:
            left: dict[_Bundle, dict[ContentId, bytes]] = {}
            for task_id in tasks:
                bundle = self._bundles[task_id]
                del left.setdefault(bundle, dict(bundle.entries))[task_id]
            yield JournalChange(
                tuple(bundle.row(entries.values()) for bundle, entries in left.items()),
                tuple(pin for it in tasks for pin in self._pins.get(it, ())),
            )
            for bundle, entries in left.items():
                bundle.entries = entries
            for task_id in tasks:
                del self._bundles[task_id]
                self._pins.pop(task_id, None)

    def _note(
        self, bundle: _Bundle, task_id: ContentId, data: bytes, pins: tuple[Pin, ...]
    ) -> None:
        bundle.entries[task_id] = data
        self._bundles[task_id] = bundle
        if pins:
            self._pins[task_id] = pins


def entries_of(row: bytes) -> Iterator[JournalEntry]:
    """The tasks of a row, of this format or of the one before; WireError for anything else."""
    first, *rest = unpack(row)
    if first != FORMAT:
        owner = rest[2] if len(rest) > 2 else b""
        yield JournalEntry(open_signed(first, Task), rest[0], rest[1], owner, input=None)
        return
    for data in rest:
        raw, seed, attempt, owner, source = unpack(data)
        yield JournalEntry(open_signed(raw, Task), seed, attempt, owner, source)


def _entry(run: TaskState, source: bytes | None) -> JournalEntry:
    return JournalEntry(run.task, run.seed, run.attempt, run.owner, source)


def _encoded(entry: JournalEntry) -> bytes:
    return pack([entry.task.raw, entry.seed, entry.attempt, entry.owner, entry.input])
