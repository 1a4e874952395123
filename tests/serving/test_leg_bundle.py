"""Small legs of a bundle share one call of the engine; what becomes of one is no other's matter."""

import gc
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from node.engines.interface import Emit, Found, Job, Output
from node.serving.infer_role import SHARED_S_MAX
from node.serving.served_order import PLACES_PER_ORDER
from tests.node.asking import TEXTS, complete, task_of, texts_of
from tests.node.engines import Counted
from tests.serving.test_hostile_orders import Opener, Scene, code_of, opened
from wire.kinds import RefusalCode
from wire.order import OrderItem, TaskOutcome, Withdraw
from wire.tree import name_of


class Many(Counted):
    """Notes how many jobs each call for many had."""

    def __init__(self, unit_s: float = 0.0, stall_s: float = 0.0) -> None:
        super().__init__(unit_s)
        self.stall_s = stall_s
        self.together: list[int] = []

    async def infer_many(self, jobs: Sequence[Job]) -> list[Found]:
        self.together.append(len(jobs))
        return await super().infer_many(jobs)

    async def infer(self, job: Job, emit: Emit | None = None) -> Output:
        await trio.sleep(self.stall_s)
        return await super().infer(job, emit)


def items_of(scene: Scene, count: int, **changes: object) -> list[OrderItem]:
    """Tasks with an input of their own each."""
    texts = [texts_of(f"{at} of {count}") for at in range(count)]
    return [
        scene.item(at, scene.task(source=name_of(it)), **({"input": it} | changes))
        for at, it in enumerate(texts)
    ]


async def test_tasks_of_a_bundle_are_one_call_one_commit_and_one_trio_task(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    engine = Many()
    async with opened(tmp_path, engine=engine) as scene, scene.order() as order:
        commits = scene.worker.leg_server.finishing.commits
        await order.give(*items_of(scene, 30))
        found = await order.outcomes(30)
        assert all(it.refusal is None for it in found.values())
        assert engine.together == [30]
        assert scene.worker.leg_server.finishing.commits == commits + 1
        assert scene.worker.leg_server.done >= 30
        assert not scene.worker.leg_server.under_way
        assert not scene.worker.leg_server.running


def objects_by_type() -> Counter[str]:
    return Counter(type(it).__name__ for it in gc.get_objects())


async def test_a_task_that_has_ended_leaves_nothing_to_the_collector(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with opened(tmp_path, engine=Many()) as scene, scene.order() as order:
        gc.collect()
        gc.disable()
        try:
            # Tests before this one may have left some.
            before = objects_by_type()
            await order.give(*items_of(scene, 30))
            await order.outcomes(30)
            # What serves an order has its latest tasks in its hands until others come.
            await order.give(scene.item(30))
            await order.outcomes(1)
            left = objects_by_type() - before
        finally:
            gc.enable()
        assert left["LegLease"] <= 1
        assert left["Handoff"] <= 1


async def test_what_streams_or_takes_long_has_a_path_of_its_own(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    engine = Many(unit_s=SHARED_S_MAX / 2)
    async with opened(tmp_path, engine=engine) as scene, scene.order() as order:
        stream = complete(2)
        await order.give(
            scene.item(0),
            scene.item(1, scene.task(stream, source=name_of(b"x")), input=b"x"),
            *[it for it in items_of(scene, 3) if it.tag == 2],
        )
        found = await order.outcomes(3)
        assert all(it.refusal is None for it in found.values())
        # Three texts take too long, and two tokens are told one by one.
        assert engine.together == [1]


async def test_one_that_cannot_be_read_fails_alone(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with opened(tmp_path, engine=Many()) as scene, scene.order() as order:
        bad = scene.task(source=name_of(b"no texts"))
        await order.give(
            scene.item(7, bad, input=b"no texts"), *items_of(scene, 3), scene.item(8, input=b"odd")
        )
        found = await order.outcomes(5)
        assert [code_of(found[tag]) for tag in (7, 8)] == [RefusalCode.MALFORMED] * 2
        assert all(found[tag].refusal is None for tag in range(3))


async def withdrawn(order: Opener, *tags: int) -> dict[int, TaskOutcome]:
    await order.call.send(Withdraw(unwanted=tags))
    return await order.outcomes(len(tags))


async def test_one_that_is_withdrawn_before_its_turn_ends_at_once(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    engine = Many(unit_s=0.05)
    async with opened(tmp_path, engine=engine) as scene, scene.order() as order:
        before = engine.calls
        began_at_s = trio.current_time()
        await order.give(*items_of(scene, 10))
        await trio.sleep(0.01)
        gone = await withdrawn(order, *range(5, 10))
        assert trio.current_time() - began_at_s < 0.05
        assert all(it.refusal is not None for it in gone.values())
        done = await order.outcomes(5)
        assert all(it.refusal is None for it in done.values())
        assert engine.calls == before + 5
        assert trio.current_time() - began_at_s == pytest.approx(5 * 0.05, abs=0.05)
        assert order.places == PLACES_PER_ORDER + 10


async def test_one_whose_deadline_passes_before_its_turn_is_refused_then(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    engine = Many(unit_s=0.05)
    async with opened(tmp_path, engine=engine) as scene, scene.order() as order:
        # The engine takes longer than it says.
        engine.stall_s = 2.0
        items = items_of(scene, 3)
        late = items_of(scene, 4, deadline_ms=1000)[3]
        began_at_s = trio.current_time()
        await order.give(*items, late)
        found = await order.outcomes(1)
        assert code_of(found[3]) is RefusalCode.LATE
        assert trio.current_time() - began_at_s == pytest.approx(1.0, abs=0.1)
        assert all(it.refusal is None for it in (await order.outcomes(3)).values())


async def test_another_asker_waits_for_its_turn_and_not_for_a_bundle(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with (
        opened(tmp_path, engine=Many(unit_s=0.05)) as scene,
        scene.network.outsider() as other,
        scene.order() as first,
        scene.order(other) as second,
    ):
        await first.give(*items_of(scene, 12))
        await trio.sleep(0.01)
        began_at_s = trio.current_time()
        task = task_of(other.key, other.peers.environment.wall_s())
        await second.give(scene.item(0, task, input=TEXTS))
        await second.outcomes(1)
        # Behind the one under way and one more, with three texts of its own.
        assert trio.current_time() - began_at_s < 6 * 0.05
        await first.outcomes(12)
