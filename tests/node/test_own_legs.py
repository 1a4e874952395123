"""A peer that plays the role it asks for: a network of one answers."""

from dataclasses import replace
from pathlib import Path

import trio
from trio.testing import MockClock

from node.dispatch.failover import Failover
from node.dispatch.handoff import Handoff
from node.dispatch.progress import StreamProgress
from node.dispatch.standing_order import IDLE_S
from node.serving.role import nowhere
from node.task.events import Streamed
from p2p.score import Offence, Standing
from tests.node.asking import (
    EMBED,
    EMBED_PASSAGES,
    FETCH,
    TEXTS,
    VECTORS,
    asked,
    complete,
    nothing_left,
    receipt_of,
    request,
    signers,
    task_of,
)
from tests.node.engines import Broken
from tests.node.network import D, I, S, open_network
from wire.kinds import Level

SETTLED_S = 5.0


async def test_a_peer_alone_does_its_own_legs_and_signs_for_them(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with open_network(tmp_path) as network:
        alone = await network.add(D, I, S)
        await trio.sleep(SETTLED_S)
        answered, _ = await asked(alone, request(EMBED, data=TEXTS, level=Level.SIGNED))
        assert answered.output == VECTORS
        assert signers(answered) == [alone.peers.me]
        both, _ = await asked(alone, request(FETCH, EMBED_PASSAGES, data=None, level=Level.SIGNED))
        assert signers(both) == [alone.peers.me] * 2
        streamed, events = await asked(
            alone, request(complete(20), data=b"Once", level=Level.SIGNED)
        )
        shown = b"".join(it.data for it in events if isinstance(it, Streamed))
        assert shown == streamed.output
        assert nothing_left(alone)
        # It blames itself for nothing, and keeps no conversation with itself for long.
        await trio.sleep(3 * IDLE_S)
        assert not alone.peers.problems
        assert not alone.peers.in_calls


async def test_what_it_cannot_do_itself_another_does(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with open_network(tmp_path) as network:
        other = await network.add(I)
        asker = await network.add(I, engine=Broken())
        await trio.sleep(SETTLED_S)
        answered, _ = await asked(asker, request(EMBED, data=TEXTS, level=Level.SIGNED))
        assert answered.output == VECTORS
        assert signers(answered) == [other.peers.me]


async def test_nothing_turns_a_peer_against_itself(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with open_network(tmp_path) as network:
        peers = (await network.add(I)).peers
        for offence in Offence:
            for _ in range(9):
                peers.offended(peers.me, offence)
        assert peers.standing(peers.me) is Standing.GOOD


async def test_a_strangers_leg_is_not_offered_to_ourselves_in_our_own_name(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with open_network(tmp_path) as network:
        peer = await network.add(D, I)
        await trio.sleep(SETTLED_S)
        async with network.outsider() as stranger:
            task = task_of(
                stranger.key, stranger.peers.environment.wall_s(), FETCH, EMBED_PASSAGES, input=None
            )
            began = Handoff(task=task, receipts=(), input=None, units=1)
            brought = replace(
                began, receipts=(receipt_of(task, peer.dependencies.key, b"passages"),)
            )
            for handoff, is_offered in ((began, True), (brought, False)):
                failover = Failover(
                    peer.tasks.dispatcher.directory,
                    handoff,
                    print,
                    nowhere,
                    1e9,
                    StreamProgress(),
                    set(),
                )
                assert (peer.peers.me in {it.peer for it in failover._able()}) is is_offered
