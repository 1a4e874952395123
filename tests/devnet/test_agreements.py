"""Data peers whose source is down, slow or lied about: what several of them agree on is right."""

from itertools import combinations
from pathlib import Path

import pytest
from trio.testing import MockClock

from node.devnet.agreements import TOLERANCE, decided_by
from node.devnet.simulated_fetch import price_at
from tests.devnet.running import config, ran


@pytest.mark.parametrize(
    ("peers", "seconds"), [(9, 3), pytest.param(48, 120, marks=pytest.mark.soak)]
)
async def test_a_fifth_of_the_data_peers_lies_and_no_wrong_price_is_accepted(
    peers: int, seconds: int, autojump_clock: MockClock, tmp_path: Path
) -> None:
    wanted = config("source_lies=0.2", peers=peers, seconds=seconds, rate=0.5)
    _, report = await ran(tmp_path, wanted)
    found = report.document
    assert report.passed, report.lines()
    assert found["agreements_reached"] >= seconds * 0.7
    assert found["wrong_agreements"] == found["wrong_agreements_chance"] == 0
    assert found["source_liars_named"] == found["source_liars"] >= 1
    assert found["honest_sources_named"] == 0


@pytest.mark.soak
async def test_sources_that_are_down_or_slow_are_gone_round(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    wanted = config("source_down=0.3,source_slow=0.2", peers=40, seconds=20, rate=0.5)
    _, report = await ran(tmp_path, wanted)
    found = report.document
    assert report.passed, report.lines()
    assert found["agreements_reached"] >= 15
    assert found["wrong_agreements"] == 0


@pytest.mark.soak
async def test_those_who_act_together_decide_as_often_as_the_arithmetic_says(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    wanted = config("source_colludes=0.3", peers=48, seconds=120, rate=0.5)
    _, report = await ran(tmp_path, wanted)
    found = report.document
    assert report.passed, report.lines()
    assert found["wrong_agreements_chance"] > 0
    # Two of three that collude outvote the honest third; nobody else is named who is honest.
    assert (found["wrong_agreements"] > 0) is (found["honest_sources_outvoted"] > 0)
    assert found["honest_sources_named"] == 0


def test_the_price_moves_by_less_in_a_minute_than_what_is_allowed() -> None:
    for second in range(0, 30_000, 5):
        before, after = price_at(1_800_000_000 + second), price_at(1_800_000_060 + second)
        assert abs(after / before - 1) < TOLERANCE / 2


@pytest.mark.parametrize(("together", "peers"), [(0, 4), (1, 5), (2, 5), (3, 11), (4, 4), (2, 2)])
def test_how_often_two_of_three_collude_is_counted(together: int, peers: int) -> None:
    drawn = list(combinations(range(peers), 3))
    wrong = sum(sum(it < together for it in three) >= 2 for three in drawn)
    assert decided_by(together, peers) == (wrong / len(drawn) if drawn else 0.0)
