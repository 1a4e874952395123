"""Serving a leg, as seen by whoever offers it: done once, signed, or refused aloud."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from node.engines.hash_engine import hash_piece
from node.peer import Node
from node.serving.leg_server import LEGS_AT_ONCE
from node.serving.running_leg import RunningLeg
from p2p.score import Standing
from tests.node.asking import (
    EMBED,
    EMBED_PASSAGES,
    FETCH,
    MODEL,
    TEXTS,
    VECTORS,
    complete,
    receipt_of,
    task_of,
    texts_of,
)
from tests.node.engines import Broken, Counted
from tests.node.network import D, I, Network, Outsider, S, V, open_network
from tests.p2p.transports import key_of
from wire import limits
from wire.content import ContentId
from wire.errors import RemoteProtocolError, TransportError
from wire.kinds import Role
from wire.message import Accept, Message, Offer, Piece, Progress, Quote, Quoted, Refuse, Result
from wire.receipt import Receipt
from wire.schema import Scalar
from wire.signed import Signed, open_signed
from wire.task import Stage, Task
from wire.tree import name_of


@dataclass(slots=True)
class Scene:
    """One peer that serves, and one that offers it work by hand."""

    network: Network
    worker: Node
    asker: Outsider

    def task(self, *stages: Stage, **changes: Any) -> Signed[Task]:
        return task_of(self.asker.key, self.asker.peers.environment.wall_s(), *stages, **changes)

    async def offer(self, task: Signed[Task], /, **changes: Any) -> tuple[Message, list[bytes]]:
        """The last word on an offer, and the pieces before it."""
        pieces: list[bytes] = []
        async with self.asker.peers.call(self.worker.peers.me, deadline_s=60) as call:
            await call.send(offer_of(task, **changes))
            while True:
                match message := await call.receive():
                    case Piece():
                        pieces.append(message.data)
                    case Accept():
                        continue
                    case _:
                        return message, pieces

    async def follow(
        self, task: Signed[Task], resume: Progress | None, heard: list[tuple[float, Piece]]
    ) -> None:
        """Offer a leg that streams; each piece is noted when it comes."""
        async with self.asker.peers.call(self.worker.peers.me, deadline_s=60) as call:
            await call.send(offer_of(task, input=b"prompt", units=20, resume=resume))
            while not isinstance(message := await call.receive(), Result):
                assert isinstance(message, Accept | Piece), message
                if isinstance(message, Piece):
                    heard.append((trio.current_time(), message))

    async def offered_until_left(
        self,
        task: Signed[Task],
        task_status: trio.TaskStatus[trio.CancelScope] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Offer a leg that streams, and hang up when the scope is cancelled."""
        with trio.CancelScope() as scope:
            task_status.started(scope)
            await self.follow(task, None, [])

    async def quote(self, **changes: Any) -> Message:
        fields: dict[str, Any] = {
            "role": Role.INFER,
            "operation": "embed",
            "model": MODEL,
            "units": 1,
            "deadline_ms": 30_000,
        }
        async with self.asker.peers.call(self.worker.peers.me, deadline_s=10) as call:
            await call.send(Quote(**(fields | changes)))
            return await call.receive()

    async def refusal(self, task: Signed[Task], **changes: Any) -> Refuse:
        answer, _ = await self.offer(task, **changes)
        assert isinstance(answer, Refuse), answer
        return answer

    async def done(self, task: Signed[Task], **changes: Any) -> tuple[Signed[Receipt], Result]:
        answer, _ = await self.offer(task, **changes)
        assert isinstance(answer, Result), answer
        return open_signed(answer.receipts[-1], Receipt), answer

    def cost(self) -> float:
        return self.worker.peers.scores.cost(self.asker.key.peer, trio.current_time())


def offer_of(task: Signed[Task], /, **changes: Any) -> Offer:
    """An offer of the first leg of a task."""
    fields: dict[str, Any] = {
        "task": task.raw,
        "stage": 0,
        "receipts": (),
        "input": TEXTS,
        "deadline_ms": 30_000,
        "units": 1,
        "resume": None,
        "avoid": (),
    }
    return Offer(**(fields | changes))


