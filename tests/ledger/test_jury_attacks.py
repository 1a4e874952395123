"""Bad jurors of one mind, in courts of the real code: whom they convict, and whom they save."""

import pytest

from tests.ledger.jury_attacks import Plot, grinding, is_near, row_of, run_courts

SHARES = (3, 6, 9, 10)


def test_a_third_that_lies_convicts_nobody_and_can_only_have_cases_hang() -> None:
    row = row_of(Plot.LIE, 10, 1)
    assert row["held"], row
    assert row["honest_convicted"] == row["guilty_acquitted"] == 0
    assert row["guilty_hung"] > 0


def test_who_seals_and_does_not_tell_saves_nobody() -> None:
    row = row_of(Plot.SEAL_AND_NOT_TELL, 10, 1)
    assert row["held"], row
    assert (row["guilty_acquitted"], row["guilty_hung"], row["refused"]) == (0, 0, 0)


def test_control_four_fifths_that_lie_do_convict_the_honest() -> None:
    found = run_courts(Plot.LIE, 24, 1)
    assert found.honest["wrong"] > 0
    assert found.guilty["right"] > 0
    # So the bound that the others are held to is one that can be missed.
    assert not is_near(found.honest["wrong"], 0.0)


def test_a_leader_that_grinds_has_one_draw() -> None:
    assert grinding(1) == {"sets_tried": 16, "draws": 1, "juries": 1}


@pytest.mark.soak
@pytest.mark.timeout(600)
@pytest.mark.parametrize("plot", Plot)
@pytest.mark.parametrize("bad", SHARES)
def test_each_plot_gains_what_the_odds_of_seats_say(plot: Plot, bad: int) -> None:
    row = row_of(plot, bad, 4)
    assert row["held"], row
    if plot is Plot.COPY:
        # What was sealed by another opens for nobody else.
        assert row["refused"] > 0
