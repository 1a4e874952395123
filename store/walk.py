"""Reading trees of blocks: the leaves below a root, in order, and which blocks are missing.

Pure over a function that reads one block. The maker of a tree may lie in it, so each node's size is
compared with what its parent said, depth is bounded, and `missing` visits no node twice.
"""

from collections import deque
from collections.abc import Callable, Iterator

from wire import limits
from wire.content import ContentId
from wire.errors import Corrupt, Malformed
from wire.tree import TreeNode


class CorruptBlock(Corrupt):
    """A block here no longer hashes to its id; carries the id, so that it can be dropped."""

    def __init__(self, content_id: ContentId) -> None:
        super().__init__(
            f"{content_id.short}: the bytes on the disk are no longer those that were stored",
            todo="fetch it again; check the disk if this happens more than once",
        )
        self.content_id = content_id


def total_bytes(read: Callable[[ContentId], bytes], root: ContentId) -> int:
    """The bytes of the whole blob, as its root says."""
    data = read(root)
    return TreeNode.from_bytes(data).size_bytes if root.is_tree else len(data)


def leaves(read: Callable[[ContentId], bytes], root: ContentId) -> Iterator[bytes]:
    """The blob's blocks in order. Malformed if the sizes in the tree are wrong."""
    if not root.is_tree:
        yield read(root)
        return
    work: list[tuple[ContentId, int, int]] = [(root, 0, 0)]
    while work:
        content_id, size_bytes, depth = work.pop()
        data = read(content_id)
        if content_id.is_tree:
            node = TreeNode.from_bytes(data)
            if depth == limits.TREE_DEPTH_MAX:
                raise Malformed(f"{root.short}: a tree deeper than {limits.TREE_DEPTH_MAX}")
            if depth and node.size_bytes != size_bytes:
                raise _liar(content_id, node.size_bytes, size_bytes)
            work.extend((child, size, depth + 1) for child, size in reversed(list(node.sizes())))
        else:
            if len(data) != size_bytes:
                raise _liar(content_id, len(data), size_bytes)
            yield data


def missing(
    has: Callable[[ContentId], bool],
    read: Callable[[ContentId], bytes],
    root: ContentId,
    limit: int,
) -> list[tuple[ContentId, int]]:
    """The blocks below `root` that are not here, nodes first, at most `limit`."""
    nodes: list[tuple[ContentId, int]] = []
    blocks: list[tuple[ContentId, int]] = []
    seen: set[ContentId] = set()
    work: deque[tuple[ContentId, int, int]] = deque([(root, 0, 0)])
    while work and len(nodes) < limit:
        content_id, size_bytes, depth = work.popleft()
        if content_id in seen:
            # A tree may name one node many thousand times; it is visited once.
            continue
        seen.add(content_id)
        if not has(content_id):
            nodes.append((content_id, size_bytes))
            continue
        if not content_id.is_tree:
            continue
        node = TreeNode.from_bytes(read(content_id))
        if depth == limits.TREE_DEPTH_MAX:
            raise Malformed(f"{root.short}: a tree deeper than {limits.TREE_DEPTH_MAX}")
        if depth and node.size_bytes != size_bytes:
            raise _liar(content_id, node.size_bytes, size_bytes)
        if node.children[0].is_tree:
            work.extend((child, size, depth + 1) for child, size in node.sizes())
        elif len(blocks) < limit:
            absent = (pair for pair in node.sizes() if not has(pair[0]))
            blocks.extend(dict(absent).items())
    return list(dict([*nodes, *blocks]).items())[:limit]


def blocks(
    has: Callable[[ContentId], bool], read: Callable[[ContentId], bytes], root: ContentId
) -> frozenset[bytes]:
    """The ids of the blob's nodes and blocks, as far as its nodes are here; no leaf is read."""
    seen: set[ContentId] = {root}
    row = [root]
    for _ in range(limits.TREE_DEPTH_MAX + 1):
        nodes = [it for it in row if it.is_tree and has(it)]
        below = {child for it in nodes for child in TreeNode.from_bytes(read(it)).children}
        row = [it for it in below if it not in seen]
        seen.update(row)
    return frozenset(seen)


def _liar(content_id: ContentId, found_bytes: int, said_bytes: int) -> Malformed:
    return Malformed(
        f"{content_id.short}: {found_bytes} bytes where the tree above says {said_bytes}",
        todo="nobody can read this blob; ask its maker to publish it again under another id",
    )
