"""Never two certificates, nothing settled is lost, nobody is stuck: over random runs with faults.

Each property has a control: a network that is worse by one thing, in which it does not hold.
"""

import pytest

from node.ledger.rows import VOTES
from tests.ledger.simulation import Found, Plan, Simulation

EPOCHS = 3
# Members, bad members, and how many runs there are without and with --soak.
SIZES = [(4, 1, 16, 6000), (7, 2, 3, 2500), (10, 3, 1, 1500)]


def held(plan: Plan) -> tuple[Simulation, Found]:
    """A run in which everything has to hold."""
    simulation = Simulation(plan)
    found = simulation.run()
    assert not found.doubled, f"two certificates: {plan}"
    assert not simulation.lost(), f"settled, and lost over an epoch: {plan}"
    assert found.epochs_ended >= plan.epochs, f"an epoch did not end: {plan}"
    for owner in simulation.owners:
        assert owner.done.get(plan.epochs - 1), f"an owner is stuck: {plan}"
        if not owner.cheats:
            assert all(owner.done.values()), f"an honest owner was stuck for an epoch: {plan}"
    return simulation, found


@pytest.mark.parametrize(("members", "bad", "runs", "_soak"), SIZES)
def test_nobody_spends_twice_and_nothing_settled_is_lost(
    members: int, bad: int, runs: int, _soak: int
) -> None:
    settled = crashes = 0
    for seed in range(runs):
        _, found = held(Plan(seed=seed, members=members, bad=bad, epochs=EPOCHS))
        settled += len(found.settled)
        crashes += found.crashes
    assert settled > 10 * runs
    assert crashes > runs


@pytest.mark.soak
@pytest.mark.timeout(36_000)
@pytest.mark.parametrize(("members", "bad", "_runs", "soak"), SIZES)
def test_so_it_is_in_ten_thousand_runs(members: int, bad: int, _runs: int, soak: int) -> None:
    for seed in range(1000, 1000 + soak):
        held(Plan(seed=seed, members=members, bad=bad, epochs=EPOCHS))


def test_what_a_bad_member_shows_to_some_alone_does_not_keep_an_epoch_from_ending() -> None:
    for seed in range(2):
        _, found = held(Plan(seed=seed, members=7, bad=2, loss=0.0, crash=0.0, hides=True))
        assert found.rounds <= 7


def test_one_bad_member_too_many_certifies_two_orders() -> None:
    for seed in range(30):
        simulation = Simulation(Plan(seed=seed, members=4, bad=2, cheats=4, epochs=2))
        try:
            if simulation.run().doubled:
                return
        except AssertionError:
            return
    pytest.fail("two bad members of four have to be able to certify both")


def test_members_that_forget_votes_in_a_crash_certify_two_orders() -> None:
    for seed in range(60):
        plan = Plan(seed=seed, members=4, bad=1, cheats=6, epochs=2, crash=0.2, forgets=VOTES)
        if Simulation(plan).run().doubled:
            return
    pytest.fail("a vote that is not durable has to be the end of it")


def test_who_takes_one_acknowledgement_for_settled_loses_some() -> None:
    for seed in range(40):
        plan = Plan(seed=seed, members=4, bad=1, epochs=2, loss=0.3, settled_by=1)
        simulation = Simulation(plan)
        simulation.run()
        if simulation.lost():
            return
    pytest.fail("fewer acknowledgements than a quorum have to be too few")
