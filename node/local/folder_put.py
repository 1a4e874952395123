"""Folders and files into the store, as IPFS tools write them: what is there is not stored again.

Blocks are pinned for the time of publishing under a reason of their own, so that a publication that
fails leaves nothing that could not be evicted; what it stored is found again by the next.
"""

import os
import stat
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import trio

from store import Pin, Store, Write, is_state_folder
from wire import limits
from wire.content import ContentId
from wire.errors import Corrupt, InputError, Missing, WireError
from wire.unixfs import (
    FileBuilder,
    Link,
    UnixfsBlock,
    UnixfsId,
    UnixfsNode,
    check_name,
)
from wire.unixfs_shards import folder_blocks
from wire.unixfs_tree import UnixfsTree

# What is kept in one commit.
_BATCH_BYTES = 16 * limits.BLOCK_BYTES_MAX
_BATCH_BLOCKS = 1024
_PUBLISHING = "publishing"
_NODES_AT_ONCE = 64

Blocks = Generator[UnixfsBlock, None, Link]


@dataclass(frozen=True, slots=True)
class FoundPath:
    """A file, or a folder with its entries, as it was when the folder was looked through."""

    path: Path
    name: bytes
    size_bytes: int
    changed_ns: int
    entries: tuple["FoundPath", ...] | None

    @property
    def files(self) -> int:
        return 1 if self.entries is None else sum(it.files for it in self.entries)

    @property
    def all_bytes(self) -> int:
        return self.size_bytes + sum(it.all_bytes for it in self.entries or ())


@dataclass(frozen=True, slots=True)
class Published:
    """What became of it; `stored_bytes` are those that were not in the store before."""

    root: UnixfsId
    files: int
    size_bytes: int
    stored_bytes: int


def look_through(folder: Path) -> FoundPath:
    """All of a folder; InputError that names what cannot be published. No link is followed."""
    left = limits.FOLDER_ENTRIES_MAX

    def look(path: Path, name: bytes, depth: int) -> FoundPath:
        nonlocal left
        left -= 1
        if left < 0:
            raise InputError(
                f"{folder} has more than {limits.FOLDER_ENTRIES_MAX} entries",
                todo="publish it in parts",
            )
        with _reading(path):
            said = path.lstat()
        if stat.S_ISREG(said.st_mode):
            return FoundPath(path, name, said.st_size, said.st_mtime_ns, None)
        if not stat.S_ISDIR(said.st_mode):
            kind = "a symbolic link" if stat.S_ISLNK(said.st_mode) else "no file and no folder"
            raise InputError(
                f"{path} is {kind}, which is not published", todo="move it out of the folder"
            )
        if depth == limits.FOLDER_DEPTH_MAX:
            raise InputError(
                f"{path}: more than {limits.FOLDER_DEPTH_MAX} folders inside each other",
                todo="move it further up",
            )
        entries = []
        with _reading(path), os.scandir(path) as found:
            names = sorted(os.fsencode(it.name) for it in found)
        if is_state_folder([os.fsdecode(it) for it in names]):
            raise InputError(
                f"{path} is a peer's own folder, with its secret key",
                todo="publish a folder that does not hold it",
            )
        for below in names:
            inside = path / os.fsdecode(below)
            with _naming(inside):
                check_name(below)
            entries.append(look(inside, below, depth + 1))
        return FoundPath(path, name, 0, said.st_mtime_ns, tuple(entries))

    folder = folder.resolve()
    with _reading(folder):
        is_folder = stat.S_ISDIR(folder.lstat().st_mode)
    if not is_folder or folder.parent == folder:
        raise InputError(
            f"{folder} is {'the whole machine' if is_folder else 'not a folder'}",
            todo="name a folder",
        )
    return look(folder, b"", 0)


def look_at_file(path: Path) -> FoundPath:
    """A file by itself; InputError if it is something else. A link to a file is followed."""
    path = path.resolve()
    with _reading(path):
        said = path.lstat()
    if not stat.S_ISREG(said.st_mode):
        raise InputError(f"{path} is not a file", todo="name a file that can be read")
    return FoundPath(path, b"", said.st_size, said.st_mtime_ns, None)


