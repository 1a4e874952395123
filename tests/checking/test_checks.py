"""Checks that would end, mislead or block a verifier: it says no, and goes on for the others."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from node.checking.audit import audit
from node.checking.report import Status
from node.peer import Node
from node.serving.fair_semaphore import FairSemaphore
from node.serving.role import LegInput
from node.serving.verify_role import CHECK_S_MAX, WAITING_PER_ASKER_MAX
from p2p.score import Standing
from p2p.typed_call import TypedCall, refusal_of
from tests.checking.test_verifiers import checked_by
from tests.node.asking import (
    EMBED_PASSAGES,
    FETCH,
    MODEL,
    SECRET,
    VECTORS,
    asked,
    receipt_of,
    request,
    signers,
    task_of,
)
from tests.node.engines import Counted
from tests.node.network import D, I, Network, Outsider, S, V, open_network
from tests.p2p.transports import key_of
from wire.content import ContentId
from wire.errors import Refused
from wire.kinds import Level, Role
from wire.message import Check, Message, Refuse, VerdictReply, Want
from wire.payload import Hits, Index, IndexPart, Passages, Question
from wire.receipt import Receipt, Verdict
from wire.signed import open_signed, sign
from wire.task import Stage
from wire.tree import name_of

NEAREST = Stage(role=Role.INFER, operation="nearest", model=MODEL, parameters={})
PASSAGES = (b"one", b"two", b"three")


async def verdict_on(network: Network, asker: Outsider, **changes: Any) -> Verdict:
    finding, _ = await checked_by(network, asker, **changes)
    assert isinstance(finding, VerdictReply)
    return open_signed(finding.verdict, Verdict).record


async def test_a_check_of_an_operation_that_no_model_does_is_refused_and_ends_nothing(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        await network.start(V, S)
        await network.settled()
        async with network.outsider() as asker:
            stage = Stage(role=Role.INFER, operation="invent", model=MODEL, parameters={})
            task = task_of(asker.key, asker.peers.environment.wall_s(), stage)
            answer, _ = await checked_by(network, asker, task=task)
            assert isinstance(answer, Refuse)
            assert "does not do 'invent'" in answer.reason
            assert (await verdict_on(network, asker)).agrees


async def question_to(asker: Outsider) -> bytes:
    """A question whose index and passages lie with the asker."""
    ids = tuple([await asker.store.put(it) for it in PASSAGES])
    listed = Passages(source="words", first=0, total=3, passages=ids)
    part = IndexPart(
        passages=await asker.store.put(listed.to_bytes()), vectors=await asker.store.put(VECTORS)
    )
    index = await asker.store.put(Index(model=MODEL, parts=(part,)).to_bytes())
    return Question(text="one", index=index, count=2).to_bytes()


def row_moved(hits: Hits) -> Hits:
    return Hits(hits=tuple(replace(it, row=2**40) for it in hits.hits))


def score_raised(hits: Hits) -> Hits:
    return Hits(hits=tuple(replace(it, score=1.5) for it in hits.hits))


def hit_left_out(hits: Hits) -> Hits:
    return Hits(hits=hits.hits[:1])


def same(hits: Hits) -> Hits:
    return hits


@pytest.mark.parametrize(
    ("alter", "claim", "agrees"),
    [
        (same, {}, True),
        (row_moved, {}, False),
        (score_raised, {}, False),
        (hit_left_out, {}, False),
        (same, {"units": 2**40}, False),
        (same, {"output_size_bytes": 2**40}, False),
    ],
    ids=["honest", "row", "score", "left out", "units", "output size"],
)
async def test_everything_a_search_claims_is_checked(
    autojump_clock: MockClock, tmp_path: Path, alter: Any, claim: dict[str, Any], agrees: bool
) -> None:
    async with open_network(tmp_path) as network:
        verifier = await network.start(V, S)
        await network.settled()
        async with network.outsider() as asker:
            question = await question_to(asker)
            task = task_of(
                asker.key, asker.peers.environment.wall_s(), NEAREST, source=name_of(question)
            )
            honest = await honest_hits(verifier, asker, question)
            output = alter(Hits.from_bytes(honest)).to_bytes()
            receipt = receipt_of(task, key_of("worker"), output, **({"units": 1} | claim))
            verdict = await verdict_on(
                network, asker, task=task, receipt=receipt, input=question, output=output
            )
            assert verdict.could_check
            assert verdict.agrees is agrees


async def honest_hits(verifier: Node, asker: Outsider, question: bytes) -> bytes:
    """What the verifier itself would answer."""

    async def nowhere(_: bytes) -> None: ...

    source = LegInput(id=None, data=question, holders=(asker.key.peer,), deadline_s=10.0)
    done = await verifier.verify_role.infer_role.do(NEAREST, source, nowhere)
    return done.data


async def test_a_false_size_is_voted_against_and_an_auditor_sees_it_too(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        asker = await network.start(S)
        await network.start(I, S)
        await network.settled()
        answered, _ = await asked(asker, request(level=Level.SIGNED))

        def have(content: ContentId) -> bytes | None:
            return VECTORS if content == name_of(VECTORS) else None

        assert audit(answered.answer.raw, have).holds
        honest = open_signed(answered.answer.record.receipts[0], Receipt).record
        false = sign(replace(honest, output_size_bytes=7), key_of("worker"))
        lie = sign(replace(answered.answer.record, receipts=(false.raw,)), asker.dependencies.key)
        failing = [it for it in audit(lie.raw, have).points if it.status is Status.FAILS]
        assert [it.what for it in failing] == ["the output of leg 1 is as long as was signed for"]
        verifier = await network.start(V, S)
        network.nodes = [verifier, *network.nodes]
        async with network.outsider() as other:
            task = task_of(other.key, other.peers.environment.wall_s())
            receipt = receipt_of(task, key_of("worker"), VECTORS, output_size_bytes=7)
            verdict = await verdict_on(network, other, task=task, receipt=receipt)
            assert not verdict.agrees
            assert "bytes, not 7" in verdict.reason


@pytest.mark.parametrize("how", ["refused", "silent"])
async def test_passages_withheld_from_verifiers_are_had_from_whoever_embedded_them(
    autojump_clock: MockClock, tmp_path: Path, how: str
) -> None:
    async with open_network(tmp_path) as network:
        asker = await network.start(S)
        worker = await network.start(I, S, engine=Counted())
        for _ in range(3):
            await network.start(V, S)
        data = await network.start(D, S)
        serve = data.blobs.on_want

        async def only_the_worker(call: TypedCall, message: Message) -> None:
            if call.peer == worker.peers.me:
                await serve(call, message)
            elif how == "silent":
                await trio.sleep_forever()
            else:
                await call.send(refusal_of(Refused("not here")))

        data.peers.handlers[Want] = only_the_worker
        await network.settled()
        answered, _ = await asked(asker, request(FETCH, EMBED_PASSAGES, data=None))
        assert signers(answered) == [data.peers.me, worker.peers.me]
        verdicts = [open_signed(it, Verdict).record for it in answered.answer.record.verdicts]
        assert [it.agrees for it in verdicts] == [True, True]
        assert asker.peers.standing(worker.peers.me) is Standing.GOOD


async def test_where_both_who_had_the_passages_are_gone_another_chain_answers_in_time(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async def silent(call: TypedCall, message: Message) -> None:
        await trio.sleep_forever()

    async with open_network(tmp_path) as network:
        asker = await network.start(S)
        for _ in range(4):
            await network.start(V, S)
        worker, data = await network.start(I, S, engine=Counted()), await network.start(D, S)
        await network.settled()
        worker.peers.handlers[Want] = silent
        serve = data.blobs.on_want

        async def only_the_worker(call: TypedCall, message: Message) -> None:
            await (serve if call.peer == worker.peers.me else silent)(call, message)

        data.peers.handlers[Want] = only_the_worker
        async with trio.open_nursery() as nursery:

            async def others() -> None:
                await trio.sleep(5.0)
                await network.start(I, S, engine=Counted())
                await network.start(D, S)

            nursery.start_soon(others)
            wanted = request(FETCH, EMBED_PASSAGES, data=None, deadline_s=60)
            answered, _ = await asked(asker, wanted)
        assert worker.peers.me not in signers(answered)
        assert asker.peers.standing(worker.peers.me) is Standing.GOOD


async def test_checks_whose_content_never_comes_keep_no_verifier_from_the_others(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        await network.start(V, S)
        await network.settled()
        async with network.outsider() as holder, network.outsider() as other:

            async def never(call: TypedCall, message: Message) -> None:
                await trio.sleep_forever()

            holder.answer(Want, never)
            task = task_of(holder.key, holder.peers.environment.wall_s(), deadline_s=86_400)
            receipt = receipt_of(task, key_of("worker"), b"never to be had")
            message = Check(
                task=task.raw,
                receipts=(receipt.raw,),
                secret=SECRET,
                input=None,
                output=None,
                deadline_ms=86_400_000,
            )
            answers: list[Message] = []

            async def hold() -> None:
                verifier = network.nodes[0].peers.me
                async with holder.peers.call(verifier, deadline_s=80_000) as call:
                    await call.send(message)
                    answers.append(await call.receive())

            started_at_s = trio.current_time()
            async with trio.open_nursery() as nursery:
                for _ in range(8):
                    nursery.start_soon(hold)
                await trio.sleep(1.0)
                assert len(answers) == 8 - WAITING_PER_ASKER_MAX
                assert all(it.retry_after_ms == 500 for it in answers if isinstance(it, Refuse))
                assert (await verdict_on(network, other)).agrees
            assert trio.current_time() - started_at_s <= CHECK_S_MAX + 1.0


async def test_a_place_goes_to_whoever_has_the_fewest_and_then_to_the_first(
    autojump_clock: MockClock,
) -> None:
    places = FairSemaphore(2)
    one, two, three = (key_of(name).peer for name in ("one", "two", "three"))
    entered: list[Any] = []

    async def enqueue(asker: Any) -> None:
        await places.enqueue(asker)
        entered.append(asker)

    async with trio.open_nursery() as nursery:
        for asker in (one, one, one, two, three, two):
            nursery.start_soon(enqueue, asker)
            await wait_all_tasks_blocked()
        for held, due in ((one, two), (one, one), (two, three), (one, two)):
            places.dequeue(held)
            await wait_all_tasks_blocked()
            assert entered[-1] == due
    for left in (three, two):
        places.dequeue(left)
    assert places.free == 2
    assert not places._taken


async def test_whoever_gives_up_waiting_for_a_place_takes_none() -> None:
    places = FairSemaphore(1)
    one, two = key_of("one").peer, key_of("two").peer
    await places.enqueue(one)
    with trio.move_on_after(0.01):
        await places.enqueue(two)
        raise AssertionError
    places.dequeue(one)
    with trio.fail_after(1):
        await places.enqueue(two)
    assert places.free == 0