@asynccontextmanager
async def scene(folder: Path, *roles: Role, **options: Any) -> AsyncIterator[Scene]:
    async with open_network(folder) as network:
        worker = await network.start(*(roles or (I,)), S, **options)
        await network.settled()
        while worker.config.models and not worker.probing.offered():
            await trio.sleep(0.1)
        async with network.outsider() as asker:
            yield Scene(network, worker, asker)


async def test_an_offer_is_accepted_done_and_signed_for(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with scene(tmp_path) as there:
        task = there.task()
        receipt, result = await there.done(task)
        assert result.output == VECTORS
        assert receipt.signer == there.worker.peers.me
        signed = receipt.record
        assert (signed.task, signed.input, signed.output) == (
            task.id,
            name_of(TEXTS),
            name_of(VECTORS),
        )
        assert (signed.units, signed.output_size_bytes) == (3, len(VECTORS))
        assert (signed.previous, signed.reused) == (None, False)
        assert there.worker.leg_server.done == 1


async def test_the_same_leg_asked_again_gives_the_same_receipt_and_runs_nothing(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    engine = Counted()
    async with scene(tmp_path, engine=engine) as there:
        task = there.task()
        first, _ = await there.done(task)
        await trio.sleep(100)
        second, _ = await there.done(task)
        assert first == second
        assert engine.calls == 1


async def test_the_same_leg_offered_by_many_at_once_runs_once_and_has_one_receipt(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    engine = Counted(unit_s=1.0)
    async with scene(tmp_path, engine=engine) as there:
        task = there.task()
        receipts: set[ContentId] = set()

        async def offer() -> None:
            receipt, _ = await there.done(task)
            receipts.add(receipt.id)

        async with trio.open_nursery() as nursery:
            for _ in range(8):
                nursery.start_soon(offer)
        assert len(receipts) == 1
        assert engine.calls == 1
        assert there.worker.leg_server.done == 1


async def test_another_task_with_the_same_question_reuses_the_answer_under_its_own_receipt(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    engine = Counted()
    async with scene(tmp_path, engine=engine) as there:
        first, _ = await there.done(there.task())
        second, result = await there.done(there.task(nonce=b"another question"))
        assert engine.calls == 1
        assert result.output == VECTORS
        assert (first.record.reused, second.record.reused) == (False, True)
        assert first.record.task != second.record.task
        assert first.record.output == second.record.output


async def test_who_waits_for_the_same_leg_without_time_is_refused_and_nothing_breaks(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    engine = Counted(unit_s=2.0)
    async with scene(tmp_path, engine=engine) as there:
        task = there.task()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(there.done, task)
            await trio.sleep(1)
            for deadline_ms in (1, 500):
                refused = await there.refusal(task, deadline_ms=deadline_ms)
                assert "deadline" in refused.reason
        receipt, _ = await there.done(task)
        assert receipt.record.units == 3
        assert engine.calls == 1


async def test_a_leg_without_enough_time_is_refused_and_leaves_no_receipt(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with scene(tmp_path, engine=Counted(unit_s=2.0)) as there:
        task = there.task()
        refused = await there.refusal(task, deadline_ms=1000)
        assert refused.reason
        assert there.worker.leg_server.under_way == 0
        assert there.worker.leg_server.done == 0
        # Given time, it is done after all.
        await there.done(task)


@pytest.mark.parametrize("deadline_ms", [1, 2, 5])
async def test_hardly_any_time_at_all_is_refused_by_the_real_clock_too(
    tmp_path: Path, deadline_ms: int
) -> None:
    async with scene(tmp_path, engine=Counted(unit_s=0.02)) as there:
        for number in range(3):
            task = there.task(source=name_of(texts_of(str(number))))
            data = texts_of(str(number)) if number else None
            await there.refusal(task, input=data, deadline_ms=deadline_ms)
        await there.done(there.task())


async def test_pieces_are_streamed_in_order_before_the_result(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with scene(tmp_path) as there:
        task = there.task(complete(6), source=name_of(b"prompt"))
        answer, pieces = await there.offer(task, input=b"prompt")
        assert isinstance(answer, Result)
        assert len(pieces) == 6
        assert b"".join(pieces) == answer.output


@pytest.mark.parametrize("shown", [b"", b"right", b"wrong"])
async def test_who_offers_a_leg_again_while_it_runs_hears_what_is_made_of_it(
    autojump_clock: MockClock, tmp_path: Path, shown: bytes
) -> None:
    engine = Counted(unit_s=1.0)
    async with scene(tmp_path, engine=engine) as there:
        task = there.task(complete(20), source=name_of(b"prompt"))
        right = [hash_piece(MODEL, b"prompt", at) for at in range(20)]
        heard = list[tuple[float, Piece]]()
        resume, begin = None, 0
        if shown == b"right":
            resume, begin = Progress(units=3, data=b"".join(right[:3])), 3
        elif shown:
            resume = Progress(units=3, data=b"x" * len(b"".join(right[:3])))
        async with trio.open_nursery() as nursery:
            # Its line breaks without a word after ten pieces: nobody knows yet.
            nursery.start_soon(partial(there.offer, task, input=b"prompt", units=20))
            await trio.sleep(10.5)
            await there.follow(task, resume, heard)
        assert [it.data for _, it in heard] == right[begin:]
        assert [it.position for _, it in heard] == [*range(begin, 20)]
        # What is made after the offer comes when it is made.
        times_s = [at_s for at_s, it in heard if it.position >= 11]
        assert max(b - a for a, b in pairwise(times_s)) < 1.5
        assert engine.calls == 1


async def test_a_generation_goes_on_for_who_came_back_before_the_old_line_was_given_up(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    engine = Counted(unit_s=1.0)
    async with scene(tmp_path, engine=engine) as there:
        task = there.task(complete(20), source=name_of(b"prompt"))
        heard = list[tuple[float, Piece]]()
        async with trio.open_nursery() as nursery:
            old = await nursery.start(there.offered_until_left, task)
            await trio.sleep(5)
            # Others need the place of a generation, so it is given up with its line.
            (running,) = there.worker.leg_server.running.values()
            assert running.lease is not None
            running.lease._generates = True
            nursery.start_soon(there.follow, task, None, heard)
            await trio.sleep(2)
            old.cancel()
            await trio.sleep(2)
            assert there.worker.leg_server.running
        assert len(heard) == 20
        assert engine.calls == 1


async def test_a_generation_that_all_have_left_ends(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with scene(tmp_path, engine=Counted(unit_s=1.0)) as there:
        task = there.task(complete(20), source=name_of(b"prompt"))
        async with trio.open_nursery() as nursery:
            one = await nursery.start(there.offered_until_left, task)
            await trio.sleep(2)
            (running,) = there.worker.leg_server.running.values()
            assert running.lease is not None
            running.lease._generates = True
            other = await nursery.start(there.offered_until_left, task)
            await trio.sleep(2)
            one.cancel()
            await trio.sleep(2)
            other.cancel()
            await trio.sleep(1)
        assert not there.worker.leg_server.running


async def test_an_input_that_is_not_inline_is_fetched_from_who_offers(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with scene(tmp_path) as there:
        await there.asker.store.put(TEXTS)
        _, result = await there.done(there.task(), input=None)
        assert result.output == VECTORS


async def test_an_input_that_nobody_has_is_refused_with_that_reason(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with scene(tmp_path) as there:
        refused = await there.refusal(there.task(), input=None)
        assert "nobody of" in refused.reason
        assert there.cost() == 0


async def test_two_legs_one_peer_can_do_both_are_done_by_it(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with scene(tmp_path, D, I) as there:
        task = there.task(FETCH, EMBED_PASSAGES, input=None)
        answer, _ = await there.offer(task, input=None)
        assert isinstance(answer, Result)
        first, second = (open_signed(raw, Receipt) for raw in answer.receipts)
        assert first.signer == second.signer == there.worker.peers.me
        assert second.record.previous == first.id
        assert answer.source is not None
        assert name_of(answer.source) == first.record.output


async def test_a_holder_that_is_to_be_avoided_for_the_next_leg_hands_it_on(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        worker = await network.start(D, I, S)
        other = await network.start(I, S)
        await network.settled()
        async with network.outsider() as asker:
            there = Scene(network, worker, asker)
            task = there.task(FETCH, EMBED_PASSAGES, input=None)
            answer, _ = await there.offer(task, input=None, avoid=(worker.peers.me,))
            assert isinstance(answer, Result)
            assert open_signed(answer.receipts[-1], Receipt).signer == other.peers.me


async def test_the_next_leg_that_nobody_can_do_is_refused_with_a_moment_to_wait(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with scene(tmp_path, D) as there:
        task = there.task(FETCH, EMBED_PASSAGES, input=None)
        refused = await there.refusal(task, input=None)
        assert refused.retry_after_ms is not None


async def test_a_chain_done_anew_by_another_is_another_leg(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with scene(tmp_path) as there:
        stages = (FETCH, replace(EMBED, operation="embed"))
        task = there.task(*stages, input=None)
        ids = set()
        for name in ("one holder", "another holder"):
            before = receipt_of(task, key_of(name), TEXTS, input=None)
            receipt, _ = await there.done(task, stage=1, receipts=(before.raw,))
            assert receipt.record.previous == before.id
            ids.add(receipt.id)
        assert len(ids) == 2


def _flipped(raw: bytes) -> bytes:
    return raw[:-1] + bytes([raw[-1] ^ 1])


async def test_an_offer_that_proves_nothing_is_an_offence_and_ends_that_stream_alone(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        worker = await network.start(I, S)
        await network.settled()
        async with network.outsider() as first:
            there = Scene(network, worker, first)
            task = there.task()
            two = there.task(FETCH, EMBED, input=None)
            before = receipt_of(two, key_of("holder"), TEXTS, input=None)
            wrongs: dict[str, dict[str, Any]] = {
                "the signature is wrong": {"task": _flipped(task.raw)},
                "it is no task": {"task": before.raw},
                "the stage is beyond the task": {"stage": 1},
                "the stage is far beyond": {"stage": 3},
                "another input than the one named": {"input": b"another"},
                "a receipt too many": {"receipts": (receipt_of(task, first.key, TEXTS).raw,)},
                "a receipt too few": {"task": two.raw, "stage": 1},
                "the receipt is of another task": {"stage": 1, "receipts": (before.raw,)},
                "the receipt is forged": {
                    "task": two.raw,
                    "stage": 1,
                    "receipts": (_flipped(before.raw),),
                },
                "another input than the receipt names": {
                    "task": two.raw,
                    "stage": 1,
                    "receipts": (before.raw,),
                    "input": VECTORS,
                },
            }
        for what, wrong in wrongs.items():
            async with network.outsider() as rogue:
                there = Scene(network, worker, rogue)
                with pytest.raises((TransportError, RemoteProtocolError)):
                    await there.offer(task, **wrong)
                assert worker.peers.standing(rogue.key.peer) is not Standing.GOOD, what
        assert worker.leg_server.done == 0
        assert worker.leg_server.under_way == 0
        async with network.outsider() as honest:
            await Scene(network, worker, honest).done(task)


@pytest.mark.parametrize(
    ("age_s", "reason"),
    [
        (
            -limits.CLOCK_SKEW_S_MAX - 10,
            "in the future: the clock of whoever signed it is 310 s ahead of this peer's",
        ),
        (limits.CLOCK_SKEW_S_MAX + 70, "the clock of its signer is"),
    ],
)
async def test_a_task_from_another_time_is_refused_in_words(
    autojump_clock: MockClock, tmp_path: Path, age_s: float, reason: str
) -> None:
    async with scene(tmp_path) as there:
        wall_s = there.asker.peers.environment.wall_s()
        refused = await there.refusal(task_of(there.asker.key, wall_s - age_s))
        assert reason in refused.reason
        near = task_of(there.asker.key, wall_s - age_s + (-20 if age_s < 0 else 20))
        await there.done(near)


_OTHER = ContentId.of(b"another model")


@pytest.mark.parametrize(
    ("stage", "reason"),
    [
        (replace(EMBED, model=_OTHER), "is not loaded here"),
        (replace(EMBED, operation="dance"), "does not do 'dance', only"),
        (FETCH, "does not play the role data"),
    ],
)
async def test_what_a_peer_does_not_do_is_refused_with_what_it_does(
    autojump_clock: MockClock, tmp_path: Path, stage: Stage, reason: str
) -> None:
    async with scene(tmp_path) as there:
        refused = await there.refusal(there.task(stage))
        assert reason in refused.reason
        assert refused.retry_after_ms is None
        assert there.cost() == 0


@pytest.mark.parametrize(
    ("data", "operation"),
    [(b"no texts", "embed"), (b"no passages", "embed-passages"), (b"no question", "nearest")],
)
async def test_an_input_the_operation_cannot_read_is_refused_and_the_engine_not_asked(
    autojump_clock: MockClock, tmp_path: Path, data: bytes, operation: str
) -> None:
    engine = Counted()
    async with scene(tmp_path, engine=engine) as there:
        stage = replace(EMBED, operation=operation)
        refused = await there.refusal(there.task(stage, source=name_of(data)), input=data)
        assert "cannot be read" in refused.reason
        assert engine.calls == 0


@pytest.mark.parametrize("tokens", [0, -1, 10**9, "many", 1.5])
async def test_a_parameter_that_makes_no_sense_is_refused(
    autojump_clock: MockClock, tmp_path: Path, tokens: Scalar
) -> None:
    async with scene(tmp_path) as there:
        stage = replace(complete(1), parameters={"tokens": tokens})
        refused = await there.refusal(there.task(stage))
        assert "'tokens' is a number" in refused.reason


async def test_an_engine_that_fails_is_a_refusal_and_the_peer_lives_on(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with scene(tmp_path, engine=Broken()) as there:
        for _ in range(2):
            refused = await there.refusal(there.task())
            assert "ran out of memory" in refused.reason
        assert there.worker.leg_server.under_way == 0


async def test_more_legs_than_a_peer_takes_are_refused_with_a_moment_to_wait(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    engine = Counted(unit_s=0.2, jobs_max=1000)
    async with scene(tmp_path, engine=engine) as there:
        # As many talks at once as one peer may have: the legs of others fill the rest.
        there.worker.leg_server.running |= {
            number.to_bytes(4, "big"): RunningLeg() for number in range(LEGS_AT_ONCE)
        }
        refused = await there.refusal(there.task())
        assert refused.reason == "too many legs under way"
        assert refused.retry_after_ms == 500


async def test_a_full_engine_refuses_with_the_time_its_queue_needs(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    engine = Counted(unit_s=2.0, jobs_max=1)
    async with scene(tmp_path, engine=engine) as there, trio.open_nursery() as nursery:
        nursery.start_soon(there.done, there.task())
        await trio.sleep(0.5)
        refused = await there.refusal(there.task(nonce=b"n" * 16))
        assert refused.retry_after_ms is not None
        assert 1000 <= refused.retry_after_ms <= 6000


async def test_a_peer_that_leaves_says_so(autojump_clock: MockClock, tmp_path: Path) -> None:
    async with scene(tmp_path) as there:
        await there.worker.leave()
        refused = await there.refusal(there.task())
        assert refused.reason == "this peer is leaving"
        assert V not in there.worker.config.roles


async def test_a_quote_says_what_an_offer_would_be_told_and_binds_nobody(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with scene(tmp_path, engine=Counted(unit_s=1.0)) as there, trio.open_nursery() as nursery:
        assert await there.quote(units=4) == Quoted(expected_ms=4250)
        nursery.start_soon(there.done, there.task())
        await trio.sleep(0.5)
        # Three texts are under way.
        assert await there.quote(units=4) == Quoted(expected_ms=7400)
        for quote, reason in {
            (("deadline_ms", 2000),): "its deadline leaves 2.0 s",
            (("operation", "dance"),): "does not do 'dance'",
            (("model", _OTHER),): "is not loaded here",
            (("role", Role.DATA), ("model", None)): "does not play the role data",
        }.items():
            refused = await there.quote(**dict(quote))
            assert isinstance(refused, Refuse)
            assert reason in refused.reason
        there.worker.leg_server.taking = False
        refused = await there.quote()
        assert isinstance(refused, Refuse)
        assert "leaving" in refused.reason
        assert there.cost() == 0
    assert there.worker.leg_server.done == 1


async def test_a_quote_for_no_stage_at_all_is_an_offence(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with scene(tmp_path) as there:
        with pytest.raises((TransportError, RemoteProtocolError)):
            await there.quote(model=None)
        assert there.cost() > 0
