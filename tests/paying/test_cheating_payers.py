"""Payers that say less than is so, or show again what is used up: they pay all the same."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from node.paying import paying_channels
from node.paying.channels import EarningChannel
from node.paying.earning_channels import EarningChannels
from node.paying_config import TypedPrices
from node.peer import Node
from p2p.typed_call import TypedCall
from store import Table
from tests.ledger.test_members import CREDIT, epoch
from tests.node.asking import EMBED, MODEL, asked, complete, request, task_of, texts_of
from tests.node.network import S, open_network
from tests.paying.test_hostile_payments import channels_of, paid_task, say, voucher_of
from tests.paying.test_priced_peers import charges_of, priced, said_by, settled, started
from wire import limits
from wire.codec import pack, unpack
from wire.content import ContentId
from wire.errors import InputError, Refused
from wire.kinds import Level, RefusalCode, Role
from wire.message import Message, Offer, Progress, Refuse, Result
from wire.operations import GENERATE
from wire.signed import Signed
from wire.signing import SigningKey
from wire.task import Stage, Task

COUNT, PRICE = 200, 100
LARGE = texts_of(*(f"{at:05}" * 100 for at in range(COUNT)))


def earning(node: Node) -> EarningChannels:
    assert node.paying is not None
    return node.paying.till.channels


def task(payer: Node, stage: Stage, **changes: Any) -> Signed[Task]:
    return task_of(
        payer.dependencies.key, payer.dependencies.environment.wall_s(), stage, **changes
    )


async def end_of(call: TypedCall) -> Message:
    """The last message of an offer."""
    with trio.fail_after(60):
        while not isinstance(message := await call.receive(), Result | Refuse):
            pass
    return message


async def offered(payer: Node, worker: Node, signed: Signed[Task], **changes: Any) -> Message:
    """What comes of an offer that a payer makes by hand."""
    fields: dict[str, Any] = {
        "task": signed.raw,
        "stage": 0,
        "receipts": (),
        "input": None,
        "deadline_ms": 60_000,
        "units": 1,
        "resume": None,
        "avoid": (),
    }
    async with payer.peers.call(worker.peers.me, deadline_s=100) as call:
        await call.send(Offer(**(fields | changes)))
        return await end_of(call)


async def test_an_input_is_paid_as_it_is_and_not_as_its_payer_says(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    assert len(LARGE) > limits.INLINE_BYTES_MAX
    async with open_network(tmp_path) as network:
        payer, worker = await started(network, priced(given=PRICE))
        await asked(payer, request(level=Level.SIGNED, price_max=1000))
        paid, earned = await settled(payer, worker)
        charged, done = earned.charged, worker.leg_server.done
        source = await payer.dependencies.store.put(LARGE)
        whole = PRICE * COUNT
        cheap = task(payer, EMBED, input=source, price_max=PRICE)
        dear = task(payer, EMBED, input=source, price_max=whole)
        for signed, promised in ((cheap, 2 * whole), (dear, whole - 1)):
            total = max(earned.highest, charged + promised)
            await say(payer, worker, voucher=voucher_of(payer, paid, total))
            earned.highest = charged + promised
            refused = await offered(payer, worker, signed)
            assert isinstance(refused, Refuse)
            assert refused.cause is RefusalCode.NOT_PAID
            assert (worker.leg_server.done, earned.held) == (done, 0)
        earned.highest = charged + 2 * whole
        assert isinstance(await offered(payer, worker, dear), Result)
        assert earned.charged == charged + PRICE * COUNT
        assert earned.held == 0


async def test_a_payer_pays_for_an_input_that_is_too_large_for_an_offer(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        payer, _worker = await started(network, priced(given=PRICE))
        with pytest.raises(InputError, match=r"0\.02 credits"):
            await payer.tasks.submit(
                request(EMBED, data=LARGE, level=Level.SIGNED, price_max=PRICE * COUNT - 1)
            )
        wanted = request(EMBED, data=LARGE, level=Level.SIGNED, price_max=PRICE * COUNT)
        answered, _ = await asked(payer, wanted)
        assert [amount for _, amount in charges_of(answered)] == [PRICE * COUNT]


async def test_tokens_that_others_are_said_to_have_shown_are_paid_if_they_are_made_here(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        payer, worker = await started(network, priced(made=100))
        await asked(payer, paid_task(price_max=5000))
        paid, earned = await settled(payer, worker)
        charged = earned.charged
        await say(payer, worker, voucher=voucher_of(payer, paid, charged + 4000))
        source = await payer.dependencies.store.put(b"go")
        signed = task(payer, complete(20), input=source, price_max=5000)
        resume = Progress(units=19, data=b"nothing like it")
        found = await offered(payer, worker, signed, input=b"go", resume=resume)
        assert isinstance(found, Result)
        assert earned.charged == charged + 2000


async def test_a_channel_that_is_used_up_is_none_when_it_is_shown_again(
    autojump_clock: MockClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(paying_channels, "EXPIRY_EPOCHS", 4)
    async with open_network(tmp_path) as network:
        payer, worker = await started(network, priced(base=100))
        await asked(payer, paid_task())
        paid, earned = await settled(payer, worker)
        await earning(worker).redeem()
        assert not earned.unredeemed
        # The payer uses another channel, so this one is put away.
        channels_of(payer).by_peer.clear()
        await asked(payer, paid_task(2))
        assert paid.name not in earning(worker).by_name
        mine = channels_of(payer).by_peer[worker.peers.me]
        channels_of(payer).by_peer[worker.peers.me] = paid
        told = await say(payer, worker, settlement=paid.settlement, voucher=earned.voucher)
        assert told.charged == earned.charged == 100
        assert earning(worker).of(payer.peers.me) == earned
        # What is redeemed is not redeemed again: members would refuse the whole order.
        assert not earning(worker).by_name[paid.name].unredeemed
        await say(payer, worker, channel=mine.name)
        assert earning(worker).of(payer.peers.me) is earning(worker).by_name[mine.name]
        await epoch(payer, paid.expiry)
        await trio.sleep(30)
        for _ in range(2):
            # Nothing is worked for out of what can hardly be redeemed any more.
            assert earning(worker).of(payer.peers.me) is None
            await epoch(payer, paid.expiry + 1)
        await trio.sleep(60)
        assert not earning(worker).by_name
        assert not worker.dependencies.store.scan(Table.CHANNELS, prefix=b"old:")
        channels_of(payer).by_peer[worker.peers.me] = paid
        with pytest.raises(Refused, match="expires before"):
            await say(payer, worker, settlement=paid.settlement, voucher=earned.voucher)


async def test_a_channel_that_is_shown_twice_at_once_is_begun_once(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    """Or else what the first one had done for it is forgotten with a power cut."""
    async with open_network(tmp_path) as network:
        payer, worker = await started(network, priced(base=100))
        await asked(payer, paid_task())
        paid, _ = await settled(payer, worker)
        channels = earning(worker)
        await channels.redeem()
        channels_of(payer).by_peer.clear()
        await asked(payer, paid_task(2))
        await settled(payer, worker)
        await channels.redeem()
        assert paid.name not in channels.by_name

        async def use(total: int) -> None:
            channel = await channels.shown(payer.peers.me, paid.name, paid.settlement)
            if total not in channel.used:
                channel.use_up(total)
                await channels.keep(channel)

        async with trio.open_nursery() as nursery:
            for _ in range(10):
                nursery.start_soon(use, 5)
        row = worker.dependencies.store.read(Table.CHANNELS, b"in:" + paid.name)
        assert row is not None
        assert EarningChannel.from_bytes(paid.name, row).used == (5,)
        old = worker.dependencies.store.scan(Table.CHANNELS, prefix=b"old:")
        assert channels._old == len(old)


def test_what_is_kept_of_a_channel_is_all_but_what_is_under_way() -> None:
    payer = SigningKey(bytes(31) + b"\1").peer
    for tariff in (None, ContentId.of(b"tariff")):
        channel = EarningChannel(
            payer, bytes(32), 1000, 7, 30, b"v", 20, 2, redeemed=10, tariff=tariff, given_up=9
        )
        row = channel.to_bytes()
        assert EarningChannel.from_bytes(bytes(32), row) == channel
        # Rows of before say nothing of what was given up.
        before = EarningChannel.from_bytes(bytes(32), pack(unpack(row)[:12]))
        assert before == replace(channel, given_up=0)


async def test_who_gives_up_what_was_read_for_it_pays_before_more_is_read(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        payer, worker = await started(network, priced(given=10, made=1))
        await asked(payer, paid_task())
        _, earned = await settled(payer, worker)
        till = worker.leg_server.till
        assert till is not None
        assert till.own.now is not None
        increment = till.own.now.record.increment
        earned.highest = earned.charged + 10 * increment
        data = b"x" * 10_000
        stage = Stage(role=Role.INFER, operation=GENERATE, model=MODEL, parameters={"tokens": 4})
        signed, read = task(payer, stage, price_max=increment), 10 * len(data)
        for _ in range(increment // read + 1):
            seat = till.seat(signed, stage, data, 1)
            assert seat is not None
            seat.abandoned = True
            seat.close()
            assert earned.held == 0
        assert increment < earned.given_up <= increment + read
        with pytest.raises(Refused, match="gave up"):
            till.seat(signed, stage, data, 1)
        # It is remembered over a restart of the payee.
        await worker.dependencies.store.write(Table.META, b"after", b"")
        row = worker.dependencies.store.read(Table.CHANNELS, b"in:" + earned.name)
        assert row is not None
        assert EarningChannel.from_bytes(earned.name, row).given_up == earned.given_up
        # What is paid afterwards makes up for it; and what is given up unread costs nobody.
        till.channels.charge(earned, read, None)
        seat = till.seat(signed, stage, data, 1)
        assert seat is not None
        before = earned.given_up
        seat.close()
        assert earned.given_up == before


async def test_one_redemption_that_is_refused_spoils_no_other(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        payer, worker = await started(network, priced(base=100))
        other = await network.start(S, models=(), number=50, genesis=payer.config.genesis)
        await network.settled()
        assert payer.ledger is not None
        await payer.ledger.wallet.pay(other.peers.me, 20 * CREDIT, lambda _: None)
        await asked(payer, paid_task())
        _, earned = await settled(payer, worker)
        await earning(worker).redeem()
        # As if the state folder were an older copy: what was redeemed is tried again.
        earned.redeemed = 0
        with trio.fail_after(60):
            while not said_by(other, worker):
                await trio.sleep(0.1)
        await asked(other, paid_task(2))
        _, further = await settled(other, worker)
        assert await earning(worker).redeem() == further.highest
        assert not further.unredeemed
        assert earned.redeemed == 0
        # It is not tried again before the epoch ends.
        assert await earning(worker).redeem() == 0


async def test_verifiers_that_cannot_be_paid_are_not_waited_for(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        asker, _free, *_ = await started(network, TypedPrices(), priced(check=10), verifiers=3)
        poor = await network.start(S, models=(), number=50, genesis=asker.config.genesis)
        await network.settled()
        with trio.fail_after(60):
            while not all(said_by(poor, it) for it in network.nodes[1:] if it is not poor):
                await trio.sleep(0.1)
        began_at_s = trio.current_time()
        with pytest.raises(InputError, match="has 0 credits"):
            await poor.tasks.submit(request(price_max=1000, deadline_s=600))
        assert trio.current_time() - began_at_s < 30
