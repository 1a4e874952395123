"""One suffix for each clock: `_at_s` is trio's, `_wall_s` the wall's; a plain `_s` is a length."""

import io
import re
import tokenize
from collections.abc import Iterator

import pytest

from tests.tidy.tree import production_files, shown

# Words for an instant: a name that ends in one of them and `_s` does not say which clock is meant.
INSTANT = re.compile(r"(?:.*_)?(?:now|began|begun|started|until|since|due|struck)_s")


def instants_without_a_clock(source: str) -> Iterator[tuple[int, str]]:
    """Lines and names that call an instant a length."""
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.NAME and INSTANT.fullmatch(token.string):
            yield token.start[0], token.string


def test_an_instant_says_by_which_clock() -> None:
    found = [
        f"{shown(path)}:{line}: {name}"
        for path in production_files()
        for line, name in instants_without_a_clock(path.read_text(encoding="utf-8"))
    ]
    assert not found, "name it _at_s (trio's clock) or _wall_s (the wall's)"


@pytest.mark.parametrize("name", ["now_s", "_until_s", "slow_since_s", "began_s", "started_s"])
def test_the_rule_finds_what_it_is_for(name: str) -> None:
    assert list(instants_without_a_clock(f"{name} = 1.0")) == [(1, name)]


@pytest.mark.parametrize("name", ["now_at_s", "until_wall_s", "deadline_s", "unknown_s", "took_s"])
def test_the_rule_lets_clocks_and_lengths_be(name: str) -> None:
    assert not list(instants_without_a_clock(f"{name} = 1.0"))
