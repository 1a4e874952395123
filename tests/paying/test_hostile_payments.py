"""Payers and payees that mean ill: what each can cost the other, which is one increment at most."""

from pathlib import Path
from random import Random
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from node.paying import own_tariff
from node.paying.channels import RISKED_TASKS, EarningChannel, PaidChannel
from node.paying.payer import Payer
from node.paying.paying_channels import PayingChannels
from node.peer import Node
from p2p.score import Standing
from p2p.typed_call import TypedCall
from tests.node.asking import asked, complete, request, task_of
from tests.node.network import open_network
from tests.paying.test_priced_peers import priced, settled, started
from wire.content import ContentId
from wire.errors import Refused, TaskFailed
from wire.kinds import Level, RefusalCode
from wire.ledger import Voucher
from wire.message import Message
from wire.payment_message import Paid, Pay
from wire.signed import sign
from wire.signing import SigningKey

ONE, TWO = SigningKey(bytes(31) + b"\1"), SigningKey(bytes(31) + b"\2")


def payer_of(node: Node) -> Payer:
    assert node.paying is not None
    return node.paying.payer


def channels_of(node: Node) -> PayingChannels:
    return payer_of(node).channels


def paid_task(number: int = 1, **changes: Any) -> Any:
    fields: dict[str, Any] = {"data": b"%d" % number, "level": Level.SIGNED, "price_max": 1000}
    return request(complete(1), **(fields | changes))


@pytest.mark.parametrize("seed", range(20))
def test_neither_side_risks_more_than_an_increment_whatever_is_lost(seed: int) -> None:
    random = Random(seed)
    increment = random.randrange(1, 5000)
    paid = PaidChannel(TWO.peer, bytes(32), 10**6, 9, b"", increment=increment)
    earned = EarningChannel(ONE.peer, bytes(32), 10**6, 9)
    under_way: list[int] = []
    sent: list[int] = []
    for _ in range(400):
        need = random.randrange(1, increment + 1)
        match random.randrange(4):
            case 0 if paid.wants(need):
                paid.signed = paid.next_total(need)
                sent.append(paid.signed)
            case 1 if sent:
                # Vouchers come late, twice, in any order, or not at all.
                total = random.choice(sent)
                record = Voucher(
                    network=ContentId.of(b"n"),
                    channel=bytes(32),
                    total=total,
                    tasks=0,
                    receipt=None,
                )
                earned.take(record, b"v%d" % total)
                paid.heard = max(paid.heard, earned.highest)
            case 2 if paid.available >= need and earned.available_for(None) >= need:
                paid.held += need
                earned.held += need
                under_way.append(need)
            case 3 if under_way:
                amount = under_way.pop(random.randrange(len(under_way)))
                paid.held -= amount
                earned.held -= amount
                earned.charged += amount
                if random.random() < 0.9:
                    # Of some tasks the payer never has the answer, and it does not pay for them.
                    paid.charged += amount
        assert earned.charged + earned.held <= earned.highest
        assert paid.signed <= paid.charged + increment
        assert earned.highest <= paid.signed <= paid.deposit


async def say(payer: Node, worker: Node, **changes: Any) -> Paid:
    """What a worker answers to a Pay of this payer."""
    channel = channels_of(payer).by_peer[worker.peers.me]
    assert channel.tariff is not None
    fields: dict[str, Any] = {
        "channel": channel.name,
        "tariff": channel.tariff,
        "voucher": None,
        "settlement": None,
    }
    async with payer.peers.call(worker.peers.me, deadline_s=10) as call:
        await call.send(Pay(**(fields | changes)))
        return await call.expect(Paid)


def voucher_of(payer: Node, paid: PaidChannel, total: int, **changes: Any) -> bytes:
    genesis = payer.config.genesis
    assert genesis is not None
    fields: dict[str, Any] = {
        "network": genesis.id,
        "channel": paid.name,
        "total": total,
        "tasks": 1,
        "receipt": None,
    }
    key = changes.pop("key", payer.dependencies.key)
    return sign(Voucher(**(fields | changes)), key).raw


