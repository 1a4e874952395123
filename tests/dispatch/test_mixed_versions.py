"""Peers of this version and of the one before in one network, upgraded one by one: no task fails.

An older peer is made of this code and says the older version: it is treated as one by all others.
What such a peer would not read is seen by the tests of what each version brought.
"""

from collections import Counter
from pathlib import Path

import trio
from trio.testing import MockClock

from node.asking.answers import Answered
from node.peer import Node
from p2p.score import Standing
from tests.node.asking import asked, request, texts_of, vectors_of
from tests.node.engines import Counted
from tests.node.network import I, Network, S, V, open_network
from wire import limits
from wire.kinds import Level, Role

BEFORE = limits.SPOKEN_VERSION - 1
# Who is upgraded, in order, by its number: the asker of the tasks is the first and stays.
KINDS: dict[int, tuple[Role, ...]] = {1: (I, S), 2: (I, S), 3: (V, S), 4: (V, S), 5: (V, S)}


async def started(network: Network, number: int, speaks: int) -> Node:
    engine = Counted(unit_s=0.01)
    node = await network.start(*KINDS[number], engine=engine, number=number)
    node.peers.neighbours.speaks = speaks
    for other in network.nodes:
        # Somebody may have met it in the moment before it said so.
        other.peers.neighbours._versions.pop(node.peers.me, None)
    return node


def versions_told(asker: Node) -> Counter[int]:
    return Counter(asker.peers.neighbours.told_versions())


async def test_a_network_is_upgraded_one_by_one_and_no_task_fails(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        asker = await network.start(S, number=0)
        asker.peers.neighbours.speaks = BEFORE
        nodes = {it: await started(network, it, BEFORE) for it in KINDS}
        await network.settled()
        done: list[str] = []
        seen: list[Counter[int]] = []
        over = trio.Event()

        async def keep_asking(lane: int) -> None:
            level = {} if lane else {"level": Level.SIGNED}
            number = 0
            while not over.is_set():
                text = f"{lane} {number}"
                answered, _ = await asked(asker, request(data=texts_of(text), **level))
                assert isinstance(answered, Answered)
                assert answered.output == vectors_of(text)
                done.append(text)
                number += 1
                await trio.sleep(1)

        async with trio.open_nursery() as nursery:
            for lane in range(2):
                nursery.start_soon(keep_asking, lane)
            for number in KINDS:
                await trio.sleep(1)
                network.kill(nodes[number])
                nodes[number] = await started(network, number, limits.SPOKEN_VERSION)
                await network.settled()
                before = len(done)
                while len(done) < before + 3:
                    await trio.sleep(0.1)
                seen.append(versions_told(asker))
            over.set()
        assert len(done) > 2 * len(KINDS)
        assert len(set(done)) == len(done)
        # Both versions were there together, and in the end the new one alone.
        assert any({BEFORE, limits.SPOKEN_VERSION} <= it.keys() for it in seen)
        assert set(seen[-1]) == {limits.SPOKEN_VERSION}
        # Nobody was shut out for speaking another version.
        for node in network.nodes:
            others = [it.peers.me for it in network.nodes if it is not node]
            assert not any(node.peers.standing(it) is Standing.BANNED for it in others)
