"""What is said where the layers of a model lie at several peers: rows of numbers, there and back.

The peer that has the first layers opens one conversation with each peer that has a further range.
A pass is some rows, each the numbers of one token at one place of one conversation with the model:
32-bit floats, little-endian. The answer is as many rows, after the range's layers. Keys and values
of what went through before are kept by the range's peer in pages, under numbers that the asker
gives; they are gone when the conversation ends.

When an answer has ended, the asker has the range's peer sign which rows went in at the answer's
places, and which came out: a `StageLeg`.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, ClassVar

from wire import limits
from wire.content import ContentId, PeerId
from wire.errors import Malformed
from wire.kinds import Kind
from wire.layers import LAYERS_MAX
from wire.message_base import Message
from wire.schema import Between, Digest, Int, Record
from wire.signed import SignedRecord

ROWS_MAX = 256
PAGES_MAX = 1 << 16
TABLES_MAX = 64
# Rows of so many bytes are one pass at most, unless one row alone is longer.
PASS_BYTES_MAX = 384 << 10
ROWS_BYTES_MAX = 768 << 10
# A page has so many places.
PAGE_TOKENS = 128
# Numbers of places and of pages.
PLACE_BYTES, PAGE_BYTES = 4, 2
_TABLE_PAGES_MAX = 1024
_TABLE_BYTES_MAX = _TABLE_PAGES_MAX * PAGE_BYTES

StageLegBytes = Annotated[bytes, Between(1, limits.STAGE_LEG_BYTES_MAX)]
RowsData = Annotated[bytes, Between(4, ROWS_BYTES_MAX)]
PageTable = Annotated[bytes, Between(PAGE_BYTES, _TABLE_BYTES_MAX)]


@dataclass(frozen=True, slots=True, kw_only=True)
class StageRows(Record):
    """The rows of a pass. `tables` are lists of pages, 16-bit numbers; each row has one of them.

    `owners` says which, a byte for each row, and `places` where the row's token stands, a 32-bit
    number for each; both are little-endian.
    """

    tables: Annotated[tuple[PageTable, ...], Between(1, TABLES_MAX)]
    owners: Annotated[bytes, Between(1, ROWS_MAX)]
    places: Annotated[bytes, Between(PLACE_BYTES, ROWS_MAX * PLACE_BYTES)]
    data: RowsData

    def check(self) -> None:
        """Malformed unless every row has a place, a table, and as many numbers as the others."""
        count = len(self.owners)
        if len(self.places) != count * PLACE_BYTES:
            raise Malformed(f"{count} rows with places of {len(self.places)} bytes")
        if max(self.owners) >= len(self.tables):
            raise Malformed("a row has a table that is not there")
        if any(len(it) % PAGE_BYTES for it in self.tables):
            raise Malformed("a table of pages ends in the middle of one")
        if len(self.data) % (4 * count):
            raise Malformed(f"{len(self.data)} bytes are not {count} rows of 32-bit floats")


@dataclass(frozen=True, slots=True, kw_only=True)
class StageLeg(SignedRecord):
    """What a peer signed of layers that it ran for `asker`: these rows gave those.

    They are the rows of the first `rows` places of one conversation with the model; `input` and
    `output` are `rows_digest` of what went in and of what came out.
    """

    KIND: ClassVar[Kind] = Kind.STAGE_LEG
    SIZE_BYTES_MAX: ClassVar[int] = limits.STAGE_LEG_BYTES_MAX

    model: ContentId
    first: Annotated[int, Between(0, LAYERS_MAX - 1)]
    last: Annotated[int, Between(0, LAYERS_MAX - 1)]
    asker: PeerId
    rows: Annotated[int, Between(1, _TABLE_PAGES_MAX * PAGE_TOKENS)]
    input: Digest
    output: Digest
    signed_at_ms: Int

    def check(self) -> None:
        """Malformed unless there is a layer."""
        if self.first > self.last:
            raise Malformed(f"layers {self.first}-{self.last} are none")


def row_digest(row: bytes | memoryview) -> bytes:
    """Of the numbers of one row, 32-bit floats."""
    return hashlib.sha256(row).digest()


def rows_digest(digests: Iterable[bytes]) -> bytes:
    """Of rows in the order of their places, by the digest of each."""
    return hashlib.sha256(b"".join(digests)).digest()


@dataclass(frozen=True, slots=True, kw_only=True)
class StageOpen(Message):
    """Please run layers `first` to `last` of a model for me, and keep `pages` pages for it."""

    KIND: ClassVar[Kind] = Kind.STAGE_OPEN
    model: ContentId
    first: Annotated[int, Between(0, LAYERS_MAX - 1)]
    last: Annotated[int, Between(0, LAYERS_MAX - 1)]
    pages: Annotated[int, Between(1, PAGES_MAX)]


@dataclass(frozen=True, slots=True, kw_only=True)
class StageOpened(Message):
    """Passes may come. So many pages are kept, which have numbers from 0: as were asked for."""

    KIND: ClassVar[Kind] = Kind.STAGE_OPENED
    pages: Annotated[int, Between(1, PAGES_MAX)]


@dataclass(frozen=True, slots=True, kw_only=True)
class StagePass(Message):
    """One pass; passes are numbered from 0 and done in that order."""

    KIND: ClassVar[Kind] = Kind.STAGE_PASS
    number: Int
    rows: StageRows


@dataclass(frozen=True, slots=True, kw_only=True)
class StagePassed(Message):
    """The rows of a pass after the layers of this range, in the same order."""

    KIND: ClassVar[Kind] = Kind.STAGE_PASSED
    number: Int
    data: RowsData


@dataclass(frozen=True, slots=True, kw_only=True)
class StageSign(Message):
    """Please sign what went in and came out last at the first `rows` places of these pages."""

    KIND: ClassVar[Kind] = Kind.STAGE_SIGN
    table: PageTable
    rows: Annotated[int, Between(1, _TABLE_PAGES_MAX * PAGE_TOKENS)]

    def check(self) -> None:
        """Malformed unless the pages have so many places."""
        if len(self.table) % PAGE_BYTES or self.rows > len(self.table) // PAGE_BYTES * PAGE_TOKENS:
            raise Malformed(f"{self.rows} rows in a table of {len(self.table)} bytes")


@dataclass(frozen=True, slots=True, kw_only=True)
class StageSigned(Message):
    """A `StageLeg` of what was asked for."""

    KIND: ClassVar[Kind] = Kind.STAGE_SIGNED
    leg: StageLegBytes


@dataclass(frozen=True, slots=True, kw_only=True)
class StageClose(Message):
    """Nothing more comes after so many passes."""

    KIND: ClassVar[Kind] = Kind.STAGE_CLOSE
    passes: Int


assert ROWS_BYTES_MAX + TABLES_MAX * _TABLE_BYTES_MAX + 4096 < limits.FRAME_BYTES_MAX
