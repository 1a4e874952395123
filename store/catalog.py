"""The bookkeeping of blobs: what is kept, what is held, what is evicted first. No IO.

Every rule about quota, pins and eviction lives here, once, over `store.rows`; the disk and the
memory store differ only in who provides the rows.

- `blocks`: id -> bytes. Every block and tree node that is here.
- `queue`: tick -> id. Every block that nothing holds has a row; the lowest tick is evicted first. A
block that was read since then moves to the end instead, once. So reading costs no write.
- `pins`: id + reason. `holds`: id -> how many hold it: one for all its pins together, and one for
  each time a held tree node names it. A block that is held is never evicted. A hold may be on a
  block that is not here yet: it counts from the moment it arrives.
A soft pin is in memory alone: its blocks are evicted after all others that nothing holds.
- `counters`: one row of totals, so that the quota is checked without looking at anything.

An action checks everything that can fail before it changes anything. Many actions share one
transaction, and one that is refused must leave no trace in it.
"""

import itertools
import struct
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass

from store.placed import KeptFile, Place, PlacedRows
from store.quota import Quota
from store.recency import Recency
from store.rows import BLOCKS, COUNTERS, FILES, HOLDS, PINS, PLACES, QUEUE, Rows
from store.seam import Pin, Row
from wire import limits
from wire.content import ContentId
from wire.errors import Corrupt, Oversize, StoreFull, WireError
from wire.tree import Block, TreeNode

_PAGE_ROWS = 256
_COUNTERS_KEY = b"totals"
_COUNTERS = struct.Struct(">QQQQQ")
_TICK = struct.Struct(">Q")
_HOLD = struct.Struct(">Q?")


@dataclass(slots=True)
class Counters:
    """The totals; `held_bytes` are the part of `used_bytes` that may not be evicted."""

    blocks: int = 0
    used_bytes: int = 0
    held_bytes: int = 0
    holds: int = 0
    next_tick: int = 0

    @classmethod
    def read(cls, rows: Rows) -> "Counters":
        """The counters as they are kept; zeros in a new store."""
        row = rows.get(COUNTERS, _COUNTERS_KEY)
        return cls(*_COUNTERS.unpack(row)) if row is not None else cls()

    def to_bytes(self) -> bytes:
        return _COUNTERS.pack(
            self.blocks, self.used_bytes, self.held_bytes, self.holds, self.next_tick
        )


