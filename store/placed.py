"""Blocks that are in files of this peer and not in rows; they are found by id like all others.

A model is one large file that an engine reads in place. If its blocks were also rows, it would be
on the disk twice; so its leaves are places in the file, and only the nodes above them are rows.
Bytes from a place are checked against their id like every block: if the file was changed, they are
not returned.
"""

import os
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from store.rows import BLOCKS, FILES, PLACES, Rows
from wire.content import ContentId

FILES_MAX = 1 << 16
_PLACE = struct.Struct(">QI")
_FILE = struct.Struct(">QqQ")


@dataclass(frozen=True, slots=True)
class Place:
    """Where a leaf is: offset and length in a file of the store's folder."""

    name: str
    offset: int
    size_bytes: int

    def to_bytes(self) -> bytes:
        return _PLACE.pack(self.offset, self.size_bytes) + self.name.encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> "Place":
        offset, size_bytes = _PLACE.unpack_from(data)
        return cls(data[_PLACE.size :].decode(), offset, size_bytes)


@dataclass(frozen=True, slots=True)
class KeptFile:
    """A file whose content is known, with its size and times when it was read.

    As long as these are the same, the file is taken to be unchanged.
    """

    name: str
    size_bytes: int
    modified_ns: int
    inode: int

    def to_bytes(self) -> bytes:
        return _FILE.pack(self.size_bytes, self.modified_ns, self.inode) + self.name.encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> "KeptFile":
        size_bytes, modified_ns, inode = _FILE.unpack_from(data)
        return cls(data[_FILE.size :].decode(), size_bytes, modified_ns, inode)

    @classmethod
    def of(cls, path: Path) -> "KeptFile":
        """The file as it is now; OSError."""
        said = path.stat()
        return cls(path.name, said.st_size, said.st_mtime_ns, said.st_ino)


class PlacedRows:
    """Rows in which blocks in files look like all other blocks.

    `folder` is where the files are; None where there are none.
    """

    __slots__ = ("_folder", "_rows")

    def __init__(self, rows: Rows, folder: Path | None) -> None:
        self._rows = rows
        self._folder = folder

    def get(self, table: str, key: bytes) -> bytes | None:
        value = self._rows.get(table, key)
        if value is None and table == BLOCKS and (place := self.place_of(key)) is not None:
            return self._read(place)
        return value

    def size(self, table: str, key: bytes) -> int | None:
        size_bytes = self._rows.size(table, key)
        if size_bytes is None and table == BLOCKS and (place := self.place_of(key)) is not None:
            return place.size_bytes
        return size_bytes

    def put(self, table: str, key: bytes, value: bytes) -> None:
        self._rows.put(table, key, value)

    def put_many(self, table: str, rows: Sequence[tuple[bytes, bytes]]) -> None:
        self._rows.put_many(table, rows)

    def insert(self, table: str, key: bytes, value: bytes) -> bool:
        if table == BLOCKS and self._folder and self._rows.size(PLACES, key) is not None:
            return False
        return self._rows.insert(table, key, value)

    def delete(self, table: str, key: bytes) -> bool:
        there = self._rows.delete(table, key)
        if table == BLOCKS and self._folder:
            there = self._rows.delete(PLACES, key) or there
        return there

    def scan(self, table: str, start: bytes, limit: int) -> list[tuple[bytes, bytes]]:
        return self._rows.scan(table, start, limit)

    def sizes(self, table: str, start: bytes, limit: int) -> list[tuple[bytes, int]]:
        found = self._rows.sizes(table, start, limit)
        if table != BLOCKS or not self._folder:
            return found
        placed = self._rows.scan(PLACES, start, limit)
        sizes = [(key, Place.from_bytes(value).size_bytes) for key, value in placed]
        return sorted([*found, *sizes])[:limit]

    # Files

    def place_of(self, key: bytes) -> Place | None:
        """Where this leaf is, if it is in a file."""
        value = self._rows.get(PLACES, key) if self._folder else None
        return None if value is None else Place.from_bytes(value)

    def place(self, key: bytes, place: Place) -> None:
        """Note that a leaf is at this place, and delete its row."""
        self._rows.put(PLACES, key, place.to_bytes())
        self._rows.delete(BLOCKS, key)

    def file_of(self, root: bytes) -> KeptFile | None:
        """The file with a tree's blocks; None if they are in the table, or not here."""
        value = self._rows.get(FILES, root) if self._folder else None
        return None if value is None else KeptFile.from_bytes(value)

    def roots_of_size(self, size_bytes: int) -> set[ContentId]:
        """The ids of all content in files that has so many bytes."""
        found = self._rows.scan(FILES, b"", FILES_MAX) if self._folder else []
        return {
            ContentId(key)
            for key, value in found
            if KeptFile.from_bytes(value).size_bytes == size_bytes
        }

    def root_of(self, name: str) -> ContentId | None:
        """The id of the content in the file of this name."""
        found = self._rows.scan(FILES, b"", FILES_MAX)
        return next(
            (ContentId(key) for key, value in found if KeptFile.from_bytes(value).name == name),
            None,
        )

    def file_names(self) -> set[str]:
        """The names of all files with content."""
        found = self._rows.scan(FILES, b"", FILES_MAX)
        return {KeptFile.from_bytes(value).name for _, value in found}

    def _read(self, place: Place) -> bytes:
        """The bytes at this place; b"" if they cannot be read, which never matches the id."""
        assert self._folder is not None
        try:
            descriptor = os.open(self._folder / place.name, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return b""
        try:
            return os.pread(descriptor, place.size_bytes, place.offset)
        except OSError:
            return b""
        finally:
            os.close(descriptor)
