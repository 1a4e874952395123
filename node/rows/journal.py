"""What a job has done so far: a file that only grows, so that it goes on after any end.

It has a head, which says what the job is, and one frame for each bundle, in order. A frame is its
length, a checksum, and a canonical value; what a crash left half written is cut off.
"""

import fcntl
import os
import struct
import zlib
from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from store.files import NO_ROOM
from wire.codec import pack, unpack
from wire.errors import BatonError, InputError, StoreFull, WireError

_MAGIC = b"baton rows 1\n"
_HEAD = struct.Struct(">II")
# The answers of one bundle, with room for what stands beside them.
FRAME_BYTES_MAX = 32 << 20


@dataclass(slots=True)
class RowJournal:
    """The journal of one output. Its methods use the disk: they belong into a thread."""

    path: Path
    _file: IO[bytes] | None = None
    _size_bytes: int = field(default=0)

    def open(self, head: Mapping[str, Any], *, is_new: bool) -> None:
        """Begin a job, or go on with one of the same head; InputError if it is another's."""
        try:
            self._file = self.path.open("x+b" if is_new else "r+b", buffering=0)
        except OSError as error:
            raise _ours(self.path, error) from error
        is_ours = False
        try:
            self._begin(self._file, head, is_new=is_new)
            is_ours = True
        finally:
            if not is_ours:
                self._file.close()

    def _begin(self, file: IO[bytes], head: Mapping[str, Any], *, is_new: bool) -> None:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise InputError(
                f"another command is working on {self.path}", todo="wait until it has ended"
            ) from error
        if is_new:
            self._write(_MAGIC + _framed(pack(head)))
            return
        found = self.begun_as()
        for name, value in head.items():
            if found.get(name) != value:
                raise InputError(
                    f"the job in {self.path} was begun with another {name.replace('_', ' ')}:"
                    f" {str(found.get(name))[:80]!r}, not {str(value)[:80]!r}",
                    todo="give the same, or begin again: --force",
                )

    def begun_as(self) -> dict[str, Any]:
        """What the job is; InputError if the file is no journal."""
        with closing(read_frames(self.path)) as frames:
            for value in frames:
                return value
        raise InputError(f"{self.path} is not the journal of a job", todo="begin again: --force")

    def done(self) -> Iterator[dict[str, Any]]:
        """The bundles that are done, in order; what is torn at the end is cut off afterwards."""
        size_bytes = 0
        for place, (value, end) in enumerate(_frames(self.path)):
            size_bytes = end
            if place:
                yield value
        assert self._file is not None
        self._size_bytes = size_bytes
        with _named(self.path):
            os.ftruncate(self._file.fileno(), size_bytes)
            os.lseek(self._file.fileno(), 0, os.SEEK_END)

    def add(self, bundle: Mapping[str, Any]) -> None:
        """Append a bundle; StoreFull if there is no room, and then the journal is as before."""
        self._write(_framed(pack(bundle)))

    @property
    def size_bytes(self) -> int:
        """How long the file is."""
        return self._size_bytes

    def sync(self) -> None:
        """Have everything survive a power cut."""
        assert self._file is not None
        with _named(self.path):
            os.fsync(self._file.fileno())

    def close(self) -> None:
        """Let go of the file, which stays."""
        if self._file is not None:
            self._file.close()

    def _write(self, data: bytes) -> None:
        assert self._file is not None
        try:
            left = memoryview(data)
            while left:
                left = left[self._file.write(left) :]
        except OSError as error:
            with suppress(OSError):
                os.ftruncate(self._file.fileno(), self._size_bytes)
                os.lseek(self._file.fileno(), self._size_bytes, os.SEEK_SET)
            raise _ours(self.path, error) from error
        self._size_bytes += len(data)


def read_frames(path: Path) -> Generator[dict[str, Any], None, None]:
    """Every whole frame of a journal, the head first; InputError if it cannot be read."""
    for value, _ in _frames(path):
        yield value


def read_every_frame(path: Path) -> Generator[dict[str, Any], None, None]:
    """As `read_frames`, of a file that has to be whole: InputError for what is left after them."""
    read_bytes, frames = 0, 0
    for value, end in _frames(path):
        read_bytes, frames = end, frames + 1
        yield value
    with _named(path):
        size_bytes = path.stat().st_size
    if frames and read_bytes != size_bytes:
        raise InputError(
            f"{path} is damaged: what comes after {frames - 1} bundles cannot be read",
            todo="ask whoever gave it to you for another copy",
        )


def _frames(path: Path) -> Iterator[tuple[dict[str, Any], int]]:
    """Each frame, and where it ends."""
    with _named(path), path.open("rb") as file:
        if file.read(len(_MAGIC)) != _MAGIC:
            return
        end = len(_MAGIC)
        while len(head := file.read(_HEAD.size)) == _HEAD.size:
            size_bytes, checksum = _HEAD.unpack(head)
            if size_bytes > FRAME_BYTES_MAX:
                return
            data = file.read(size_bytes)
            if len(data) != size_bytes or zlib.crc32(data) != checksum:
                return
            try:
                value = unpack(data, size_bytes_max=FRAME_BYTES_MAX)
            except WireError:
                return
            if not isinstance(value, dict):
                return
            end += _HEAD.size + size_bytes
            yield value, end


def write_frames(file: IO[bytes], values: Iterable[Mapping[str, Any]]) -> None:
    """Write frames as a journal has them."""
    file.write(_MAGIC)
    for value in values:
        add_frame(file, value)


def add_frame(file: IO[bytes], value: Mapping[str, Any]) -> None:
    """Write a further frame."""
    file.write(_framed(pack(value)))


def _framed(data: bytes) -> bytes:
    return _HEAD.pack(len(data), zlib.crc32(data)) + data


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Errors of the disk as ours, with the file's name."""
    try:
        yield
    except OSError as error:
        raise _ours(path, error) from error


def _ours(path: Path, error: OSError) -> BatonError:
    if error.errno in NO_ROOM:
        return StoreFull(f"no room left to write {path}", todo="free some space, then --resume")
    return InputError(
        f"{path} cannot be used: {error.strerror}", todo="check the path and its permissions"
    )
