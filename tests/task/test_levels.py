"""Levels by their words: what they ask for, and what is refused."""

from dataclasses import replace

import pytest

from node.task.levels import CheckTerms, asked_at, levels_of, terms_of, terms_of_numbers
from wire.content import ContentId
from wire.errors import InputError
from wire.kinds import Level, Role
from wire.task import Stage

MODEL = ContentId.of(b"a model")
NOBODY, TWO = terms_of_numbers(0, 0), terms_of_numbers(2, 3)


def terms(level: Level, needed: int, verifiers: int) -> CheckTerms:
    return CheckTerms(level=level, needed=needed, verifiers=verifiers)


@pytest.mark.parametrize(
    ("word", "verdicts", "default", "found"),
    [
        (None, None, NOBODY, NOBODY),
        (None, None, TWO, terms(Level.REPLAYED, 2, 3)),
        (None, "0/0", TWO, terms(Level.SIGNED, 0, 0)),
        (None, "3/5", NOBODY, terms(Level.REPLAYED, 3, 5)),
        ("signed", None, TWO, terms(Level.SIGNED, 0, 0)),
        ("signed", "0/0", TWO, terms(Level.SIGNED, 0, 0)),
        ("spot", None, NOBODY, terms(Level.SPOT_CHECKED, 2, 3)),
        ("spot", "1/1", TWO, terms(Level.SPOT_CHECKED, 1, 1)),
        ("replayed", None, terms_of_numbers(3, 5), terms(Level.REPLAYED, 3, 5)),
        ("exact", None, TWO, terms(Level.EXACT, 2, 3)),
        ("exact", "3/5", NOBODY, terms(Level.EXACT, 3, 5)),
        ("zk", "2/3", NOBODY, terms(Level.ZERO_KNOWLEDGE, 2, 3)),
    ],
)
def test_a_level_and_verdicts_together_say_how_an_answer_is_checked(
    word: str | None, verdicts: str | None, default: CheckTerms, found: CheckTerms
) -> None:
    assert terms_of(word, verdicts, default) == found


@pytest.mark.parametrize(
    ("word", "verdicts", "words"),
    [
        ("exact", "0/0", "the level exact needs verdicts"),
        ("zk", "0/0", "the level zk needs verdicts"),
        ("sure", None, "there is no level 'sure': use one of signed, spot, replayed, exact, zk"),
        ("signed", "2/3", "the level signed has no verdicts"),
        ("replayed", "0/0", "the level replayed needs verdicts"),
        ("spot", "3/2", "3 of 2 verdicts"),
        (None, "many", "is not a number of verdicts"),
    ],
)
def test_what_cannot_be_done_is_refused_in_words(
    word: str | None, verdicts: str | None, words: str
) -> None:
    with pytest.raises(InputError, match=words):
        terms_of(word, verdicts, TWO)


def test_a_model_is_offered_at_levels_at_which_somebody_can_check_it() -> None:
    assert levels_of(["embed", "nearest"], "onnx") == ["signed", "spot", "replayed"]
    later = ["generate", "of a later version"]
    assert levels_of(later, "gguf") == ["signed", "spot", "replayed"]
    assert levels_of(["of a later version"], "exact") == ["signed"]
    # Only a model in whole numbers can be asked for without tolerance.
    assert levels_of(["call"], "exact") == ["signed", "spot", "replayed", "exact"]
    assert levels_of(["call"], "onnx") == ["signed", "spot", "replayed"]


@pytest.mark.parametrize("level", list(Level))
def test_a_generation_that_is_checked_is_asked_for_a_sketch(level: Level) -> None:
    asked = Stage(role=Role.INFER, operation="generate", model=MODEL, parameters={"tokens": 3})
    other = replace(asked, operation="embed")
    checked = level in (Level.SPOT_CHECKED, Level.REPLAYED)
    found = asked_at(level, asked)
    assert found.parameters == {"tokens": 3} | ({"sketch": 1} if checked else {})
    assert asked_at(level, other) == other
