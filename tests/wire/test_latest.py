"""What came last is kept, up to a bound; what is counted leaves nothing behind."""

import random

import pytest

from wire.counting import counted
from wire.latest import Latest


def test_the_oldest_goes_and_setting_makes_new() -> None:
    kept: Latest[str, int] = Latest(3)
    for number, key in enumerate("abcabd"):
        kept[key] = number
    # c was set before a and b were set again.
    assert list(kept.items()) == [("a", 3), ("b", 4), ("d", 5)]
    assert "c" not in kept
    assert kept.get("c") is None


def test_reading_makes_nothing_newer_and_forgetting_takes_the_oldest() -> None:
    kept: Latest[str, int] = Latest(2)
    kept["a"], kept["b"] = 1, 2
    assert kept["a"] == kept.get("a") == 1
    kept.forget_oldest()
    assert list(kept) == ["b"]
    kept.forget_oldest()
    with pytest.raises(KeyError):
        kept.forget_oldest()


def test_no_way_of_filling_it_goes_beyond_the_bound() -> None:
    kept: Latest[int, int] = Latest(4)
    kept.update({number: number for number in range(10)})
    assert list(kept) == [6, 7, 8, 9]
    kept.setdefault(10, 0)
    assert len(kept) == 4


def test_it_is_the_plain_rule_whatever_happens() -> None:
    drawn = random.Random(7)
    kept: Latest[int, int] = Latest(5)
    plain: list[int] = []
    for step in range(2000):
        key = drawn.randrange(12)
        if drawn.random() < 0.2:
            kept.pop(key, None)
            plain = [it for it in plain if it != key]
        else:
            kept[key] = step
            plain = [*[it for it in plain if it != key], key][-5:]
        assert list(kept) == plain


def test_a_count_goes_up_and_down_and_leaves_no_entry() -> None:
    counts: dict[str, int] = {}
    with counted(counts, "a") as first, counted(counts, "a") as second, counted(counts, "b"):
        assert (first, second) == (1, 2)
        assert counts == {"a": 2, "b": 1}
    assert counts == {}
    with pytest.raises(ValueError, match="x"), counted(counts, "a"):
        raise ValueError("x")
    assert counts == {}
