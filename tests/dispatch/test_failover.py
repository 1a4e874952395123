"""Peers that die, fall silent or fail in the middle of a leg: somebody else goes on."""

import math
from collections import Counter
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from node.dispatch import failover
from node.dispatch.handoff import LegResult
from node.dispatch.offer import offer_leg
from node.task.events import Streamed
from p2p.connect import NotCalled, connect
from p2p.score import Standing
from p2p.typed_call import TypedCall
from store import open_memory_store
from tests.node.asking import (
    EMBED_PASSAGES,
    FETCH,
    VECTORS,
    asked,
    complete,
    failures,
    journal_of,
    nothing_left,
    request,
    signers,
    texts_of,
)
from tests.node.engines import Broken, Counted, Stuck
from tests.node.network import D, I, Network, S, V, open_network
from wire.content import PeerId
from wire.errors import TaskFailed
from wire.kinds import Level
from wire.message import Accept, Message, Offer


async def checked(network: Network) -> None:
    for _ in range(3):
        await network.start(V, S)
    await network.settled()


async def test_an_inference_peer_that_dies_in_mid_leg_is_replaced_by_the_next(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        asker = await network.start(S)
        await network.start(D, S)
        stuck = Stuck()
        dying = await network.start(I, S, engine=stuck)
        next_best = await network.start(I, S, engine=Counted())
        await checked(network)

        async def kill_it() -> None:
            await stuck.began.wait()
            network.kill(dying)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(kill_it)
            answered, _ = await asked(asker, request(FETCH, EMBED_PASSAGES, data=None))
        assert signers(answered)[1] == next_best.peers.me
        assert stuck.calls == 1
        # The data peer held the baton: what it had brought was not brought again.
        assert answered.answer.record.attempts == 1
        assert nothing_left(asker)


async def test_the_data_peer_that_dies_with_the_baton_is_replaced_by_another(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        asker = await network.start(S)
        holders = [await network.start(D, S) for _ in range(2)]
        await network.start(I, S, engine=Counted(unit_s=0.5))
        await checked(network)

        async def kill_the_holder() -> None:
            while not any(it.leg_server.done for it in holders):
                await trio.sleep(0.1)
            network.kill(next(it for it in holders if it.leg_server.done))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(kill_the_holder)
            answered, events = await asked(asker, request(FETCH, EMBED_PASSAGES, data=None))
        survivor = next(it for it in holders if it in network.nodes)
        assert signers(answered)[0] == survivor.peers.me
        assert len(failures(events, "data")) == 1
        assert nothing_left(asker)


@pytest.mark.parametrize("engine", [Broken, Stuck], ids=["broken", "stuck"])
async def test_a_peer_that_fails_or_falls_silent_is_passed_over_and_never_asked_twice(
    autojump_clock: MockClock, tmp_path: Path, engine: type[Counted]
) -> None:
    async with open_network(tmp_path) as network:
        asker = await network.start(S)
        bad = engine()
        failing = await network.start(I, S, engine=bad)
        good = await network.start(I, S, engine=Counted())
        await network.settled()
        began_at_s = trio.current_time()
        answered, events = await asked(asker, request(level=Level.SIGNED, deadline_s=600))
        # However much time the client allows, it is not all spent on one that sits on the leg.
        assert trio.current_time() - began_at_s < 12
        assert signers(answered) == [good.peers.me]
        assert bad.calls == 1
        if engine is Broken:
            assert [it.peer for it in failures(events)] == [failing.peers.me]
        else:
            # A stranger that is late is not waited for, and remembered beyond the task.
            assert trio.current_time() - began_at_s < 2
            sitting = asker.tasks.dispatcher.directory.sitting
            assert sitting.is_benched(failing.peers.me, trio.current_time())


async def test_who_takes_the_offer_and_then_says_nothing_costs_a_part_of_the_deadline_only(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        asker = await network.start(S)
        honest = await network.start(I, S, engine=Counted())
        await network.settled()

        async def accept_and_wait(call: TypedCall, _: Message) -> None:
            await call.send(Accept(expected_ms=0))
            await trio.sleep_forever()

        async with network.outsider(I) as silent:
            silent.answer(Offer, accept_and_wait)
            answered, _ = await asked(asker, request(level=Level.SIGNED, deadline_s=40))
            assert len(silent.asked) == 1
        assert signers(answered) == [honest.peers.me]


async def test_who_answers_no_offer_is_passed_over_after_a_moment(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        asker = await network.start(S)
        await network.start(I, S, engine=Counted())
        await network.settled()

        async def say_nothing(call: TypedCall, _: Message) -> None:
            await trio.sleep_forever()

        async with network.outsider(I) as silent:
            silent.answer(Offer, say_nothing)
            started_at_s = trio.current_time()
            await asked(asker, request(level=Level.SIGNED))
            assert len(silent.asked) == 1
            assert trio.current_time() - started_at_s < 2
            sitting = asker.tasks.dispatcher.directory.sitting
            assert sitting.is_benched(silent.key.peer, trio.current_time())


async def test_who_answers_no_offer_while_there_is_nobody_else_is_given_up_after_a_moment(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        asker = await network.start(S)

        async def say_nothing(call: TypedCall, _: Message) -> None:
            await trio.sleep_forever()

        async with network.outsider(I) as silent, trio.open_nursery() as nursery:
            silent.answer(Offer, say_nothing)
            nursery.start_soon(asked, asker, request(level=Level.SIGNED))
            await trio.sleep(2)
            await network.start(I, S, engine=Counted())
            started_at_s = trio.current_time()
            while asker.tasks.statistics().under_way:
                await trio.sleep(0.1)
            assert trio.current_time() - started_at_s < 6
            assert asker.peers.scores.cost(silent.key.peer, trio.current_time()) > 0


async def test_when_everybody_fails_each_was_asked_once_and_the_reasons_are_told(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        asker = await network.start(S)
        engines = [Broken() for _ in range(4)]
        for engine in engines:
            await network.start(I, S, engine=engine)
        await network.settled()
        with pytest.raises(TaskFailed, match="ran out of memory"):
            await asked(asker, request(level=Level.SIGNED, deadline_s=20))
        assert [it.calls for it in engines] == [1, 1, 1, 1]
        assert nothing_left(asker)


async def test_under_load_a_third_of_the_peers_die_and_every_accepted_task_is_answered(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        asker = await network.start(S)
        workers = [await network.start(I, S, engine=Counted(unit_s=0.2)) for _ in range(6)]
        await checked(network)
        answers: Counter[bytes] = Counter()

        async def ask(number: int) -> None:
            answered, _ = await asked(asker, request(data=texts_of(f"text {number}")))
            answers[answered.output] += 1

        async with trio.open_nursery() as nursery:
            for number in range(24):
                nursery.start_soon(ask, number)
            await trio.sleep(0.5)
            for worker in workers[:2]:
                assert worker.leg_server.under_way
                network.kill(worker)
        assert len(answers) == 24
        assert set(answers.values()) == {1}
        statistics = asker.tasks.statistics()
        assert (statistics.accepted, statistics.answered, statistics.failed) == (24, 24, 0)
        assert not journal_of(asker)


async def test_an_asker_that_goes_away_in_mid_stream_is_not_the_fault_of_who_works_for_it(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        await network.start(S)
        asker = await network.start(S)
        holder = await network.start(D, S)
        workers = [await network.start(I, S, engine=Counted(unit_s=1.0)) for _ in range(2)]
        await network.settled()
        pieces: list[Streamed] = []

        def note(event: object) -> None:
            if isinstance(event, Streamed):
                pieces.append(event)

        async def watch() -> None:
            wanted = request(FETCH, complete(20), data=None, level=Level.SIGNED)
            task = await asker.tasks.submit(wanted)
            with trio.move_on_after(10):
                await asker.tasks.watch(task, note)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch)
            while len(pieces) < 3:
                await trio.sleep(0.5)
            network.kill(asker)
            nursery.cancel_scope.cancel()
        await trio.sleep(60)
        for worker in workers:
            assert holder.peers.standing(worker.peers.me) is Standing.GOOD
            assert holder.peers.scores.cost(worker.peers.me, trio.current_time()) == 0
        # It was done once, and is there for an asker that comes back.
        assert sum(it.leg_server.done for it in workers) == 1


async def test_a_resumed_task_finds_the_legs_that_were_done(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        await network.start(S)
        engine = Counted(unit_s=1.0)
        worker = await network.start(I, S, engine=engine)
        await network.settled()
        async with open_memory_store(quota_bytes=1 << 28) as store:
            first = await network.start(S, store=store, number=77)
            await network.settled()
            task = await first.tasks.submit(request(level=Level.SIGNED))
            while not engine.calls:
                await trio.sleep(0.1)
            network.kill(first)
            while worker.leg_server.under_way:
                await trio.sleep(0.1)
            second = await network.start(S, store=store, number=77)
            answered = await second.tasks.watch(task, lambda _: None)
            assert answered.output == VECTORS
            assert engine.calls == 1
            network.kill(second)


async def test_where_everybody_refuses_for_good_the_deadline_is_not_waited_out(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        asker = await network.start(S)
        for _ in range(2):
            await network.start(D, S)
        await network.start(I, S)
        await network.settled()
        nothing = replace(FETCH, parameters={"source": "pydoc:no such topic"})
        began_at_s = trio.current_time()
        with pytest.raises(TaskFailed, match="no topic"):
            await asked(asker, request(nothing, EMBED_PASSAGES, data=None, deadline_s=600))
        assert trio.current_time() - began_at_s < 15
        assert nothing_left(asker)


async def test_who_is_not_called_for_now_is_asked_again_soon(
    autojump_clock: MockClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A peer that has just come says no address until others have called it back.
    times: list[float] = []

    async def not_called_yet(*given: Any) -> LegResult:
        times.append(trio.current_time())
        if len(times) < 3:
            raise NotCalled("no address is known for it")
        return await offer_leg(*given)

    async with open_network(tmp_path) as network:
        asker = await network.start(S)
        only = await network.start(I, S, engine=Counted())
        await network.settled()
        monkeypatch.setattr(failover, "offer_leg", not_called_yet)
        answered, events = await asked(asker, request(level=Level.SIGNED, deadline_s=60))
        assert signers(answered) == [only.peers.me]
        assert len(failures(events)) == 2
        assert times[-1] - times[0] < 20
        assert asker.peers.standing(only.peers.me) is Standing.GOOD


async def test_an_address_that_is_not_known_is_no_fault() -> None:
    with pytest.raises(NotCalled, match="no address is known"):
        await connect(SimpleNamespace(connected=tuple), PeerId(bytes(32)), (), 1.0)  # type: ignore[arg-type]


@pytest.mark.parametrize("held_s", [0.2, 9.0])
async def test_who_ends_each_call_is_asked_again_after_everybody_else(
    autojump_clock: MockClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, held_s: float
) -> None:
    """It says at once that it is back, and is the fastest by its own word."""
    async with open_network(tmp_path) as network, AsyncExitStack() as stack:
        asker = await network.start(S)
        honest = await network.start(I, S, engine=Counted())
        await network.settled()
        began_at_s = math.inf

        async def accept_and_end(call: TypedCall, _: Message) -> None:
            nonlocal began_at_s
            began_at_s = min(began_at_s, trio.current_time())
            await call.send(Accept(expected_ms=0))
            await trio.sleep(held_s)

        liars = [await stack.enter_async_context(network.outsider(I)) for _ in range(3)]
        for liar in liars:
            liar.answer(Offer, accept_and_end)
        # As if it were paid for: nobody is asked beside another.
        monkeypatch.setattr(failover.Failover, "_may_hedge", lambda *_: False)
        answered, _ = await asked(asker, request(level=Level.SIGNED, deadline_s=600))
        took = trio.current_time() - began_at_s
        assert signers(answered) == [honest.peers.me]
        assert max(len(it.asked) for it in liars) == 1
        assert took < len(liars) * held_s + 1
