"""What was found of one cause. Pure."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from node.health.facts import Facts


class State(StrEnum):
    """How one cause of trouble stands."""

    OK = "ok"
    WARN = "warn"
    BAD = "bad"
    UNKNOWN = "cannot tell"


@dataclass(frozen=True, slots=True)
class Judged:
    """What was seen, and one line to type if it is not as it should be."""

    state: State
    words: str
    advice: str = ""


@dataclass(frozen=True, slots=True)
class Cause:
    """One cause for which a peer might not serve, and how facts tell it."""

    name: str
    what: str
    judge: Callable[[Facts], Judged]


@dataclass(frozen=True, slots=True)
class Finding:
    """One cause, judged."""

    name: str
    what: str
    state: State
    seen: str
    advice: str


def ok(words: str) -> Judged:
    """Nothing is wrong here."""
    return Judged(State.OK, words)


def warn(words: str, advice: str) -> Judged:
    """The peer serves, though less well than it could."""
    return Judged(State.WARN, words, advice)


def bad(words: str, advice: str) -> Judged:
    """The peer does not serve, or will soon not, until somebody does something."""
    return Judged(State.BAD, words, advice)


def unknown(words: str) -> Judged:
    """It could not be looked at, and why."""
    return Judged(State.UNKNOWN, words)


NOT_RUNNING = "no peer runs on this state folder"
