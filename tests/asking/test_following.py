"""Asking and waiting in one: the same answer and events, and a task whose client is gone ends."""

import gc
import math
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from node.asking.answers import Answered
from node.asking.following import Follower
from node.asking.run import TaskRequest
from node.peer import Node
from node.task.events import Accepted, Event, Kept, LegDone, Offered, ignore_event
from tests.asking.test_groups import plain, warmed
from tests.node.asking import asked, complete, journal_of, nothing_left, request, vectors_of
from tests.node.engines import Counted
from tests.node.network import I, S, open_network
from wire.content import ContentId
from wire.errors import InputError, StoreFull, TaskFailed
from wire.kinds import Level

UNKNOWN = ContentId.of(b"no such model")


@asynccontextmanager
async def pair(folder: Path) -> AsyncIterator[tuple[Node, Node]]:
    """An asker with a standing order at a worker."""
    async with open_network(folder) as network:
        asker = await network.start(S)
        worker = await network.start(I, S, engine=Counted(unit_s=0.001))
        await network.settled()
        await warmed(asker)
        yield asker, worker


class Heard(Follower):
    """Keeps all that it is told; waits only so long once a peer has the task."""

    def __init__(self, wait_s: float = math.inf) -> None:
        super().__init__()
        self.tasks: list[ContentId] = []
        self.events: list[Event] = []
        self.until_at_s = trio.current_time() + wait_s

    def accepted(self, task: ContentId) -> None:
        self.tasks.append(task)

    def on_event(self, event: Event) -> None:
        self.events.append(event)
        if isinstance(event, Offered):
            self.wait_until(self.until_at_s)


def left_nothing(asker: Node) -> bool:
    under_way = asker.tasks.dispatcher.directory.under_way
    return nothing_left(asker) and not under_way and not asker.tasks._accepting.waiting


async def test_what_a_follower_hears_is_what_who_submits_and_watches_hears(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with pair(tmp_path) as (asker, _):
        _, events = await asked(asker, plain("submitted"))
        heard, direct = Heard(), asker.tasks._direct.count
        answered = await asker.tasks.ask(plain("asked"), heard)
        assert answered is not None
        assert answered.output == vectors_of("asked")
        assert asker.tasks._direct.count == direct + 1
        assert [type(it) for it in heard.events] == [type(it) for it in events]
        assert [type(it) for it in events] == [Accepted, Offered, LegDone, Kept]
        assert heard.events[0] == Accepted(heard.tasks[0])
        # It can be watched by others, as any task.
        again = await asker.tasks.watch(heard.tasks[0], ignore_event)
        assert again.answer == answered.answer
        assert left_nothing(asker)


async def test_a_task_with_a_path_of_its_own_is_followed_to_its_end(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with pair(tmp_path) as (asker, worker):
        worker.dependencies.engine.unit_s = 3.0
        heard = Heard()
        answered = await asker.tasks.ask(plain("long"), heard)
        assert isinstance(answered, Answered)
        with pytest.raises(TaskFailed):
            await asker.tasks.ask(plain("too long", deadline_s=1), Heard())
        assert left_nothing(asker)


@pytest.mark.parametrize("after_s", [0.0, 0.05, 1.0])
async def test_who_goes_away_before_or_after_it_is_accepted_leaves_nothing(
    autojump_clock: MockClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after_s: float
) -> None:
    async with pair(tmp_path) as (asker, worker):
        worker.dependencies.engine.unit_s = 30.0
        store, whole = asker.dependencies.store, asker.dependencies.store.commit

        async def slow(batch: object) -> tuple[ContentId, ...]:
            await trio.sleep(0.1)
            return await whole(batch)

        monkeypatch.setattr(type(store), "commit", lambda _, batch: slow(batch))
        heard = [Heard() for _ in range(5)]
        with trio.move_on_after(after_s):
            async with trio.open_nursery() as nursery:
                for number, one in enumerate(heard):
                    nursery.start_soon(asker.tasks.ask, plain(str(number)), one)
        assert all(bool(it.tasks) is (after_s == 1.0) for it in heard)
        await trio.sleep(2)
        assert asker.tasks.statistics().under_way == 0
        # What an engine has begun it does not stop.
        await trio.sleep(60)
        assert left_nothing(asker)
        assert worker.leg_server.under_way == 0
        # Those before were answered, and none of these.
        assert asker.tasks.statistics().answered == 4


async def test_who_is_in_a_hurry_waits_no_longer_and_the_task_is_cancelled(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with pair(tmp_path) as (asker, worker):
        # Who is no longer in a hurry waits for as long as it takes.
        worker.dependencies.engine.unit_s = 10.0
        calm = Heard(6.0)

        async def calm_down() -> None:
            await trio.sleep(4.0)
            calm.wait_until(math.inf)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(calm_down)
            assert isinstance(await asker.tasks.ask(plain("slow"), calm), Answered)
        worker.dependencies.engine.unit_s = 30.0
        began_at_s = trio.current_time()
        assert await asker.tasks.ask(plain("long"), Heard(5.0)) is None
        assert trio.current_time() - began_at_s == pytest.approx(5.0)
        await trio.sleep(1)
        assert left_nothing(asker)


async def test_what_is_not_accepted_is_an_error_and_nobody_is_told_an_id(
    autojump_clock: MockClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with pair(tmp_path) as (asker, _):
        heard = Heard()
        stage = plain("").stages[0]
        unknown = TaskRequest(
            stages=(type(stage)(role=stage.role, operation="embed", model=UNKNOWN, parameters={}),),
            input=b"",
            level=Level.SIGNED,
        )
        with pytest.raises(InputError):
            await asker.tasks.ask(unknown, heard)
        store = asker.dependencies.store

        async def full(batch: object) -> tuple[ContentId, ...]:
            await trio.sleep(0.2)
            raise StoreFull("no room")

        with monkeypatch.context() as patch:
            patch.setattr(type(store), "commit", lambda _, batch: full(batch))
            with pytest.raises(StoreFull):
                await asker.tasks.ask(plain("a"), heard)
        assert not heard.tasks
        await trio.sleep(2)
        assert not journal_of(asker)
        assert left_nothing(asker)


@pytest.mark.soak
async def test_tasks_that_ended_leave_nothing_to_the_garbage_collector(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with pair(tmp_path) as (asker, _):
        gc.collect()
        gc.disable()
        gc.set_debug(gc.DEBUG_SAVEALL)
        try:
            for number in range(60):
                assert await asker.tasks.ask(plain(str(number)), Heard())
            gc.collect()
            found = Counter(type(it).__module__ for it in gc.garbage)
        finally:
            gc.set_debug(0)
            gc.garbage.clear()
            gc.enable()
        # What the other peer leaves, in the same process, is no matter of this test.
        assert not [it for it in found if it.startswith(("node.asking", "node.dispatch.order"))]


async def test_a_stream_is_followed_piece_by_piece(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with pair(tmp_path) as (asker, worker):
        worker.dependencies.engine.unit_s = 0.01
        heard = Heard()
        wanted = request(complete(12), data=b"prompt", level=Level.SIGNED)
        answered = await asker.tasks.ask(wanted, heard)
        assert answered is not None
        pieces = [it.data for it in heard.events if hasattr(it, "data")]
        assert b"".join(pieces) == answered.output
        assert len(pieces) > 1
