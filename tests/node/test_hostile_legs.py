"""Legs as hostile peers once offered them and held them, each as it was done."""

from pathlib import Path
from random import Random

import trio
from trio.testing import MockClock

from node.peer import Node
from node.serving import INPUT_DEADLINE_S, LEGS_PER_HOLDER
from p2p.talk import Talk
from tests.node.asking import complete, task_of
from tests.node.engines import Counted
from tests.node.network import I, Network, Outsider, S, open_network
from wire.content import ContentId
from wire.message import Message, Offer, Progress, Refuse, Result, Want
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
    wall_s = there.peers.seams.wall_s()
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
    async with there.peers.talk(worker.peers.me, deadline_s=offer.deadline_ms / 1000) as talk:
        await talk.send(offer)
        while len(said) < count and not (said and isinstance(said[-1], Refuse | Result)):
            said.append(await talk.receive())
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
            lie = Progress(units=2**31, data=b"x")
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

            async def silent(talk: Talk, message: Message) -> None:
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
            assert worker.legs.under_way == 64
            began_s = trio.current_time()
            said = await said_to(honest, worker, offer_of(honest, 1, 30))
            assert isinstance(said[-1], Result)
            assert trio.current_time() - began_s < 2
            # And they do not wait for ever.
            await trio.sleep(INPUT_DEADLINE_S)
            assert worker.legs.under_way == 0
