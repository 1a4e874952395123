"""Prices that change while tasks are under way, and peers of the version before."""

from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from node.asking.affording import quote_of
from node.asking.answers import Answered
from node.engines.hash_engine import HashEngine
from node.paying_config import TypedPrices
from node.peer import Node
from tests.node.asking import asked, complete, request
from tests.node.network import I, Network, S, open_network
from tests.paying.test_hostile_payments import paid_task
from tests.paying.test_priced_peers import FREE, charges_of, priced, said_by, settled, started
from wire import limits
from wire.errors import BatonError, InputError, Unreachable
from wire.kinds import Level
from wire.tariff import ChargeKind

BEFORE = limits.SPOKEN_VERSION - 1
OLD, NEW = 100, 1000


async def reprice(worker: Node, prices: TypedPrices) -> None:
    """As after its owner typed others."""
    assert worker.paying is not None
    worker.paying.own.typed = prices
    await worker.paying.own.refresh()


async def slow_worker(network: Network, asker: Node, unit_s: float) -> Node:
    """A worker that asks for OLD, and takes so long for a task."""
    worker = await network.start(
        I,
        number=7,
        engine=HashEngine(unit_s=unit_s),
        prices=priced(base=OLD),
        genesis=asker.config.genesis,
    )
    await network.settled()
    with trio.fail_after(60):
        while not said_by(asker, worker):
            await trio.sleep(0.1)
    return worker


async def test_a_leg_costs_what_was_asked_when_it_was_given(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        (asker,) = await started(network)
        worker = await slow_worker(network, asker, unit_s=2.0)
        await asked(asker, paid_task(0))
        found: list[Answered] = []

        async def ask() -> None:
            answered, _ = await asked(asker, paid_task(1, price_max=5 * NEW))
            found.append(answered)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            await trio.sleep(1)
            await reprice(worker, priced(base=NEW))
        assert charges_of(found[0]) == [(ChargeKind.LEG, OLD)]
        paid, earned = await settled(asker, worker)
        assert paid.charged == earned.charged == 2 * OLD


async def test_prices_that_rise_after_the_quote_are_not_paid_beyond_the_cap(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        asker, worker = await started(network, priced(base=OLD))
        await asked(asker, paid_task(0))
        wanted = paid_task(1, price_max=OLD, deadline_s=20)
        quote = await quote_of(asker.leg_server.dispatcher.directory, wanted)
        assert quote is not None
        assert quote.most == OLD
        await reprice(worker, priced(base=NEW))
        with pytest.raises(BatonError):
            await asked(asker, wanted)
        paid, earned = await settled(asker, worker)
        assert paid.charged == earned.charged == OLD
        # Once the new price is known, it is said before a task is accepted.
        with trio.fail_after(60):
            while True:
                quote = await quote_of(asker.leg_server.dispatcher.directory, wanted)
                if quote is not None and quote.most == NEW:
                    break
                await trio.sleep(1)
        with pytest.raises(InputError, match=r"costs up to 0.001 credits"):
            await asked(asker, paid_task(2, price_max=OLD))
        answered, _ = await asked(asker, paid_task(3, price_max=NEW))
        assert charges_of(answered) == [(ChargeKind.LEG, NEW)]


async def test_prices_that_rise_under_a_standing_order_cost_no_task_more_than_it_allows(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        (asker,) = await started(network)
        worker = await slow_worker(network, asker, unit_s=0.05)
        for number in range(10):
            await asked(asker, paid_task(number))
        charged: dict[int, list[int]] = {OLD: [], NEW: []}
        failed = 0

        async def ask(number: int, price_max: int) -> None:
            nonlocal failed
            wanted = request(
                complete(2),
                data=b"%d" % number,
                level=Level.SIGNED,
                price_max=price_max,
                deadline_s=30,
            )
            try:
                answered, _ = await asked(asker, wanted)
            except BatonError:
                failed += 1
            else:
                charged[price_max] += [amount for _, amount in charges_of(answered)]

        async with trio.open_nursery() as nursery:
            for number in range(60):
                nursery.start_soon(ask, number, NEW if number % 2 else OLD)
                if number == 30:
                    await trio.sleep(0.3)
                    await reprice(worker, priced(base=NEW))
        assert asker.tasks._direct.count > 10
        assert set(charged[OLD]) == {OLD}
        assert set(charged[NEW]) <= {OLD, NEW}
        assert NEW in charged[NEW]
        assert len(charged[OLD]) + len(charged[NEW]) + failed == 60
        paid, earned = await settled(asker, worker)
        assert paid.charged == earned.charged == 10 * OLD + sum(charged[OLD] + charged[NEW])


@pytest.mark.parametrize("old", ["asker", "worker", "both"])
async def test_peers_of_the_version_before_pay_and_are_paid(
    autojump_clock: MockClock, tmp_path: Path, old: str
) -> None:
    async with open_network(tmp_path) as network:
        asker, worker = await started(network, priced(base=OLD))
        for node, name in ((asker, "asker"), (worker, "worker")):
            if old in (name, "both"):
                node.peers.neighbours.speaks = BEFORE
        for node in (asker, worker):
            node.peers.neighbours._versions.clear()
        for number in range(30):
            answered, _ = await asked(asker, paid_task(number))
            assert charges_of(answered) == [(ChargeKind.LEG, OLD)]
        paid, earned = await settled(asker, worker)
        assert paid.charged == earned.charged == 30 * OLD
        await worker.paying.till.channels.redeem()  # type: ignore[union-attr]
        assert earned.redeemed == earned.highest


async def test_a_peer_that_cannot_pay_is_served_for_nothing_or_told_why_not(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        asker, dear, free = await started(network, priced(base=OLD), FREE)
        with pytest.raises(Unreachable, match="--genesis"):
            await network.start(S, models=(), number=49)
        # It has no credits.
        genesis = asker.config.genesis
        poor = await network.start(S, models=(), number=50, genesis=genesis)
        poor.peers.neighbours.speaks = BEFORE
        await network.settled()
        with trio.fail_after(60):
            while not said_by(poor, dear):
                await trio.sleep(0.1)
        answered, _ = await asked(poor, request(level=Level.SIGNED))
        assert charges_of(answered) == []
        network.kill(free)
        await trio.sleep(120)
        for price_max, why in ((0, "costs up to 0.0001 credits"), (OLD, "has 0 credits")):
            wanted = request(complete(1), level=Level.SIGNED, price_max=price_max, deadline_s=20)
            with pytest.raises(InputError, match=why):
                await asked(poor, wanted)
        assert dear.leg_server.done == 0