async def test_a_voucher_that_is_none_changes_nothing(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        payer, worker = await started(network, priced(base=100))
        await asked(payer, paid_task())
        paid, earned = await settled(payer, worker)
        highest = earned.highest
        for total in (1, highest - 1, highest):
            found = await say(payer, worker, voucher=voucher_of(payer, paid, total))
            assert found == Paid(charged=100, voucher=earned.voucher)
        for voucher, code in (
            (voucher_of(payer, paid, paid.deposit + 1), RefusalCode.NOT_COVERED),
            (voucher_of(payer, paid, highest + 1, key=TWO), RefusalCode.MALFORMED),
            (voucher_of(payer, paid, highest + 1, channel=bytes(32)), RefusalCode.MALFORMED),
            (
                voucher_of(payer, paid, highest + 1, network=ContentId.of(b"other")),
                RefusalCode.MALFORMED,
            ),
            (b"\xc1", RefusalCode.MALFORMED),
        ):
            with pytest.raises(Refused) as refused:
                await say(payer, worker, voucher=voucher)
            assert refused.value.code is code
        for changes in (
            {"channel": bytes(32)},
            {"channel": bytes(32), "settlement": paid.settlement},
            {"channel": bytes(32), "settlement": b"\xc1"},
            {"tariff": ContentId.of(b"other")},
        ):
            with pytest.raises(Refused):
                await say(payer, worker, **changes)
        assert (earned.highest, earned.charged) == (highest, 100)
        assert len(worker.paying.till.channels.by_name) == 1  # type: ignore[union-attr]


async def test_who_never_pays_is_not_worked_for(autojump_clock: MockClock, tmp_path: Path) -> None:
    async with open_network(tmp_path) as network:
        payer, worker = await started(network, priced(base=100))
        till = worker.leg_server.till
        assert till is not None
        wall_s = payer.dependencies.environment.wall_s()
        task = task_of(payer.dependencies.key, wall_s, complete(1), price_max=1000)
        with pytest.raises(Refused) as refused:
            till.seat(task, complete(1), b"x", 1)
        assert refused.value.code is RefusalCode.NOT_PAID
        assert refused.value.retry_after_s is not None
        await asked(payer, paid_task())
        _, earned = await settled(payer, worker)
        # What is promised is all that is worked for, however many tasks come at once.
        seats = [
            till.seat(task, complete(1), b"x", 1) for _ in range(earned.available_for(None) // 100)
        ]
        with pytest.raises(Refused):
            till.seat(task, complete(1), b"x", 1)
        assert earned.charged + earned.held <= earned.highest
        for seat in seats:
            assert seat is not None
            seat.close()
        assert earned.held == 0
        assert earned.charged == 100


async def test_a_payee_that_keeps_what_was_promised_costs_one_increment_at_most(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        payer, thief = await started(network, priced(base=100))

        async def take(call: TypedCall, message: Message) -> None:
            """Say that all that was ever promised is used up, and a great deal more."""
            assert isinstance(message, Pay)
            await call.send(Paid(charged=2**40, voucher=message.voucher))

        await asked(payer, paid_task())
        thief.peers.handlers[Pay] = take
        increment = channels_of(payer).by_peer[thief.peers.me].increment
        for number in range(2, 400):
            with trio.move_on_after(5):
                try:
                    await asked(payer, paid_task(number, deadline_s=3))
                except (TaskFailed, Refused):
                    break
        paid = channels_of(payer).by_peer[thief.peers.me]
        assert paid.signed <= paid.charged + increment
        # It is given no further work.
        assert paid.available < 100


async def test_a_payer_that_lost_its_disk_believes_its_own_signature_alone(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        payer, worker = await started(network, priced(base=100))
        for number in range(8):
            await asked(payer, paid_task(number))
        paid, earned = await settled(payer, worker)
        before = paid.signed
        # As if the disk were lost: nothing is known but that the channel is there.
        lost = PaidChannel(paid.payee, paid.name, paid.deposit, paid.expiry, paid.settlement)
        channels_of(payer).by_peer[worker.peers.me] = lost
        await asked(payer, paid_task(9))
        await trio.sleep(2)
        assert lost.signed >= before
        assert earned.charged == 900
        assert worker.peers.standing(payer.peers.me) is Standing.GOOD

        async def lie(call: TypedCall, message: Message) -> None:
            """Claim a voucher that the payer never signed."""
            genesis = payer.config.genesis
            assert genesis is not None
            record = Voucher(
                network=genesis.id, channel=paid.name, total=10**9, tasks=1, receipt=None
            )
            await call.send(Paid(charged=0, voucher=sign(record, TWO).raw))

        worker.peers.handlers[Pay] = lie
        again = PaidChannel(paid.payee, paid.name, paid.deposit, paid.expiry, paid.settlement)
        channels_of(payer).by_peer[worker.peers.me] = again
        tariff = payer_of(payer).tariffs.of(
            payer.peers.view.advert_of(worker.peers.me)  # type: ignore[arg-type]
        )
        assert tariff is not None
        assert not channels_of(payer).ready(tariff, 100)
        await trio.sleep(1)
        assert again.signed == again.heard == 0


async def test_a_payee_that_names_a_huge_increment_is_promised_what_some_tasks_cost(
    autojump_clock: MockClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(own_tariff, "INCREMENT_MIN", 10**12)
    async with open_network(tmp_path) as network:
        payer, thief = await started(network, priced(base=1000))

        async def take(call: TypedCall, message: Message) -> None:
            """Say that all that was ever promised is used up, and a great deal more."""
            assert isinstance(message, Pay)
            await call.send(Paid(charged=2**40, voucher=message.voucher))

        await asked(payer, paid_task())
        paid = channels_of(payer).by_peer[thief.peers.me]
        assert paid.increment == 10**12
        # A task costs 1000: neither is much locked nor much promised.
        assert paid.deposit <= 50 * 128 * 1000
        thief.peers.handlers[Pay] = take
        for number in range(2, 40):
            with trio.move_on_after(5):
                try:
                    await asked(payer, paid_task(number, deadline_s=3))
                except (TaskFailed, Refused):
                    break
        assert paid.signed <= paid.charged + max(RISKED_TASKS * 1000, paid.charged)
