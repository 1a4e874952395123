"""How much slower a process runs than it would alone, by figures that are made up."""

import pytest

from p2p.timeouts import STRETCH_MAX, Reading, Slowdown
from p2p.timeouts.slowdown import HALF_LIFE_S, SLACK


def reading(at_s: float, ran_s: float = 0.0, waited_s: float = 0.0, load: float = 0.0) -> Reading:
    return Reading(at_s=at_s, ran_s=ran_s, waited_s=waited_s, load=load)


def test_a_machine_with_time_for_everybody_stretches_nothing() -> None:
    slowdown = Slowdown(reading(0.0))
    slowdown.read(reading(10.0, ran_s=9.0, waited_s=0.9, load=1.0))
    assert slowdown.stretch == 1.0
    assert slowdown.lost_s(10.0) == 0.0


def test_what_a_timeout_has_room_for_is_not_stretched() -> None:
    slowdown = Slowdown(reading(0.0))
    slowdown.read(reading(10.0, load=SLACK))
    assert slowdown.stretch == 1.0


def test_a_process_that_is_let_run_a_tenth_of_the_time_gets_more_time() -> None:
    slowdown = Slowdown(reading(0.0))
    slowdown.read(reading(10.0, ran_s=1.0, waited_s=9.0))
    assert slowdown.slowdown == pytest.approx(10.0)
    assert slowdown.lost_s(10.0) == pytest.approx(10.0 * (1 - SLACK / 10))


def test_a_process_that_sleeps_goes_by_the_load() -> None:
    slowdown = Slowdown(reading(0.0))
    slowdown.read(reading(10.0, ran_s=0.01, waited_s=0.05, load=9.0))
    assert slowdown.stretch == pytest.approx(9.0 / SLACK)


def test_taking_turns_for_milliseconds_is_no_starvation() -> None:
    """Many times what it ran, and hardly any of the time: a process that woke up now and then."""
    slowdown = Slowdown(reading(0.0))
    slowdown.read(reading(10.0, ran_s=0.001, waited_s=0.1))
    assert slowdown.stretch == 1.0


def test_a_machine_that_is_free_again_is_noticed() -> None:
    slowdown = Slowdown(reading(0.0))
    slowdown.read(reading(10.0, ran_s=0.1, waited_s=9.9))
    assert slowdown.stretch > 10
    for step in range(1, 9):
        slowdown.read(reading(10.0 + step * HALF_LIFE_S, ran_s=0.1 + step, waited_s=9.9))
    assert slowdown.stretch == 1.0


def test_there_is_an_end_to_it() -> None:
    slowdown = Slowdown(reading(0.0))
    slowdown.read(reading(1000.0, ran_s=0.0, waited_s=1000.0, load=1e9))
    assert slowdown.stretch == STRETCH_MAX
    assert slowdown.lost_s(200.0) == pytest.approx(199.0)


def test_figures_that_go_back_do_no_harm() -> None:
    slowdown = Slowdown(reading(10.0, ran_s=5.0, waited_s=5.0))
    slowdown.read(reading(9.0))
    assert slowdown.stretch == 1.0
