"""Planted crimes cost their doers stake, and nobody honest any: small, over a few seeds."""

import pytest

from tests.ledger.stake_network import StakeNetwork, StakePlan


@pytest.mark.parametrize("seed", range(3))
def test_every_crime_that_is_shown_is_punished_and_nobody_honest_is(seed: int) -> None:
    plan = StakePlan(seed=seed, peers=50, epochs=4, legs=6, members=1, liars=0.4, lazy=0.4)
    found = StakeNetwork(plan).run()
    assert found.accused >= 4
    assert found.unpunished == 0
    assert found.honest_slashed == 0
    assert found.false_accusations == 4 * plan.epochs
    assert found.false_accusations_taken == 0
    assert found.taken > 0
