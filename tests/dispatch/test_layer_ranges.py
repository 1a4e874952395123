"""Ranges that make a whole model, and what is said where they do not."""

import random

import pytest

from node.dispatch.layer_ranges import following, missing_words
from wire.content import ContentId
from wire.errors import Malformed
from wire.layers import LAYERS_MAX, LayerRange, layers_id


def ranges(*pairs: tuple[int, int], count: int = 30) -> list[LayerRange]:
    return [LayerRange(first, last, count) for first, last in pairs]


HERE = LayerRange(0, 9, 30)


@pytest.mark.parametrize(
    ("offered", "words"),
    [
        ([], "nobody known here offers layers 10-29 of 30"),
        (ranges((20, 29)), "nobody known here offers layers 10-19 of 30"),
        (ranges((10, 19), (21, 28)), "nobody known here offers layers 20, 29 of 30"),
        (ranges((10, 28)), "nobody known here offers layer 29 of 30"),
        (
            ranges((10, 19), (18, 29)),
            "the ranges overlap: after 0-9 of 30 layers others offer 10-19, 18-29, and none begins"
            " where the one before ends",
        ),
        # Of another model's size, whatever they are called.
        (ranges((10, 39), count=40), "nobody known here offers layers 10-29 of 30"),
    ],
)
def test_what_is_missing_is_named(offered: list[LayerRange], words: str) -> None:
    assert following(HERE, offered) is None
    assert missing_words(HERE, offered) == words


def test_the_fewest_ranges_are_taken_and_none_twice() -> None:
    offered = ranges((10, 14), (15, 19), (10, 19), (20, 29), (20, 24), (25, 29), (12, 29), (0, 9))
    assert following(HERE, offered) == tuple(ranges((10, 19), (20, 29)))
    assert missing_words(HERE, offered) == ""


def test_any_ranges_either_meet_or_are_said_not_to() -> None:
    chance = random.Random(5)
    for _ in range(300):
        pairs = [sorted(chance.sample(range(8), 2)) for _ in range(chance.randrange(8))]
        offered = ranges(*((first, last) for first, last in pairs), count=8)
        here = LayerRange(0, chance.randrange(7), 8)
        found = following(here, offered)
        assert bool(missing_words(here, offered)) is (found is None)
        if found is not None:
            numbers = [n for it in (here, *found) for n in range(it.first, it.last + 1)]
            assert numbers == list(range(8))


@pytest.mark.parametrize(
    "name",
    [
        "layers 5-99 of 30",
        "layers 9-5 of 30",
        "layers 1-2 of 300",
        "layers 01-2 of 9",
        "layers 1-2 of 3 ",
        "Layers 1-2 of 3",
        "layers 1-2 of ٣",
        "",
        "minilm",
    ],
)
def test_a_name_that_is_no_range_is_none(name: str) -> None:
    assert LayerRange.read(name) is None


def test_a_range_is_read_back_from_its_name_and_has_an_id_of_its_model() -> None:
    for layers in (LayerRange(0, 0, 1), LayerRange(18, 29, 30), LayerRange(0, 255, LAYERS_MAX)):
        assert LayerRange.read(str(layers)) == layers
    with pytest.raises(Malformed):
        LayerRange(0, 30, 30)
    one, other = ContentId.of(b"one"), ContentId.of(b"other")
    assert len({one, other, layers_id(one), layers_id(other)}) == 4
