"""Legs as hostile peers once offered them and held them, each as it was done."""

import itertools
from dataclasses import replace
from pathlib import Path
from random import Random

import trio
from trio.testing import MockClock

from node.dispatch.overdue import OVERDUE_S
from node.peer import Node
from node.serving.leg_input import INPUT_DEADLINE_S
from node.serving.offer_server import LEGS_PER_HOLDER
from p2p.score import Offence
from p2p.typed_call import TypedCall
from tests.node.asking import (
    EMBED_PASSAGES,
    FETCH,
    asked,
    complete,
    request,
    signers,
    task_of,
    texts_of,
)
from tests.node.engines import Counted
from tests.node.network import D, I, Network, Outsider, S, open_network
from wire.content import ContentId
from wire.kinds import Level
from wire.message import Accept, Message, Offer, Piece, Progress, Refuse, Result, Want
from wire.signing import SigningKey
from wire.tree import name_of

PROMPT = b"once upon a time"


def offer_of(
    there: Outsider,
    tokens: int,
    deadline_s: int,
    /,
    *,
    prompt: bytes = PROMPT,
    missing: bool = False,
    key: SigningKey | None = None,
    resume: Progress | None = None,
) -> Offer:
    """A completion, with its input or with one that is not to be had."""
    source = ContentId.of(b"nowhere " + prompt) if missing else name_of(prompt)
    wall_s = there.peers.environment.wall_s()
    stage = complete(tokens)
    task = task_of(key or there.key, wall_s, stage, source=source, deadline_s=deadline_s)
    return Offer(
        task=task.raw,
        stage=0,
        receipts=(),
        input=None if missing else prompt,
        deadline_ms=deadline_s * 1000,
        units=1,
        resume=resume,
        avoid=(),
    )


async def said_to(there: Outsider, worker: Node, offer: Offer, count: int = 9) -> list[Message]:
    """The answers to an offer, the last one too, or so many; who offered hangs up then."""
    said: list[Message] = []
    async with there.peers.call(worker.peers.me, deadline_s=offer.deadline_ms / 1000) as call:
        await call.send(offer)
        while len(said) < count and not (said and isinstance(said[-1], Refuse | Result)):
            said.append(await call.receive())
    return said


async def ready_worker(network: Network, unit_s: float) -> Node:
    worker = await network.start(I, S, engine=Counted(unit_s=unit_s))
    await network.settled()
    while not worker.probing.offered():
        await trio.sleep(0.1)
    return worker


