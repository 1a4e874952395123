"""Outside data: where it comes from, and how it is cut into passages.

A source is a name like `pydoc:try` or `files:guide/intro.md`. What a data peer may read is decided
when it starts, and no name that comes over the network reaches beyond that.
"""

import importlib
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Protocol

import trio

from wire import limits
from wire.errors import Refused
from wire.kinds import RefusalCode

# all-MiniLM-L6-v2 reads 256 tokens, about a thousand characters of English.
PASSAGE_CHARS = 700
FILE_BYTES_MAX = 4 << 20
FILES_MAX = 10_000
# The longest name that fits a record of passages.
NAME_BYTES_MAX = 256


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
        if self.root.is_file():
            self._files = {f"files:{self.root.name}": self.root.resolve()}
            return
        found = sorted(path for path in self.root.rglob("*") if _readable(path, self.root))
        self._files = {f"files:{path.relative_to(self.root)}": path for path in found[:FILES_MAX]}

    def names(self) -> tuple[str, ...]:
        return tuple(self._files)

    async def fetch(self, name: str) -> str:
        path = self._files.get(name)
        if path is None:
            raise Refused(f"there is no file {name!r} here", code=RefusalCode.NOT_FOUND)
        try:
            data = await trio.to_thread.run_sync(_read, path)
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


def _read(path: Path) -> bytes:
    # The file may have been replaced since it was listed: by a link, a pipe, an endless device.
    file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    with os.fdopen(file, "rb") as opened:
        return opened.read(FILE_BYTES_MAX + 1)


def _readable(path: Path, root: Path) -> bool:
    relative = path.relative_to(root)
    hidden = any(part.startswith(".") for part in relative.parts)
    # A link could lead out of the folder that its owner meant to share.
    return (
        _has_a_name(f"files:{relative}")
        and path.is_file()
        and not path.is_symlink()
        and not hidden
        and path.stat().st_size <= FILE_BYTES_MAX
    )


def _has_a_name(name: str) -> bool:
    """Whether other peers can ask for this name: it must be text, and not too long."""
    try:
        return len(name.encode()) <= NAME_BYTES_MAX
    except UnicodeEncodeError:
        return False


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


# A heading: a line of words above a line of one repeated sign.
_HEADING = re.compile(r"[^\n]+\n([=*~^\"-])\1{2,}\s*")
_BLANK = re.compile(r"\n[ \t]*\n+")
_WRITTEN = re.compile(r"\S")


def cut(text: str, chars: int = PASSAGE_CHARS) -> list[str]:
    """Cut text into passages of about `chars` characters, at blank lines where that is possible.

    Short paragraphs are joined, long ones are cut at spaces, a heading stays with what follows it;
    nothing is left out but blank space.
    """
    passages: list[str] = []
    current = ""
    for paragraph in _BLANK.split(text):
        for part in _parts(paragraph.strip(), chars):
            full = len(current) + 2 + len(part) > chars
            alone = _HEADING.fullmatch(current) is not None
            if current and not alone and (full or _HEADING.match(part)):
                passages.append(current)
                current = ""
            current = f"{current}\n\n{part}" if current else part
    if current:
        passages.append(current)
    assert all(len(it.encode()) <= limits.PASSAGE_BYTES_MAX for it in passages)
    return passages


def _parts(paragraph: str, chars: int) -> Iterator[str]:
    """The parts of a paragraph that has no blanks around it. The remainder is never copied."""
    start = 0
    while len(paragraph) - start > chars:
        at = paragraph.rfind(" ", start + chars // 2, start + chars)
        at = at if at > start else start + chars
        yield paragraph[start:at].rstrip()
        further = _WRITTEN.search(paragraph, at)
        assert further is not None, "the paragraph ends with a letter"
        start = further.start()
    if paragraph:
        yield paragraph[start:]


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
