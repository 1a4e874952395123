"""What a peer noted for its owner: the latest of each kind, when, and how often. Pure."""

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from wire.latest import Latest

# Lines that differ only in whom, where and how much they name are of one kind: peers and keys,
# content ids, addresses, numbers.
_NAMED = re.compile(
    r"12D3KooW\w*|…\w+|\bbaf[a-z2-7]{20,}|/(?:ip4|ip6|dns\d?)/[^\s,;)]+|\d+(?:[.:]\d+)*"
)
# A stranger's words may be long, and are looked at for every line.
_LOOKED_AT_MAX = 300


@dataclass(frozen=True, slots=True)
class Note:
    """A line, when it came last, and how many of its kind came."""

    line: str
    at_s: float
    times: int = 1


def kind_of(line: str) -> str:
    """The line without what its kind may name."""
    return _NAMED.sub("#", line[:_LOOKED_AT_MAX])


class Notes:
    """At most so many notes, one for each thing they are about; a new one drops the oldest.

    About nothing else, a line is about its own kind.
    """

    __slots__ = ("_kept", "_now_at_s")

    def __init__(self, notes_max: int, now_at_s: Callable[[], float]) -> None:
        self._now_at_s = now_at_s
        self._kept: Latest[str, Note] = Latest(notes_max)

    def __iter__(self) -> Iterator[Note]:
        """From the oldest to the newest."""
        return iter(self._kept.values())

    def __len__(self) -> int:
        return len(self._kept)

    def note(self, line: str, about: str | None = None) -> None:
        """Keep the line in the place of an earlier one about the same."""
        kind = kind_of(line)
        about = kind if about is None else about
        before = self._kept.get(about)
        again = before is not None and kind_of(before.line) == kind
        self._kept[about] = Note(
            line, self._now_at_s(), 1 + (before.times if before and again else 0)
        )

    def lines(self) -> dict[str, str]:
        """The lines, by what they are about."""
        return {about: it.line for about, it in self._kept.items()}


def latest_of(notes: Iterable[Note], notes_max: int) -> list[Note]:
    """The latest few, one of each kind, the newest last."""
    kinds: dict[str, Note] = {}
    for note in sorted(notes, key=lambda note: note.at_s):
        kind = kind_of(note.line)
        before = kinds.pop(kind, None)
        kinds[kind] = replace(note, times=note.times + (before.times if before else 0))
    return list(kinds.values())[-notes_max:]


def as_maps(notes: Iterable[Note], now_at_s: float) -> list[dict[str, Any]]:
    """As the control socket tells them, in the order of time."""
    return [
        {"line": it.line, "s_ago": max(0, int(now_at_s - it.at_s)), "times": it.times}
        for it in sorted(notes, key=lambda it: it.at_s)
    ]
