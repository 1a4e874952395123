"""The limits of honest margins: what they let pass, what they catch, and that a table sets them."""

from dataclasses import replace

import numpy as np
import pytest

from node.engines.margins import (
    CLIP,
    EXACT,
    GREATEST_LEAST,
    GREATEST_TIMES,
    limits_of,
    statistics_of,
    too_far,
)
from wire.calibration import BUILT_IN, MARGINS_MAX, Calibration
from wire.errors import Malformed

LENGTHS = (1, 32, 256, 4096)
NOTHING_DIFFERED = replace(BUILT_IN, margins_millionths=(), tokens=20_000)
COARSE = replace(BUILT_IN, tokens=5000, margins_millionths=tuple(range(3000, 300_000, 3000)))


def of(margins: list[float], table: Calibration = BUILT_IN, length: int = 0) -> str:
    found = statistics_of([*margins, *[0.0] * (length - len(margins))], table)
    return too_far(found, limits_of(table, max(length, len(margins))))


@pytest.mark.parametrize("table", [BUILT_IN, NOTHING_DIFFERED, COARSE])
def test_honest_answers_of_any_length_are_within_the_limits(table: Calibration) -> None:
    chance = np.random.default_rng(1)
    margins = np.array(table.margins_millionths or (12_500,)) / 1e6
    rate = len(table.margins_millionths) / table.tokens
    for length in LENGTHS:
        for _ in range(100):
            drawn = chance.choice(margins, chance.poisson(rate * length))
            assert not of([float(it) for it in drawn], table, max(length, len(drawn)))


def test_limits_grow_with_the_length_and_with_what_was_measured() -> None:
    for table in (BUILT_IN, NOTHING_DIFFERED, COARSE):
        sums = [limits_of(table, length).margin_sum for length in LENGTHS]
        assert sums == sorted(sums)
        assert sums[-1] > sums[0]
    for length in LENGTHS[1:]:
        assert (
            limits_of(NOTHING_DIFFERED, length).margin_sum
            < limits_of(BUILT_IN, length).margin_sum
            < limits_of(COARSE, length).margin_sum
        )


def test_the_greatest_margin_has_a_limit_of_its_own() -> None:
    assert limits_of(BUILT_IN, 9).greatest == pytest.approx(GREATEST_TIMES * 0.03)
    assert limits_of(NOTHING_DIFFERED, 9).greatest == GREATEST_LEAST
    assert "a token missed" in of([0.2], BUILT_IN, 4096)
    assert "together" in of([0.1] * 30, BUILT_IN, 256)
    assert not of([0.1], COARSE, 256)


def test_the_same_numbers_miss_nothing() -> None:
    assert not too_far(statistics_of([0.0] * 9, BUILT_IN), EXACT)
    assert too_far(statistics_of([0.0, 1e-5], BUILT_IN), EXACT)


def test_statistics_count_each_token_up_to_the_clip() -> None:
    found = statistics_of([0.0, 0.1, 900.0, 0.0], BUILT_IN)
    assert (found.positions, found.mismatches, found.first) == (4, 2, 1)
    assert found.sum_millionths == round((0.1 + CLIP) * 1e6)
    assert found.greatest_millionths == 900_000_000
    assert statistics_of([], BUILT_IN).positions == 0


def test_a_calibration_is_content_and_has_its_margins_in_order() -> None:
    assert Calibration.from_bytes(COARSE.to_bytes()) == COARSE
    assert COARSE.id != BUILT_IN.id
    with pytest.raises(Malformed):
        replace(BUILT_IN, margins_millionths=(2, 1))
    most = replace(BUILT_IN, tokens=1 << 30, margins_millionths=(9,) * MARGINS_MAX)
    assert Calibration.from_bytes(most.to_bytes()) == most