def blocks_of(found: FoundPath) -> Blocks:
    """Every block of a file or folder, what is below first; returns a link to it."""
    if found.entries is None:
        return (yield from _blocks_of_file(found))
    links = []
    for entry in found.entries:
        link = yield from blocks_of(entry)
        links.append(Link(entry.name, link.id, link.tree_bytes))
    with _naming(found.path):
        link = yield from folder_blocks(links)
    return link


def _blocks_of_file(found: FoundPath) -> Blocks:
    builder = FileBuilder()
    with _reading(found.path):
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        with os.fdopen(os.open(found.path, flags), "rb") as file:
            _unchanged(found, os.fstat(file.fileno()))
            for at in range(0, found.size_bytes, limits.BLOCK_BYTES_MAX):
                wanted = min(limits.BLOCK_BYTES_MAX, found.size_bytes - at)
                leaf = file.read(wanted)
                if len(leaf) < wanted:
                    raise _changed(found.path)
                yield from builder.add(leaf)
            _unchanged(found, os.fstat(file.fileno()))
    yield from builder.finish()
    assert builder.root is not None
    return builder.root


def _unchanged(found: FoundPath, now: os.stat_result) -> None:
    same = (now.st_size, now.st_mtime_ns) == (found.size_bytes, found.changed_ns)
    if not same or not stat.S_ISREG(now.st_mode):
        raise _changed(found.path)


def _changed(path: Path) -> InputError:
    return InputError(
        f"{path} changed while it was published",
        todo="publish the folder again: what is unchanged is not stored again",
    )


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InputError(
            f"{path} cannot be read: {error.strerror}",
            todo="check its permissions, or move it out of the folder",
        ) from error


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    try:
        yield
    except WireError as error:
        raise InputError(
            f"{str(path)!r} cannot be published: {error.message}", todo=error.todo or "rename it"
        ) from error


