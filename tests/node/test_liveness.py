"""Peers that freeze, hear nothing, are cut off, or sleep: nothing is lost, and they come back."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from node.devnet.links import FaultyNetwork
from node.peer import Node
from store import open_memory_store
from tests.node.asking import asked, journal_of, nothing_left, request, signers, texts_of
from tests.node.engines import Counted
from tests.node.network import I, Network, S, V, open_network
from wire.kinds import Level


@asynccontextmanager
async def faulty_network(folder: Path) -> AsyncIterator[tuple[Network, FaultyNetwork]]:
    async with open_network(folder) as network:
        links = FaultyNetwork(network.seed)
        network.memory = links
        assert network.nursery is not None
        network.nursery.start_soon(links.run)
        yield network, links


def host(node: Node) -> str:
    """A peer as the links name it."""
    return node.peers.endpoint.addresses[0].rpartition("/p2p/")[2]


async def some(network: Network, count: int) -> list[Node]:
    """Peers that answer, one of them soonest."""
    found = [await network.start(I, S, engine=Counted(0.05 * it)) for it in range(count)]
    await network.settled()
    return found


async def ask_one(asker: Node, text: str, took_s: list[float]) -> None:
    began_at_s = trio.current_time()
    await asked(asker, request(data=texts_of(text), level=Level.SIGNED))
    took_s.append(trio.current_time() - began_at_s)


async def ask_many(asker: Node, count: int, name: str) -> list[float]:
    """Seconds that each took; fails if any was lost."""
    took_s: list[float] = []
    async with trio.open_nursery() as nursery:
        for number in range(count):
            nursery.start_soon(ask_one, asker, f"{name} {number}", took_s)
    assert len(took_s) == count
    assert nothing_left(asker)
    return took_s


# Who hears nothing calls again and again; on this wire, where a call needs no answer, it stays
# connected until it was dropped often enough. It is not asked any more long before that.
@pytest.mark.parametrize(("fault", "counted_s"), [("frozen", 15), ("vanished", 15), ("deaf", 90)])
async def test_a_silent_peer_is_routed_around_soon_and_nothing_is_lost(
    autojump_clock: MockClock, tmp_path: Path, fault: str, counted_s: int
) -> None:
    async with faulty_network(tmp_path) as (network, links):
        asker = await network.start(S)
        struck, *_ = await some(network, 3)
        if fault == "frozen":
            links.freeze(host(struck), frozen=True)
        elif fault == "deaf":
            links.deafen(host(struck), deaf=True)
        else:
            links.vanish(host(struck))
        struck_at_s = trio.current_time()
        took_s = await ask_many(asker, 16, "while nobody knows")
        assert max(took_s) < 10.0
        # By now it is known: nobody waits for it.
        await trio.sleep_until(struck_at_s + 15)
        assert max(await ask_many(asker, 8, "after it was noticed")) < 2.0
        await trio.sleep_until(struck_at_s + counted_s)
        assert struck.peers.me not in asker.peers.connected()


@pytest.mark.parametrize("slept_s", [60, pytest.param(3600, marks=pytest.mark.soak)])
async def test_a_peer_that_slept_comes_back_by_itself(
    autojump_clock: MockClock, tmp_path: Path, slept_s: int
) -> None:
    async with faulty_network(tmp_path) as (network, links):
        asker = await network.start(S)
        sleeper, *_ = await some(network, 3)
        links.freeze(host(sleeper), frozen=True)
        await trio.sleep(slept_s)
        assert sleeper.peers.me not in asker.peers.connected()
        links.freeze(host(sleeper), frozen=False)
        with trio.fail_after(120):
            while sleeper.peers.me not in asker.peers.connected():
                await trio.sleep(0.5)
            while not asker.peers.view.advert_of(sleeper.peers.me):
                await trio.sleep(0.5)
            while True:
                wanted = request(data=texts_of(str(trio.current_time())), level=Level.SIGNED)
                answered, _ = await asked(asker, wanted)
                if signers(answered) == [sleeper.peers.me]:
                    break
                await trio.sleep(1)


@pytest.mark.parametrize("cut_s", [30, pytest.param(1800, marks=pytest.mark.soak)])
async def test_both_sides_of_a_partition_find_each_other_when_it_heals(
    autojump_clock: MockClock, tmp_path: Path, cut_s: int
) -> None:
    async with faulty_network(tmp_path) as (network, links):
        here = [await network.start(S), await network.start(I, S)]
        there = [await network.start(S), await network.start(I, S)]
        await network.settled()
        for node in there:
            links.set_island(host(node), 1)
        await trio.sleep(cut_s)
        for one in here:
            assert not {it.peers.me for it in there} & set(one.peers.connected())
        # Each side works for itself.
        await ask_many(here[0], 4, "here")
        await ask_many(there[0], 4, "there")
        for node in there:
            links.set_island(host(node), 0)
        everybody = {it.peers.me for it in network.nodes}
        with trio.fail_after(180):
            for node in network.nodes:
                while everybody - {node.peers.me} - set(node.peers.connected()):
                    await trio.sleep(0.5)
                while not all(node.peers.view.advert_of(it) for it in everybody - {node.peers.me}):
                    await trio.sleep(0.5)


async def test_an_asker_that_is_killed_finishes_its_journal_also_under_loss(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with (
        open_memory_store(quota_bytes=1 << 30) as store,
        faulty_network(tmp_path) as (network, links),
    ):
        await network.start(S)
        asker = await network.start(S, store=store, number=50)
        for _ in range(2):
            await network.start(I, S, engine=Counted(1.0))
        for _ in range(3):
            await network.start(V, S)
        await network.settled()
        links.shares = {"loss": 0.05}
        tasks = [await asker.tasks.submit(request(data=texts_of(f"task {it}"))) for it in range(6)]
        assert len(journal_of(asker)) == 6
        network.kill(asker)
        again = await network.start(S, store=store, number=50)
        with trio.fail_after(150):
            for task in tasks:
                answered = await again.tasks.watch(task, [].append)
                assert len(answered.answer.record.verdicts) >= 2
        assert again.tasks.statistics().failed == 0
        assert nothing_left(again)
