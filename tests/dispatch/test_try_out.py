"""Strangers are tried out beside tasks, which do not wait for them."""

from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from node.dispatch.overdue import OVERDUE_S
from node.peer import Node
from p2p.typed_call import TypedCall
from tests.node.asking import EMBED_PASSAGES, FETCH, asked, complete, request
from tests.node.engines import Counted
from tests.node.network import D, I, Network, S, open_network
from wire.kinds import Level, Role
from wire.message import Accept, Message, Offer, Quote, Quoted

UNIT_S = 0.005
# With one trial in eight legs, it would be odd if none were among so many.
TASKS_MAX = 100


async def sit(call: TypedCall, _: Message) -> None:
    await call.send(Accept(expected_ms=1))
    await trio.sleep_forever()


async def boast(call: TypedCall, _: Message) -> None:
    await call.send(Quoted(expected_ms=1))


async def took_s(asker: Node, data: bool, number: int) -> float:
    began_at_s = trio.current_time()
    if data:
        await asked(asker, request(FETCH, EMBED_PASSAGES, data=None, level=Level.SIGNED))
    else:
        await asked(asker, request(complete(4), data=b"%d" % number, level=Level.SIGNED))
    ended_at_s = trio.current_time()
    await trio.sleep(0.5)
    return ended_at_s - began_at_s


async def acquainted(network: Network, *roles: Role) -> Node:
    """An asker for whom two peers have delivered."""
    asker = await network.start(S)
    for _ in range(2):
        await network.start(*roles, engine=Counted(unit_s=UNIT_S))
    await network.settled()
    return asker


@pytest.mark.parametrize("data", [False, True], ids=["infer", "data"])
async def test_no_task_waits_for_a_stranger_while_who_delivered_is_idle(
    autojump_clock: MockClock, tmp_path: Path, data: bool
) -> None:
    roles = (D, I, S) if data else (I, S)
    async with open_network(tmp_path) as network, AsyncExitStack() as stack:
        asker = await acquainted(network, *roles)
        peace_s = max([await took_s(asker, data, it) for it in range(4)])
        role = D if data else I
        sitter = await stack.enter_async_context(network.outsider(role, units_per_s=10_000.0))
        sitter.answer(Offer, sit)
        sitter.answer(Quote, boast)
        await trio.sleep(2)
        taken_s: list[float] = []
        while not sitter.asked and len(taken_s) < TASKS_MAX:
            taken_s.append(await took_s(asker, data, 10 + len(taken_s)))
        assert max(taken_s) <= 1.2 * peace_s + 0.01
        # It had its trial, and one was enough.
        directory = asker.tasks.dispatcher.directory
        await trio.sleep(60)
        assert len(sitter.asked) == 1
        assert directory.sitting.is_benched(sitter.key.peer, trio.current_time())
        assert directory.trials.under_way == 0


async def test_a_stranger_that_does_its_leg_on_trial_is_asked_like_the_others(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        asker = await acquainted(network, I, S)
        await took_s(asker, False, 0)
        newcomer = await network.start(I, S, engine=Counted(unit_s=UNIT_S))
        await trio.sleep(2)
        directory = asker.tasks.dispatcher.directory
        for number in range(1, TASKS_MAX):
            if newcomer.peers.me in directory.delivered_before:
                break
            await took_s(asker, False, number)
        assert newcomer.peers.me in directory.delivered_before
        assert not directory.sitting.is_benched(newcomer.peers.me, trio.current_time())


async def test_a_newcomer_s_first_text_is_soon_there_although_most_data_peers_sit(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network, AsyncExitStack() as stack:
        await acquainted(network, D, I, S)
        for _ in range(4):
            sitter = await stack.enter_async_context(network.outsider(D))
            sitter.answer(Offer, sit)
        newcomer = await network.start(S)
        await network.settled()
        firsts = [await took_s(newcomer, data=True, number=it) for it in range(3)]
        # It was once ten seconds for each that sits.
        assert max(firsts) < 5.0


async def test_a_data_peer_is_not_blamed_for_who_sits_on_the_leg_after_its_own(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network, AsyncExitStack() as stack:
        asker = await network.start(S)
        data = await network.start(D, S)
        sitter = await stack.enter_async_context(network.outsider(I, units_per_s=10_000.0))
        sitter.answer(Offer, sit)
        await network.start(I, S, engine=Counted(unit_s=UNIT_S))
        await network.settled()
        # It delivered before, so the data peer prefers it, and gives it up only when it is overdue.
        directory = data.tasks.dispatcher.directory
        directory.measured.did(sitter.key.peer, EMBED_PASSAGES.model)
        assert await took_s(asker, data=True, number=0) > OVERDUE_S
        assert sitter.asked
        peers, sitting = asker.peers, asker.tasks.dispatcher.directory.sitting
        assert peers.scores.cost(data.peers.me, trio.current_time()) == 0.0
        assert not sitting.is_benched(data.peers.me, trio.current_time())
