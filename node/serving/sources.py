"""Outside data: where it comes from, and how it is cut into passages.

A source is a name like `pydoc:try` or `files:guide/intro.md`. What a data peer may read is decided
when it starts, and no name that comes over the network reaches beyond that.
"""

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

import trio

from node.ingest.local_files import FILE_BYTES_MAX, files_below, read_file
from node.ingest.passages import PASSAGE_CHARS, cut
from node.ingest.prepare import words_of
from node.ingest.table import DataTable
from wire.errors import Malformed, Refused
from wire.fetch import Extraction
from wire.kinds import RefusalCode
from wire.tree import name_of


class Source(Protocol):
    """Named texts from outside."""

    def names(self) -> tuple[str, ...]:
        """Every name that `fetch` takes, in order."""
        ...

    async def fetch(self, name: str) -> str:
        """The text of `name`; Refused if there is none, or it cannot be read as text."""
        ...


class PydocSource:
    """The language documentation inside every CPython (`pydoc_data.topics`)."""

    def __init__(self) -> None:
        self._topics: Mapping[str, str] | None = None

    def _load(self) -> Mapping[str, str]:
        if self._topics is None:
            # Imported late: half a megabyte of text that only data peers need.
            self._topics = importlib.import_module("pydoc_data.topics").topics
        return self._topics

    def names(self) -> tuple[str, ...]:
        return tuple(f"pydoc:{topic}" for topic in sorted(self._load()))

    async def fetch(self, name: str) -> str:
        topic = name.removeprefix("pydoc:")
        if topic not in self._load():
            raise Refused(
                f"there is no topic {topic!r} in the documentation of this Python",
                code=RefusalCode.NOT_FOUND,
            )
        return self._load()[topic]


class FolderSource:
    """Text files below one folder (or one file), as they were listed at the start."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._files: dict[str, Path] = {}

    def scan(self) -> None:
        """Walk the folder once; call it off the loop."""
        self._files = files_below(self.root, "files:")

    def names(self) -> tuple[str, ...]:
        return tuple(self._files)

    async def fetch(self, name: str) -> str:
        path = self._files.get(name)
        if path is None:
            raise Refused(f"there is no file {name!r} here", code=RefusalCode.NOT_FOUND)
        try:
            data = await trio.to_thread.run_sync(read_file, path)
            if len(data) > FILE_BYTES_MAX:
                raise Refused(
                    f"{name} is larger than {FILE_BYTES_MAX} bytes", code=RefusalCode.NOT_FOUND
                )
            return data.decode()
        except UnicodeDecodeError as error:
            raise Refused(
                f"{name} is not UTF-8 text (byte {error.start})", code=RefusalCode.NOT_FOUND
            ) from error
        except OSError as error:
            raise Refused(
                f"{name} cannot be read: {error.strerror}", code=RefusalCode.NOT_FOUND
            ) from error


class Sources:
    """Several sources as one; the word before the colon selects the source."""

    def __init__(self, by_scheme: Mapping[str, Source]) -> None:
        self._by_scheme = dict(by_scheme)

    def names(self) -> tuple[str, ...]:
        return tuple(name for source in self._by_scheme.values() for name in source.names())

    async def fetch(self, name: str) -> str:
        source = self._by_scheme.get(name.partition(":")[0])
        if source is None:
            known = ", ".join(self._by_scheme) or "none"
            raise Refused(
                f"no source {name[:80]!r} here (known: {known})", code=RefusalCode.NOT_FOUND
            )
        return await source.fetch(name)


def passages_of(extraction: Extraction, output: bytes) -> list[str]:
    """The passages that a fetch is passed on as: each row of a table is one, and texts are cut.

    Malformed if the output has no words.
    """
    if extraction.gives == "binary":
        raise Malformed("a binary source has no text to pass on")
    if extraction.gives == "tensor":
        # Its numbers are fetched by their id; what is passed on says which they are.
        return [f"{words_of(output)}: {name_of(output)}"]
    if not extraction.is_table:
        return cut(output.decode())
    rows = DataTable.from_bytes(output).words()
    return [part for row in rows for part in ([row] if len(row) <= PASSAGE_CHARS else cut(row))]


class FolderSources:
    """Several folders under one scheme; a name is read from the first folder that has it."""

    def __init__(self, folders: tuple[FolderSource, ...]) -> None:
        self._folders = folders
        for folder in folders:
            folder.scan()

    def names(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(name for folder in self._folders for name in folder.names()))

    async def fetch(self, name: str) -> str:
        for folder in self._folders:
            if name in folder.names():
                return await folder.fetch(name)
        raise Refused(f"there is no file {name!r} here", code=RefusalCode.NOT_FOUND)