async def test_what_is_said_to_have_been_done_before_gets_no_leg_in_that_is_too_long(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        worker = await ready_worker(network, 0.1)
        async with network.outsider() as there:
            lie = Progress(units=99, data=b"x")
            (said,) = await said_to(there, worker, offer_of(there, 100, 5, resume=lie))
            assert isinstance(said, Refuse)
            assert said.retry_after_ms is None


async def test_legs_whose_input_never_comes_keep_nobody_else_s_leg_out(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        worker = await ready_worker(network, 0.05)
        async with (
            network.outsider() as one,
            network.outsider() as other,
            network.outsider() as honest,
            trio.open_nursery() as nursery,
        ):

            async def silent(call: TypedCall, message: Message) -> None:
                await trio.sleep_forever()

            async def hold(there: Outsider, number: int) -> None:
                # Every leg has an asker of its own.
                key = SigningKey(Random(f"{there.key.peer}:{number}").randbytes(32))
                prompt = b"%d" % number
                offer = offer_of(there, 1, 3600, prompt=prompt, missing=True, key=key)
                said = await said_to(there, worker, offer)
                assert isinstance(said[-1], Refuse)

            for there in (one, other):
                there.answer(Want, silent)
                for number in range(LEGS_PER_HOLDER):
                    nursery.start_soon(hold, there, number)
                await trio.sleep(1)
            assert worker.leg_server.under_way == 64
            began_at_s = trio.current_time()
            said = await said_to(honest, worker, offer_of(honest, 1, 30))
            assert isinstance(said[-1], Result)
            assert trio.current_time() - began_at_s < 2
            # And they do not wait for ever.
            await trio.sleep(INPUT_DEADLINE_S)
            assert worker.leg_server.under_way == 0


async def test_one_piece_that_says_all_is_done_changes_nothing_for_the_honest(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        asker = await network.start(S)
        worker = await ready_worker(network, 0.1)
        async with network.outsider(I) as liar:

            async def lie(call: TypedCall, message: Message) -> None:
                await call.send(Accept(expected_ms=0))
                await call.send(Piece(position=0, units=2**31 - 1, data=b""))
                await trio.sleep_forever()

            liar.answer(Offer, lie)
            # It takes longer than OVERDUE_S.
            wanted = request(data=texts_of(*map(str, range(200))), level=Level.SIGNED)
            answered, _ = await asked(asker, wanted)
            assert signers(answered) == [worker.peers.me]
            assert liar.asked
            now_at_s = trio.current_time()
            assert asker.peers.scores.cost(liar.key.peer, now_at_s) > Offence.MALFORMED - 1
            assert asker.peers.scores.cost(worker.peers.me, now_at_s) == 0


async def test_a_piece_now_and_then_buys_no_time(autojump_clock: MockClock, tmp_path: Path) -> None:
    async with open_network(tmp_path) as network:
        asker = await network.start(S)
        await ready_worker(network, 0.1)
        async with network.outsider(I) as sitter:

            async def drip(call: TypedCall, message: Message) -> None:
                await call.send(Accept(expected_ms=0))
                for position in itertools.count():
                    await call.send(Piece(position=position, units=1, data=b"x"))
                    await trio.sleep(OVERDUE_S / 2)

            sitter.answer(Offer, drip)
            began_at_s = trio.current_time()
            wanted = request(complete(20), data=PROMPT, level=Level.SIGNED, deadline_s=60)
            await asked(asker, wanted)
            assert sitter.asked
            assert OVERDUE_S < trio.current_time() - began_at_s < OVERDUE_S + 4
            cost = asker.peers.scores.cost(sitter.key.peer, trio.current_time())
            assert cost > Offence.UNANSWERED - 1


async def test_a_newcomer_gets_what_a_peer_sat_on_that_was_alone(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        asker = await network.start(S)
        async with network.outsider(I) as sitter:

            async def sit(call: TypedCall, message: Message) -> None:
                await call.send(Accept(expected_ms=0))
                await trio.sleep_forever()

            sitter.answer(Offer, sit)
            began_at_s = trio.current_time()
            newcomer: list[Node] = []

            async def come_later() -> None:
                await trio.sleep(2 * OVERDUE_S)
                newcomer.append(await ready_worker(network, 0.1))

            async with trio.open_nursery() as nursery:
                nursery.start_soon(come_later)
                wanted = request(complete(5), data=PROMPT, level=Level.SIGNED, deadline_s=300)
                answered, _ = await asked(asker, wanted)
            assert sitter.asked
            assert signers(answered) == [newcomer[0].peers.me]
            assert trio.current_time() - began_at_s < 2 * OVERDUE_S + 10
            cost = asker.peers.scores.cost(sitter.key.peer, trio.current_time())
            assert cost > Offence.UNANSWERED - 1


async def test_long_legs_of_who_hangs_up_keep_the_engine_from_nobody(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        worker = await ready_worker(network, 0.05)
        async with network.outsider() as there, network.outsider() as honest:
            day_s = 86_400
            for number in range(3):
                offer = offer_of(there, 4096, day_s, prompt=b"%d" % number)
                (said,) = await said_to(there, worker, offer, 1)
                assert isinstance(said, Accept)
                await trio.sleep(1)
                assert worker.leg_server.under_way == 0
            said = (await said_to(honest, worker, offer_of(honest, 1, 30)))[-1]
            assert isinstance(said, Result)


async def test_one_long_leg_of_a_holder_is_taken_and_none_while_others_wait(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        worker = await ready_worker(network, 0.05)
        async with (
            network.outsider() as there,
            network.outsider() as honest,
            trio.open_nursery() as nursery,
        ):

            async def begin(asker: Outsider, tokens: int) -> None:
                prompt = b"%d" % tokens
                await said_to(asker, worker, offer_of(asker, tokens, 3600, prompt=prompt), 10_000)

            nursery.start_soon(begin, there, 4096)
            await trio.sleep(1)
            (second,) = await said_to(there, worker, offer_of(there, 4000, 3600), 1)
            assert isinstance(second, Refuse)
            nursery.start_soon(begin, there, 10)
            await trio.sleep(1)
            (other,) = await said_to(honest, worker, offer_of(honest, 4000, 3600), 1)
            assert isinstance(other, Refuse)
            nursery.cancel_scope.cancel()


async def hold(call: TypedCall, message: Message) -> None:
    await call.send(Accept(expected_ms=0))
    await trio.sleep_forever()


async def test_a_holder_in_the_middle_blames_nobody_for_the_time_that_passed(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        middle = await network.start(D, S)
        await network.start(I, S, engine=Counted())
        await network.settled()
        async with network.outsider(I) as sitter, network.outsider() as there:
            sitter.answer(Offer, hold)
            wall_s = there.peers.environment.wall_s()
            task = task_of(there.key, wall_s, FETCH, EMBED_PASSAGES, input=None)
            offer = Offer(
                task=task.raw,
                stage=0,
                receipts=(),
                input=None,
                deadline_ms=60_000,
                units=1,
                resume=None,
                avoid=(),
            )
            began_at_s = trio.current_time()
            assert isinstance((await said_to(there, middle, offer))[-1], Result)
            assert sitter.asked
            # The sitter is a stranger, so it was not waited for.
            now_at_s = trio.current_time()
            assert now_at_s - began_at_s < OVERDUE_S
            assert middle.peers.scores.cost(sitter.key.peer, now_at_s) == 0
            assert not middle.leg_server.dispatcher.directory.sitting.is_benched(
                sitter.key.peer, now_at_s
            )


async def test_who_takes_the_first_leg_of_two_and_holds_it_is_passed_over(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        asker = await network.start(S)
        await network.start(D, S)
        await ready_worker(network, 0.05)
        async with network.outsider(D) as sitter:
            sitter.answer(Offer, hold)
            took_s = []
            # A stranger has its trial sooner or later.
            for number in itertools.takewhile(lambda _: not sitter.asked, range(100)):
                began_at_s = trio.current_time()
                embed = replace(EMBED_PASSAGES, parameters={"number": number})
                wanted = request(FETCH, embed, data=None, level=Level.SIGNED, deadline_s=120)
                await asked(asker, wanted)
                took_s.append(trio.current_time() - began_at_s)
            assert sitter.asked
            # It is tried out beside somebody who delivered: no task waits until it is overdue.
            assert max(took_s) < OVERDUE_S / 2
