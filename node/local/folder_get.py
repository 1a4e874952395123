"""A published folder or file from other peers onto the disk; one that broke off goes on.

Pieces are brought some at a time, each compared with its id, and written in their order.
"""

import os
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import trio

from node.local.folder_disk import DiskFolder, FilledPlace, Piece
from node.local.folder_plan import FolderEntry, FolderPlan
from p2p.blobs import Blobs
from store import Store
from wire import limits
from wire.content import ContentId, PeerId
from wire.errors import BatonError, InputError, Malformed, Missing, TooSlow
from wire.unixfs import UnixfsId

T = TypeVar("T")

# Pieces that are brought together, and how many windows of them may arrive while one is written:
# they have to fit the store beside what is pinned there.
_WINDOW_BYTES = 48 * limits.BLOCK_BYTES_MAX
_WINDOW_PIECES = 1024
_WINDOWS_AHEAD = 1
# Pieces in memory at a time.
_READ_PIECES = 16
_NODES_AT_ONCE = 256
_FILES_AT_ONCE = 256


@dataclass(frozen=True, slots=True)
class BroughtFolder:
    """What came of it; `kept_files` were there already, whole."""

    files: int
    kept_files: int
    size_bytes: int
    received_bytes: int
    is_folder: bool


@dataclass(slots=True)
class FolderGet:
    """Brings folders through one store, which also gives them on to others."""

    blobs: Blobs
    store: Store
    _paths: set[Path] = field(default_factory=set)

    async def bring(
        self,
        root: UnixfsId,
        place: Path,
        progress: Callable[[int, int], None],
        *,
        deadline_s: float,
        only_file: bool = False,
    ) -> BroughtFolder:
        """Bring the folder or file `root` to `place`; `progress` hears the bytes so far, and all.

        InputError if something else is there, or it is a folder and `only_file`. Missing if nobody
        has a piece, WireError if the folder cannot be, TooSlow at the deadline, StoreFull. What has
        arrived is kept.
        """
        path = Path(os.path.realpath(place))
        bringing = _Bringing(self, root, DiskFolder(path, root), progress, only_file)
        return await self._bring(bringing, path, deadline_s)

    async def bring_into(
        self,
        root: UnixfsId,
        place: FilledPlace,
        path: Path,
        progress: Callable[[int, int], None],
        deadline_s: float,
    ) -> BroughtFolder:
        """As `bring`, into another place than a folder; `path` is what is being filled."""
        return await self._bring(_Bringing(self, root, place, progress), path, deadline_s)

    async def _bring(self, bringing: "_Bringing", path: Path, deadline_s: float) -> BroughtFolder:
        if path in self._paths:
            raise InputError(f"{path} is being filled already", todo="wait until that is done")
        self._paths.add(path)
        try:
            with trio.fail_after(max(0.0, deadline_s)):
                return await bringing.all()
        except trio.TooSlowError as error:
            raise TooSlow(
                f"it did not arrive within {deadline_s:.0f} s",
                todo="get it again, to the same place: it goes on where it was",
            ) from error
        except Missing as error:
            raise Missing(
                f"{bringing.root} is not whole: {error.message}", todo=error.todo
            ) from error
        finally:
            self._paths.discard(path)
            bringing.place.drop()


@dataclass(slots=True)
class _Window:
    """Pieces that are brought together, in the order in which they are written."""

    pieces: list[tuple[FolderEntry, UnixfsId, int]] = field(default_factory=list)
    size_bytes: int = 0
    # Of its bytes, how many are here.
    here_bytes: int = 0
    # What came for it from others, which need not be read from the store again.
    came: dict[ContentId, bytes] = field(default_factory=dict)
    arrived: trio.Event = field(default_factory=trio.Event)

    @property
    def full(self) -> bool:
        return self.size_bytes >= _WINDOW_BYTES or len(self.pieces) >= _WINDOW_PIECES


