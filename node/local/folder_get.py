"""A published folder from other peers onto the disk, bit for bit; one that broke off goes on.

Pieces are brought some at a time, each compared with its id, and written. A file appears under its
name only when it is whole; one that is there already is read, and left if it is the right one.
"""

import errno
import os
import shutil
import stat
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TypeVar

import trio

from node.local.folder_plan import FolderEntry, FolderPlan
from p2p.blobs import Blobs
from store import Store
from store.files import NO_ROOM
from wire import limits
from wire.content import ContentId, PeerId
from wire.errors import BatonError, InputError, Malformed, Missing, StoreFull, TooSlow
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


@dataclass(slots=True)
class _Folder:
    """The folder on the disk that is being filled; every method runs in a thread."""

    top: Path
    root: UnixfsId
    _part: Path | None = None
    _name: Path | None = None
    _file: IO[bytes] | None = None

    def begin(self, entries: list[FolderEntry], size_bytes: int) -> None:
        """Make the folders; InputError where something else is there, StoreFull without room."""
        with _writing(self.top):
            free_bytes = shutil.disk_usage(self.top.parent).free
        if size_bytes > free_bytes:
            raise StoreFull(
                f"the folder has {size_bytes} bytes, and {free_bytes} are free at {self.top}",
                todo="free some space, or name a place on another disk",
            )
        for entry in entries:
            if entry.size_bytes is None:
                self._make(self.top.joinpath(*entry.names))
        within = self.top if entries[0].size_bytes is None else self.top.parent
        # No entry can have this name: it would be in the bytes that the id is the hash of.
        stem = f".{str(self.root)[-24:]}."
        with _writing(within):
            for left_over in within.glob(f"{stem}*.part"):
                left_over.unlink(missing_ok=True)
        self._part = within / f"{stem}{os.getpid()}.part"

    def _make(self, path: Path) -> None:
        with _writing(path):
            with suppress(FileExistsError):
                path.mkdir()
            if not stat.S_ISDIR(path.lstat().st_mode):
                raise _in_the_way(path)

    def there(self, entries: list[FolderEntry]) -> list[bool]:
        """Whether anything is there under the name of each."""
        return [os.path.lexists(self.top.joinpath(*entry.names)) for entry in entries]

    def has(self, entry: FolderEntry, leaves: Iterator[tuple[UnixfsId, int]]) -> bool:
        """Whether the file is there, whole; InputError if something else is there."""
        path = self.top.joinpath(*entry.names)
        with _writing(path):
            try:
                said = path.lstat()
            except FileNotFoundError:
                return False
            if not stat.S_ISREG(said.st_mode) or said.st_size != entry.size_bytes:
                raise _in_the_way(path)
            with path.open("rb") as file:
                if not all(leaf.block.matches(file.read(size)) for leaf, size in leaves):
                    raise _in_the_way(path)
        return True

    def write(self, pieces: list[tuple[FolderEntry, bytes]]) -> None:
        """Add to files, in order; what is of another file than before ends the one before."""
        for entry, data in pieces:
            path = self.top.joinpath(*entry.names)
            with _writing(path):
                if path != self._name:
                    self._end_file()
                    self._begin_file(path)
                assert self._file is not None
                self._file.write(data)

    def _begin_file(self, path: Path) -> None:
        assert self._part is not None
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        self._file = os.fdopen(os.open(self._part, flags, 0o666), "wb")
        self._name = path

    def _end_file(self) -> None:
        if self._file is None or self._name is None or self._part is None:
            return
        self._file.close()
        self._part.replace(self._name)
        self._file = self._name = None

    def end(self) -> None:
        """Let the last file appear, and have all survive a power cut."""
        with _writing(self.top):
            self._end_file()
        # Once for all: to wait for the disk after each of a thousand files takes many seconds.
        os.sync()

    def drop(self) -> None:
        """Leave no file that is not whole."""
        if self._file is not None and self._part is not None:
            with suppress(OSError):
                self._file.close()
            with suppress(OSError):
                self._part.unlink()


