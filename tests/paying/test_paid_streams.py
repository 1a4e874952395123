"""Streams that are paid for: paused and gone on with, broken and gone on with elsewhere."""

from pathlib import Path

import pytest
import trio
import trio.lowlevel
from trio.testing import MockClock

from node.checking.report import Status
from node.engines.interface import Part
from node.paying import till as till_module
from node.peer import Node
from tests.node.asking import asked, complete, request, task_of
from tests.node.engines import Counted
from tests.node.network import I, Network, open_network
from tests.node.test_streams import OUTPUT, TOKENS, Watching, busy
from tests.paying.test_hostile_payments import channels_of, say, voucher_of
from tests.paying.test_priced_peers import (
    cost_of,
    priced,
    said_by,
    settled,
    started,
)
from wire.errors import Refused
from wire.kinds import Level, RefusalCode
from wire.tariff import ChargeKind


async def opened(network: Network) -> tuple[Node, Node]:
    """A payer and a worker with a channel; a token costs 100."""
    payer, worker = await started(network, priced(made=100))
    await asked(payer, request(complete(1), data=b"x", level=Level.SIGNED, price_max=1000))
    return payer, worker


async def test_a_stream_waits_for_what_is_not_paid_and_goes_on_at_the_next_token(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        payer, worker = await opened(network)
        paid, earned = await settled(payer, worker)
        till = worker.leg_server.till
        assert till is not None
        before = earned.highest - earned.charged
        # What was promised pays for so many tokens, and for no more.
        promised = before // 100
        stage = complete(1000)
        wall_s = payer.dependencies.environment.wall_s()
        task = task_of(payer.dependencies.key, wall_s, stage, price_max=10**6)
        await say(payer, worker, voucher=voucher_of(payer, paid, earned.charged + 3200))
        seat = till.seat(task, stage, b"go", 1000)
        assert seat is not None
        shown: list[int] = []

        async def relay(part: Part) -> None:
            shown.append(part.position)

        pass_on = seat.paced(relay)

        async def stream() -> None:
            for at in range(64):
                await pass_on(Part(at, 1, b"t"))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(stream)
            await trio.sleep(5)
            assert shown == list(range(32))
            assert promised <= 32
            # A voucher that is lower, or of another channel, does not help.
            await say(payer, worker, voucher=voucher_of(payer, paid, 200))
            await trio.sleep(1)
            assert len(shown) == 32
            await say(payer, worker, voucher=voucher_of(payer, paid, earned.charged + 4000))
            await trio.sleep(1)
            assert shown == list(range(40))
            await say(payer, worker, voucher=voucher_of(payer, paid, earned.charged + 6400))
        assert shown == list(range(64))
        charged = earned.charged
        seat.close()
        assert earned.charged == charged + 6400
        assert earned.held == 0


async def test_a_stream_that_is_not_paid_in_time_is_refused(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        payer, worker = await opened(network)
        paid, earned = await settled(payer, worker)
        till = worker.leg_server.till
        assert till is not None
        stage = complete(1000)
        wall_s = payer.dependencies.environment.wall_s()
        task = task_of(payer.dependencies.key, wall_s, stage, price_max=10**6)
        await say(payer, worker, voucher=voucher_of(payer, paid, earned.charged + 3200))
        seat = till.seat(task, stage, b"go", 1000)
        assert seat is not None

        async def relay(_: Part) -> None:
            await trio.lowlevel.checkpoint()

        pass_on = seat.paced(relay)
        await pass_on(Part(0, 32, b"t" * 32))
        began_at_s = trio.current_time()
        with pytest.raises(Refused) as refused:
            await pass_on(Part(32, 1, b"t"))
        assert refused.value.code is RefusalCode.NOT_PAID
        assert trio.current_time() - began_at_s >= till_module.UNPAID_DEADLINE_S
        # It is owed for what it showed, and was promised just that.
        charged = earned.charged
        seat.close()
        assert earned.charged == charged + 3200 == earned.highest


async def test_peers_of_a_broken_stream_are_paid_each_for_its_own_tokens(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        payer, *_ = await started(network)
        workers = [
            await network.start(
                I,
                # Longer than what is signed for at once.
                engine=Counted(unit_s=1.25),
                number=number,
                prices=priced(base=1000, made=100),
                genesis=payer.config.genesis,
            )
            for number in (1, 2)
        ]
        await network.settled()
        with trio.fail_after(60):
            while not all(said_by(payer, it) for it in workers):
                await trio.sleep(0.1)
        for number in range(40):
            # Both have a channel before.
            if len(channels_of(payer).by_peer) == len(workers):
                break
            wanted = request(complete(1), data=b"%d" % number, level=Level.SIGNED, price_max=5000)
            await asked(payer, wanted)
        before = {it.payee: it.charged for it in channels_of(payer).by_peer.values()}
        watching = Watching()
        wanted = request(complete(TOKENS), data=b"prompt", level=Level.SIGNED, price_max=9000)
        task = await payer.tasks.submit(wanted)
        dead: list[Node] = []

        async def kill_it() -> None:
            await watching.until(5)
            dead.append(busy(workers))
            network.kill(dead[0])

        async with trio.open_nursery() as nursery:
            nursery.start_soon(kill_it)
            with trio.fail_after(130):
                answered = await payer.tasks.watch(task, watching.on_event)
        assert answered.output == OUTPUT
        (part, leg) = answered.answer.record.charges
        assert (part.kind, leg.kind) == (ChargeKind.PART, ChargeKind.LEG)
        # Together they are paid for each token once, and one of them for the beginning.
        assert part.units == leg.units == 5
        assert (part.amount, leg.amount) == (500, 1000 + 100 * (TOKENS - 5))
        assert cost_of(answered, source=b"prompt") is Status.HOLDS
        (other,) = [it for it in workers if it is not dead[0]]
        after = {it.payee: it.charged for it in channels_of(payer).by_peer.values()}
        assert after[dead[0].peers.me] - before[dead[0].peers.me] == part.amount
        assert after[other.peers.me] - before[other.peers.me] == leg.amount
        _, earned = await settled(payer, other)
        assert earned.charged == after[other.peers.me]
