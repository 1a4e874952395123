"""Bringing a state folder forward, one version after the other, with the old one kept beside it.

A whole copy is made first, then the folder says from which version to which it is brought, and then
come the steps. Each step may run twice: a process that was killed is followed by one that begins
with the same step. The copy lies in the folder itself, since a service may write nowhere else.
Whoever goes back puts the copy into the folder's place.
"""

import os
import re
import shutil
from collections.abc import Callable, Mapping
from itertools import count
from pathlib import Path

from store.files import appearing, sync_folder
from store.private_file import check_folder

Migration = Callable[[Path], None]
# By the version that a step begins with; it makes the next one of it.
STEPS: Mapping[int, Migration] = {}
_NAMED = re.compile(r"baton state (\d{1,6})(?: to (\d{1,6}))?\n?")
_KEPT = "kept"
# What only a running peer has.
_NOT_COPIED = shutil.ignore_patterns("lock", "*.sock")


def version_in(text: str) -> tuple[int, bool] | None:
    """The version that a version file names, and whether it is being left; None for no version."""
    match = _NAMED.fullmatch(text)
    return None if match is None else (int(match[1]), match[2] is not None)


def kept_at(folder: Path, version: int) -> Path:
    """Where the folder as it was in `version` is kept."""
    return folder / _KEPT / f"v{version}"


def can_reach(version: int, wanted: int, steps: Mapping[int, Migration]) -> bool:
    """Whether there are steps from one version to the other."""
    return version < wanted and all(it in steps for it in range(version, wanted))


def bring_forward(folder: Path, file: Path, wanted: int, steps: Mapping[int, Migration]) -> None:
    """Make a folder of version `wanted` of an older one, whose version is in `file`.

    OSError if the disk has no room, and the folder is as it was. The folder must be locked.
    """
    found = version_in(file.read_text())
    assert found is not None
    version, begun = found
    if not begun:
        _copy(folder, kept_at(folder, version))
        _write(file, f"baton state {version} to {wanted}\n")
    for number in range(version, wanted):
        steps[number](folder)
    _write(file, f"baton state {wanted}\n")


def put_back(folder: Path, version: int) -> None:
    """Put the folder that was kept in `version` into the place of the newer one, which is kept too.

    It may be cut after each of its steps, and is then called again. Nobody may use the folder.
    """
    # The folder of a service of systemd is reached by a link.
    folder = folder.resolve()
    back = folder.with_name(f"{folder.name}.v{version}")
    if (kept := kept_at(folder, version)).is_dir():
        # What has this name already is not ours: somebody's, or left over from long ago.
        if os.path.lexists(back):
            back.rename(_free(back, "other"))
        kept.rename(back)
    elif _is_of(folder, version) or not os.path.lexists(back):
        return
    else:
        check_folder(back)
    if folder.exists():
        # Nothing is deleted: what the newer version wrote may be wanted some day.
        folder.rename(_free(folder, "newer"))
    back.rename(folder)
    sync_folder(folder.parent)


def _is_of(folder: Path, version: int) -> bool:
    """Whether the folder is of this version, and not being left."""
    try:
        return version_in((folder / "version").read_text()) == (version, False)
    except (OSError, ValueError):
        return False


def _free(path: Path, ending: str) -> Path:
    """A name beside `path` that nothing has."""
    names = (path.with_name(f"{path.name}.{ending}{it or ''}") for it in count())
    return next(it for it in names if not os.path.lexists(it))


def _copy(folder: Path, kept: Path) -> None:
    kept.parent.mkdir(mode=0o700, exist_ok=True)
    part = kept.with_name(f"{kept.name}.part")
    if part.exists():
        shutil.rmtree(part)
    try:
        shutil.copytree(folder, part, symlinks=True, ignore=_not_copied(folder))
    except OSError:
        # The disk may be full, and the old version has to run on it.
        shutil.rmtree(part, ignore_errors=True)
        raise
    if kept.exists():
        shutil.rmtree(kept)
    part.rename(kept)
    sync_folder(kept.parent)


def _not_copied(folder: Path) -> Callable[[str, list[str]], set[str]]:
    def ignored(path: str, names: list[str]) -> set[str]:
        return _NOT_COPIED(path, names) | ({_KEPT} if Path(path) == folder else set())

    return ignored


def _write(file: Path, text: str) -> None:
    with appearing(file) as out:
        out.write(text.encode())
