"""Files that decide who this peer is: read only if nobody else could have put them there.

What is opened is judged, not what the path said a moment before: a plain file, of this user (or of
root, who can do everything anyway), that nobody else may change. So a pipe does not hang the start,
a device does not fill the memory, and a file that another user owns is no secret of ours.
"""

import errno
import os
import stat
from contextlib import suppress
from pathlib import Path

from wire.errors import StoreUnusable

OTHERS_MAY_WRITE = stat.S_IWGRP | stat.S_IWOTH
OTHERS_MAY_READ = stat.S_IRWXG | stat.S_IRWXO


def read_private(file: Path, what: str, *, size_bytes_max: int, barred: int) -> bytes:
    """At most the first `size_bytes_max` bytes; `barred` are the permissions it must not have.

    FileNotFoundError if there is no such file; StoreUnusable, in whose words it is `what`, if it is
    not to be trusted.
    """
    # A pipe that nobody writes to would keep us waiting here.
    descriptor = os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as source:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise StoreUnusable(
                f"{file} should be a plain file with {what}",
                todo="see what is there, and move it away",
            )
        check_owner(file, found)
        mode = stat.S_IMODE(found.st_mode)
        if mode & barred:
            raise StoreUnusable(
                f"{file} holds {what} and others may use it (mode {mode:04o})",
                todo=f"chmod 600 {file}; if somebody may have used it, begin anew with another"
                " folder, without what this one stood for",
            )
        return source.read(size_bytes_max)


def check_owner(path: Path, found: os.stat_result) -> None:
    """StoreUnusable if `path` is another user's: that user can change it at any time."""
    if found.st_uid not in (os.geteuid(), 0):
        raise StoreUnusable(
            f"{path} belongs to another user (number {found.st_uid}), who can replace it",
            todo=f"chown {os.geteuid()} {path}, or name another place",
        )


def check_folder(path: Path) -> None:
    """StoreUnusable unless `path` and the folder above it are safe from other users.

    Whoever may write to the folder above can put another one in the place of `path`, unless that
    folder is like /tmp, where everybody may only remove what is his own.
    """
    found = path.stat()
    check_owner(path, found)
    mode = stat.S_IMODE(found.st_mode)
    if mode & OTHERS_MAY_WRITE:
        raise StoreUnusable(
            f"others may write to {path} (mode {mode:04o}) and so replace this peer's key",
            todo=f"chmod 700 {path}",
        )
    above = path.resolve().parent
    mode = stat.S_IMODE(above.stat().st_mode)
    if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
        raise StoreUnusable(
            f"everybody may write to {above} (mode {mode:04o}) and so replace {path}",
            todo=f"chmod o-w {above}, or name another state folder",
        )


def own_folder(path: Path, mode: int) -> None:
    """Make a folder if there is none, and give it these permissions; never through a link.

    StoreUnusable if it is another user's, others may write to it, or it is a link or no folder: the
    permissions would be those of whatever a link names.
    """
    with suppress(FileExistsError):
        path.mkdir(mode=mode)
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        if error.errno not in (errno.ELOOP, errno.ENOTDIR):
            raise
        raise _no_folder(path) from error
    try:
        check_owner(path, os.fstat(descriptor))
        check_folder(path)
        os.fchmod(descriptor, mode)
    finally:
        os.close(descriptor)


def check_own_folder(path: Path) -> None:
    """The same of a folder that is there, whatever its permissions, and nothing is changed."""
    if path.is_symlink():
        raise _no_folder(path)
    check_folder(path)


def _no_folder(path: Path) -> StoreUnusable:
    return StoreUnusable(
        f"{path} is a link or a file, where a folder should be",
        todo="see what it is, and move it away",
    )


def open_own(file: Path, flags: int) -> int:
    """A descriptor of a file that is written here, made if there is none; never through a link.

    A link would have us write to whatever file of this user it names.
    """
    try:
        return os.open(file, flags | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        raise StoreUnusable(
            f"{file} is a link to another file, which would be overwritten",
            todo="see what it names, and delete the link",
        ) from error