class Catalog:
    """One writing transaction; `finish` is its last call."""

    __slots__ = ("_allowed", "_before", "_quota_bytes", "_recency", "counters", "rows")

    def __init__(self, rows: PlacedRows, quota: Quota, recency: Recency) -> None:
        self.rows = rows
        self._recency = recency
        self.counters = Counters.read(rows)
        self._allowed = quota.now(self.counters.used_bytes, self.counters.held_bytes)
        self._quota_bytes = self._allowed.quota_bytes
        self._before = self.counters.to_bytes()

    def finish(self) -> None:
        """Write the counters if they changed; the last step of a transaction."""
        after = self.counters.to_bytes()
        if after != self._before:
            self.rows.put(COUNTERS, _COUNTERS_KEY, after)

    # Blocks

    def put_one(self, content_id: ContentId, data: bytes) -> None:
        """As `put`, for one block: faster, for the many small blobs."""
        if self.counters.used_bytes + len(data) > self._quota_bytes:
            self.put((Block(content_id, data),))
        else:
            self._add(content_id, data)

    def put(self, blocks: Sequence[Block]) -> None:
        """Keep all of these; StoreFull, and none of them, if the quota does not allow it."""
        size_bytes = sum(len(block.data) for block in blocks)
        if self.counters.used_bytes + size_bytes <= self._quota_bytes:
            for block in blocks:
                self._add(block.id, block.data)
            return
        sizes = {block.id: len(block.data) for block in blocks}
        here = {
            content_id for content_id in sizes if self.rows.size(BLOCKS, content_id) is not None
        }
        size_bytes = sum(size for content_id, size in sizes.items() if content_id not in here)
        self._make_room(size_bytes, sizes)
        for block in blocks:
            self._add(block.id, block.data)

    def put_pinned(self, blocks: Sequence[Block], pins: Sequence[Pin]) -> None:
        """As `put`, and then `pin` for each: in half of the steps where both name a new block."""
        if self.counters.used_bytes + sum(len(it.data) for it in blocks) > self._quota_bytes:
            self.put(blocks)
            blocks = ()
        wanted, done = {pin.id: pin for pin in pins}, set[Pin]()
        for block in blocks:
            pin = wanted.get(block.id)
            if pin is not None and self._add_pinned(block, pin):
                done.add(pin)
            else:
                self._add(block.id, block.data)
        for pin in [it for it in pins if it not in done]:
            self.pin(pin)

    def _add_pinned(self, block: Block, pin: Pin) -> bool:
        """Whether a block was new and nothing held it; then it is kept, and held by this pin."""
        unheld = not block.id.is_tree and self.hold_of(block.id) is None
        if not unheld or not self.rows.insert(BLOCKS, block.id, block.data):
            return False
        self.counters.blocks += 1
        self.counters.used_bytes += len(block.data)
        self.counters.held_bytes += len(block.data)
        self.counters.holds += 1
        # It is not in the queue of what may be evicted, until it is released.
        self.rows.put(HOLDS, block.id, _HOLD.pack(1, False))
        self.rows.put(PINS, block.id + pin.why.encode(), b"")
        return True

    def put_received(self, block: Block) -> None:
        """As `put`, for a block whose id another peer gave: the id is checked."""
        check_block(block)
        self.put_one(block.id, block.data)

    def put_all_received(self, blocks: Sequence[Block]) -> None:
        """As `put_received` for all of these: all, or none."""
        for block in blocks:
            check_block(block)
        self.put(blocks)

    def _add(self, content_id: ContentId, data: bytes) -> None:
        if not self.rows.insert(BLOCKS, content_id, data):
            self._recency.touch(content_id)
            return
        self._count(content_id, len(data))

    def _count(self, content_id: ContentId, size_bytes: int) -> None:
        """Count a block that was not here before."""
        self.counters.blocks += 1
        self.counters.used_bytes += size_bytes
        if self.hold_of(content_id) is None:
            self.enqueue(content_id)
            return
        self.counters.held_bytes += size_bytes
        if content_id.is_tree:
            for child in self.children(content_id):
                self.hold(child)

    # Files

    def place(self, places: Sequence[tuple[ContentId, Place]]) -> None:
        """Note that these leaves are in a file; StoreFull, and none noted, if there is no room."""
        new = {leaf: it for leaf, it in places if self.rows.size(BLOCKS, leaf) is None}
        size_bytes = sum(it.size_bytes for it in new.values())
        if self.counters.used_bytes + size_bytes > self._quota_bytes:
            self._make_room(size_bytes, {leaf for leaf, _ in places})
        for leaf, it in places:
            self.rows.place(leaf, it)
        for leaf, it in new.items():
            self._count(leaf, it.size_bytes)

    def keep_file(self, root: ContentId, file: KeptFile) -> None:
        """Note that all of `root` is in this file."""
        self.rows.put(FILES, root, file.to_bytes())

    def forget_file(self, root: ContentId) -> str | None:
        """Forget the blocks that are in the file of `root`; returns the file's name, if any."""
        file = self.rows.file_of(root)
        if file is None:
            return None
        self.rows.delete(FILES, root)
        work, seen = [root], set[ContentId]()
        while work:
            content_id = work.pop()
            if content_id in seen:
                continue
            seen.add(content_id)
            if content_id.is_tree:
                work.extend(self.children(content_id))
                continue
            place = self.rows.place_of(content_id)
            if place is not None and place.name == file.name:
                self.rows.delete(PLACES, content_id)
                self.counters.blocks -= 1
                self.counters.used_bytes -= place.size_bytes
                if self.hold_of(content_id) is not None:
                    self.counters.held_bytes -= place.size_bytes
        return file.name

    def children(self, content_id: ContentId) -> tuple[ContentId, ...]:
        data = self.rows.get(BLOCKS, content_id)
        if data is None or not content_id.matches(data):
            return ()
        try:
            return TreeNode.from_bytes(data).children
        except WireError:
            # Only another version of Baton makes such a node; it holds nothing that we can read.
            return ()

    # Eviction

    def enqueue(self, content_id: ContentId) -> None:
        """Put a content last in the queue of what may be evicted."""
        self.rows.put(QUEUE, _TICK.pack(self.counters.next_tick), content_id)
        self.counters.next_tick += 1

    def _make_room(self, size_bytes: int, keep: Collection[bytes]) -> None:
        """Evict until this much fits, or raise StoreFull with nothing evicted."""
        counters = self.counters
        if not size_bytes:
            return
        if counters.held_bytes + size_bytes > self._quota_bytes:
            raise self._full(size_bytes)
        excess = counters.used_bytes + size_bytes - self._quota_bytes
        victims: list[tuple[bytes, ContentId, int]] = []
        start = 0
        # A block that was read lately is spared in the first round only. Otherwise a store in which
        # every block was read lately could evict nothing. Soft pins yield in the last round.
        for patience in (2, 1, 0):
            end = counters.next_tick
            for tick, content_id in self._queued(start, end):
                if excess <= 0:
                    break
                size = self._evictable(tick, content_id)
                if size is None:
                    continue
                if (
                    content_id in keep
                    or self._recency.guarded(content_id)
                    or (patience and self._recency.soft_pinned(content_id))
                    or (patience == 2 and self._recency.take(content_id))
                ):
                    self.rows.delete(QUEUE, tick)
                    self.enqueue(content_id)
                    continue
                victims.append((tick, content_id, size))
                excess -= size
            start = end
        if excess > 0:
            raise self._full(size_bytes)
        for tick, content_id, size in victims:
            self.rows.delete(QUEUE, tick)
            if self.rows.delete(BLOCKS, content_id):
                counters.blocks -= 1
                counters.used_bytes -= size

    def _queued(self, start: int, end: int) -> Iterator[tuple[bytes, ContentId]]:
        at = _TICK.pack(start)
        while page := self.rows.scan(QUEUE, at, _PAGE_ROWS):
            for tick, content_id in page:
                if tick >= _TICK.pack(end):
                    return
                yield tick, ContentId(content_id)
            at = page[-1][0] + b"\0"

    def _evictable(self, tick: bytes, content_id: ContentId) -> int | None:
        """The bytes that evicting this would free; a row that is out of date is removed."""
        size = self.rows.size(BLOCKS, content_id)
        held = self.hold_of(content_id)
        if held is not None:
            self.rows.put(HOLDS, content_id, _HOLD.pack(held[0], False))
        if held is not None or size is None:
            self.rows.delete(QUEUE, tick)
            return None
        return size

    def _full(self, size_bytes: int) -> StoreFull:
        return StoreFull(
            f"no room for {size_bytes} bytes: {self.counters.held_bytes} of "
            f"{self._quota_bytes} bytes are pinned, and nothing else may be evicted",
            todo="make room on its disk, or unpin what is no longer wanted"
            if self._allowed.problem
            else "raise the store's quota, or unpin what is no longer wanted",
        )

    # Pins and holds

    def pin(self, pin: Pin) -> None:
        """Keep a content until this pin is taken off; the same pin twice is one."""
        if not self.is_pinned(pin.id):
            self.hold(pin.id)
        self.rows.put(PINS, pin.id + pin.why.encode(), b"")

    def unpin(self, pin: Pin) -> None:
        """Remove a pin; content without pins may be evicted."""
        if self.rows.delete(PINS, pin.id + pin.why.encode()) and not self.is_pinned(pin.id):
            self._release(pin.id)

    def is_pinned(self, content_id: ContentId) -> bool:
        row = self.rows.scan(PINS, content_id, 1)
        return bool(row) and row[0][0].startswith(content_id)

    def hold_of(self, content_id: ContentId) -> tuple[int, bool] | None:
        """How often this is held, and whether it still has its row in the queue."""
        row = self.rows.get(HOLDS, content_id) if self.counters.holds else None
        if row is None:
            return None
        count, queued = _HOLD.unpack(row)
        return count, queued

    def hold(self, content_id: ContentId) -> None:
        # A list of work, not recursion: another peer may have chosen the depth of the tree.
        work = [content_id]
        while work:
            content_id = work.pop()
            held = self.hold_of(content_id)
            if held is not None:
                self.rows.put(HOLDS, content_id, _HOLD.pack(held[0] + 1, held[1]))
                continue
            size = self.rows.size(BLOCKS, content_id)
            self.rows.put(HOLDS, content_id, _HOLD.pack(1, size is not None))
            self.counters.holds += 1
            if size is not None:
                self.counters.held_bytes += size
                if content_id.is_tree:
                    work.extend(self.children(content_id))

    def _release(self, content_id: ContentId) -> None:
        work = [content_id]
        while work:
            content_id = work.pop()
            held = self.hold_of(content_id)
            if held is None:
                # This happens only after damage; `check` counts everything again.
                continue
            if held[0] > 1:
                self.rows.put(HOLDS, content_id, _HOLD.pack(held[0] - 1, held[1]))
                continue
            self.rows.delete(HOLDS, content_id)
            self.counters.holds -= 1
            size = self.rows.size(BLOCKS, content_id)
            if size is not None:
                self.counters.held_bytes -= size
                if not held[1]:
                    self.enqueue(content_id)
                if content_id.is_tree:
                    # In reading order, so that they go in that order too.
                    work.extend(reversed(self.children(content_id)))

    # Records

    def write(self, row: Row) -> None:
        """Keep a small record, or delete it where its value is None."""
        if row.value is None:
            self.rows.delete(row.table, row.key)
        else:
            self.rows.put(row.table, row.key, row.value)

    def write_many(self, rows: Iterable[Row]) -> None:
        """As `write` for each of these, in order; neighbours in a table are written at once."""
        for (table, gone), run in itertools.groupby(rows, lambda it: (it.table, it.value is None)):
            if gone:
                for row in run:
                    self.rows.delete(table, row.key)
            else:
                self.rows.put_many(table, [(row.key, row.value or b"") for row in run])


def check_block(block: Block) -> None:
    """Corrupt unless the bytes are what the id names; WireError unless they are a legal block."""
    if len(block.data) > limits.BLOCK_BYTES_MAX:
        raise Oversize(f"a block of {len(block.data)} bytes")
    if not block.id.matches(block.data):
        raise Corrupt(f"{block.id.short}: these are not the bytes this id names")
    if block.id.is_tree:
        TreeNode.from_bytes(block.data)