@dataclass(slots=True)
class _Bringing:
    """One folder on its way. Some windows arrive while an earlier one is written."""

    get: FolderGet
    root: UnixfsId
    place: FilledPlace
    progress: Callable[[int, int], None]
    only_file: bool = False
    _window: _Window = field(default_factory=_Window)
    _failure: BatonError | None = None
    _done_bytes: int = 0
    _size_bytes: int = 0
    _received_bytes: int = 0
    _behind: set[PeerId] = field(default_factory=set)

    async def all(self) -> BroughtFolder:
        """From the root's node to the last file."""
        plan = FolderPlan(self.root)
        while nodes := plan.next_nodes(_NODES_AT_ONCE):
            blocks = [it.block for it in nodes]
            await self._receive(dict.fromkeys(blocks), lambda _: None)
            found = await self.get.store.get_blocks(blocks)
            await trio.to_thread.run_sync(_take_all, plan, nodes, found)
        entries = await trio.to_thread.run_sync(lambda: list(plan.entries()))
        files = [it for it in entries if it.size_bytes is not None]
        is_folder = entries[0].size_bytes is None
        if is_folder and self.only_file:
            raise InputError(
                f"{self.root} is a folder", todo=f"name one to fetch it into: get {self.root} DIR"
            )
        self._size_bytes = sum(it.size_bytes or 0 for it in files)
        await trio.to_thread.run_sync(self.place.begin, plan, entries, self._size_bytes)
        kept = await self._all_files(plan, files)
        await trio.to_thread.run_sync(self.place.end)
        return BroughtFolder(len(files), kept, self._size_bytes, self._received_bytes, is_folder)

    async def _all_files(self, plan: FolderPlan, files: list[FolderEntry]) -> int:
        """Bring and write all that are not there; returns how many are."""
        kept = 0
        to_write, windows = trio.open_memory_channel[_Window](_WINDOWS_AHEAD)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._guarded, nursery, self._write_all, windows)
            for at in range(0, len(files), _FILES_AT_ONCE):
                some = files[at : at + _FILES_AT_ONCE]
                there = await trio.to_thread.run_sync(self.place.there, some)
                for entry, is_there in zip(some, there, strict=True):
                    if is_there and await self._has(nursery, entry, plan.leaves(entry)):
                        kept += 1
                        continue
                    for leaf, size_bytes in plan.leaves(entry):
                        self._window.pieces.append((entry, leaf, size_bytes))
                        self._window.size_bytes += size_bytes
                        if self._window.full:
                            await self._send(nursery, to_write)
            await self._send(nursery, to_write)
            to_write.close()
        if self._failure is not None:
            raise self._failure
        return kept

    async def _send(self, nursery: trio.Nursery, to_write: trio.MemorySendChannel[_Window]) -> None:
        """Have the window brought, and written after those before it."""
        window, self._window = self._window, _Window()
        # There is room in the channel as soon as an earlier window is being written.
        await to_write.send(window)
        nursery.start_soon(self._guarded, nursery, self._bring, window)

    async def _guarded(
        self, nursery: trio.Nursery, work: Callable[[T], Awaitable[None]], about: T
    ) -> None:
        try:
            await work(about)
        except BatonError as error:
            self._fail(nursery, error)

    def _fail(self, nursery: trio.Nursery, error: BatonError) -> None:
        if self._failure is None:
            self._failure = error
        nursery.cancel_scope.cancel()

    async def _has(
        self, nursery: trio.Nursery, entry: FolderEntry, leaves: Iterator[tuple[UnixfsId, int]]
    ) -> bool:
        try:
            found = await trio.to_thread.run_sync(self.place.has, entry, leaves)
        except BatonError as error:
            self._fail(nursery, error)
            await trio.lowlevel.checkpoint()
            raise
        if found:
            self._tell(entry.size_bytes or 0)
        return found

    async def _bring(self, window: _Window) -> None:
        def arrived(got_bytes: int) -> None:
            more_bytes = min(got_bytes, window.size_bytes) - window.here_bytes
            window.here_bytes += more_bytes
            self._tell(more_bytes)

        blocks: dict[ContentId, int | None] = {leaf.block: size for _, leaf, size in window.pieces}
        await self._receive(blocks, arrived, window.came)
        arrived(window.size_bytes)
        window.arrived.set()

    async def _write_all(self, windows: trio.MemoryReceiveChannel[_Window]) -> None:
        async for window in windows:
            await window.arrived.wait()
            for at in range(0, len(window.pieces), _READ_PIECES):
                some = window.pieces[at : at + _READ_PIECES]
                data = await self._data_of(window, [leaf.block for _, leaf, _ in some])
                pieces: list[Piece] = []
                for entry, leaf, size_bytes in some:
                    _check_size(entry, size_bytes, data[leaf.block])
                    pieces.append((entry, leaf, data[leaf.block]))
                await trio.to_thread.run_sync(self.place.write, pieces)
            window.came.clear()

    async def _data_of(self, window: _Window, blocks: list[ContentId]) -> dict[ContentId, bytes]:
        """What came, and from the store what was there before."""
        found = {it: window.came[it] for it in blocks if it in window.came}
        if absent := [it for it in blocks if it not in found]:
            read = await self.get.store.get_blocks(absent)
            found.update(zip(absent, read, strict=True))
        return found

    async def _receive(
        self,
        blocks: dict[ContentId, int | None],
        arrived: Callable[[int], None],
        into: dict[ContentId, bytes] | None = None,
    ) -> None:
        got_bytes = await self.get.blobs.bring_blocks(
            blocks, lambda so_far_bytes, _: arrived(so_far_bytes), self._behind, into=into
        )
        # Another window may have been counted while this one was waited for.
        self._received_bytes += got_bytes

    def _tell(self, more_bytes: int) -> None:
        self._done_bytes += more_bytes
        self.progress(self._done_bytes, self._size_bytes)


def _take_all(plan: FolderPlan, nodes: list[UnixfsId], found: list[bytes]) -> None:
    # A full node has thousands of links, and a liar's folder has many of them.
    for node, data in zip(nodes, found, strict=True):
        plan.take(node, data)


def _check_size(entry: FolderEntry, size_bytes: int, data: bytes) -> None:
    if len(data) != size_bytes:
        name = "/".join(entry.names) or "the file"
        raise Malformed(
            f"{name}: a piece of {len(data)} bytes where {size_bytes} were named",
            todo="nobody can use this folder; ask its maker to publish it again",
        )
