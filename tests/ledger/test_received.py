"""What an account was paid: read from epochs that ended, and shown by `wallet log`."""

from pathlib import Path

from trio.testing import MockClock

from node.ledger.received import LATEST_MAX, PaidTotal, Received, ReceivedPayments, received_by
from node.local.ledger_commands import LedgerCommands
from tests.ledger.made import ONE, THREE, TWO, Made
from tests.ledger.test_members import CREDIT, epoch, genesis_of, ledger_of, start, unheard
from tests.node.network import open_network
from wire.ledger import Payment, order_digest


def test_payments_to_an_account_are_found_whatever_the_order_of_orders() -> None:
    made = Made()
    several = made.order(
        ONE,
        pay=(
            Payment(to=TWO.peer, amount=1000),
            Payment(to=THREE.peer, amount=7),
            Payment(to=TWO.peer, amount=500),
        ),
    )
    other = made.order(THREE, pay=(Payment(to=ONE.peer, amount=9000),))
    for orders in ([several, other], [other, several]):
        (found,) = received_by(TWO.peer, orders)
        assert (found.payer, found.amount, found.sequence) == (ONE.peer, 1500, 0)
        assert found.order == order_digest(several)
        assert received_by(made.keys[0].peer, orders) == []
    both = [made.order(it, pay=(Payment(to=TWO.peer, amount=1),)) for it in (ONE, THREE)]
    assert received_by(TWO.peer, both) == received_by(TWO.peer, reversed(both))


def test_a_thousand_tiny_payments_push_no_total_out() -> None:
    found = ReceivedPayments()
    found.add([Received(3, ONE.peer, 5000, bytes(32), 0)])
    assert found.total(THREE.peer) == PaidTotal(0, -1)
    for sequence in range(LATEST_MAX + 5):
        found.add([Received(4, TWO.peer, 1, bytes(32), sequence)])
    assert len(found.latest) == LATEST_MAX
    assert {it.payer for it in found.latest} == {TWO.peer}
    assert found.total(ONE.peer) == PaidTotal(5000, 3)
    assert found.total(TWO.peer) == PaidTotal(LATEST_MAX + 5, 4)
    found.add([Received(9, ONE.peer, 7, bytes(32), 1)])
    assert found.total(ONE.peer) == PaidTotal(5007, 9)


async def test_the_log_of_an_account_shows_who_paid_it_once_the_epoch_has_ended(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        genesis = genesis_of(network, members=1, granted=0)
        member, payee = [await start(network, genesis, number) for number in range(2)]
        wallet, log = ledger_of(member).wallet, LedgerCommands(payee).log
        await wallet.pay(payee.peers.me, 3 * CREDIT, unheard)
        await wallet.pay(network.key(9).peer, CREDIT, unheard)
        before = await log({}, unheard)
        assert (before["received"], before["received_before"]) == ([], 0)
        await epoch(member, 1)
        await wallet.pay(payee.peers.me, 2 * CREDIT, unheard)
        await epoch(member, 2)
        found = await log({}, unheard)
        assert found["received_before"] >= 2
        assert found["received_problem"] == ""
        shown = [(it["from"], it["amount"], it["epoch"]) for it in found["received"]]
        payer = str(member.peers.me)
        assert shown == [(payer, 2 * CREDIT, 1), (payer, 3 * CREDIT, 0)]
        assert found["orders"] == []
        assert (await LedgerCommands(member).log({}, unheard))["received"] == []


async def test_a_log_without_members_shows_what_is_known_and_says_what_is_missing(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        genesis = genesis_of(network, members=1, granted=0)
        member, payee = [await start(network, genesis, number) for number in range(2)]
        await ledger_of(member).wallet.pay(payee.peers.me, CREDIT, unheard)
        await epoch(member, 1)
        first = await LedgerCommands(payee).log({}, unheard)
        network.kill(member)
        found = await LedgerCommands(payee).log({}, unheard)
        assert found["received"] == first["received"]
        assert len(found["received"]) == 1
        assert found["received_problem"]
