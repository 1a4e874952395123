"""Tasks that come together: one signature and one commit for many, and each its own task."""

from dataclasses import replace
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from node.asking.answers import Answered
from node.asking.run import TaskRequest
from node.engines.interface import Part
from node.peer import Node
from node.serving.order_outbox import OrderOutbox
from node.task.events import Failed, Kept, LegDone, Offered, ignore_event
from store import open_memory_store
from tests.dispatch.test_orders import all_asked
from tests.node.asking import (
    asked,
    complete,
    journal_of,
    nothing_left,
    request,
    signers,
    texts_of,
    vectors_of,
)
from tests.node.engines import Counted
from tests.node.network import I, S, open_network
from wire import limits
from wire.content import ContentId
from wire.errors import Oversize, StoreFull, TaskFailed
from wire.kinds import Level
from wire.receipt import Answer, Receipt
from wire.signed import Envelope, open_signed
from wire.signing import SIGNATURE_BYTES
from wire.task import Task


def plain(text: str, deadline_s: int = 60) -> TaskRequest:
    return request(data=texts_of(text), level=Level.SIGNED, deadline_s=deadline_s)


async def warmed(asker: Node) -> None:
    """Have a standing order at a peer that delivered before."""
    found = await all_asked(asker, [plain(f"before {it}") for it in range(4)])
    assert all(isinstance(it, Answered) for it in found)
    orders = asker.tasks.dispatcher.directory.orders
    assert orders is not None
    assert orders.standing


