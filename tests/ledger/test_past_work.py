"""What a staker earned of others counts beside its stake, at most as much, for four weeks."""

from types import SimpleNamespace
from typing import Any

from node.ledger.past_work import worked
from node.ledger.stake_table import WEIGHT_MAX, StakeTable
from node.usage.history import WEEK_S, epochs_in_week
from tests.ledger.made import ONE, THREE, TWO
from tests.ledger.test_motions import Network
from wire.amount import CREDIT
from wire.content import PeerId
from wire.kinds import Role
from wire.ledger import Payment
from wire.stake import StakePart, StakeRow

STAKE = 2 * CREDIT


def staked(role: Role = Role.VERIFY) -> Network:
    network = Network()
    network.do(TWO, stake=(StakePart(role=role, amount=STAKE),))
    return network


def row_of(network: Network) -> StakeRow:
    found: StakeRow = network.member.books.stakes.row(TWO.peer)
    return found


def test_what_others_paid_counts_as_much_as_the_stake_and_no_more() -> None:
    network = staked()
    network.use(ONE, TWO, CREDIT)
    network.end()
    assert row_of(network).worked == CREDIT
    # The header names it: whoever has only the table of stakes can check it.
    assert network.member.tip.stake_table == network.member.books.stakes.table
    network.use(THREE, TWO, 5 * CREDIT)
    network.end()
    assert (row_of(network).worked, row_of(network).total) == (STAKE, STAKE)
    network.check()


def test_what_goes_round_and_what_is_only_sent_counts_nothing() -> None:
    network = staked()
    network.use(ONE, TWO, CREDIT)
    network.do(TWO, pay=(Payment(to=ONE.peer, amount=CREDIT),))
    network.do(THREE, pay=(Payment(to=TWO.peer, amount=CREDIT),))
    network.end()
    assert row_of(network).worked == 0
    network.check()


def test_who_checks_nothing_has_no_weight_by_other_work() -> None:
    network = staked(Role.STORE)
    network.use(ONE, TWO, CREDIT)
    network.end()
    assert row_of(network).worked == 0
    network.check()


def test_work_is_forgotten_after_four_weeks() -> None:
    network = staked()
    week = epochs_in_week(WEEK_S, network.made.genesis.epoch_s)
    network.use(ONE, TWO, CREDIT)
    network.end()
    assert row_of(network).worked == CREDIT
    # As if four weeks had passed: its week is not among the last four.
    rows = network.member.books.motions.rows
    old = {key for key in rows if key[:1] == b"u"}
    assert old
    assert week > 4
    network.member.books.motions.put(dict.fromkeys(old))
    network.end()
    assert row_of(network).worked == 0


def test_the_weight_in_a_draw_is_stake_and_work_together() -> None:
    def weight(amount: int, earned: int) -> int:
        part = StakePart(role=Role.VERIFY, amount=amount * CREDIT)
        row = StakeRow(account=TWO.peer, parts=(part,), worked=earned * CREDIT)
        table: Any = SimpleNamespace(row=lambda _: row)
        return StakeTable.verifier_weight(table, PeerId(TWO.peer))

    assert weight(10, 0) == 10
    assert weight(10, 7) == 17
    # Whatever a table says: a stake counts twice at most.
    assert weight(10, 1000) == 20
    assert weight(WEIGHT_MAX, 5) == WEIGHT_MAX
    row = StakeRow(account=TWO.peer)
    assert worked(row, {TWO.peer: 10 * CREDIT}) == 0
