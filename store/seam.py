"""The interface between the network and the disk: what every store promises.

Two implementations keep these promises: `store.on_lmdb` (durable) and `store.in_memory` (for
simulations). Content is checked on both sides: `put` derives the id, `get` derives it again, and
bytes that no longer hash to their id are never served. A store does not fetch: what is not here is
Missing, and another peer may have it.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Protocol

from wire import limits
from wire.content import ContentId
from wire.errors import Oversize
from wire.tree import Block

# LMDB's own bound on a key is 511 bytes; the rest is left for prefixes that we may need.
KEY_BYTES_MAX = 400
VALUE_BYTES_MAX = 128 << 10
WHY_BYTES_MAX = 64
# One `Write` is one transaction, and has to fit beside others in one group.
WRITE_BYTES_MAX = 8 << 20
# The most that `get` builds in memory, unless the caller says otherwise.
GET_BYTES_MAX = 64 << 20
SCAN_ROWS_MAX = 10_000
MISSING_MAX = 4096


class Table(StrEnum):
    """The tables of small records. Their names are kept on disk: append, never rename."""

    META = "meta"
    JOURNAL = "journal"
    JOBS = "jobs"
    RECEIPTS = "receipts"
    VERDICTS = "verdicts"
    PEERS = "peers"
    ADVERTS = "adverts"
    MODELS = "models"
    SOURCES = "sources"
    ANSWERS = "answers"
    KEPT = "kept"
    LEDGER = "ledger"
    WALLET = "wallet"
    CHANNELS = "channels"
    LOG = "log"
    HTTP_PAYMENTS = "http_payments"
    WORKFLOWS = "workflows"
    MEMBERS = "members"
    SPONSORED = "sponsored"


@dataclass(frozen=True, slots=True)
class Row:
    """One record to keep, or to forget where `value` is None; Oversize beyond the bounds."""

    table: Table
    key: bytes
    value: bytes | None

    def __post_init__(self) -> None:
        if not 0 < len(self.key) <= KEY_BYTES_MAX:
            raise Oversize(f"a key of {len(self.key)} bytes: 1 to {KEY_BYTES_MAX} are kept")
        if self.value is not None and len(self.value) > VALUE_BYTES_MAX:
            raise Oversize(
                f"a record of {len(self.value)} bytes, at most {VALUE_BYTES_MAX} are kept",
                todo="put it as a blob and keep its id",
            )


@dataclass(frozen=True, slots=True)
class Pin:
    """A reason to keep a blob. Oversize unless `why` is 1 to 64 bytes of UTF-8."""

    id: ContentId
    why: str

    def __post_init__(self) -> None:
        if not 0 < len(self.why.encode()) <= WHY_BYTES_MAX:
            raise Oversize(f"a pin's reason is text of 1 to {WHY_BYTES_MAX} bytes")


@dataclass(frozen=True, slots=True, kw_only=True)
class Write:
    """Rows, blobs and pins that are kept all together or not at all.

    Blobs are put before pins, so a pin may name a blob of the same write. Oversize above
    `WRITE_BYTES_MAX`: what is larger is streamed with `put` or `put_file`.
    """

    rows: tuple[Row, ...] = ()
    blobs: tuple[bytes, ...] = ()
    pins: tuple[Pin, ...] = ()
    unpins: tuple[Pin, ...] = ()
    size_bytes: int = field(init=False)

    def __post_init__(self) -> None:
        rows_bytes = sum([len(row.key) + len(row.value or b"") for row in self.rows])
        object.__setattr__(self, "size_bytes", rows_bytes + sum(map(len, self.blobs)))
        if self.size_bytes > WRITE_BYTES_MAX:
            raise Oversize(
                f"one write of {self.size_bytes} bytes, at most {WRITE_BYTES_MAX} fit",
                todo="put large blobs by themselves",
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Statistics:
    """A store at one moment. Bytes are bytes of content, without the overhead of the disk.

    `held_bytes` are pinned; `puts` counts requests of every kind, `commits` the groups they shared;
    `dropped` counts the records that `write_soon` did not keep. `problem` is why the disk refused a
    write, until one of that size succeeds, or that it is nearly full; what is stored is served
    meanwhile. `quota_bytes` is what may be kept now: on a disk that is nearly full, what there is.
    """

    blocks: int
    used_bytes: int
    held_bytes: int
    quota_bytes: int
    commits: int
    puts: int
    largest_group: int
    queue_depth: int
    dropped: int
    problem: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckReport:
    """What `check` walked over, what it found, and what it did about it.

    `corrupt` blocks were dropped and can be fetched again. `incomplete` names pinned roots of
    which blocks are missing. Both lists are cut at `LISTED_MAX` names; the counts are not.
    `repairs` says in sentences what was changed; empty when nothing had to be.
    """

    LISTED_MAX = 64

    blocks: int
    bytes_read: int
    rows: int
    corrupt_count: int
    corrupt: tuple[ContentId, ...]
    incomplete_count: int
    incomplete: tuple[ContentId, ...]
    repairs: tuple[str, ...]

    @property
    def healthy(self) -> bool:
        """Whether everything held is whole, and nothing had to be repaired."""
        return not self.repairs and not self.incomplete_count


Progress = Callable[[int], None]


class Store(Protocol):
    """Content by its id, and tables of small records.

    Every async call that changes something returns once the change is durable, and raises StoreFull
    (nothing of the call was kept) or StoreUnusable (the disk does not answer). A call that is
    cancelled may have happened or not. Any number of tasks may call at once.
    """

    async def put(self, data: bytes, *, pin: str | None = None) -> ContentId:
        """Keep these bytes; where `pin` is given the blob is pinned in the same commit."""
        ...

    async def put_file(
        self, path: Path, progress: Progress | None = None, *, pin: str | None = None
    ) -> ContentId:
        """Keep a file of any size; `progress` gets the bytes done. InputError if unreadable."""
        ...

    async def put_block(self, block: Block) -> None:
        """Keep one block from outside; Corrupt, Malformed or Oversize if it is not what it says."""
        ...

    async def put_blocks(self, blocks: Sequence[Block]) -> None:
        """As `put_block` for all of these, in one step: all are kept, or none."""
        ...

    async def get(self, content_id: ContentId, *, size_bytes_max: int = GET_BYTES_MAX) -> bytes:
        """The whole blob: Missing, Corrupt, Oversize; Malformed if the tree's sizes are wrong."""
        ...

    async def get_block(self, content_id: ContentId) -> bytes:
        """One block or tree node as it is kept: Missing, Corrupt."""
        ...

    async def get_blocks(self, content_ids: Sequence[ContentId]) -> list[bytes]:
        """As `get_block` for each of these, in order, in one step."""
        ...

    def has(self, content_id: ContentId) -> bool:
        """Whether this block is here. For a tree: its node, not all that is below (`missing`)."""
        ...

    def size_of(self, content_id: ContentId) -> int | None:
        """The bytes of this block or tree node, as it is kept; None if it is not here."""
        ...

    async def export(
        self, content_id: ContentId, path: Path, *, size_bytes_max: int = limits.BLOB_BYTES_MAX
    ) -> int:
        """Write a blob to a file that appears whole or not at all; returns its bytes."""
        ...

    async def take_file(
        self, path: Path, progress: Progress | None = None, *, pin: str | None = None
    ) -> ContentId:
        """As `put_file`, for content that will be used as a file again: it is on the disk once.

        The store has its own name for the file. If `path` is on the same disk, its disk blocks are
        shared. If a later change of `path` also changes the store's file, the store notices it by
        size, time and hash, and no longer has the content that was changed.
        """
        ...

    async def file_of(self, content_id: ContentId) -> Path:
        """A file with all of this content, for reading only; Missing if not all is here.

        Blocks move from the table into the file. The file's content is checked when it is made, and
        again if its size or time has changed.
        """
        ...

    async def forget_file(self, content_id: ContentId) -> None:
        """Delete the file of this content, unless it is pinned."""
        ...

    async def missing(
        self, root: ContentId, *, limit: int = MISSING_MAX
    ) -> list[tuple[ContentId, int]]:
        """What of this tree is not here yet, nodes first, at most `limit`; empty when complete.

        With each id come the bytes of content below it; 0 for the root, whose size is not known.
        """
        ...

    async def pin(self, content_id: ContentId, why: str) -> None:
        """Never evict this blob while the pin exists. A blob that is not here yet may be pinned."""
        ...

    async def unpin(self, content_id: ContentId, why: str) -> None:
        """Remove one pin; nothing happens if there is none."""
        ...

    async def soft_pin(self, content_id: ContentId) -> None:
        """Evict what is here of this blob only after everything else that may be evicted.

        Whatever is pinned goes before it: no put is refused for the sake of a soft pin. It is
        forgotten at a restart. Malformed if the blob is no legal tree.
        """
        ...

    def soft_pin_all(self, name: bytes, blocks: Collection[ContentId]) -> None:
        """As `soft_pin`, of these blocks under any name."""
        ...

    def soft_unpin(self, name: bytes) -> None:
        """Remove a soft pin, of a content or under a name; nothing happens if there is none."""
        ...

    def pins(self, *, after: Pin | None = None, limit: int = 1000) -> list[Pin]:
        """The pins, in the order of their ids and reasons, those that come after one."""
        ...

    async def write(self, table: Table, key: bytes, value: bytes | None) -> None:
        """Keep one record; None forgets it."""
        ...

    def write_soon(self, table: Table, key: bytes, value: bytes | None) -> bool:
        """Keep one record with the next commit, without waiting.

        False, and the record is dropped and counted, when the queue is full. Only for what may be
        lost in a crash.
        """
        ...

    def read(self, table: Table, key: bytes) -> bytes | None:
        """One record, or None."""
        ...

    def read_each(self, keys: Sequence[tuple[Table, bytes]]) -> list[bytes | None]:
        """As `read`, of many records at once, in order: as they are at one moment."""
        ...

    def scan(
        self, table: Table, *, start: bytes = b"", prefix: bytes = b"", limit: int = 1000
    ) -> list[tuple[bytes, bytes]]:
        """Records in the order of their keys, from `start` on, those with `prefix` only."""
        ...

    async def commit(self, batch: Write) -> tuple[ContentId, ...]:
        """Everything in `batch`, in one durable step; returns the ids of its blobs, in order."""
        ...

    async def check(self) -> CheckReport:
        """Walk everything, repair what can be repaired, and say what was done."""
        ...

    def statistics(self) -> Statistics:
        """What is stored now, in blocks and bytes, and what was written since it was opened."""
