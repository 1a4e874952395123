"""Files of the owner that a data peer brings in: below one folder, nothing beside it."""

import os
import stat
from dataclasses import dataclass
from pathlib import Path

FILE_BYTES_MAX = 4 << 20
FILES_MAX = 10_000
WALKS_MAX = 3
# The longest name that fits a record of passages.
NAME_BYTES_MAX = 256


def files_below(root: Path, prefix: str, pattern: str = "**/*") -> dict[str, Path]:
    """The readable files below a folder that fit a pattern, or one file, by `prefix` and path."""
    if root.is_file():
        return {f"{prefix}{root.name}": root.resolve()}
    found = sorted(path for path in _walked(root, pattern) if _is_readable(path, root, prefix))
    return {f"{prefix}{path.relative_to(root)}": path for path in found[:FILES_MAX]}


def _walked(root: Path, pattern: str) -> list[Path]:
    """Whatever fits a pattern; without what was below a folder that went away meanwhile."""
    found: list[Path] = []
    for _ in range(WALKS_MAX):
        found = []
        try:
            found.extend(root.glob(pattern))
        except OSError:
            # A folder was removed while it was walked; the next walk does not see it.
            continue
        break
    return found


@dataclass(frozen=True, slots=True)
class FileState:
    """What changes whenever a file is written, replaced or moved."""

    inode: int
    size_bytes: int
    written_at_ns: int
    changed_at_ns: int


def state_of(path: Path) -> FileState | None:
    """The state of a file now; None if it is gone, or no file any more."""
    try:
        found = path.lstat()
    except OSError:
        return None
    if not stat.S_ISREG(found.st_mode):
        return None
    return FileState(found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


def states_of(files: dict[str, Path]) -> dict[str, FileState]:
    """The states of those that are there."""
    found = ((name, state_of(path)) for name, path in files.items())
    return {name: state for name, state in found if state is not None}


def read_below(root: Path, path: Path) -> bytes:
    """As `read_file`, of a file that still lies below a folder; OSError if it does no more."""
    # A folder on the way to it may have been replaced by a link since it was listed.
    if path != Path(os.path.realpath(root)) and not _lies_below(root, path.parent):
        raise FileNotFoundError(2, "it lies elsewhere by now")
    return read_file(path)


def read_file(path: Path) -> bytes:
    """Up to one byte more than `FILE_BYTES_MAX` of a file; OSError."""
    # The file may have been replaced since it was listed: by a link, a pipe, an endless device.
    file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    with os.fdopen(file, "rb") as opened:
        return opened.read(FILE_BYTES_MAX + 1)


def _is_readable(path: Path, root: Path, prefix: str) -> bool:
    if not path.is_relative_to(root) or ".." in path.parts:
        return False
    relative = path.relative_to(root)
    hidden = any(part.startswith(".") for part in relative.parts)
    # A link could lead out of the folder that its owner meant to share. Any file may be gone since.
    state = None if hidden or not _has_a_name(f"{prefix}{relative}") else state_of(path)
    return state is not None and state.size_bytes <= FILE_BYTES_MAX and _lies_below(root, path)


def _lies_below(root: Path, path: Path) -> bool:
    # Unlike `Path.resolve`, this raises nothing for links in a circle.
    return Path(os.path.realpath(path)).is_relative_to(os.path.realpath(root))


def _has_a_name(name: str) -> bool:
    """Whether other peers can ask for this name: it must be text, and not too long."""
    try:
        return len(name.encode()) <= NAME_BYTES_MAX
    except UnicodeEncodeError:
        return False
