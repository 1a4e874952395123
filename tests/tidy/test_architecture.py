"""ARCHITECTURE names every file that there is, and none that there is not."""

import re
from pathlib import Path

from tests.tidy.tree import ROOT, production_files, shown

PAGE = ROOT / "node" / "ARCHITECTURE.md"
# A row of the table of rooms: a folder, what happens there, and its files.
ROOM = re.compile(r"^\| `([\w/]+)/` \| [^|]+ \| ([^|]*) \|$", re.MULTILINE)
# Any path, wherever the page speaks of one.
PATH = re.compile(r"`((?:node|p2p|store|wire|tests)/[\w/]*(?:\.\w+|/))`")
WORDS_MIN = 20


def rooms_of(page: str) -> dict[str, set[str]]:
    """The files that the page names, by folder."""
    return {folder: set(re.findall(r"`(\w+)`", files)) for folder, files in ROOM.findall(page)}


def files_of(paths: list[str]) -> dict[str, set[str]]:
    """The files that there are, by folder; a folder's own `__init__` goes without saying."""
    found: dict[str, set[str]] = {}
    for path in map(Path, paths):
        if path.stem != "__init__":
            found.setdefault(path.parent.as_posix(), set()).add(path.stem)
    return found


def test_the_page_names_every_file_and_no_other() -> None:
    rooms = rooms_of(PAGE.read_text(encoding="utf-8"))
    files = files_of([shown(path) for path in production_files()])
    assert rooms.keys() == files.keys()
    for folder, names in files.items():
        assert rooms[folder] == names, f"{folder}: {sorted(rooms[folder] ^ names)}"


def test_every_path_that_the_page_speaks_of_is_there() -> None:
    spoken = PATH.findall(PAGE.read_text(encoding="utf-8"))
    assert len(spoken) > len(files_of(spoken)) > 0
    gone = [path for path in spoken if not (ROOT / path).exists()]
    assert not gone, f"ARCHITECTURE names {gone}"


def test_the_page_begins_with_a_glossary() -> None:
    page = PAGE.read_text(encoding="utf-8")
    glossary = page[: page.index("## The path")]
    assert glossary.index("## Words") < len(glossary)
    assert glossary.count("\n| ") >= WORDS_MIN


def test_a_file_that_is_not_named_and_one_that_is_gone_are_found() -> None:
    rooms = rooms_of("| `store/` | keeps | `seam`, `gone` |\n")
    files = files_of(["store/seam.py", "store/rows.py", "store/__init__.py"])
    assert rooms["store"] ^ files["store"] == {"gone", "rows"}
