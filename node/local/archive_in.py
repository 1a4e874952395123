"""What is in a CAR archive of a file or folder, on its way into the store.

Blocks are kept as they are, so the id stays the same. Where another tool made larger blocks than
are passed on here, the files are cut again, and what comes of them has an id of its own.
"""

from dataclasses import dataclass
from pathlib import Path

from node.local.folder_plan import FolderEntry, FolderPlan
from node.local.folder_put import Blocks
from store.unixfs_car import BLOCK_BYTES_MAX, UnixfsCar, open_unixfs_car
from wire import limits
from wire.errors import InputError, Malformed, WireError
from wire.unixfs import FileBuilder, Link, UnixfsBlock, UnixfsId
from wire.unixfs_shards import folder_blocks

_NODES_AT_ONCE = 256


@dataclass(frozen=True, slots=True)
class FoundArchive:
    """An archive that was looked through: all that its root names is in it, and can be written."""

    car: UnixfsCar
    plan: FolderPlan
    entries: list[FolderEntry]

    @property
    def files(self) -> int:
        return sum(it.size_bytes is not None for it in self.entries)

    @property
    def size_bytes(self) -> int:
        return sum(it.size_bytes or 0 for it in self.entries)

    @property
    def is_cut_again(self) -> bool:
        """Whether a block of it is larger than what is passed on."""
        largest = max(size_bytes for _, size_bytes in self.car.places.values())
        return largest > limits.BLOCK_BYTES_MAX

    def blocks(self) -> Blocks:
        """Every block for the store, and a link to the whole."""
        if not self.is_cut_again:
            return (yield from self._as_they_are())
        return (yield from self._cut_again(self.entries[0]))

    def _as_they_are(self) -> Blocks:
        # A folder of many equal files has their blocks once.
        leaves: dict[UnixfsId, None] = {}
        for entry in self.entries:
            if entry.size_bytes is not None:
                leaves.update((leaf, None) for leaf, _ in self.plan.leaves(entry))
        for leaf, data in zip(leaves, self.car.blocks(leaves), strict=True):
            yield UnixfsBlock(leaf, data)
        for node_id, data in self.plan.nodes():
            yield UnixfsBlock(node_id, data)
        return Link(b"", self.plan.root, 0)

    def _cut_again(self, entry: FolderEntry) -> Blocks:
        if entry.size_bytes is None:
            links = []
            for below in self.plan.inside(entry):
                link = yield from self._cut_again(below)
                links.append(Link(below.names[-1].encode(), link.id, link.tree_bytes))
            return (yield from folder_blocks(links))
        builder, held = FileBuilder(), bytearray()
        for data in self.car.blocks(leaf for leaf, _ in self.plan.leaves(entry)):
            held += data
            while len(held) >= limits.BLOCK_BYTES_MAX:
                yield from builder.add(bytes(held[: limits.BLOCK_BYTES_MAX]))
                del held[: limits.BLOCK_BYTES_MAX]
        if held:
            yield from builder.add(bytes(held))
        yield from builder.finish()
        assert builder.root is not None
        return builder.root


def look_into(path: Path) -> FoundArchive:
    """Read an archive; InputError that says what is wrong with it, or what is missing."""
    car = open_unixfs_car(path)
    plan = FolderPlan(car.root, BLOCK_BYTES_MAX, car.places[car.root.block][1])
    try:
        while nodes := plan.next_nodes(_NODES_AT_ONCE):
            for node, data in zip(nodes, car.blocks(nodes), strict=True):
                plan.take(node, data)
        entries = list(plan.entries())
        for entry in entries:
            if entry.size_bytes is not None:
                for leaf, size_bytes in plan.leaves(entry):
                    _check_leaf(car, entry, leaf, size_bytes)
    except WireError as error:
        raise InputError(
            f"{path} is not an archive that can be used: {error.message}",
            todo="have it made again by another tool: " + (error.todo or "ipfs-car pack"),
        ) from error
    return FoundArchive(car, plan, entries)


def _check_leaf(car: UnixfsCar, entry: FolderEntry, leaf: UnixfsId, size_bytes: int) -> None:
    place = car.places.get(leaf.block)
    name = "/".join(entry.names) or "the file"
    if place is None:
        raise Malformed(f"it lacks the block {leaf}, a piece of {name}")
    if place[1] != size_bytes:
        raise Malformed(f"{name}: a piece of {place[1]} bytes where {size_bytes} were named")
