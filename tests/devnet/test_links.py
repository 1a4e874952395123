"""The simulated links: they delay, keep the order of each pair, lose, hold back and cut."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio
from trio.testing import MockClock

from node.devnet.links import LATENCY_S_MAX, LATENCY_S_MIN, TICK_S, FaultyNetwork


@asynccontextmanager
async def running(seed: int = 1) -> AsyncIterator[tuple[FaultyNetwork, list[tuple[float, int]]]]:
    """A network, and a list of the packets from `send` that arrived, with their times."""
    arrived: list[tuple[float, int]] = []
    async with trio.open_nursery() as nursery:
        network = FaultyNetwork(seed)
        nursery.start_soon(network.run)
        yield network, arrived
        nursery.cancel_scope.cancel()


def send(network: FaultyNetwork, arrived: list[tuple[float, int]], count: int = 1) -> None:
    for number in range(count):
        network.carry("a", "b", 100, lambda it=number: arrived.append((trio.current_time(), it)))


async def test_a_packet_takes_the_time_of_its_distance_both_ways_alike(
    autojump_clock: MockClock,
) -> None:
    async with running() as (network, arrived):
        there = network._latency_s("a", "b")
        assert LATENCY_S_MIN <= there == network._latency_s("b", "a") <= LATENCY_S_MAX
        sent_s = trio.current_time()
        send(network, arrived)
        await trio.sleep(1)
        assert 0 <= arrived[0][0] - sent_s - there <= 2 * TICK_S


async def test_packets_of_a_pair_stay_in_order_whatever_happens_to_them(
    autojump_clock: MockClock,
) -> None:
    async with running() as (network, arrived):
        network.shares.update(loss=0.3, delay=0.3, reorder=0.3, duplicate=0.3)
        for _ in range(20):
            send(network, arrived, 10)
            await trio.sleep(0.01)
        await trio.sleep(60)
        assert [number for _, number in arrived] == list(range(10)) * 20
        assert network.lost > 20
        assert arrived[-1][0] - arrived[0][0] > 0.4


async def test_what_is_lost_too_often_never_arrives(autojump_clock: MockClock) -> None:
    async with running() as (network, arrived):
        network.shares["loss"] = 1.0
        send(network, arrived)
        await trio.sleep(300)
        assert arrived == []


async def test_what_is_sent_to_the_frozen_waits_and_comes_in_order(
    autojump_clock: MockClock,
) -> None:
    async with running() as (network, arrived):
        send(network, arrived, 1)
        network.freeze("b", frozen=True)
        await trio.sleep(5)
        send(network, arrived, 3)
        await trio.sleep(5)
        assert arrived == []
        network.freeze("b", frozen=False)
        send(network, arrived, 1)
        await trio.sleep(1)
        assert [number for _, number in arrived] == [0, 0, 1, 2, 0]


async def test_one_way_and_islands_hold_what_they_should(autojump_clock: MockClock) -> None:
    heard: list[str] = []
    async with running() as (network, _):
        network.deafen("b", deaf=True)
        network.carry("a", "b", 0, lambda: heard.append("a to b"))
        network.carry("b", "a", 0, lambda: heard.append("b to a"))
        await trio.sleep(1)
        assert heard == ["b to a"]
        network.set_island("c", 1)
        network.set_island("d", 1)
        network.carry("c", "a", 0, lambda: heard.append("c to a"))
        network.carry("c", "d", 0, lambda: heard.append("c to d"))
        await trio.sleep(1)
        assert heard == ["b to a", "c to d"]
        network.set_island("c", 0)
        network.deafen("b", deaf=False)
        assert heard[2:] == ["c to a", "a to b"]


async def test_from_and_to_the_vanished_nothing_comes(autojump_clock: MockClock) -> None:
    heard: list[str] = []
    async with running() as (network, _):
        network.vanish("b")
        network.carry("a", "b", 0, lambda: heard.append("a to b"))
        network.carry("b", "a", 0, lambda: heard.append("b to a"))
        await trio.sleep(60)
        assert heard == []
