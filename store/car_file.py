"""CAR archives as files: a blob and what belongs to it, in one file that IPFS tools read.

An archive is read once, block by block, to compare each with its id; after that only the places of
its blocks are in memory, and a blob is put together when it is asked for.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from store import walk
from store.files import appearing, reading
from wire import limits
from wire.car import header_of, read_blocks, read_header, section_of
from wire.content import ContentId
from wire.errors import InputError, Malformed, Missing, Oversize, WireError
from wire.tree import Block, TreeNode

# An archive of more is refused before it is read; so is one of more blocks, at the first too many.
ARCHIVE_BYTES_MAX = 1 << 30
BLOCKS_MAX = 16_384

ReadBlock = Callable[[ContentId], bytes]


@dataclass(frozen=True, slots=True)
class CarFile:
    """An archive that was read through once; every block of it was the one that its id names."""

    path: Path
    root: ContentId
    # Where the bytes of each block begin in the file, and how many they are.
    places: dict[ContentId, tuple[int, int]]

    def block(self, content_id: ContentId) -> bytes:
        """One block; Missing if the archive has none of this id, Corrupt if the file changed."""
        place = self.places.get(content_id)
        if place is None:
            raise Missing(f"the archive has no block {content_id}")
        offset, size_bytes = place
        with reading(self.path) as file:
            file.seek(offset)
            data = file.read(size_bytes)
        if not content_id.matches(data):
            raise walk.CorruptBlock(content_id)
        return data

    def content(self, root: ContentId, size_bytes_max: int) -> bytes:
        """A whole blob; Missing, Oversize, Malformed if its tree is wrong."""
        size_bytes = walk.total_bytes(self.block, root)
        if size_bytes > size_bytes_max:
            raise Oversize(f"{root} has {size_bytes} bytes, at most {size_bytes_max} are read")
        return b"".join(walk.leaves(self.block, root))

    def missing(self, root: ContentId) -> list[ContentId]:
        """The blocks of a blob that are not here; the first few where there are many."""
        found = walk.missing(self.places.__contains__, self.block, root, limit=8)
        return [content_id for content_id, _ in found]


def open_car(path: Path) -> CarFile:
    """Read an archive through; InputError that says what is wrong with it."""
    try:
        with reading(path) as file:
            size_bytes = path.stat().st_size
            if size_bytes > ARCHIVE_BYTES_MAX:
                raise Oversize(f"it has {size_bytes} bytes, at most {ARCHIVE_BYTES_MAX} are read")
            root = read_header(file.read)
            places: dict[ContentId, tuple[int, int]] = {}
            for block in read_blocks(file.read):
                if block.id in places:
                    raise Malformed(f"the block {block.id} is there twice")
                if len(places) == BLOCKS_MAX:
                    raise Oversize(f"it has more than {BLOCKS_MAX} blocks")
                places[block.id] = (file.tell() - len(block.data), len(block.data))
            if root not in places:
                raise Malformed(f"the block {root}, which is its root, is missing")
    except WireError as error:
        raise InputError(
            f"{path} is not an archive that can be used: {error.message}",
            todo=error.todo
            or "have it exported again: python -m node receipts export; the archive of a file or a"
            " folder is for python -m node import",
        ) from error
    return CarFile(path, root, places)


def write_car(path: Path, root: ContentId, blobs: Sequence[ContentId], read: ReadBlock) -> int:
    """Write an archive of `blobs`, which `root` is one of; the file appears whole or not at all.

    Every block is written once, nodes before what is below them. Returns the bytes written; Missing
    or Corrupt as `read` raises them, Oversize if it becomes larger than what is read again.
    """
    written = 0
    seen: set[ContentId] = set()
    with appearing(path) as file:
        written += file.write(header_of(root))
        for blob in blobs:
            for block in _blocks_of(read, blob, seen):
                written += file.write(section_of(block))
                if written > ARCHIVE_BYTES_MAX or len(seen) > BLOCKS_MAX:
                    raise Oversize(
                        f"the archive would be larger than {ARCHIVE_BYTES_MAX} bytes or"
                        f" {BLOCKS_MAX} blocks",
                        todo="export the receipt without its content: --output NAME.receipt",
                    )
    return written


def _blocks_of(read: ReadBlock, root: ContentId, seen: set[ContentId]) -> Iterator[Block]:
    """The blocks of a blob that are not in `seen` yet, nodes first; they are added to it."""
    work = [(root, 0)]
    while work:
        content_id, depth = work.pop()
        if content_id in seen:
            continue
        if depth > limits.TREE_DEPTH_MAX:
            raise Malformed(f"{root.short}: a tree deeper than {limits.TREE_DEPTH_MAX}")
        seen.add(content_id)
        data = read(content_id)
        yield Block(content_id, data)
        if content_id.is_tree:
            children = TreeNode.from_bytes(data).children
            work.extend((child, depth + 1) for child in reversed(children))
