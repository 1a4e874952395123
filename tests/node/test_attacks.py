"""What a hostile peer once got away with, each as it was done."""

import itertools
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from node.serving.offer_server import LEGS_PER_HOLDER
from p2p.typed_call import TypedCall, refusal_of
from store import Table
from tests.checking.test_liars import all_rows
from tests.node.asking import (
    EMBED,
    TEXTS,
    VECTORS,
    asked,
    complete,
    request,
    signers,
    task_of,
    texts_of,
)
from tests.node.engines import Counted, Liar, Stuck
from tests.node.network import I, Network, S, V, open_network
from wire.errors import Refused
from wire.kinds import Level
from wire.lottery import attempt_of
from wire.message import Accept, Check, Message, Offer, Piece
from wire.receipt import Answer
from wire.signed import open_signed
from wire.task import Task
from wire.tree import name_of


async def three_verifiers(network: Network) -> None:
    for _ in range(3):
        await network.start(V, S)
    await network.settled()


async def test_a_second_attempt_draws_by_a_secret_that_the_first_did_not_reveal(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        asker = await network.start(S)
        await network.start(I, S, engine=Liar(all_rows))
        await network.start(I, S, engine=Counted())
        shown: list[bytes] = []
        async with network.outsider(V) as rogue:

            async def listen(call: TypedCall, message: Message) -> None:
                assert isinstance(message, Check)
                shown.append(message.secret)
                await call.send(refusal_of(Refused("only listening")))

            rogue.answer(Check, listen)
            await three_verifiers(network)
            answers: list[Answer] = []
            # The draw decides whether the listener hears of a first attempt that was a lie.
            while not any(it.attempts == 2 for it in answers):
                wanted = request(data=texts_of(str(len(answers))))
                answers.append((await asked(asker, wanted))[0].answer.record)
        twice = next(it for it in answers if it.attempts == 2)
        task = open_signed(twice.task, Task).record
        assert attempt_of(twice.secret, task.checking.secret_hash) == 2


async def test_an_unchecked_answer_is_not_given_to_who_asks_for_a_checked_one(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        asker = await network.start(S)
        await network.start(I, S, engine=Liar(all_rows))
        await network.settled()
        unchecked, _ = await asked(asker, request(level=Level.SIGNED))
        assert unchecked.output != VECTORS
        of_job = asker.tasks.answers.of_job
        assert await of_job(EMBED, name_of(TEXTS), 2) is None
        assert await of_job(EMBED, name_of(TEXTS), 0) is not None


async def busy_for_ever(call: TypedCall, message: Message) -> None:
    await call.send(refusal_of(Refused("busy", retry_after_s=0.0)))


async def test_busy_retry_at_once_said_for_ever_costs_one_question(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        asker = await network.start(S)
        honest = await network.start(I, S)
        await three_verifiers(network)
        async with network.outsider(I, V) as rogue:
            rogue.answer(Offer, busy_for_ever)
            rogue.answer(Check, busy_for_ever)
            for number in range(5):
                wanted = request(data=texts_of(str(number)), deadline_s=30)
                answered, _ = await asked(asker, wanted)
                assert signers(answered) == [honest.peers.me]
            assert len(rogue.asked) <= 5 * 2


async def test_pieces_that_drip_do_not_hold_a_task_to_its_deadline(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        asker = await network.start(S)
        honest = await network.start(I, S, engine=Counted())
        await three_verifiers(network)
        async with network.outsider(I) as rogue:

            async def drip(call: TypedCall, message: Message) -> None:
                await call.send(Accept(expected_ms=0))
                for position in itertools.count():
                    await trio.sleep(5)
                    await call.send(Piece(position=position, units=1, data=b"x"))

            rogue.answer(Offer, drip)
            answered, _ = await asked(asker, request(deadline_s=60))
            assert signers(answered) == [honest.peers.me]
            sitting = asker.tasks.dispatcher.directory.sitting
            assert sitting.is_benched(rogue.key.peer, trio.current_time())


async def test_a_sleeping_verifier_costs_seconds_and_not_the_deadline(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        asker = await network.start(S)
        await network.start(I, S)
        await three_verifiers(network)
        async with network.outsider(V) as rogue:

            async def sleep(call: TypedCall, message: Message) -> None:
                await trio.sleep_forever()

            rogue.answer(Check, sleep)
            took_s: list[float] = []
            while len(rogue.asked) < 2:
                began_at_s = trio.current_time()
                await asked(asker, request(data=texts_of(str(len(took_s)))))
                took_s.append(trio.current_time() - began_at_s)
            assert max(took_s) < 8


async def test_one_holder_cannot_take_every_place(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        victim = await network.start(I, S, engine=Stuck())
        await network.settled()
        refused: list[Refused] = []
        async with network.outsider() as rogue, trio.open_nursery() as nursery:

            async def hold(number: int) -> None:
                wall_s = rogue.peers.environment.wall_s()
                task = task_of(rogue.key, wall_s, complete(1), nonce=number.to_bytes(16, "big"))
                offer = Offer(
                    task=task.raw,
                    stage=0,
                    receipts=(),
                    input=TEXTS,
                    deadline_ms=60_000,
                    units=1,
                    resume=None,
                    avoid=(),
                )
                async with rogue.peers.call(victim.peers.me, deadline_s=60) as call:
                    await call.send(offer)
                    try:
                        await call.expect(Accept)
                        await trio.sleep_forever()
                    except Refused as error:
                        refused.append(error)

            for number in range(LEGS_PER_HOLDER + 5):
                nursery.start_soon(hold, number)
            await trio.sleep(5)
            assert len(refused) == 5
            assert victim.leg_server.under_way <= LEGS_PER_HOLDER
            nursery.cancel_scope.cancel()


async def test_legs_that_are_remembered_are_bounded(
    autojump_clock: MockClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("node.serving.done_legs.LEGS_KEPT", 4)
    async with open_network(tmp_path) as network:
        asker = await network.start(S)
        infer = await network.start(I, S)
        await network.settled()
        probed = infer.dependencies.engine.statistics().units_done
        for number in range(10):
            await asked(asker, request(data=texts_of(str(number)), level=Level.SIGNED))
        store = infer.dependencies.store
        assert len(store.scan(Table.RECEIPTS)) == 4
        assert len(store.scan(Table.JOBS)) == 4
        # The latest are there still: asked again, they are not done again.
        assert infer.dependencies.engine.statistics().units_done == probed + 10
        await asked(asker, request(data=texts_of("9"), level=Level.SIGNED))
        assert infer.dependencies.engine.statistics().units_done == probed + 10


async def test_a_chatty_answer_does_not_stay_in_memory(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        asker = await network.start(S)
        await network.start(I, S)
        await network.settled()
        await asked(asker, request(complete(400), data=b"prompt", level=Level.SIGNED))
        (run,) = asker.tasks._ended.values()
        assert len(run.events) < 10
