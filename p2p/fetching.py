"""Decides which block to ask of which source in one download. Pure.

Blocks have content ids, so sources need not be trusted, and any block may come from any source. A
source that lacks a block is asked for others; a source that fails is not asked again. A block that
no source has ends the download. So does a wrong tree: its maker lied, not the source.
"""

from collections import deque
from dataclasses import dataclass, field

from wire import limits
from wire.content import ContentId, PeerId
from wire.errors import Malformed
from wire.tree import TreeNode


@dataclass(frozen=True, slots=True)
class Due:
    """What the tree says of a block before the block arrives; a root's size is unknown."""

    size_bytes: int | None
    depth: int


ROOT = Due(None, 0)


def below(block: ContentId, data: bytes, due: Due) -> list[tuple[ContentId, Due]]:
    """The blocks directly below a block that has arrived; none below a block of content.

    Malformed if the tree above says another size or is too deep; WireError if `data` is no node.
    """
    node = TreeNode.from_bytes(data) if block.is_tree else None
    size_bytes = len(data) if node is None else node.size_bytes
    if due.size_bytes not in (None, size_bytes):
        raise Malformed(
            f"{block.short}: {size_bytes} bytes where the tree above says {due.size_bytes}",
            todo="nobody can read this blob; ask its maker to publish it again under another id",
        )
    if node is None:
        return []
    if due.depth >= limits.TREE_DEPTH_MAX:
        raise Malformed(f"{block.short}: a tree deeper than {limits.TREE_DEPTH_MAX}")
    return [(child, Due(size, due.depth + 1)) for child, size in node.sizes()]


@dataclass(slots=True)
class FetchPlan:
    """Call `need` for each block, `next_for(source)` for work, then report each result."""

    _waiting: deque[ContentId] = field(default_factory=deque)
    _known: dict[ContentId, Due] = field(default_factory=dict)
    _under_way: dict[ContentId, PeerId] = field(default_factory=dict)
    _lacking: dict[ContentId, set[PeerId]] = field(default_factory=dict)
    _left_out: set[PeerId] = field(default_factory=set)

    def need(self, block: ContentId, due: Due) -> None:
        """Add a block that is missing here, unless it was added already."""
        if block not in self._known:
            self._known[block] = due
            self._waiting.append(block)

    def due(self, block: ContentId) -> Due:
        """What the tree says of a block that is being fetched."""
        return self._known[block]

    def next_for(self, source: PeerId) -> ContentId | None:
        """A block to ask `source` for; None if there is none for this source now."""
        if source in self._left_out:
            return None
        for _ in range(len(self._waiting)):
            block = self._waiting.popleft()
            if source not in self._lacking.get(block, ()):
                self._under_way[block] = source
                return block
            self._waiting.append(block)
        return None

    def arrived(self, block: ContentId) -> None:
        """Note that a block has arrived: it is not fetched again."""
        self._under_way.pop(block, None)
        self._known.pop(block, None)

    def lacks(self, source: PeerId, block: ContentId) -> None:
        """Note that `source` does not have a block."""
        self._lacking.setdefault(block, set()).add(source)
        self._again(block)

    def failed(self, source: PeerId, block: ContentId) -> None:
        """Note that `source` is gone or sent other bytes: it is not asked again."""
        self._left_out.add(source)
        self._again(block)

    def _again(self, block: ContentId) -> None:
        if self._under_way.pop(block, None) is not None:
            self._waiting.appendleft(block)

    def idle_for_good(self, source: PeerId) -> bool:
        """Whether `source` will get no further block, as no block under way may come back to it."""
        return source in self._left_out or not self._under_way

    @property
    def waiting(self) -> int:
        """Blocks that nobody is asked for now."""
        return len(self._waiting)

    @property
    def done(self) -> bool:
        return not self._waiting and not self._under_way
