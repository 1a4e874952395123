"""Where a published folder or file goes as it arrives: the disk, bit for bit.

A file appears under its name only when it is whole; one that is there already is read, and left if
it is the right one.
"""

import errno
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Protocol

from node.local.folder_plan import FolderEntry, FolderPlan
from store.files import NO_ROOM
from wire.errors import BatonError, InputError, StoreFull
from wire.unixfs import UnixfsId

# A piece of a file, with its id.
Piece = tuple[FolderEntry, UnixfsId, bytes]


class FilledPlace(Protocol):
    """What is filled, in this order; every method runs in a thread. InputError and StoreFull."""

    def begin(self, plan: FolderPlan, entries: list[FolderEntry], size_bytes: int) -> None:
        """All nodes are known: make room for the files, which have so many bytes."""
        ...

    def there(self, entries: list[FolderEntry]) -> list[bool]:
        """Whether anything is there under the name of each."""
        ...

    def has(self, entry: FolderEntry, leaves: Iterator[tuple[UnixfsId, int]]) -> bool:
        """Whether the file is there, whole; InputError if something else is in the way."""
        ...

    def write(self, pieces: list[Piece]) -> None:
        """Add to files, in order; what is of another file than before ends the one before."""
        ...

    def end(self) -> None:
        """Let the last of it appear, and have all survive a power cut."""
        ...

    def drop(self) -> None:
        """Leave nothing that is not whole; it is called last, whatever happened."""
        ...


@dataclass(slots=True)
class DiskFolder:
    """A folder on the disk that is being filled, or a single file; see `FilledPlace`."""

    top: Path
    root: UnixfsId
    _part: Path | None = None
    _name: Path | None = None
    _file: IO[bytes] | None = None

    def begin(self, plan: FolderPlan, entries: list[FolderEntry], size_bytes: int) -> None:
        """Make the folders; InputError where something else is there, StoreFull without room."""
        check_room(self.top, size_bytes)
        for entry in entries:
            if entry.size_bytes is None:
                self._make(self.top.joinpath(*entry.names))
        within = self.top if entries[0].size_bytes is None else self.top.parent
        # No entry can have this name: it would be in the bytes that the id is the hash of.
        stem = f".{str(self.root)[-24:]}."
        with writing(within):
            for left_over in within.glob(f"{stem}*.part"):
                left_over.unlink(missing_ok=True)
        self._part = within / f"{stem}{os.getpid()}.part"

    def _make(self, path: Path) -> None:
        with writing(path):
            with suppress(FileExistsError):
                path.mkdir()
            if not stat.S_ISDIR(path.lstat().st_mode):
                raise _in_the_way(path)

    def there(self, entries: list[FolderEntry]) -> list[bool]:
        """Whether anything is there under the name of each."""
        return [os.path.lexists(self.top.joinpath(*entry.names)) for entry in entries]

    def has(self, entry: FolderEntry, leaves: Iterator[tuple[UnixfsId, int]]) -> bool:
        """Whether the file is there, whole; InputError if something else is in the way."""
        path = self.top.joinpath(*entry.names)
        with writing(path):
            try:
                said = path.lstat()
            except FileNotFoundError:
                return False
            if stat.S_ISREG(said.st_mode) and said.st_size == entry.size_bytes:
                with path.open("rb") as file:
                    if all(leaf.block.matches(file.read(size)) for leaf, size in leaves):
                        return True
            if entry.names:
                raise _in_the_way(path)
            # A file by itself is replaced by another once that is whole.
            if not stat.S_ISREG(said.st_mode):
                raise InputError(
                    f"{path} cannot be written: what is there is no file", todo="name a file"
                )
        return False

    def write(self, pieces: list[Piece]) -> None:
        """Add to files, in order."""
        for entry, _, data in pieces:
            path = self.top.joinpath(*entry.names)
            with writing(path):
                if path != self._name:
                    self._end_file()
                    self._begin_file(path)
                assert self._file is not None
                self._file.write(data)

    def _begin_file(self, path: Path) -> None:
        assert self._part is not None
        self._file = open_part(self._part)
        self._name = path

    def _end_file(self) -> None:
        if self._file is None or self._name is None or self._part is None:
            return
        self._file.close()
        self._part.replace(self._name)
        self._file = self._name = None

    def end(self) -> None:
        """Let the last file appear, and have all survive a power cut."""
        with writing(self.top):
            self._end_file()
        # Once for all: to wait for the disk after each of a thousand files takes many seconds.
        os.sync()

    def drop(self) -> None:
        """Leave no file that is not whole."""
        drop_part(self._file, self._part)


def open_part(part: Path) -> IO[bytes]:
    """A new file for what is to have another name once it is whole; OSError if it is there."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    return os.fdopen(os.open(part, flags, 0o666), "wb")


def drop_part(file: IO[bytes] | None, part: Path | None) -> None:
    """Close and remove what did not become whole; nothing if nothing is open."""
    if file is not None and part is not None:
        with suppress(OSError):
            file.close()
        with suppress(OSError):
            part.unlink()


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Errors of the disk become those of its owner: StoreFull, or InputError about `path`."""
    try:
        yield
    except OSError as error:
        raise _ours(path, error) from error


def check_room(path: Path, size_bytes: int) -> None:
    """StoreFull unless so many bytes are free beside `path`."""
    with writing(path):
        disk = shutil.disk_usage(path.parent)
    # What is no disk, as /proc, has no size.
    if size_bytes > disk.free and disk.total:
        raise StoreFull(
            f"it has {size_bytes} bytes, and {disk.free} are free at {path}",
            todo="free some space, or name a place on another disk",
        )


def _ours(path: Path, error: OSError) -> BatonError:
    if error.errno in NO_ROOM:
        return StoreFull(
            f"no room left to write {path}", todo="free some space, and get the folder again"
        )
    if error.errno == errno.ELOOP:
        return _in_the_way(path)
    return InputError(
        f"{path} cannot be written: {error.strerror}",
        todo="name a place that can be made, in a folder that is there",
    )


def _in_the_way(path: Path) -> InputError:
    return InputError(
        f"{path} is there, and is something else than what the folder has there",
        todo="name a new folder, or move that away",
    )
