"""The one store, over either back end: what `store.seam` promises, in terms of catalog actions.

A back end provides transactions and a thread for slow work. Everything else, from splitting a blob
to dropping a corrupt block, is here, and is the same for both.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TypeVar

import trio

from store import check, files, repair, walk
from store.backend import Backend
from store.catalog import Catalog, Counters
from store.kept_files import KeptFiles
from store.quota import Quota
from store.recency import Recency
from store.rows import BLOCKS, PINS
from store.scanning import read_pin
from store.seam import (
    GET_BYTES_MAX,
    MISSING_MAX,
    SCAN_ROWS_MAX,
    CheckReport,
    Pin,
    Progress,
    Row,
    Statistics,
    Table,
    Write,
)
from wire import limits
from wire.content import ContentId
from wire.errors import Missing, Oversize, StoreFull
from wire.tree import Block, TreeBuilder, split

T = TypeVar("T")

# Up to this size, content is read and hashed on the loop: for 64 KiB a thread would take longer.
_INLINE_BYTES_MAX = 64 << 10
# The size of one piece of a large blob: large enough that a flush for each piece does not matter.
_PIECE_BYTES = 16 * limits.BLOCK_BYTES_MAX


class ContentStore:
    """See `store.seam.Store` for what each method promises."""

    def __init__(
        self, backend: Backend, recency: Recency, quota: Quota, folder: Path | None = None
    ) -> None:
        self._kept = KeptFiles(backend, recency, folder)
        self._backend = backend
        self._recency = recency
        self._quota = quota

    # Content in

    async def put(self, data: bytes, *, pin: str | None = None) -> ContentId:
        if len(data) > limits.BLOCK_BYTES_MAX:
            view = memoryview(data)
            pieces = (view[at : at + _PIECE_BYTES] for at in range(0, len(data), _PIECE_BYTES))
            return await self._put_pieces(lambda: bytes(next(pieces, b"")), None, pin)

        def keep(catalog: Catalog) -> ContentId:
            # The hash is computed in this thread, so that the loop does not wait.
            content_id = ContentId.of(data)
            catalog.put_one(content_id, data)
            if pin is not None:
                catalog.pin(Pin(content_id, pin))
            return content_id

        if pin is not None:
            _check_reason(pin)
        return await self._backend.commit(keep, len(data))

    async def put_file(
        self, path: Path, progress: Progress | None = None, *, pin: str | None = None
    ) -> ContentId:
        with ExitStack() as stack:
            # The file is opened on the loop, because opening is quick; a thread reads it.
            file = stack.enter_context(files.reading(path))
            return await self._put_pieces(lambda: file.read(_PIECE_BYTES), progress, pin)

    async def take_file(
        self, path: Path, progress: Progress | None = None, *, pin: str | None = None
    ) -> ContentId:
        if pin is not None:
            _check_reason(pin)
        return await self._kept.take(path, progress, pin)

    async def file_of(self, content_id: ContentId) -> Path:
        found = await self._kept.find(content_id)
        if found is not None:
            return found
        path = self._kept.new_path()
        await self.export(content_id, path)
        return await self._kept.adopt(content_id, path)

    async def forget_file(self, content_id: ContentId) -> None:
        await self._kept.forget(content_id)

    async def put_block(self, block: Block) -> None:
        await self._backend.commit(lambda catalog: catalog.put_received(block), len(block.data))

    async def put_blocks(self, blocks: Sequence[Block]) -> None:
        size_bytes = sum(len(it.data) for it in blocks)
        await self._backend.commit(lambda catalog: catalog.put_all_received(blocks), size_bytes)

    async def _put_pieces(
        self, read: Callable[[], bytes], progress: Progress | None, pin: str | None
    ) -> ContentId:
        """Keep what `read` returns until it returns nothing, piece by piece, root last.

        The blocks are guarded against eviction until the root is in: 100 bytes of memory for each.
        """
        if pin is not None:
            _check_reason(pin)
        builder, guard, done_bytes = TreeBuilder(), set[bytes](), 0
        self._recency.guards.append(guard)
        try:
            while builder.root is None:
                blocks, size_bytes = await self._backend.run_in_thread(
                    lambda: _next(read, builder, guard)
                )
                root = builder.root

                def keep(
                    catalog: Catalog,
                    blocks: list[Block] = blocks,
                    root: ContentId | None = root,
                ) -> None:
                    catalog.put(blocks)
                    if root is not None and pin is not None:
                        catalog.pin(Pin(root, pin))

                await self._backend.commit(keep, sum(len(block.data) for block in blocks))
                done_bytes += size_bytes
                if progress is not None:
                    progress(done_bytes)
        finally:
            self._recency.guards.remove(guard)
        return builder.root

    # Content out

    async def get(self, content_id: ContentId, *, size_bytes_max: int = GET_BYTES_MAX) -> bytes:
        if not content_id.is_tree:
            return await self._get_one(content_id, size_bytes_max)
        pieces = bytearray()
        await self._each_piece(content_id, size_bytes_max, pieces.extend)
        return bytes(pieces)

    async def get_block(self, content_id: ContentId) -> bytes:
        return await self._get_one(content_id, limits.BLOB_BYTES_MAX)

    async def get_blocks(self, content_ids: Sequence[ContentId]) -> list[bytes]:
        return await self._healing(lambda: [self._read(it) for it in content_ids])

    async def _get_one(self, content_id: ContentId, size_bytes_max: int) -> bytes:
        with self._backend.reading() as rows:
            size_bytes = rows.size(BLOCKS, content_id)
            if size_bytes is None:
                raise _missing(content_id)
            if size_bytes > size_bytes_max:
                raise _oversize(content_id, size_bytes, size_bytes_max)
            data = rows.get(BLOCKS, content_id) if size_bytes <= _INLINE_BYTES_MAX else None
        if data is None:
            return await self._healing(lambda: self._read(content_id))
        await trio.lowlevel.checkpoint()
        if not content_id.matches(data):
            await self._drop(content_id)
            raise walk.CorruptBlock(content_id)
        self._recency.touch(content_id)
        return data

    def has(self, content_id: ContentId) -> bool:
        return self.size_of(content_id) is not None

    def size_of(self, content_id: ContentId) -> int | None:
        with self._backend.reading() as rows:
            return rows.size(BLOCKS, content_id)

    async def export(
        self, content_id: ContentId, path: Path, *, size_bytes_max: int = limits.BLOB_BYTES_MAX
    ) -> int:
        # The file is opened and made durable in a thread, as its pieces are written there.
        with ExitStack() as stack:
            file = await self._backend.run_in_thread(
                lambda: stack.enter_context(files.appearing(path))
            )
            done = await self._each_piece(content_id, size_bytes_max, file.write)
            await self._backend.run_in_thread(stack.pop_all().close)
        return done

    async def missing(
        self, root: ContentId, *, limit: int = MISSING_MAX
    ) -> list[tuple[ContentId, int]]:
        while True:
            try:
                return await self._healing(lambda: walk.missing(self.has, self._read, root, limit))
            except walk.CorruptBlock as error:
                if self.has(error.content_id):
                    # The corrupt block could not be dropped, so a second try would find it again.
                    raise

    async def _each_piece(
        self, root: ContentId, size_bytes_max: int, take: Callable[[bytes], object]
    ) -> int:
        """Hand the blob's blocks to `take`, in a thread, some at a time; returns the bytes."""
        total = await self._healing(lambda: walk.total_bytes(self._read, root))
        if total > size_bytes_max:
            raise _oversize(root, total, size_bytes_max)
        leaves = walk.leaves(self._read, root)
        done = 0
        while size_bytes := await self._healing(lambda: _take_some(leaves, take)):
            done += size_bytes
        return done

    def _read(self, content_id: ContentId) -> bytes:
        with self._backend.reading() as rows:
            data = rows.get(BLOCKS, content_id)
        if data is None:
            raise _missing(content_id)
        if not content_id.matches(data):
            raise walk.CorruptBlock(content_id)
        self._recency.touch(content_id)
        return data

    async def _healing(self, work: Callable[[], T]) -> T:
        """Do slow work; a corrupt block found by it is dropped, so that it can be fetched again."""
        try:
            return await self._backend.run_in_thread(work)
        except walk.CorruptBlock as error:
            await self._drop(error.content_id)
            raise

    async def _drop(self, content_id: ContentId) -> None:
        # On a full disk the block stays, and is found corrupt again.
        with suppress(StoreFull):
            if await self._kept.changed(content_id):
                return
            await self._backend.commit(lambda catalog: repair.drop_corrupt(catalog, [content_id]))

    # Pins

    async def pin(self, content_id: ContentId, why: str) -> None:
        pin = Pin(content_id, why)
        await self._backend.commit(lambda catalog: catalog.pin(pin))

    async def unpin(self, content_id: ContentId, why: str) -> None:
        pin = Pin(content_id, why)
        await self._backend.commit(lambda catalog: catalog.unpin(pin))

    async def soft_pin(self, content_id: ContentId) -> None:
        blocks = await self._healing(lambda: walk.blocks(self.has, self._read, content_id))
        self._recency.soft = {**self._recency.soft, content_id: blocks}

    def soft_pin_all(self, name: bytes, blocks: Collection[ContentId]) -> None:
        self._recency.soft = {**self._recency.soft, name: frozenset(blocks)}

    def soft_unpin(self, name: bytes) -> None:
        soft = self._recency.soft
        self._recency.soft = {root: soft[root] for root in soft if root != name}

    def pins(self, *, after: Pin | None = None, limit: int = 1000) -> list[Pin]:
        start = b"" if after is None else after.id + after.why.encode() + b"\0"
        with self._backend.reading() as rows:
            found = rows.scan(PINS, start, min(limit, SCAN_ROWS_MAX))
        return [read_pin(key) for key, _ in found]

    # Records

    async def write(self, table: Table, key: bytes, value: bytes | None) -> None:
        row = Row(table, key, value)
        await self._backend.commit(lambda catalog: catalog.write(row))

    def write_soon(self, table: Table, key: bytes, value: bytes | None) -> bool:
        row = Row(table, key, value)
        return self._backend.offer(lambda catalog: catalog.write(row))

    def read(self, table: Table, key: bytes) -> bytes | None:
        with self._backend.reading() as rows:
            return rows.get(table, key)

    def read_each(self, keys: Sequence[tuple[Table, bytes]]) -> list[bytes | None]:
        with self._backend.reading() as rows:
            return [rows.get(table, key) for table, key in keys]

    def scan(
        self, table: Table, *, start: bytes = b"", prefix: bytes = b"", limit: int = 1000
    ) -> list[tuple[bytes, bytes]]:
        with self._backend.reading() as rows:
            found = rows.scan(table, max(start, prefix), min(limit, SCAN_ROWS_MAX))
        return [row for row in found if row[0].startswith(prefix)]

    async def commit(self, batch: Write) -> tuple[ContentId, ...]:
        blobs = [list(split(blob)) for blob in batch.blobs]

        def keep(catalog: Catalog) -> None:
            catalog.put_pinned([block for blocks in blobs for block in blocks], batch.pins)
            catalog.write_many(batch.rows)
            for pin in batch.unpins:
                catalog.unpin(pin)

        await self._backend.commit(keep, batch.size_bytes)
        return tuple(blocks[-1].id for blocks in blobs)

    # Checking

    async def check(self) -> CheckReport:
        return await check.check(self._backend)

    def statistics(self) -> Statistics:
        """What is stored now, in blocks and bytes, and what was written since it was opened."""
        with self._backend.reading() as rows:
            counters = Counters.read(rows)
        figures = self._backend.statistics()
        allowed = self._quota.now(counters.used_bytes, counters.held_bytes)
        return Statistics(
            blocks=counters.blocks,
            used_bytes=counters.used_bytes,
            held_bytes=counters.held_bytes,
            quota_bytes=allowed.quota_bytes,
            commits=figures.commits,
            puts=figures.puts,
            largest_group=figures.largest_group,
            queue_depth=figures.queue_depth,
            dropped=figures.dropped,
            problem=figures.problem or allowed.problem,
        )


