"""Routing and admission are better than simpler rules; liars succeed as often as computed."""

import pytest

from tests.sim.lying import accepted_wrong, predicted
from tests.sim.routing import Policy, Traffic, fairness, figures_of, herd


def traffic(policy: Policy, load: float, **changes: float) -> Traffic:
    return Traffic(policy=policy, load=load, servers=30, seconds=30.0, **changes)  # type: ignore[arg-type]


def test_two_that_are_asked_beat_chance_and_old_news() -> None:
    ours, chance, least = (
        figures_of(traffic(it, 0.8)) for it in (Policy.OURS, Policy.RANDOM, Policy.LEAST_LOAD)
    )
    assert ours["p99_s"] < 0.7 * chance["p99_s"]
    assert ours["p99_s"] < 0.7 * least["p99_s"]
    assert ours["refused_ratio"] <= 0.01
    assert least["refused_ratio"] > 5 * ours["refused_ratio"]


def test_a_thousand_askers_do_not_all_land_on_the_one_that_is_idle() -> None:
    assert herd(Policy.OURS) < 0.1
    assert herd(Policy.RANDOM) == pytest.approx(1 / 50, abs=0.01)


@pytest.mark.soak
def test_five_times_what_can_be_done_is_refused_and_as_much_is_done_as_ever() -> None:
    peak = figures_of(traffic(Policy.OURS, 1.2))["throughput"]
    over = figures_of(traffic(Policy.OURS, 5.0))
    assert over["throughput"] >= 0.95 * peak
    assert over["refused_ratio"] > 0.3
    assert over["late"] == 0


@pytest.mark.soak
def test_five_times_what_can_be_done_for_longer_than_adverts_last_is_no_worse() -> None:
    # The fastest servers say that they are full; ten seconds later they are done, then idle for 20.
    def throughput(load: float) -> float:
        ours = Traffic(policy=Policy.OURS, load=load, servers=30, seconds=60.0)
        return figures_of(ours)["throughput"]

    assert throughput(5.0) >= 0.95 * throughput(1.2)


def test_one_greedy_asker_takes_what_is_left_and_no_more() -> None:
    alone, beside = fairness(greedy=False), fairness(greedy=True)
    assert beside["throughput"] > 0.95
    # The server was half idle and is full now: askers may wait a little, but must not starve.
    assert beside["p50_s"] < 2 * alone["p50_s"]
    assert beside["p99_s"] < 10.0


@pytest.mark.parametrize("peers", [20, 60])
def test_of_wrong_answers_as_many_are_accepted_as_arithmetic_says(peers: int) -> None:
    expected = predicted(peers, peers // 5)
    found = accepted_wrong(peers, 0.2, 6000, 3, knowing=True)
    # The bound is three standard deviations of the count.
    assert found == pytest.approx(expected, abs=3 * (expected / 6000) ** 0.5)


def test_liars_who_do_not_know_each_other_are_never_believed() -> None:
    assert accepted_wrong(40, 0.2, 500, 3, knowing=False) == 0.0


def test_without_liars_there_is_nothing_to_accept() -> None:
    assert predicted(50, 0) == 0.0
    assert accepted_wrong(50, 0.0, 50, 3, knowing=True) == 0.0
