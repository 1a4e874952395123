"""A published folder or file as a CAR archive that IPFS tools read: nodes first, then pieces."""

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from node.local.folder_disk import Piece, check_room, drop_part, open_part, writing
from node.local.folder_plan import FolderEntry, FolderPlan
from store.files import sync_folder
from wire.car import header_of, section
from wire.unixfs import UnixfsId


@dataclass(slots=True)
class CarPlace:
    """An archive that is being written, see `FilledPlace`; it appears when it is whole."""

    path: Path
    size_bytes: int = 0
    _file: IO[bytes] | None = None
    _part: Path | None = None
    _written: set[UnixfsId] = field(default_factory=set)

    def begin(self, plan: FolderPlan, entries: list[FolderEntry], size_bytes: int) -> None:
        """The header and all nodes."""
        check_room(self.path, size_bytes)
        part = self.path.with_name(f".{self.path.name[:128]}.{os.getpid()}.part")
        with writing(self.path):
            part.unlink(missing_ok=True)
            self._file = open_part(part)
            self._part = part
            self._add(header_of(plan.root))
            for node_id, data in plan.nodes():
                self._add(section(node_id, data))

    def there(self, entries: list[FolderEntry]) -> list[bool]:
        """Nothing: an archive is written as a whole."""
        return [False] * len(entries)

    def has(self, entry: FolderEntry, leaves: Iterator[tuple[UnixfsId, int]]) -> bool:
        """No: there is never anything."""
        return False

    def write(self, pieces: list[Piece]) -> None:
        """Add pieces, each once."""
        with writing(self.path):
            for _, leaf, data in pieces:
                # A folder of many equal files has their pieces once.
                if leaf not in self._written:
                    self._written.add(leaf)
                    self._add(section(leaf, data))

    def end(self) -> None:
        """Let it appear under its name, and survive a power cut."""
        assert self._file is not None
        assert self._part is not None
        with writing(self.path):
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
            self._part.replace(self.path)
            sync_folder(self.path.parent)
        self._file = self._part = None

    def drop(self) -> None:
        """Leave no part of it."""
        drop_part(self._file, self._part)

    def _add(self, data: bytes) -> None:
        assert self._file is not None
        self.size_bytes += self._file.write(data)