def _next(
    read: Callable[[], bytes], builder: TreeBuilder, guard: set[bytes]
) -> tuple[list[Block], int]:
    """The blocks of the next piece, guarded, and the bytes read; at the end, the last blocks."""
    piece = read()
    blocks: list[Block] = []
    for at in range(0, len(piece), limits.BLOCK_BYTES_MAX):
        blocks.extend(builder.add(piece[at : at + limits.BLOCK_BYTES_MAX]))
    if not piece:
        blocks.extend(builder.finish())
    guard.update(block.id for block in blocks)
    return blocks, len(piece)


def _take_some(leaves: Iterator[bytes], take: Callable[[bytes], object]) -> int:
    done = 0
    for leaf in leaves:
        take(leaf)
        done += len(leaf)
        if done >= _PIECE_BYTES:
            break
    return done


def _check_reason(why: str) -> None:
    # Raises for a bad reason before anything is written; the id does not matter here.
    Pin(ContentId.of(b""), why)


def _missing(content_id: ContentId) -> Missing:
    return Missing(f"{content_id.short} is not in this store", todo="fetch it from another peer")


def _oversize(content_id: ContentId, size_bytes: int, size_bytes_max: int) -> Oversize:
    return Oversize(
        f"{content_id.short} has {size_bytes} bytes, at most {size_bytes_max} were asked for",
        todo="export it to a file, or allow more",
    )
