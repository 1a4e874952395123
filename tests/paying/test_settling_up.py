"""What a payer does with its channels beside its tasks: it pays what it owes, and forgets none."""

from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from node.asking.answers import Answered
from node.ledger.wallet import unheard
from node.paying.bill import Bill, Booking
from node.paying.channels import PaidChannel
from node.paying.paying_channels import PayingChannels
from node.peer import Node
from p2p.typed_call import TypedCall, refusal_of
from tests.node.asking import EMBED, asked, request, signers
from tests.node.engines import Broken
from tests.node.network import I, open_network
from tests.paying.test_priced_peers import priced, settled, started
from wire.errors import Refused, TaskFailed
from wire.kinds import Level, RefusalCode
from wire.ledger import Opening
from wire.message import Message
from wire.payment_message import Paid, Pay
from wire.tariff import ChargeKind


def channels_of(node: Node) -> PayingChannels:
    assert node.paying is not None
    return node.paying.payer.channels


async def paid_once(asker: Node, worker: Node) -> tuple[Any, Any]:
    await asked(asker, request(level=Level.SIGNED, price_max=1000))
    return await settled(asker, worker)


@pytest.mark.parametrize("refuses", [True, False])
async def test_what_is_owed_is_paid_though_no_further_task_comes(
    refuses: bool, autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        asker, worker = await started(network, priced(base=100))
        paid, earned = await paid_once(asker, worker)
        handlers, calls = worker.peers.handlers, list[float]()
        takes = handlers[Pay]

        async def refuse(call: TypedCall, _message: Message) -> None:
            calls.append(trio.current_time())
            if refuses:
                await call.send(refusal_of(Refused("not now", code=RefusalCode.BUSY)))
            else:
                await call.send(Paid(charged=0, voucher=None))

        handlers[Pay] = refuse
        charged = paid.heard - paid.charged + 500
        channels_of(asker).book(worker.peers.me, Booking(charged=charged, tasks=1))
        assert paid.owes
        await trio.sleep(120)
        assert paid.owes
        # Whoever takes nothing is called more and more rarely.
        assert 5 <= len(calls) <= 9
        handlers[Pay] = takes
        await trio.sleep(130)
        assert not paid.owes
        assert earned.highest >= paid.charged
        assert len(calls) <= 9


async def test_a_channel_that_nobody_waited_for_any_more_is_found_and_used(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        asker, worker = await started(network, priced(base=100))
        assert asker.ledger is not None
        opening = Opening(payee=worker.peers.me, deposit=50_000, expiry=2)
        # As after a crash, or an order that took too long: it is settled, and no more is known.
        await asker.ledger.wallet.order(unheard, open=(opening,))
        channels = channels_of(asker)
        assert channels.all() == []
        await trio.sleep(20)
        (found,) = channels.all()
        assert (found.deposit, found.payee) == (50_000, worker.peers.me)
        paid, earned = await paid_once(asker, worker)
        assert paid is found
        assert (paid.charged, earned.deposit) == (100, 50_000)
        # Once it is taken back it is not found again.
        await trio.sleep(200)
        assert (await asker.ledger.wallet.look()).deposits == 0
        assert channels.all() == []


async def test_a_task_that_waits_for_a_channel_goes_to_whoever_becomes_known_meanwhile(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        asker, worker = await started(network, priced(base=100))

        async def refuse(call: TypedCall, _message: Message) -> None:
            await call.send(refusal_of(Refused("not now", code=RefusalCode.BUSY)))

        worker.peers.handlers[Pay] = refuse
        found: list[Answered] = []

        async def ask() -> None:
            found.append((await asked(asker, request(level=Level.SIGNED, price_max=1000)))[0])

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            await trio.sleep(5)
            genesis, prices = asker.config.genesis, priced(base=100)
            other = await network.start(I, number=2, prices=prices, genesis=genesis)
        assert [signers(it) for it in found] == [[other.peers.me]]


async def test_who_has_failed_is_no_reason_to_look_for_nobody_else(
    autojump_clock: MockClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_network(tmp_path) as network:
        asker, _ = await started(network, priced(base=100))
        options = {"genesis": asker.config.genesis, "prices": priced(base=100)}
        await network.start(I, number=2, engine=Broken(), **options)
        network.kill(network.nodes[1])
        await network.settled()
        broken, channels = network.nodes[1], channels_of(asker)
        # The channel after the next is open, as where much was paid.
        channels.spare[broken.peers.me] = PaidChannel(broken.peers.me, bytes(32), 1, 999, b"shown")
        seeks: list[float] = []

        async def seek(*_: Any, **__: Any) -> None:
            seeks.append(trio.current_time())

        monkeypatch.setattr(type(asker.peers), "seek", seek)
        with pytest.raises(TaskFailed, match="out of memory"):
            await asked(asker, request(level=Level.SIGNED, price_max=1000))
        assert seeks


async def test_who_let_a_promise_fail_is_no_reason_to_look_for_nobody_else(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        asker, worker = await started(network, priced(base=100))
        paid, _ = await paid_once(asker, worker)
        channels, me = channels_of(asker), worker.peers.me
        takes = worker.peers.handlers[Pay]

        async def say_nothing(_call: TypedCall, _message: Message) -> None:
            await trio.sleep_forever()

        worker.peers.handlers[Pay] = say_nothing
        assert paid.tariff is not None
        for is_first in (True, False):
            channels._pay_soon(paid, paid.tariff, 1)
            assert channels.is_filling(me) is is_first
            await trio.sleep(20)
        worker.peers.handlers[Pay] = takes
        channels._pay_soon(paid, paid.tariff, 1)
        await trio.sleep(2)
        channels._pay_soon(paid, paid.tariff, 1)
        assert channels.is_filling(me)


async def test_a_verifier_that_has_gone_is_paid_for_its_verdict_all_the_same(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        asker, _, verifier = await started(network, priced(base=100, check=10), verifiers=1)
        await trio.sleep(30)
        await asked(asker, request(price_max=1000, verifiers=1, needed=1))
        await settled(asker, verifier)
        # It is no longer known where it is, as of whoever loses its connection.
        asker.peers.view.forget(verifier.peers.me)
        assert asker.peers.view.advert_of(verifier.peers.me) is None
        assert asker.paying is not None
        bill = Bill(price_max=1000)
        asker.paying.payer.charge_checks(bill, [verifier.peers.me], 0, EMBED)
        assert [(it.kind, it.amount) for it in bill.charges] == [(ChargeKind.CHECK, 10)]
