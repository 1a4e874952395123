"""A check of everything that is kept: hashes, trees with missing blocks, and totals.

It repairs what it can, and names what has to be fetched from another peer.
"""

from functools import partial

from store import repair, walk
from store.backend import Backend
from store.rows import BLOCKS
from store.scanning import every_pin
from store.seam import CheckReport, Table
from wire.content import ContentId
from wire.errors import Malformed, Missing

# Blocks read in one step: freed pages cannot be used again while a transaction is open.
_STEP_BLOCKS = 32
_STEP_ROWS = 1000


async def check(backend: Backend) -> CheckReport:
    """Check a store that may be in use meanwhile."""
    repairs = []
    blocks, bytes_read, corrupt = await _check_blocks(backend)
    if corrupt:
        dropped = await backend.commit(lambda catalog: repair.drop_corrupt(catalog, corrupt))
        repairs.append(f"dropped {dropped} blocks that no longer hash to their id")
    recounted = await backend.commit(repair.audit)
    if recounted is not None:
        repairs.append(recounted)
    rows = await _check_tables(backend)
    incomplete = await _check_pinned(backend)
    return CheckReport(
        blocks=blocks,
        bytes_read=bytes_read,
        rows=rows,
        corrupt_count=len(corrupt),
        corrupt=tuple(corrupt[: CheckReport.LISTED_MAX]),
        incomplete_count=len(incomplete),
        incomplete=tuple(incomplete[: CheckReport.LISTED_MAX]),
        repairs=tuple(repairs),
    )


async def _check_blocks(backend: Backend) -> tuple[int, int, list[ContentId]]:
    """How many blocks and bytes there are, and the ids of those that are corrupt."""
    blocks = bytes_read = 0
    corrupt: list[ContentId] = []
    at = b""

    def step() -> list[tuple[ContentId, int, bool]]:
        with backend.reading() as rows:
            keys = rows.sizes(BLOCKS, at, _STEP_BLOCKS)
            found = [(ContentId(key), rows.get(BLOCKS, key)) for key, _ in keys]
        return [
            (content_id, len(data), content_id.matches(data))
            for content_id, data in found
            if data is not None
        ]

    while found := await backend.run_in_thread(step):
        blocks += len(found)
        bytes_read += sum(size_bytes for _, size_bytes, _ in found)
        corrupt.extend(content_id for content_id, _, sound in found if not sound)
        at = found[-1][0] + b"\0"
    return blocks, bytes_read, corrupt


async def _check_tables(backend: Backend) -> int:
    """Read every record once; StoreUnusable where the disk does not give it back."""
    count = 0
    for table in Table:
        at = b""
        while keys := await backend.run_in_thread(partial(_read_rows, backend, table, at)):
            count += len(keys)
            at = keys[-1] + b"\0"
    return count


def _read_rows(backend: Backend, table: Table, at: bytes) -> list[bytes]:
    with backend.reading() as rows:
        return [key for key, _ in rows.scan(table, at, _STEP_ROWS)]


async def _check_pinned(backend: Backend) -> list[ContentId]:
    """The pinned roots of which blocks are missing, or whose tree cannot be read."""

    def roots() -> list[ContentId]:
        with backend.reading() as rows:
            return list(dict.fromkeys(pin.id for pin in every_pin(rows)))

    def whole(root: ContentId) -> bool:
        try:
            return not walk.missing(has, read, root, 1)
        except (Malformed, Missing, walk.CorruptBlock):
            return False

    def has(content_id: ContentId) -> bool:
        with backend.reading() as rows:
            return rows.size(BLOCKS, content_id) is not None

    def read(content_id: ContentId) -> bytes:
        with backend.reading() as rows:
            data = rows.get(BLOCKS, content_id)
        if data is None:
            raise Missing(f"{content_id.short} was evicted while it was being checked")
        if not content_id.matches(data):
            raise walk.CorruptBlock(content_id)
        return data

    pinned = await backend.run_in_thread(roots)
    return [root for root in pinned if not await backend.run_in_thread(partial(whole, root))]
