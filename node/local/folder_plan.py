"""What a published folder consists of, judged before anything of it is written. Pure.

Its maker may lie in every node: names, sizes and depth are checked, and a small tree that names the
same nodes again and again is counted as what it would become on a disk.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

from wire import limits
from wire.errors import Malformed, Oversize
from wire.unixfs import UnixfsId, UnixfsNode
from wire.unixfs_shards import entries_of

# Rows of nodes above a file's leaves: five rows of 174 links hold far more than is allowed.
FILE_ROWS_MAX = 6
_TODO = "nobody can use this folder; ask its maker to publish it again"


@dataclass(frozen=True, slots=True)
class FolderEntry:
    """A file or a folder; `names` lead to it from the top, and none are the top itself."""

    names: tuple[str, ...]
    id: UnixfsId
    # None for a folder.
    size_bytes: int | None


@dataclass(slots=True)
class FolderPlan:
    """Take nodes until `next_nodes` gives none; then the entries and the leaves of files."""

    root: UnixfsId
    # Other tools make blocks of more than can be passed on here.
    block_bytes_max: int = limits.BLOCK_BYTES_MAX
    # The bytes of the root, where it is a file of one block: nothing else says them.
    root_bytes: int = 0
    _nodes: dict[UnixfsId, UnixfsNode] = field(default_factory=dict)
    _known: set[UnixfsId] = field(default_factory=set)
    _waiting: list[UnixfsId] = field(default_factory=list)
    _node_bytes: int = 0
    # Of each node of a file: its bytes and its leaves.
    _measured: dict[UnixfsId, tuple[int, int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._need(self.root)

    def next_nodes(self, count_max: int) -> list[UnixfsId]:
        """Nodes that are to be taken next; none if all were."""
        found, self._waiting = self._waiting[:count_max], self._waiting[count_max:]
        return found

    def take(self, node_id: UnixfsId, data: bytes) -> None:
        """Read a node; WireError if it is none, or all nodes together are too large."""
        self._node_bytes += len(data)
        if self._node_bytes > limits.FOLDER_NODE_BYTES_MAX:
            raise Oversize(
                f"the folder's own nodes have more than {limits.FOLDER_NODE_BYTES_MAX} bytes",
                todo=_TODO,
            )
        node = self._nodes[node_id] = UnixfsNode.from_bytes(data, self.block_bytes_max)
        for link in node.links:
            self._need(link.id)

    def nodes(self) -> Iterator[tuple[UnixfsId, bytes]]:
        """Every node that was taken, in that order: each before what it leads to."""
        return ((node_id, node.to_bytes()) for node_id, node in self._nodes.items())

    def entries(self) -> Iterator[FolderEntry]:
        """Every folder before what is in it, and every file; WireError if one cannot be."""
        work = [self._entry((), self.root, self.root_bytes)]
        count, size_bytes, leaves = 0, 0, 0
        while work:
            entry = work.pop()
            count += 1
            if count > limits.FOLDER_ENTRIES_MAX:
                raise Oversize(
                    f"the folder has more than {limits.FOLDER_ENTRIES_MAX} entries", todo=_TODO
                )
            if entry.size_bytes is None:
                work.extend(reversed(self._below(entry)))
            else:
                size_bytes += entry.size_bytes
                leaves += self._measured[entry.id][1] if entry.id.is_node else 1
            if size_bytes > limits.BLOB_BYTES_MAX or leaves > limits.FOLDER_LEAVES_MAX:
                raise Oversize(
                    f"the folder's files have more than {limits.BLOB_BYTES_MAX} bytes or"
                    f" {limits.FOLDER_LEAVES_MAX} pieces",
                    todo=_TODO,
                )
            yield entry

    def inside(self, folder: FolderEntry) -> list[FolderEntry]:
        """What a folder has in it, in the order of the names."""
        links = entries_of(self._nodes.__getitem__, self._nodes[folder.id])
        return [
            self._entry((*folder.names, link.name.decode()), link.id, link.tree_bytes)
            for link in links
        ]

    def leaves(self, entry: FolderEntry) -> Iterator[tuple[UnixfsId, int]]:
        """The pieces of a file in order, each with its bytes."""
        assert entry.size_bytes is not None
        work = [(entry.id, entry.size_bytes)]
        while work:
            piece, size_bytes = work.pop()
            if not piece.is_node:
                yield piece, size_bytes
                continue
            node = self._nodes[piece]
            assert node.part_sizes is not None, "it was measured"
            parts = zip(node.links, node.part_sizes, strict=True)
            work.extend(reversed([(link.id, size) for link, size in parts]))

    def _need(self, child: UnixfsId) -> None:
        if child.is_node and child not in self._known:
            self._known.add(child)
            self._waiting.append(child)

    def _below(self, folder: FolderEntry) -> list[FolderEntry]:
        if len(folder.names) == limits.FOLDER_DEPTH_MAX:
            raise Oversize(
                f"more than {limits.FOLDER_DEPTH_MAX} folders inside each other", todo=_TODO
            )
        return self.inside(folder)

    def _entry(self, names: tuple[str, ...], child: UnixfsId, leaf_bytes: int) -> FolderEntry:
        if not child.is_node:
            if leaf_bytes > self.block_bytes_max:
                raise _too_large(leaf_bytes)
            return FolderEntry(names, child, leaf_bytes)
        if self._nodes[child].is_folder:
            return FolderEntry(names, child, None)
        return FolderEntry(names, child, self._measure(child, 0)[0])

    def _measure(self, file: UnixfsId, depth: int) -> tuple[int, int]:
        """The bytes of a file's node and its leaves; Malformed if its parts are otherwise."""
        if file in self._measured:
            return self._measured[file]
        node = self._nodes[file]
        if node.part_sizes is None or depth == FILE_ROWS_MAX:
            raise Malformed("a file that has a folder in it, or too many rows of nodes", todo=_TODO)
        leaves = 0
        for link, size_bytes in zip(node.links, node.part_sizes, strict=True):
            found = self._measure(link.id, depth + 1) if link.id.is_node else (size_bytes, 1)
            if found[0] != size_bytes:
                raise Malformed(f"a part of {found[0]} bytes, said to be {size_bytes}", todo=_TODO)
            if not link.id.is_node and size_bytes > self.block_bytes_max:
                raise _too_large(size_bytes)
            leaves += found[1]
        self._measured[file] = (node.size_bytes, leaves)
        return self._measured[file]


def _too_large(size_bytes: int) -> Oversize:
    return Oversize(
        f"a piece of {size_bytes} bytes, at most {limits.BLOCK_BYTES_MAX} are passed on",
        todo="publish the folder in pieces of 256 KiB",
    )