@dataclass(slots=True)
class FolderPut:
    """Publishes folders and files into one store, one at a time."""

    store: Store
    _one_at_a_time: trio.Lock = field(default_factory=trio.Lock)
    _is_clean: bool = False

    async def publish(self, folder: Path, progress: Callable[[int, int], None]) -> Published:
        """Keep all of a folder, pinned; `progress` hears the bytes so far and those in all.

        InputError if something in it cannot be published or changes meanwhile, StoreFull.
        """
        found = await trio.to_thread.run_sync(look_through, folder)
        return await self.publish_blocks(
            blocks_of(found), found.path, found.files, found.all_bytes, progress
        )

    async def publish_file(self, path: Path, progress: Callable[[int, int], None]) -> Published:
        """As `publish`, for a file by itself."""
        found = look_at_file(path)
        return await self.publish_blocks(blocks_of(found), path, 1, found.all_bytes, progress)

    async def publish_blocks(
        self,
        blocks: Blocks,
        path: Path,
        files: int,
        all_bytes: int,
        progress: Callable[[int, int], None],
    ) -> Published:
        """As `publish`, for blocks that come from `path`: so many files, and bytes of them."""
        if all_bytes > limits.BLOB_BYTES_MAX:
            raise InputError(
                f"{path} has {all_bytes} bytes, at most {limits.BLOB_BYTES_MAX} are possible",
                todo="publish it in parts",
            )
        async with self._one_at_a_time:
            await self._release_left_over()
            pinned: dict[ContentId, None] = {}

            def tell(done_bytes: int) -> None:
                progress(min(done_bytes, all_bytes), all_bytes)

            try:
                with closing(blocks):
                    link, stored_bytes = await self._keep_all(blocks, path, pinned, tell)
                await self._pin_for_good(list(pinned), link.id)
            finally:
                with trio.CancelScope(shield=True):
                    await self._release(list(pinned))
        return Published(link.id, files, all_bytes, stored_bytes)

    async def tree_of(self, root: UnixfsId) -> UnixfsTree:
        """The blocks of what was published; Missing if a node is not here, Oversize if too many."""
        tree = UnixfsTree(root)
        while nodes := [it.block for it in tree.next_nodes(_NODES_AT_ONCE)]:
            found = await self.store.get_blocks(nodes)
            # A full node has thousands of links, which the loop would wait for.
            await trio.to_thread.run_sync(_take_all, tree, found)
        return tree

    async def _keep_all(
        self,
        blocks: Blocks,
        path: Path,
        pinned: dict[ContentId, None],
        progress: Callable[[int], None],
    ) -> tuple[Link, int]:
        done_bytes = stored_bytes = node_bytes = 0
        while True:
            batch, link = await trio.to_thread.run_sync(_some, blocks)
            node_bytes += sum(len(it.data) for it in batch if it.id.is_node)
            if node_bytes > limits.FOLDER_NODE_BYTES_MAX:
                raise InputError(f"{path} is too large", todo="publish it in parts")
            pinned.update(dict.fromkeys(it.id.block for it in batch))
            stored_bytes += await self._keep(batch)
            done_bytes += sum(len(it.data) for it in batch if not it.id.is_node)
            progress(done_bytes)
            if link is not None:
                return link, stored_bytes

    async def _keep(self, batch: Sequence[UnixfsBlock]) -> int:
        """Keep and pin these; the bytes of those that were not here."""
        data = {it.id.block: it.data for it in batch}
        new = [data[it] for it in data if not self.store.has(it)]
        pins = tuple(Pin(it, _PUBLISHING) for it in data)
        await self.store.commit(Write(blobs=tuple(new), pins=pins))
        # One that was here may have been evicted just before it was pinned.
        gone = tuple(data[it] for it in data if not self.store.has(it))
        if gone:
            await self.store.commit(Write(blobs=gone))
        return sum(map(len, new))

    async def remove(self, root: UnixfsId) -> int:
        """Hold a published folder no longer; returns the bytes that nothing holds any more.

        A block that another published folder has too stays held by that one. If it is broken off,
        the next call goes on. Missing if nothing of the folder is here.
        """
        async with self._one_at_a_time:
            await self._release_left_over()
            if not self.store.has(root.block):
                raise Missing(
                    f"this peer has nothing of {root}", todo="see python -m node put --help"
                )
            before_bytes = self.store.statistics().held_bytes
            nodes, at = [root], 0
            known = {root}
            while at < len(nodes):
                leaves = []
                for child in await self._below(nodes[at]):
                    if not child.is_node:
                        leaves.append(child.block)
                    elif child not in known:
                        known.add(child)
                        nodes.append(child)
                await self._release(leaves, str(root))
                at += 1
            # The root last, and each node after those that were found below it: whatever is still
            # held can be found from the root again.
            await self._release([it.block for it in reversed(nodes)], str(root))
            return max(0, before_bytes - self.store.statistics().held_bytes)

    async def _below(self, node: UnixfsId) -> list[UnixfsId]:
        try:
            data = await self.store.get_block(node.block)
            return await trio.to_thread.run_sync(_links_of, data)
        except (Missing, Corrupt):
            # It was released by a call that broke off, after all that is below it.
            return []

    async def _release_left_over(self) -> None:
        """Release what a peer that was killed while it published has left pinned, once."""
        if self._is_clean:
            return
        last: Pin | None = None
        while page := self.store.pins(after=last, limit=_BATCH_BLOCKS):
            last = page[-1]
            await self._release([it.id for it in page if it.why == _PUBLISHING])
            await trio.lowlevel.checkpoint()
        self._is_clean = True

    async def _pin_for_good(self, blocks: Sequence[ContentId], root: UnixfsId) -> None:
        # The reason is the root, so that each block is held once by each folder that has it.
        for at in range(0, len(blocks), _BATCH_BLOCKS):
            part = blocks[at : at + _BATCH_BLOCKS]
            await self.store.commit(Write(pins=tuple(Pin(it, str(root)) for it in part)))

    async def _release(self, blocks: Sequence[ContentId], why: str = _PUBLISHING) -> None:
        for at in range(0, len(blocks), _BATCH_BLOCKS):
            part = blocks[at : at + _BATCH_BLOCKS]
            await self.store.commit(Write(unpins=tuple(Pin(it, why) for it in part)))


def _take_all(tree: UnixfsTree, nodes: Sequence[bytes]) -> None:
    for data in nodes:
        tree.take(data)


def _links_of(node: bytes) -> list[UnixfsId]:
    return [link.id for link in UnixfsNode.from_bytes(node).links]


def _some(blocks: Blocks) -> tuple[list[UnixfsBlock], Link | None]:
    """The next blocks, and at the end the link to the whole."""
    batch: list[UnixfsBlock] = []
    size_bytes = 0
    while size_bytes < _BATCH_BYTES and len(batch) < _BATCH_BLOCKS:
        try:
            block = next(blocks)
        except StopIteration as end:
            return batch, end.value
        batch.append(block)
        size_bytes += len(block.data)
    return batch, None
