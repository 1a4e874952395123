"""What peers say about content: blocks that are wanted, and content to be kept for another."""

from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, ClassVar

from wire import limits
from wire.content import ContentId
from wire.errors import Malformed
from wire.kinds import Kind
from wire.message_base import Message
from wire.schema import Between, Omitted


@dataclass(frozen=True, slots=True, kw_only=True)
class Want(Message):
    """One block, by content."""

    KIND: ClassVar[Kind] = Kind.WANT
    block: ContentId


@dataclass(frozen=True, slots=True, kw_only=True)
class WantBlocks(Message):
    """Many blocks by one request, answered with BlocksComing, blocks, and BlocksSent."""

    KIND: ClassVar[Kind] = Kind.WANT_BLOCKS
    blocks: Annotated[tuple[ContentId, ...], Between(1, limits.WANTED_BLOCKS_MAX)]


@dataclass(frozen=True, slots=True, kw_only=True)
class BlocksComing(Message):
    """Which of the wanted blocks follow, in the order in which they were wanted.

    `places` has their places in that order, rising, a byte for each.
    """

    KIND: ClassVar[Kind] = Kind.BLOCKS_COMING
    places: Annotated[bytes, Between(0, limits.WANTED_BLOCKS_MAX)]

    def check(self) -> None:
        """Malformed unless the places rise."""
        if any(one >= after for one, after in pairwise(self.places)):
            raise Malformed("the places of blocks that follow rise")


@dataclass(frozen=True, slots=True, kw_only=True)
class BlocksSent(Message):
    """All blocks that were announced have been sent: so many."""

    KIND: ClassVar[Kind] = Kind.BLOCKS_SENT
    count: Annotated[int, Between(0, limits.WANTED_BLOCKS_MAX)]


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockReply(Message):
    """The block; the peer that wanted it compares its hash with the id."""

    KIND: ClassVar[Kind] = Kind.BLOCK
    data: Annotated[bytes, Between(0, limits.BLOCK_BYTES_MAX)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Keep(Message):
    """Please keep this content for me, for `keep_s` seconds; it is fetched from me.

    `size_bytes` is all of it. After `deadline_ms` milliseconds the asker waits no longer. With
    `unixfs` the content is the root of a UnixFS tree, and all that is below it is kept; then
    `size_bytes` is what its blocks count as (see `wire.unixfs_tree`).
    """

    KIND: ClassVar[Kind] = Kind.KEEP
    content: ContentId
    size_bytes: Annotated[int, Between(0, limits.BLOB_BYTES_MAX)]
    keep_s: Annotated[int, Between(1, limits.KEEP_S_MAX)]
    deadline_ms: Annotated[int, Between(1, limits.DEADLINE_S_MAX * 1000)]
    unixfs: Annotated[bool, Omitted(False)] = False

    def check(self) -> None:
        """Malformed if the root of a UnixFS tree is said to be another kind of tree."""
        if self.unixfs and self.content.is_tree:
            raise Malformed("the root of a UnixFS tree is asked for as a block")


@dataclass(frozen=True, slots=True, kw_only=True)
class Keeping(Message):
    """All of the content is here, and stays for `keep_s` seconds unless the owner needs the room.

    This is the peer's word: who asked then wants some of the blocks.
    """

    KIND: ClassVar[Kind] = Kind.KEEPING
    keep_s: Annotated[int, Between(1, limits.KEEP_S_MAX)]
