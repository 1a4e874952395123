"""The tree of errors is the one that is drawn, and each is one line that a person can read."""

import inspect
import re

import pytest

from wire import errors
from wire.errors import BatonError, Refused

CLASSES = {
    name: item
    for name, item in vars(errors).items()
    if inspect.isclass(item) and issubclass(item, BaseException)
}


def drawn() -> dict[str, str]:
    """Each error in the drawing with the error it hangs from."""
    assert errors.__doc__
    parents: dict[str, str] = {}
    above = {0: "BatonError"}
    for bars, names in re.findall(r"^((?:    |\|   )+)\+-- (\w+(?:, \w+)*)", errors.__doc__, re.M):
        for name in names.split(", "):
            depth = len(bars) // 4
            parents[name] = above[depth - 1]
            above[depth] = name
    return parents


def test_the_errors_hang_together_as_drawn() -> None:
    assert drawn() == {
        name: item.__bases__[0].__name__ for name, item in CLASSES.items() if item is not BatonError
    }


def test_every_error_has_one_parent_and_a_sentence() -> None:
    for item in CLASSES.values():
        assert len(item.__bases__) == 1
        assert item.__doc__


def test_the_drawing_is_read_at_all() -> None:
    assert len(drawn()) == len(CLASSES) - 1 > 20


def test_our_errors_are_not_mistaken_for_those_of_the_language() -> None:
    # An `except OSError` or `except ValueError` about something else must not swallow one of them.
    assert BatonError.__bases__ == (Exception,)


@pytest.mark.parametrize("kind", CLASSES.values())
def test_an_error_is_one_line_what_and_then_what_to_do(kind: type[BatonError]) -> None:
    error = kind("the disk\nis   full", todo="free some room:\n\trm -r old")
    assert str(error) == "the disk is full: free some room: rm -r old"
    assert error.message == "the disk\nis   full"
    assert str(kind("the disk is full")) == "the disk is full"


@pytest.mark.parametrize("strange", ["\n", "\r\n", "\x0b", "\x0c", "\x1c", "\x85", "\u2028"])
def test_no_character_breaks_the_line(strange: str) -> None:
    assert str(BatonError(f"a{strange}b", todo=f"c{strange}d")) == "a b: c d"


def test_a_refusal_carries_when_to_ask_again() -> None:
    assert Refused("full", retry_after_s=2.5).retry_after_s == 2.5
    assert Refused("never").retry_after_s is None
    assert str(Refused("full", retry_after_s=1, todo="ask another")) == "full: ask another"
