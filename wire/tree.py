"""Content larger than one block: a tree whose leaves are blocks; the root's id names the content.

All leaves but the last are full and every node but the last of its row is full, so the same bytes
always give the same tree, and a reader knows each block's size and place before it has it.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Self

from wire import limits
from wire.codec import pack, unpack
from wire.content import ContentId
from wire.errors import Malformed, Oversize


@dataclass(frozen=True, slots=True)
class TreeNode:
    """The children of one tree node, in order, and the bytes of content below it."""

    size_bytes: int
    children: tuple[ContentId, ...]

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Read a node; WireError unless its size fits its children."""
        value = unpack(data, size_bytes_max=limits.BLOCK_BYTES_MAX)
        if not isinstance(value, list) or len(value) != 2 or not isinstance(value[1], list):
            raise Malformed("a tree node is its size and its children")
        size, rows = value
        if not isinstance(size, int) or isinstance(size, bool) or size <= 0:
            raise Malformed("a tree node's size is a positive number")
        if size > limits.BLOB_BYTES_MAX or not 0 < len(rows) <= limits.TREE_CHILDREN_MAX:
            raise Oversize(f"a tree node of {size} bytes and {len(rows)} children")
        if not all(isinstance(row, bytes) for row in rows):
            raise Malformed("a tree node's children are content ids")
        node = cls(size, tuple(ContentId(row) for row in rows))
        if len({child.is_tree for child in node.children}) != 1:
            raise Malformed("a tree node mixes blocks and nodes")
        span = node.span_bytes
        if not span * (len(rows) - 1) < size <= span * len(rows):
            raise Malformed(f"{len(rows)} children cannot hold {size} bytes")
        return node

    def to_bytes(self) -> bytes:
        return pack([self.size_bytes, list(self.children)])

    @property
    def span_bytes(self) -> int:
        """The bytes below every child but the last: the least full subtree that fits."""
        if not self.children[0].is_tree:
            return limits.BLOCK_BYTES_MAX
        span = limits.BLOCK_BYTES_MAX * limits.TREE_CHILDREN_MAX
        while span * len(self.children) < self.size_bytes:
            span *= limits.TREE_CHILDREN_MAX
        return span

    def child_at(self, offset_bytes: int) -> tuple[ContentId, int]:
        """The child with the byte at this offset, and the offset in that child."""
        index, rest = divmod(offset_bytes, self.span_bytes)
        return self.children[index], rest

    def sizes(self) -> Iterator[tuple[ContentId, int]]:
        """Each child with the bytes of content below it."""
        left, span = self.size_bytes, self.span_bytes
        for child in self.children:
            yield child, min(span, left)
            left -= span


@dataclass(frozen=True, slots=True)
class Block:
    """One block or node on its way into a store."""

    id: ContentId
    data: bytes


def split(data: bytes) -> Iterable[Block]:
    """Every block of `data`, leaves first, the one that names the whole last."""
    if len(data) <= limits.BLOCK_BYTES_MAX:
        # Most content is one block, which is its own name.
        yield Block(ContentId.of(data), bytes(data))
        return
    builder = TreeBuilder()
    for at in range(0, len(data), limits.BLOCK_BYTES_MAX):
        yield from builder.add(data[at : at + limits.BLOCK_BYTES_MAX])
    yield from builder.finish()


class TreeBuilder:
    """Builds a tree from leaves that arrive in order, keeping only ids in memory.

    Every leaf but the last must be full. `root` is set once `finish` has been exhausted.
    """

    def __init__(self) -> None:
        self._rows: list[list[tuple[ContentId, int]]] = [[]]
        self._last_bytes = limits.BLOCK_BYTES_MAX
        self._size_bytes = 0
        self.root: ContentId | None = None

    def add(self, leaf: bytes) -> Iterator[Block]:
        """Add a leaf; returns the blocks that are complete with it."""
        if self._last_bytes != limits.BLOCK_BYTES_MAX or len(leaf) > limits.BLOCK_BYTES_MAX:
            raise Malformed("every block but the last is full")
        if not leaf and self._size_bytes:
            raise Malformed("only empty content has an empty block")
        self._last_bytes = len(leaf)
        self._size_bytes += len(leaf)
        if self._size_bytes > limits.BLOB_BYTES_MAX:
            raise Oversize(f"content beyond {limits.BLOB_BYTES_MAX} bytes")
        block = Block(ContentId.of(leaf), bytes(leaf))
        yield block
        yield from self._place(0, block.id, len(leaf))

    def finish(self) -> Iterator[Block]:
        """The blocks left over; the last one names the whole."""
        if not self._rows[0] and len(self._rows) == 1:
            yield from self.add(b"")
        level = 0
        while level < len(self._rows) - 1 or len(self._rows[level]) > 1:
            row = self._rows[level]
            if row:
                yield from self._close(level)
            level += 1
        self.root = self._rows[level][0][0]

    def _place(self, level: int, child: ContentId, size_bytes: int) -> Iterator[Block]:
        if len(self._rows[level]) == limits.TREE_CHILDREN_MAX:
            yield from self._close(level)
        self._rows[level].append((child, size_bytes))

    def _close(self, level: int) -> Iterator[Block]:
        row = self._rows[level]
        size = sum(size_bytes for _, size_bytes in row)
        data = TreeNode(size, tuple(child for child, _ in row)).to_bytes()
        self._rows[level] = []
        if level + 1 == len(self._rows):
            self._rows.append([])
        node = Block(ContentId.of_tree(data), data)
        yield node
        yield from self._place(level + 1, node.id, size)


def name_of(data: bytes) -> ContentId:
    """The content id of the whole of `data`, whether it is one block or a tree."""
    if len(data) <= limits.BLOCK_BYTES_MAX:
        return ContentId.of(data)
    *_, last = split(data)
    return last.id