@dataclass(slots=True)
class FolderGet:
    """Brings folders through one store, which also gives them on to others."""

    blobs: Blobs
    store: Store
    _places: set[Path] = field(default_factory=set)

    async def bring(
        self,
        root: UnixfsId,
        place: Path,
        progress: Callable[[int, int], None],
        *,
        deadline_s: float,
    ) -> BroughtFolder:
        """Bring the folder `root` to `place`; `progress` hears the bytes so far and in all.

        InputError if something else is there, Missing if nobody has a piece, WireError if the
        folder cannot be, TooSlow at the deadline, StoreFull. What has arrived is kept.
        """
        place = Path(os.path.realpath(place))
        if place in self._places:
            raise InputError(f"{place} is being filled already", todo="wait until that is done")
        self._places.add(place)
        folder = _Folder(place, root)
        try:
            with trio.fail_after(max(0.0, deadline_s)):
                return await _Bringing(self, root, folder, progress).all()
        except trio.TooSlowError as error:
            raise TooSlow(
                f"the folder did not arrive within {deadline_s:.0f} s",
                todo="get it again, to the same place: it goes on where it was",
            ) from error
        except Missing as error:
            raise Missing(
                f"the folder {root} is not whole: {error.message}", todo=error.todo
            ) from error
        finally:
            self._places.discard(place)
            folder.drop()


@dataclass(slots=True)
class _Window:
    """Pieces that are brought together, in the order in which they are written."""

    pieces: list[tuple[FolderEntry, UnixfsId, int]] = field(default_factory=list)
    size_bytes: int = 0
    # Of its bytes, how many are here.
    here_bytes: int = 0
    arrived: trio.Event = field(default_factory=trio.Event)

    @property
    def full(self) -> bool:
        return self.size_bytes >= _WINDOW_BYTES or len(self.pieces) >= _WINDOW_PIECES


@dataclass(slots=True)
class _Bringing:
    """One folder on its way. Some windows arrive while an earlier one is written."""

    get: FolderGet
    root: UnixfsId
    folder: _Folder
    progress: Callable[[int, int], None]
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
        self._size_bytes = sum(it.size_bytes or 0 for it in files)
        await trio.to_thread.run_sync(self.folder.begin, entries, self._size_bytes)
        kept = await self._all_files(plan, files)
        await trio.to_thread.run_sync(self.folder.end)
        return BroughtFolder(len(files), kept, self._size_bytes, self._received_bytes)

    async def _all_files(self, plan: FolderPlan, files: list[FolderEntry]) -> int:
        """Bring and write all that are not there; returns how many are."""
        kept = 0
        to_write, windows = trio.open_memory_channel[_Window](_WINDOWS_AHEAD)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._guarded, nursery, self._write_all, windows)
            for at in range(0, len(files), _FILES_AT_ONCE):
                some = files[at : at + _FILES_AT_ONCE]
                there = await trio.to_thread.run_sync(self.folder.there, some)
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
            found = await trio.to_thread.run_sync(self.folder.has, entry, leaves)
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

        await self._receive({leaf.block: size for _, leaf, size in window.pieces}, arrived)
        arrived(window.size_bytes)
        window.arrived.set()

    async def _write_all(self, windows: trio.MemoryReceiveChannel[_Window]) -> None:
        async for window in windows:
            await window.arrived.wait()
            for at in range(0, len(window.pieces), _READ_PIECES):
                some = window.pieces[at : at + _READ_PIECES]
                found = await self.get.store.get_blocks([leaf.block for _, leaf, _ in some])
                pieces = []
                for (entry, _, size_bytes), data in zip(some, found, strict=True):
                    _check_size(entry, size_bytes, data)
                    pieces.append((entry, data))
                await trio.to_thread.run_sync(self.folder.write, pieces)

    async def _receive(
        self, blocks: dict[ContentId, int | None], arrived: Callable[[int], None]
    ) -> None:
        got_bytes = await self.get.blobs.bring_blocks(
            blocks, lambda so_far_bytes, _: arrived(so_far_bytes), self._behind
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
        raise Malformed(
            f"{'/'.join(entry.names)}: {len(data)} bytes where {size_bytes} were named",
            todo="nobody can use this folder; ask its maker to publish it again",
        )


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise _ours(path, error) from error


def _ours(path: Path, error: OSError) -> BatonError:
    if error.errno in NO_ROOM:
        return StoreFull(
            f"no room left to write {path}", todo="free some space, and get the folder again"
        )
    if error.errno == errno.ELOOP:
        return _in_the_way(path)
    return InputError(
        f"{path} cannot be written: {error.strerror}", todo="name a folder that can be made"
    )


def _in_the_way(path: Path) -> InputError:
    return InputError(
        f"{path} is there, and is something else than what the folder has there",
        todo="name a new folder, or move that away",
    )
