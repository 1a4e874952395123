"""The state folder of one peer: private to its user, of a known version, used by one process.

It holds a version file, a lock, the peer's secret key and the store. Nothing here repairs or
guesses: a folder that is not as it should be is refused, and the error says what to do.
"""

import fcntl
import os
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from store.files import NO_ROOM, sync_folder
from store.migrating import STEPS, bring_forward, can_reach, kept_at, version_in
from store.private_file import (
    OTHERS_MAY_READ,
    OTHERS_MAY_WRITE,
    check_folder,
    open_own,
    read_private,
)
from wire.errors import BatonError, StoreFull, StoreUnusable

# Raise it when an older Baton could not read what a newer one wrote.
FOLDER_VERSION = 1
SEED_BYTES = 32

_VERSION_FILE = "version"
_LOCK_FILE = "lock"
KEY_FILE = "key"
# What only a peer leaves in its folder, and never before it has a key.
_LEFT_BY_A_PEER = ("started.json", "port")
_PID_BYTES_MAX = 32
_READ_BYTES = 64
_LOCKS = Path("/proc/locks")


def is_state_folder(names: Collection[str]) -> bool:
    """Whether a folder with these files in it is a peer's own: its secret key is one of them."""
    return {_VERSION_FILE, _LOCK_FILE, KEY_FILE} <= set(names)


@contextmanager
def open_folder(path: Path) -> Iterator[Path]:
    """Make the folder if there is none, and lock it for as long as the block runs.

    The system releases the lock when the process ends, however it ends. StoreUnusable if another
    peer uses the folder, its version is another, or the permissions or the disk do not allow it.
    """
    with _ours(path), _locked(_made(path)):
        _check_version(path)
        yield path


def locked_by(path: Path) -> int | None:
    """The process that uses the folder: 0 for none, and None where nobody can tell.

    It is only looked at: a peer that starts at this moment is not kept from it.
    """
    try:
        descriptor = os.open(path / _LOCK_FILE, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return 0
    except OSError:
        return None
    with os.fdopen(descriptor, "rb") as file:
        found = os.fstat(descriptor)
        try:
            text = file.read(_PID_BYTES_MAX).strip()
            locks = _LOCKS.read_text(encoding="ascii")
        except OSError:
            return None
    # A lock is named by the device and the number of its file.
    device = f"{os.major(found.st_dev):02x}:{os.minor(found.st_dev):02x}:{found.st_ino}"
    held = [it[4] for it in map(str.split, locks.splitlines()) if it[5] == device]
    if not held:
        return 0
    # What the system says comes first: the file may name whoever had the folder before, and that
    # number may be another program's by now. Within a container the system may not say it.
    said = (held[0], text.decode("ascii", "replace"))
    return next((int(it) for it in said if it.isdecimal() and it.isascii() and int(it)), None)


def key_seed(path: Path, fresh: Callable[[], bytes]) -> bytes:
    """The seed of this peer's key: kept here, made by `fresh` the first time.

    StoreUnusable if it is another user's, other users may read it, it is not 32 bytes, or it is
    gone from a folder that a peer has used: another key would have nothing of what that one had.
    """
    with _ours(path):
        file = _made(path) / KEY_FILE
        if not file.exists():
            if has_lost_key(path):
                raise lost_key(path)
            _create(file, fresh())
        seed = read_private(
            file, "this peer's secret key", size_bytes_max=_READ_BYTES, barred=OTHERS_MAY_READ
        )
    if len(seed) != SEED_BYTES:
        size = f"{len(seed)}" if len(seed) < _READ_BYTES else f"{_READ_BYTES} or more"
        raise StoreUnusable(
            f"{file} should hold a secret key of {SEED_BYTES} bytes and has {size}",
            todo=f"put the file back from a copy; to begin anew without: mv {path} {path}.old",
        )
    return seed


def has_lost_key(path: Path) -> bool:
    """Whether a peer has used the folder and its key is gone."""
    left = (os.path.lexists(path / it) for it in _LEFT_BY_A_PEER)
    return not os.path.lexists(path / KEY_FILE) and any(left)


def lost_key(path: Path, held: Sequence[str] = ()) -> StoreUnusable:
    """The error of such a folder; `held` is what hangs on the key and is known to be there."""
    what = ", ".join(held) or "its membership, credits and standing"
    return StoreUnusable(
        f"{path / KEY_FILE} is gone, by which this peer has {what}",
        todo=f"put it back from a copy of the folder; to begin anew without: mv {path} {path}.old",
    )


def leads_nowhere(path: Path) -> str:
    """What the folder's name is a link to, in words, if that is not there; "" else."""
    if path.is_symlink() and not path.exists():
        return f"{path} is a link to {path.readlink()}, which is not there"
    return ""


def _made(path: Path) -> Path:
    if nowhere := leads_nowhere(path):
        raise StoreUnusable(
            nowhere,
            todo="mount the disk that it lies on or delete the link, or name another folder",
        )
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    check_folder(path)
    return path


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    descriptor = open_own(path / _LOCK_FILE, os.O_RDWR)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            pid = os.read(descriptor, _PID_BYTES_MAX).decode(errors="replace").strip() or "unknown"
            raise StoreUnusable(
                f"{path} is in use by another running peer (process {pid})",
                todo="stop that one, or give this one a state folder of its own",
            ) from error
        # The process number is for people only; the lock alone decides.
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(descriptor)


def _check_version(path: Path) -> None:
    file = path / _VERSION_FILE
    expected = f"baton state {FOLDER_VERSION}\n"
    if not file.exists():
        _create(file, expected.encode())
    version = read_private(file, "the version", size_bytes_max=_READ_BYTES, barred=OTHERS_MAY_WRITE)
    found = version.decode(errors="replace")
    if found == expected:
        return
    number = version_in(found)
    if number is not None and can_reach(number[0], FOLDER_VERSION, STEPS):
        bring_forward(path, file, FOLDER_VERSION, STEPS)
        return
    raise StoreUnusable(
        f"{path} is of version {found.strip()!r}, this Baton reads {expected.strip()!r}",
        todo=way_out(path),
    )


def way_out(path: Path) -> str:
    """What to do with a folder of another version."""
    kept = kept_at(path, FOLDER_VERSION)
    if kept.is_dir():
        return (
            "run the newer Baton, whose it is; to go back to this one, run it on a copy of"
            f" {kept}: the folder as it was before"
        )
    return "run the Baton that made it, or give this one another state folder: --state DIR"


def folder_version(path: Path) -> tuple[int, bool] | None:
    """The version that the folder names, and whether it is being left; None if it names none."""
    try:
        with (path / _VERSION_FILE).open("rb") as file:
            return version_in(file.read(_READ_BYTES).decode(errors="replace"))
    except OSError:
        return None


def _create(file: Path, data: bytes) -> None:
    """Make the whole file or nothing; a file that another process made first stays."""
    temporary = file.with_name(f".{file.name}.{os.getpid()}")
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as out:
            out.write(data)
            out.flush()
            os.fsync(out.fileno())
        try:
            # A link, not a rename: a link does not replace an existing file.
            os.link(temporary, file)
        except FileExistsError:
            return
    finally:
        temporary.unlink()
    sync_folder(file.parent)


@contextmanager
def _ours(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise _translated(path, error) from error


def _translated(path: Path, error: OSError) -> BatonError:
    if error.errno in NO_ROOM:
        return StoreFull(f"no room left on the disk of {path}", todo="free some space there")
    return StoreUnusable(
        f"the state folder {path} cannot be used: {error.strerror}",
        todo="check that it is a folder of yours on a disk that can be written, or name another",
    )
