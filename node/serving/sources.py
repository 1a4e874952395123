"""Outside data: where it comes from, and how it is cut into passages.

A source is a name like `pydoc:try` or `files:guide/intro.md`. What a data peer may read is decided
when it starts, and no name that comes over the network reaches beyond that.
"""

import importlib
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

import trio

from node.ingest.local_files import (
    FILE_BYTES_MAX,
    FileState,
    files_below,
    read_below,
    state_of,
    states_of,
)
from node.ingest.passages import PASSAGE_CHARS, cut
from node.ingest.prepare import words_of
from node.ingest.table import DataTable
from wire.errors import Malformed, Refused
from wire.fetch import Extraction
from wire.kinds import RefusalCode
from wire.tree import name_of

# A folder is walked again this often at most, and after a walk rests so many times its length.
LOOK_S, LOOK_REST = 3.0, 20.0
# A file that changed is taken once nobody has written to it for this time, after so many tries not.
WRITING_S, WRITING_TRIES = 1.0, 5


class Source(Protocol):
    """Named texts from outside."""

    def names(self) -> tuple[str, ...]:
        """Every name that `fetch` takes, in order, as far as was looked."""
        ...

    async def look(self) -> None:
        """Look for what came and what went, unless that was done a moment ago."""
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

    async def look(self) -> None:
        """Do nothing: what is in a Python stays."""

    async def fetch(self, name: str) -> str:
        topic = name.removeprefix("pydoc:")
        if topic not in self._load():
            raise Refused(
                f"there is no topic {topic!r} in the documentation of this Python",
                code=RefusalCode.NOT_FOUND,
            )
        return self._load()[topic]


class FolderSource:
    """Text files below one folder (or one file), watched: what comes, changes and goes is seen.

    Nothing runs meanwhile: whoever lists the files, or asks for one that is not known, has the
    folder walked again, at most every `LOOK_S`, and for at most a twentieth of the time.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._files: dict[str, Path] = {}
        self._states: dict[str, FileState] = {}
        self._look_at_s = -math.inf
        self._looking = trio.Lock()

    def scan(self) -> None:
        """Walk the folder once; call it off the loop."""
        files = files_below(self.root, "files:")
        self._states, self._files = states_of(files), files

    def names(self) -> tuple[str, ...]:
        return tuple(self._files)

    async def look(self) -> None:
        async with self._looking:
            began_at_s = trio.current_time()
            if began_at_s >= self._look_at_s:
                await trio.to_thread.run_sync(self.scan)
                took_s = trio.current_time() - began_at_s
                self._look_at_s = began_at_s + max(LOOK_S, LOOK_REST * took_s)

    async def fetch(self, name: str) -> str:
        if name not in self._files:
            await self.look()
        path = self._files.get(name)
        if path is None:
            raise Refused(f"there is no file {name!r} here", code=RefusalCode.NOT_FOUND)
        try:
            data = await self._read(name, path)
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

    async def _read(self, name: str, path: Path) -> bytes:
        """A file whole: one that changed lately is read once nobody has written for a while."""
        for _ in range(WRITING_TRIES):
            before = await trio.to_thread.run_sync(state_of, path)
            data = await trio.to_thread.run_sync(read_below, self.root, path)
            if before is None or before != self._states.get(name):
                await trio.sleep(WRITING_S)
            if before == await trio.to_thread.run_sync(state_of, path):
                if before is not None:
                    self._states[name] = before
                return data
        raise Refused(f"{name} is being written all the time", retry_after_s=LOOK_S)


class Sources:
    """Several sources as one; the word before the colon selects the source."""

    def __init__(self, by_scheme: Mapping[str, Source]) -> None:
        self._by_scheme = dict(by_scheme)

    def names(self) -> tuple[str, ...]:
        return tuple(name for source in self._by_scheme.values() for name in source.names())

    async def look(self) -> None:
        for source in self._by_scheme.values():
            await source.look()

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

    async def look(self) -> None:
        for folder in self._folders:
            await folder.look()

    async def fetch(self, name: str) -> str:
        if not any(name in it.names() for it in self._folders):
            await self.look()
        for folder in self._folders:
            if name in folder.names():
                return await folder.fetch(name)
        raise Refused(f"there is no file {name!r} here", code=RefusalCode.NOT_FOUND)
