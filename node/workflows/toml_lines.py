"""Where in a TOML file a key stands, so that an error can name its line. Pure.

The library that reads the file tells no lines of what it has read. This looks for keys as people
write them, one a line; what is not found so is named without a line.
"""

import re
from collections.abc import Sequence

_HEADER = re.compile(r"\s*(\[\[?)\s*([^\[\]]+?)\s*\]\]?\s*(?:#.*)?$")
_KEY = re.compile(r"""\s*([A-Za-z0-9_."' -]+?)\s*=""")
Path = Sequence[str | int]


def line_of(text: str, path: Path) -> int | None:
    """The line, from 1 on, of the key at `path`, or of the table that should have it.

    A number in the path is the place in an array of tables.
    """
    wanted = tuple(map(str, path))
    table: tuple[str, ...] = ()
    counts: dict[tuple[str, ...], int] = {}
    best: tuple[int, int] | None = None
    for number, line in enumerate(text.splitlines(), 1):
        if header := _HEADER.match(line):
            table = _words(header[2])
            if header[1] == "[[":
                counts[table] = counts.get(table, -1) + 1
            found = _numbered(table, counts)
        elif key := _KEY.match(line):
            found = (*_numbered(table, counts), *_words(key[1]))
        else:
            continue
        if found == wanted[: len(found)] and (best is None or len(found) > best[0]):
            best = (len(found), number)
    return None if best is None else best[1]


def _words(text: str) -> tuple[str, ...]:
    return tuple(it.strip(" \"'") for it in text.split("."))


def _numbered(table: tuple[str, ...], counts: dict[tuple[str, ...], int]) -> tuple[str, ...]:
    """A table's name with its place in the array of tables that it is in."""
    found: list[str] = []
    for end in range(1, len(table) + 1):
        found.append(table[end - 1])
        if table[:end] in counts:
            found.append(str(counts[table[:end]]))
    return tuple(found)
