"""Which blocks a published file or folder consists of, each once, as its nodes name them. Pure.

Whoever keeps it for another looks at nothing else: names may lead anywhere, since nothing is
written. A block counts as at least a page of a disk, so that many small ones are not free.
"""

from dataclasses import dataclass, field

from wire import limits
from wire.content import ContentId
from wire.errors import Malformed, Oversize
from wire.unixfs import UnixfsId, UnixfsNode

_PAGE_BYTES = 4096


@dataclass(slots=True)
class UnixfsTree:
    """Take each node that `next_nodes` names; then all blocks are known, and what they count.

    Oversize as soon as the blocks so far count as more than `counted_bytes_max`.
    """

    root: UnixfsId
    counted_bytes_max: int = limits.BLOB_BYTES_MAX
    counted_bytes: int = 0
    # Each leaf with its bytes.
    leaves: dict[ContentId, int] = field(default_factory=dict)
    _nodes: dict[ContentId, None] = field(default_factory=dict)
    _waiting: list[UnixfsId] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.root.is_node:
            self._need(self.root)

    @property
    def blocks(self) -> tuple[ContentId, ...]:
        """The root, the other nodes, and the leaves, as far as they are known."""
        return (*self._nodes, *self.leaves)

    def next_nodes(self, count_max: int) -> list[UnixfsId]:
        """Nodes that are to be taken next; none if all were."""
        found, self._waiting = self._waiting[:count_max], self._waiting[count_max:]
        return found

    def take(self, data: bytes) -> None:
        """Read a node; WireError if it is none, or says two sizes of one block."""
        node = UnixfsNode.from_bytes(data)
        self._count(max(0, len(data) - _PAGE_BYTES))
        sizes = node.part_sizes or [link.tree_bytes for link in node.links]
        for link, size_bytes in zip(node.links, sizes, strict=True):
            if link.id.is_node:
                self._need(link.id)
            else:
                self._need_leaf(link.id.block, size_bytes)

    def _need(self, node: UnixfsId) -> None:
        if node.block not in self._nodes:
            self._nodes[node.block] = None
            self._waiting.append(node)
            self._count(_PAGE_BYTES)

    def _need_leaf(self, leaf: ContentId, size_bytes: int) -> None:
        if size_bytes > limits.BLOCK_BYTES_MAX:
            raise Oversize(f"a block of {size_bytes} bytes in {self.root}")
        known = self.leaves.get(leaf)
        if known is None:
            self.leaves[leaf] = size_bytes
            self._count(max(size_bytes, _PAGE_BYTES))
        elif known != size_bytes:
            raise Malformed(f"{self.root} names two sizes of one block")

    def _count(self, size_bytes: int) -> None:
        self.counted_bytes += size_bytes
        if self.counted_bytes > self.counted_bytes_max:
            raise Oversize(
                f"{self.root} counts as more than {self.counted_bytes_max} bytes, with"
                f" {_PAGE_BYTES} at least for each block"
            )
        if len(self._nodes) + len(self.leaves) > limits.KEPT_BLOCKS_MAX:
            raise Oversize(f"{self.root} has more than {limits.KEPT_BLOCKS_MAX} blocks")
