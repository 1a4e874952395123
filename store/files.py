"""Files that people name: read piece by piece, written so that they appear whole or not at all."""

import errno
import fcntl
import os
import shutil
import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from wire.errors import BatonError, InputError, StoreFull

# Error codes for no room: of a disk, a quota, or a limit on a file's size.
NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
# Linux: share the blocks of another file.
_FICLONE = 0x40049409
_STAT_BLOCK_BYTES = 512


@contextmanager
def reading(path: Path) -> Iterator[IO[bytes]]:
    """The file, open; InputError where it cannot be read."""
    with _named(path, "read"), path.open("rb") as file:
        yield file


@contextmanager
def appearing(path: Path) -> Iterator[IO[bytes]]:
    """A file under another name beside `path`; it replaces `path` if the block ends without error.

    Then it also survives a power cut. On any error or cancellation `path` is left as it was.
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


def link_or_copy(source: Path, target: Path) -> None:
    """Make `target` with the content of `source`; both share disk blocks if the file system can.

    A copy that shares blocks (reflink) stays as it is when the original is changed. A second name
    (hard link) changes with the original, and readers have to notice that. On another disk `target`
    is a copy. InputError or StoreFull if none of these works.
    """
    with _named(source, "read"), source.open("rb") as file:
        whole = Path(os.path.realpath(source))
        # A file that the store records must be on the disk, even if another program wrote it.
        os.fsync(file.fileno())
        with suppress(OSError), target.open("xb") as shared:
            fcntl.ioctl(shared.fileno(), _FICLONE, file.fileno())
            os.fsync(shared.fileno())
            sync_folder(target.parent)
            return
        target.unlink(missing_ok=True)
        with suppress(OSError):
            target.hardlink_to(whole)
            sync_folder(target.parent)
            return
        with appearing(target) as copy:
            shutil.copyfileobj(file, copy, 1 << 20)


def sweep(folder: Path, names: Collection[str]) -> None:
    """Make the folder if there is none; delete the files in it that are not in `names`."""
    folder.mkdir(mode=0o700, exist_ok=True)
    for path in folder.iterdir():
        if path.name not in names:
            path.unlink(missing_ok=True)


def disk_bytes(folder: Path) -> int:
    """Bytes a folder takes on its disk, as du counts: blocks, and a file with two names once."""
    seen: set[tuple[int, int]] = set()
    total = 0
    for path in [folder, *folder.rglob("*")]:
        try:
            said = path.lstat()
        except OSError:
            # The file was deleted meanwhile.
            continue
        if (said.st_dev, said.st_ino) not in seen:
            seen.add((said.st_dev, said.st_ino))
            total += said.st_blocks * _STAT_BLOCK_BYTES
    return total


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
