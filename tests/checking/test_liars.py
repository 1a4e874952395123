"""Peers that lie: whatever they sign, send or withhold, the answer that comes back is right."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from node.asking.run import EVENTS_MAX
from node.engines.interface import Output
from node.peer import Node
from node.task.events import Event
from p2p.score import Standing
from p2p.typed_call import TypedCall
from tests.node.asking import (
    EMBED_PASSAGES,
    FETCH,
    TEXTS,
    VECTORS,
    asked,
    failures,
    nothing_left,
    receipt_of,
    request,
    signers,
    texts_of,
)
from tests.node.engines import (
    Counted,
    Liar,
    all_rows,
    more_units,
    no_vectors,
    not_numbers,
    one_row,
    one_row_less,
)
from tests.node.network import D, I, Network, Outsider, S, V, open_network
from wire.content import ContentId
from wire.errors import TaskFailed
from wire.kinds import Level, Role
from wire.message import Accept, BlockReply, Message, Offer, Piece, Refuse, Result, Want
from wire.payload import Passages
from wire.receipt import Receipt
from wire.signed import Signed, open_signed, sign
from wire.task import Task
from wire.tree import TreeNode, name_of

FALSE = VECTORS[:-1] + b"\0"


async def checked(network: Network) -> None:
    for _ in range(3):
        await network.start(V, S)
    await network.settled()


@pytest.mark.parametrize(
    "alter", [one_row, all_rows, not_numbers, one_row_less, no_vectors, more_units]
)
async def test_a_liars_answer_is_not_returned_and_it_is_not_asked_again(
    autojump_clock: MockClock, tmp_path: Path, alter: Callable[[Output], Output]
) -> None:
    async with open_network(tmp_path) as network:
        asker = await network.start(S, judges=True)
        engine = Liar(alter)
        liar = await network.start(I, S, engine=engine)
        honest = await network.start(I, S, engine=Counted())
        await checked(network)
        answered, events = await asked(asker, request())
        assert answered.output == VECTORS
        assert signers(answered) == [honest.peers.me]
        assert [it.peer for it in failures(events, "answer rejected")] == [liar.peers.me]
        assert answered.answer.record.attempts == 2
        assert asker.tasks.statistics().retried == 1
        assert asker.peers.standing(liar.peers.me) is Standing.BANNED
        assert asker.peers.standing(honest.peers.me) is Standing.GOOD
        for number in range(3):
            again, _ = await asked(asker, request(data=texts_of(str(number))))
            assert signers(again) == [honest.peers.me]
        assert engine.calls == 1
        assert nothing_left(asker)


async def test_a_liar_behind_a_data_peer_is_found_and_the_data_peer_is_not_blamed(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        asker = await network.start(S, judges=True)
        data = await network.start(D, S)
        liar = await network.start(I, S, engine=Liar(all_rows))
        honest = await network.start(I, S, engine=Counted())
        await checked(network)
        answered, _ = await asked(asker, request(FETCH, EMBED_PASSAGES, data=None))
        assert signers(answered) == [data.peers.me, honest.peers.me]
        assert asker.peers.standing(liar.peers.me) is Standing.BANNED
        assert asker.peers.scores.cost(data.peers.me, trio.current_time()) == 0


async def test_where_only_liars_are_there_the_task_fails_and_nothing_is_returned(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        asker = await network.start(S, judges=True)
        liars = [await network.start(I, S, engine=Liar(one_row)) for _ in range(2)]
        await checked(network)
        with pytest.raises(TaskFailed, match=r"no peer\b.* infer leg|were not accepted"):
            await asked(asker, request(deadline_s=20))
        assert asker.tasks.statistics().answered == 0
        assert all(asker.peers.standing(it.peers.me) is Standing.BANNED for it in liars)
        assert nothing_left(asker)


async def test_without_checking_a_lie_is_returned_and_the_answer_says_that_nobody_looked(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        asker = await network.start(S)
        await network.start(I, S, engine=Liar(one_row))
        await network.settled()
        answered, _ = await asked(asker, request(level=Level.SIGNED))
        assert answered.output != VECTORS
        assert answered.answer.record.verdicts == ()


# Peers that speak the protocol, and break it on purpose.


@dataclass(slots=True)
class Scene:
    """An asker, an honest peer and three verifiers; and somebody who is asked before them."""

    asker: Node
    honest: Node
    rogue: Outsider

    def cost(self) -> float:
        return self.asker.peers.scores.cost(self.rogue.key.peer, trio.current_time())


Answerer = Callable[[TypedCall, Signed[Task], Offer], Awaitable[None]]


@asynccontextmanager
async def scene(folder: Path, *roles: Role) -> AsyncIterator[Scene]:
    async with open_network(folder) as network:
        asker = await network.start(S)
        honest = await network.start(*(roles or (I,)), S, engine=Counted())
        await checked(network)
        async with network.outsider(*(roles or (I,))) as rogue:
            yield Scene(asker, honest, rogue)


def answering(rogue: Outsider, answer: Answerer) -> None:
    async def accept(call: TypedCall, message: Message) -> None:
        assert isinstance(message, Offer)
        await call.send(Accept(expected_ms=1))
        await answer(call, open_signed(message.task, Task), message)

    rogue.answer(Offer, accept)


def result(*receipts: Signed[Receipt], output: bytes | None = None) -> Result:
    return Result(receipts=tuple(it.raw for it in receipts), output=output, source=None)


_CHANGES: dict[str, dict[str, Any]] = {
    "another task": {"task": ContentId.of(b"another")},
    "another input": {"input": ContentId.of(b"another")},
    "another model": {"model": ContentId.of(b"another")},
    "another operation": {"operation": "complete"},
    "another stage": {"stage": 1},
    "a leg before the first": {"previous": ContentId.of(b"before")},
}


@pytest.mark.parametrize("changes", _CHANGES.values(), ids=_CHANGES.keys())
async def test_a_receipt_that_does_not_fit_the_task_is_refused_and_an_offence(
    autojump_clock: MockClock, tmp_path: Path, changes: dict[str, Any]
) -> None:
    async with scene(tmp_path) as there:

        async def lie(call: TypedCall, task: Signed[Task], _: Offer) -> None:
            receipt = receipt_of(task, there.rogue.key, VECTORS, **changes)
            await call.send(result(receipt, output=VECTORS))

        answering(there.rogue, lie)
        answered, events = await asked(there.asker, request())
        assert signers(answered) == [there.honest.peers.me]
        assert [it.peer for it in failures(events, "infer")] == [there.rogue.key.peer]
        assert there.cost() >= 15
        assert len(there.rogue.asked) == 1


async def no_receipt(call: TypedCall, task: Signed[Task], there: Scene) -> None:
    await call.send(result(output=VECTORS))


async def too_many_receipts(call: TypedCall, task: Signed[Task], there: Scene) -> None:
    receipt = receipt_of(task, there.rogue.key, VECTORS)
    await call.send(result(receipt, receipt, output=VECTORS))


async def signed_by_another(call: TypedCall, task: Signed[Task], there: Scene) -> None:
    # It asked the honest peer and passes its work on as its own.
    receipt = receipt_of(task, there.honest.dependencies.key, VECTORS)
    await call.send(result(receipt, output=VECTORS))


async def forged(call: TypedCall, task: Signed[Task], there: Scene) -> None:
    raw = bytearray(receipt_of(task, there.rogue.key, VECTORS).raw)
    raw[-1] ^= 1
    await call.send(Result(receipts=(bytes(raw),), output=VECTORS, source=None))


async def output_of_another_hash(call: TypedCall, task: Signed[Task], there: Scene) -> None:
    await call.send(result(receipt_of(task, there.rogue.key, VECTORS), output=FALSE))


async def not_a_message(call: TypedCall, task: Signed[Task], there: Scene) -> None:
    await call.channel.send(b"\xc1")


async def another_message(call: TypedCall, task: Signed[Task], there: Scene) -> None:
    await call.channel.send(b"\x92\x1f\x81\xa4data\xc4\x00")


async def not_a_receipt(call: TypedCall, task: Signed[Task], there: Scene) -> None:
    await call.send(Result(receipts=(task.raw,), output=VECTORS, source=None))


@pytest.mark.parametrize(
    "lie",
    [
        no_receipt,
        too_many_receipts,
        signed_by_another,
        forged,
        output_of_another_hash,
        not_a_message,
        another_message,
        not_a_receipt,
    ],
)
async def test_a_result_that_proves_nothing_is_refused_and_an_offence(
    autojump_clock: MockClock,
    tmp_path: Path,
    lie: Callable[[TypedCall, Signed[Task], Scene], Awaitable[None]],
) -> None:
    async with scene(tmp_path) as there:
        answering(there.rogue, lambda call, task, _: lie(call, task, there))
        # No verifier has to find this out.
        answered, _ = await asked(there.asker, request(level=Level.SIGNED))
        assert answered.output == VECTORS
        assert signers(answered) == [there.honest.peers.me]
        assert there.cost() >= 15
        assert len(there.rogue.asked) == 1
        assert nothing_left(there.asker)


async def test_a_holder_cannot_change_what_the_leg_before_signed(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        asker = await network.start(S)
        data = await network.start(D, S)
        honest = await network.start(I, S, engine=Counted())
        await checked(network)
        async with network.outsider(I) as rogue:

            async def rewrite(call: TypedCall, task: Signed[Task], offer: Offer) -> None:
                first = open_signed(offer.receipts[0], Receipt)
                mine = sign(replace(first.record, units=1), rogue.key)
                stage = task.record.stages[1]
                second = sign(
                    replace(
                        first.record,
                        stage=1,
                        role=stage.role,
                        operation=stage.operation,
                        model=stage.model,
                        input=mine.record.output,
                        output=name_of(VECTORS),
                        previous=mine.id,
                    ),
                    rogue.key,
                )
                await call.send(result(mine, second, output=VECTORS))

            answering(rogue, rewrite)
            answered, _ = await asked(asker, request(FETCH, EMBED_PASSAGES, data=None))
            assert signers(answered) == [data.peers.me, honest.peers.me]
            assert len(rogue.asked) == 1
            assert data.peers.standing(rogue.key.peer) is not Standing.GOOD
            # The asker dealt with the data peer alone, which did nothing wrong.
            assert asker.peers.scores.cost(data.peers.me, trio.current_time()) == 0


async def test_a_data_peer_cannot_do_the_next_leg_under_anothers_name(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with scene(tmp_path, D, I) as there:

        async def invent(call: TypedCall, task: Signed[Task], _: Offer) -> None:
            listed = Passages(source="x", first=0, total=1, passages=(ContentId.of(b"x"),))
            first = receipt_of(task, there.rogue.key, listed.to_bytes())
            stage = task.record.stages[1]
            second = sign(
                replace(
                    first.record,
                    stage=1,
                    role=stage.role,
                    operation=stage.operation,
                    model=stage.model,
                    input=first.record.output,
                    output=name_of(VECTORS),
                    previous=first.id,
                ),
                there.rogue.key,
            )
            await call.send(result(first, second, output=VECTORS))

        answering(there.rogue, invent)
        answered, _ = await asked(there.asker, request(FETCH, EMBED_PASSAGES, data=None))
        # Nobody can check passages that nobody can have: the answer is not taken. Who withheld
        # them cannot be told, so nobody is banned for it.
        assert there.rogue.key.peer not in signers(answered)
        assert there.asker.peers.standing(there.rogue.key.peer) is Standing.GOOD


async def test_an_output_that_is_withheld_is_not_waited_for_forever(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with scene(tmp_path) as there:

        async def withhold(call: TypedCall, task: Signed[Task], _: Offer) -> None:
            await call.send(result(receipt_of(task, there.rogue.key, b"nobody has this")))

        answering(there.rogue, withhold)
        answered, events = await asked(there.asker, request())
        assert signers(answered) == [there.honest.peers.me]
        assert "nobody of" in failures(events)[0].why
        assert there.cost() > 0
        assert there.asker.tasks.statistics().retried == 1


@pytest.mark.parametrize("claim", ["too large", "no tree"])
async def test_an_output_that_cannot_be_is_the_liars_fault_and_ends_nobody(
    autojump_clock: MockClock, tmp_path: Path, claim: str
) -> None:
    async with scene(tmp_path) as there:
        children = tuple(ContentId.of(bytes([it])) for it in range(250)) * 8
        honest_size = 2000 * (256 << 10)
        node = TreeNode(honest_size, children).to_bytes() if claim == "too large" else b"no tree"
        name = ContentId.of_tree(node)

        async def claim_it(call: TypedCall, task: Signed[Task], _: Offer) -> None:
            receipt = receipt_of(task, there.rogue.key, b"", output=name)
            await call.send(result(receipt))

        async def serve(call: TypedCall, _: Message) -> None:
            await call.send(BlockReply(data=node))

        answering(there.rogue, claim_it)
        there.rogue.answer(Want, serve)
        answered, _ = await asked(there.asker, request())
        assert signers(answered) == [there.honest.peers.me]
        assert there.cost() >= 15


async def test_pieces_without_end_do_not_fill_the_askers_memory(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with scene(tmp_path) as there:

        async def flood(call: TypedCall, task: Signed[Task], _: Offer) -> None:
            for position in range(EVENTS_MAX + 100):
                await call.send(Piece(position=position, units=1, data=b"piece"))
            await call.send(Refuse(reason="enough", retry_after_ms=None))

        answering(there.rogue, flood)
        task = await there.asker.tasks.submit(request())
        while there.asker.tasks.statistics().under_way:
            await trio.sleep(0.1)
        kept: list[Event] = []
        answered = await there.asker.tasks.watch(task, kept.append)
        assert answered.output == VECTORS
        assert len(kept) <= EVENTS_MAX + 1


async def test_a_rogue_that_says_anything_at_all_ends_nothing(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    random = Random(11)
    async with scene(tmp_path) as there:

        async def babble(call: TypedCall, task: Signed[Task], _: Offer) -> None:
            await call.channel.send(random.randbytes(random.randrange(200)))

        answering(there.rogue, babble)
        for number in range(4):
            answered, _ = await asked(there.asker, request(data=texts_of(str(number))))
            assert signers(answered) == [there.honest.peers.me]
        assert there.asker.peers.standing(there.rogue.key.peer) is not Standing.GOOD


def test_the_true_answer_of_these_tests_is_not_the_false_one() -> None:
    assert VECTORS != FALSE
    assert name_of(TEXTS) != name_of(VECTORS)
