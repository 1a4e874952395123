"""Differences between what was claimed and what was computed again."""

import numpy as np
import pytest

from node.engines.compare import DIFFERENCE_MAX, worst_differences
from wire.errors import Malformed
from wire.payload import Vectors


def vectors(*rows: list[float]) -> Vectors:
    data = np.array(rows, "<f4")
    return Vectors(dimensions=data.shape[1], rows=data.shape[0], data=data.tobytes())


def test_equal_rows_do_not_differ() -> None:
    claimed = vectors([1, 2], [3, 4], [0, 0])
    assert worst_differences(claimed, vectors([3, 4], [0, 0]), (1, 2)) == (0, 0)


def test_a_difference_is_relative_to_the_largest_number_of_its_row() -> None:
    claimed = vectors([4, 1], [400, 100])
    found = worst_differences(claimed, vectors([4, 2], [400, 101]), (0, 1))
    assert found == (250_000_000, 2_500_000)


def test_the_smallest_difference_is_not_rounded_away() -> None:
    claimed = vectors([1.0, 1e-12])
    assert worst_differences(claimed, vectors([1.0, 0.0]), (0,)) == (1,)


@pytest.mark.parametrize("odd", [np.nan, np.inf, -np.inf])
def test_what_is_no_number_differs_as_much_as_can_be(odd: float) -> None:
    claimed = vectors([odd, 1], [1, 1])
    assert worst_differences(claimed, vectors([1, 1], [1, 1]), (0, 1)) == (DIFFERENCE_MAX, 0)


def test_a_row_of_zeros_forgives_nothing() -> None:
    assert worst_differences(vectors([1e-30, 0]), vectors([0, 0]), (0,)) == (DIFFERENCE_MAX,)


@pytest.mark.parametrize(
    ("recomputed", "rows"),
    [(vectors([1.0]), (0,)), (vectors([1, 2]), (0, 1)), (vectors([1, 2]), (7,))],
)
def test_shapes_that_do_not_fit_are_Malformed(recomputed: Vectors, rows: tuple[int, ...]) -> None:
    with pytest.raises(Malformed):
        worst_differences(vectors([1, 2], [3, 4]), recomputed, rows)
