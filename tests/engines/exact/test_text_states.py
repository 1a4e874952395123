"""The states of an exact transformer: which leaf is which, and that a pass has no say in them."""

from pathlib import Path

import pytest

from node.engines.exact import text_states as states
from node.engines.exact.text_states import StatePlace, count_of, place_of, text_states
from tests.engines.exact.text_models import layers_of, made_at
from wire import limits
from wire.errors import Malformed


def test_each_leaf_is_of_a_token_and_a_step_of_a_layer() -> None:
    assert count_of(layers=2, tokens=3) == 22
    assert place_of(0, 2, 3) == StatePlace(0, None, "embedding")
    assert place_of(1, 2, 3) == StatePlace(0, 0, "keys and values")
    assert place_of(13, 2, 3) == StatePlace(1, 1, "feed-forward")
    assert place_of(21, 2, 3) == StatePlace(2, None, "output head")
    assert str(place_of(12, 2, 3)) == "layer 1, attention, at place 1"


def test_of_more_states_than_there_may_be_there_is_no_tree() -> None:
    assert count_of(layers=30, tokens=2880) <= limits.TEXT_STATES_MAX
    with pytest.raises(Malformed, match="a dispute is about"):
        count_of(layers=30, tokens=2881)


def test_however_many_tokens_are_read_together_the_states_are_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layers, tokens, passes = layers_of(made_at(tmp_path)), list(range(20, 31)), []
    whole = text_states(layers, tokens, lambda: passes.append(1))
    assert len(whole.levels[0]) == count_of(2, len(tokens))
    monkeypatch.setattr(states, "READ_ROWS", 4)
    assert text_states(layers, tokens, lambda: passes.append(1)).root == whole.root
    assert len(passes) == 1 + 3
    # The tokens before are the first leaves, but for what is said of the next.
    shorter = text_states(layers, tokens[:-1])
    assert shorter.levels[0][:-1] == whole.levels[0][: len(shorter.levels[0]) - 1]
