"""A wheel of Baton as an archive: judged by its own list before anything of it is unpacked.

A release is a few thousand small files in shallow folders. What lists more, or names that lead
elsewhere, is told so here, in one line and at once, whatever program would unpack it.
"""

import re
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from copy import copy
from pathlib import Path

from wire.errors import InputError

WHEEL_BYTES_MAX = 256 << 20
# Several times what a release has.
FILES_MAX = 10_000
WHOLE_BYTES_MAX = 512 << 20
NAME_BYTES_MAX = 400
DEPTH_MAX = 16
# A list of so many files, with names as long as most are.
LIST_BYTES_MAX = FILES_MAX * 256
# How an archive ends that has no comment; where the longer form of that stands, if there is one.
_END = struct.Struct("<4sHHHHIIH")
_END_MAGIC, _LONGER_MAGIC = b"PK\x05\x06", b"PK\x06\x07"
_LONGER_BYTES = 20
# No drive, no folder of another system, nothing that a terminal would act on.
_PART = re.compile(r"[ !-.0-9;-\[\]-~]{1,255}")
_ENCRYPTED = 0x1
_READ_BYTES = 64 << 10
_FAULTS = (OSError, ValueError, EOFError, NotImplementedError, zipfile.BadZipFile, zlib.error)


@contextmanager
def opened(wheel: Path) -> Iterator[zipfile.ZipFile]:
    """A wheel's files, to be read; InputError for what is no wheel, or none that may be unpacked.

    So is what its reading comes to, for what is packed may be damaged.
    """
    try:
        _check_list(wheel)
        with zipfile.ZipFile(wheel) as files:
            _check_files(wheel, files)
            yield files
    except _FAULTS as error:
        raise InputError(
            f"{wheel.name} is no wheel: it was cut or altered", todo="fetch it again"
        ) from error


def read_bounded(files: zipfile.ZipFile, name: str, size_bytes_max: int) -> str:
    """The text of one file; ValueError if it is larger, KeyError if it is not there."""
    with files.open(name) as file:
        data = file.read(size_bytes_max + 1)
    if len(data) > size_bytes_max:
        raise ValueError(f"{name} is too large")
    return data.decode()


def _check_list(wheel: Path) -> None:
    """That the list of files may be read at all: whoever reads it keeps all of it."""
    with wheel.open("rb") as file:
        size_bytes = file.seek(0, 2)
        if size_bytes > WHEEL_BYTES_MAX:
            raise _unlike(wheel, f"it has {size_bytes:,} bytes")
        file.seek(max(0, size_bytes - _END.size - _LONGER_BYTES))
        end = file.read()
    if len(end) < _END.size:
        raise ValueError("it is too short")
    magic, *_, list_bytes, begins, comment_bytes = _END.unpack(end[-_END.size :])
    if magic != _END_MAGIC or comment_bytes:
        raise ValueError("it has no end")
    # Of two lists one program reads that which ends here, and another that which begins there.
    if begins + list_bytes + _END.size != size_bytes:
        raise ValueError("its list is not where it says")
    if end.startswith(_LONGER_MAGIC) or list_bytes > LIST_BYTES_MAX:
        raise _unlike(wheel, "its list of files is too long")


def _check_files(wheel: Path, files: zipfile.ZipFile) -> None:
    rows = files.infolist()
    if len(rows) > FILES_MAX:
        raise _unlike(wheel, f"it lists {len(rows):,} files")
    if (whole_bytes := sum(it.file_size for it in rows)) > WHOLE_BYTES_MAX:
        raise _unlike(wheel, f"its files come to {whole_bytes:,} bytes")
    # Some systems take two cases of a letter for one.
    known, folders = set[str](), set[str]()
    for row in rows:
        # The library cuts a name at its first zero byte.
        name = row.orig_filename
        if why := _fault(row, name):
            raise _unlike(wheel, f"it lists {name[:60]!r}, {why}")
        if (folded := name.removesuffix("/").casefold()) in known:
            raise _unlike(wheel, f"it lists {name[:60]!r} twice")
        known.add(folded)
        if name.endswith("/"):
            folders.add(folded)
    for row in rows:
        folder = row.orig_filename.casefold()
        while folder := folder.rpartition("/")[0]:
            if folder in known and folder not in folders:
                raise _unlike(wheel, f"it lists files in {folder[:60]!r}, which is one")
        _check_size(files, row)


def _check_size(files: zipfile.ZipFile, row: zipfile.ZipInfo) -> None:
    """That a file is as long as the list says: not every program ends where that does.

    What stands before the file has to say the same name, too.
    """
    left_bytes, one_more = row.file_size, copy(row)
    one_more.file_size += 1
    with files.open(one_more) as file:
        while data := file.read(_READ_BYTES):
            left_bytes -= len(data)
    if left_bytes:
        raise ValueError("a file is longer or shorter than it says")


def _fault(row: zipfile.ZipInfo, name: str) -> str:
    """Why a name, or what it is the name of, may not be unpacked; "" if it may."""
    parts = name.removesuffix("/").split("/")
    if len(name.encode(errors="replace")) > NAME_BYTES_MAX or len(parts) > DEPTH_MAX:
        return "which is too long or too deep"
    if any(it in (".", "..") or not _PART.fullmatch(it) for it in parts):
        return "which leads elsewhere or is none of ours"
    # Of what was made by a system that has no such kinds it says nothing.
    kind = stat.S_IFMT(row.external_attr >> 16)
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        return "which is a link or a device"
    if row.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        # The library unpacks what else there is without a bound.
        return "which is packed as none of ours is"
    return "which is encrypted" if row.flag_bits & _ENCRYPTED else ""


def _unlike(wheel: Path, what: str) -> InputError:
    return InputError(
        f"{wheel.name} is no release of Baton: {what}",
        todo="fetch it again, from where releases are",
    )