async def test_a_request_that_makes_no_task_fails_alone(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        asker = await network.start(S)
        await network.start(I, engine=Counted())
        await network.settled()
        await warmed(asker)
        wanted = [plain(f"text {it}") for it in range(5)]
        # Each parameter is within its bounds; all of them together are not.
        long = {f"p{it}": "x" * limits.PARAMETER_BYTES_MAX for it in range(16)}
        stages = (replace(wanted[2].stages[0], parameters=long),)
        wanted[2] = replace(wanted[2], stages=stages)
        found = await all_asked(asker, wanted)
        assert [isinstance(it, Answered) for it in found] == [True, True, False, True, True]
        assert isinstance(found[2], Oversize)
        assert nothing_left(asker)


def proof_of(raw: bytes, kind: type[Task] | type[Answer]) -> bytes:
    return Envelope.read(raw, kind).proof


async def test_tasks_that_come_together_share_a_signature_and_a_commit(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        asker = await network.start(S)
        worker = await network.start(I, S, engine=Counted(unit_s=0.0))
        await network.settled()
        await warmed(asker)
        before = asker.dependencies.store.statistics()
        texts = [str(it) for it in range(30)]
        found = await all_asked(asker, [plain(it) for it in texts])
        roots = set()
        for text, answered in zip(texts, found, strict=True):
            assert isinstance(answered, Answered)
            assert answered.output == vectors_of(text)
            assert signers(answered) == [worker.peers.me]
            # Each holds by itself, as an auditor reads it.
            answer = open_signed(answered.answer.raw, Answer)
            assert open_signed(answer.record.task, Task).record.deadline_s == 60
            open_signed(answer.record.receipts[0], Receipt)
            proof = proof_of(answer.record.task, Task)
            assert len(proof) > SIGNATURE_BYTES
            roots.add(proof[:SIGNATURE_BYTES])
            assert len(answer.raw) <= 1900
        assert len(roots) <= 4
        assert asker.tasks._direct.count >= 30
        after = asker.dependencies.store.statistics()
        assert after.puts - before.puts <= 20
        assert nothing_left(asker)
        assert not journal_of(asker)


async def test_what_is_told_of_a_task_is_what_its_own_path_tells(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        asker = await network.start(S)
        await network.start(I, S, engine=Counted(unit_s=0.001))
        await network.settled()
        _, alone = await asked(asker, plain("alone"))
        await warmed(asker)
        direct = asker.tasks._direct.count
        _, events = await asked(asker, plain("direct"))
        assert asker.tasks._direct.count == direct + 1
        assert [type(it) for it in events] == [type(it) for it in alone]
        assert {Offered, LegDone, Kept} <= {type(it) for it in events}


async def test_with_a_peer_that_knows_no_proofs_each_task_has_its_own_signature(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        asker = await network.start(S)
        await network.start(I, S, engine=Counted(unit_s=0.001))
        await network.settled()
        await warmed(asker)
        old = await network.start(I, S, engine=Counted(unit_s=0.001))
        old.peers.neighbours.speaks = limits.PROTOCOL_VERSION
        asker.peers.neighbours._versions.clear()
        await network.settled()
        for answered in await all_asked(asker, [plain(str(it)) for it in range(12)]):
            assert isinstance(answered, Answered)
            proof = proof_of(answered.answer.record.task, Task)
            assert len(proof) == SIGNATURE_BYTES
        assert not old.peers.scores.cost(asker.peers.me, trio.current_time())


async def test_a_peer_that_breaks_off_loses_no_task_and_others_do_them(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        asker = await network.start(S)
        dying = await network.start(I, S, engine=Counted(unit_s=0.001))
        await network.settled()
        await warmed(asker)
        dying.dependencies.engine.unit_s = 5.0
        other = await network.start(I, S, engine=Counted(unit_s=0.001))
        await network.settled()
        found: list[Answered] = []

        async def ask() -> None:
            for answered in await all_asked(asker, [plain(str(it)) for it in range(12)]):
                assert isinstance(answered, Answered)
                found.append(answered)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            await trio.sleep(0.3)
            network.kill(dying)
        assert len(found) == 12
        assert {signers(it)[0] for it in found} == {other.peers.me}
        assert nothing_left(asker)


async def test_a_task_that_takes_long_goes_on_its_own_path_as_it_is(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        asker = await network.start(S)
        worker = await network.start(I, S, engine=Counted(unit_s=0.001))
        await network.settled()
        await warmed(asker)
        before = worker.leg_server.done
        worker.dependencies.engine.unit_s = 3.0
        answered, events = await asked(asker, plain("long"))
        assert answered.output == vectors_of("long")
        # It was done once, and told once that it was taken.
        assert worker.leg_server.done == before + 1
        assert sum(isinstance(it, Offered) for it in events) == 1
        assert not any(isinstance(it, Failed) for it in events)
        assert asker.tasks.dispatcher.directory.under_way == {}


async def test_one_that_is_cancelled_is_withdrawn_and_fails_alone(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        asker = await network.start(S)
        worker = await network.start(I, S, engine=Counted(unit_s=0.001))
        await network.settled()
        await warmed(asker)
        worker.dependencies.engine.unit_s = 0.1
        ids: list[ContentId] = []

        async def submit(text: str) -> None:
            ids.append(await asker.tasks.submit(plain(text)))

        async with trio.open_nursery() as nursery:
            for number in range(4):
                nursery.start_soon(submit, str(number))
        asker.tasks.cancel(ids[3])
        for task in ids[:3]:
            await asker.tasks.watch(task, ignore_event)
        with pytest.raises(TaskFailed, match="cancelled"):
            await asker.tasks.watch(ids[3], ignore_event)
        await trio.sleep(1)
        assert nothing_left(asker)
        assert worker.leg_server.under_way == 0
        assert asker.tasks.dispatcher.directory.under_way == {}


async def test_a_stream_that_goes_directly_shows_every_token_once(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        asker = await network.start(S)
        await network.start(I, S, engine=Counted(unit_s=0.01))
        await network.settled()
        await warmed(asker)
        wanted = request(complete(12), data=b"prompt", level=Level.SIGNED)
        answered, events = await asked(asker, wanted)
        pieces = [it.data for it in events if hasattr(it, "data")]
        assert b"".join(pieces) == answered.output
        assert len(pieces) > 1


async def test_tasks_of_one_flush_outlive_their_peer(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network, open_memory_store(quota_bytes=1 << 28) as store:
        worker = await network.start(I, S, engine=Counted(unit_s=0.001))
        await network.settled()
        first = await network.start(S, store=store, number=77)
        await network.settled()
        await warmed(first)
        worker.dependencies.engine.unit_s = 30.0
        ids: list[ContentId] = []

        async def submit(text: str) -> None:
            ids.append(await first.tasks.submit(plain(text, deadline_s=600)))

        async with trio.open_nursery() as nursery:
            for number in range(8):
                nursery.start_soon(submit, str(number))
        assert len(journal_of(first)) == 8
        network.kill(first)
        network.kill(worker)
        await network.start(I, S, engine=Counted(unit_s=0.001))
        second = await network.start(S, store=store, number=77)
        for task in ids:
            await second.tasks.watch(task, ignore_event)
        assert nothing_left(second)


async def test_a_disk_that_takes_no_journal_refuses_each_and_nothing_goes_on(
    autojump_clock: MockClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_network(tmp_path) as network:
        asker = await network.start(S)
        await network.start(I, S, engine=Counted(unit_s=0.001))
        await network.settled()
        await warmed(asker)
        store = asker.dependencies.store
        whole = store.commit

        async def full(batch: object) -> tuple[ContentId, ...]:
            await trio.sleep(0.2)
            raise StoreFull("no room")

        monkeypatch.setattr(type(store), "commit", lambda _, batch: full(batch))
        refused = await all_asked(asker, [plain(str(it)) for it in range(3)])
        assert all(isinstance(it, StoreFull) for it in refused)
        monkeypatch.setattr(type(store), "commit", lambda _, batch: whole(batch))
        await trio.sleep(2)
        assert not journal_of(asker)
        assert asker.tasks.statistics().under_way == 0
        assert asker.tasks.dispatcher.directory.under_way == {}


async def test_the_last_piece_of_a_stream_comes_with_the_outcome(
    autojump_clock: MockClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_network(tmp_path) as network:
        asker = await network.start(S)
        await network.start(I, S, engine=Counted(unit_s=0.01))
        await network.settled()
        await warmed(asker)
        told: list[int] = []
        whole = OrderOutbox.add_piece

        def add_piece(self: OrderOutbox, tag: int, part: Part) -> None:
            told.append(part.position)
            whole(self, tag, part)

        monkeypatch.setattr(OrderOutbox, "add_piece", add_piece)
        wanted = request(complete(3), data=b"prompt", level=Level.SIGNED)
        answered, events = await asked(asker, wanted)
        assert told == [0, 1]
        assert b"".join(it.data for it in events if hasattr(it, "data")) == answered.output
        await asked(asker, request(complete(1), data=b"prompt", level=Level.SIGNED))
        assert told == [0, 1]
