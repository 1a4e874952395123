"""Files that people name: read piece by piece, written so that they appear whole or not at all."""

import errno
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from wire.errors import BatonError, InputError, StoreFull

# What the system says when a disk, a quota or a limit on a file's size leaves no room.
NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


@contextmanager
def reading(path: Path) -> Iterator[IO[bytes]]:
    """The file, open; InputError where it cannot be read."""
    with _named(path, "read"), path.open("rb") as file:
        yield file


@contextmanager
def appearing(path: Path) -> Iterator[IO[bytes]]:
    """A file under another name beside `path`, which takes its place when the block ends well.

    After that it survives a power cut. On any error or cancellation `path` is left as it was.
    """
    with _named(path, "written"):
        with tempfile.NamedTemporaryFile(
            dir=path.parent, prefix=f".{path.name}.", suffix=".part", delete=False
        ) as file:
            temporary = Path(file.name)
            try:
                yield file.file
                file.flush()
                os.fsync(file.fileno())
                temporary.replace(path)
            finally:
                with suppress(FileNotFoundError):
                    temporary.unlink()
        sync_folder(path.parent)


def sync_folder(path: Path) -> None:
    """Make the names in this folder as durable as the files they name."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _named(path: Path, what: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise _ours(path, what, error) from error


def _ours(path: Path, what: str, error: OSError) -> BatonError:
    if error.errno in NO_ROOM:
        return StoreFull(f"no room left to write {path}", todo="free some space there")
    return InputError(
        f"{path} cannot be {what}: {error.strerror}", todo="check the path and its permissions"
    )
