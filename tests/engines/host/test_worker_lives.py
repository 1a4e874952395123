"""What becomes of jobs and models when workers die, at the moments that tests choose."""

from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from node.engines.host.generating import DEATHS_MAX
from node.engines.host.quarantine import FAILURES_MAX, PAUSE_S_MAX, PAUSE_S_MIN
from tests.engines.conftest import OpenEngine
from tests.engines.fake_worker import (
    FakeWorker,
    Message,
    Scene,
    answered,
    asking,
    dies_of,
    frames_of,
    nothing,
    take_over,
    write_model,
)
from wire.errors import EngineFailed, EngineMissing, ModelRefused

# More than there are slots.
PROMPTS = "abcdefghijkl"


@pytest.fixture
def scene(monkeypatch: pytest.MonkeyPatch) -> Scene:
    return take_over(monkeypatch)


def whole(prompts: Iterable[str], tokens: int = 4) -> dict[str, bytes]:
    return {prompt: b"".join(frames_of(prompt, tokens)) for prompt in prompts}


async def test_a_worker_that_dies_between_two_steps_is_asked_for_nothing_twice(
    open_engine: OpenEngine, scene: Scene, tmp_path: Path, autojump_clock: MockClock
) -> None:
    manifest, files = write_model(tmp_path)
    found: dict[str, Any] = {}

    def after(worker: FakeWorker, message: Message) -> None:
        # It answered, with a slot free for who waits, and dies before the next step.
        if worker.id == 1 and len(list(scene.steps())) == 4:
            worker.kill()

    scene.after = after
    async with open_engine() as engine, trio.open_nursery() as nursery:
        await engine.load(manifest, files)
        for prompt in PROMPTS:
            nursery.start_soon(answered, engine, found, asking(manifest.id, prompt))
    assert found == whole(PROMPTS)
    assert len(scene.lives) == 2
    for life in scene.lives[1:]:
        assert life.begun == sorted(set(life.begun))


async def test_the_one_job_that_worker_after_worker_dies_of_fails_and_no_other(
    open_engine: OpenEngine, scene: Scene, tmp_path: Path, autojump_clock: MockClock
) -> None:
    manifest, files = write_model(tmp_path)
    found: dict[str, Any] = {}
    scene.before = dies_of("X")
    async with open_engine() as engine:
        await engine.load(manifest, files)
        async with trio.open_nursery() as nursery:
            for prompt in [*PROMPTS, "X"]:
                nursery.start_soon(answered, engine, found, asking(manifest.id, prompt))
        assert isinstance(found.pop("X"), EngineFailed)
        assert found == whole(PROMPTS)
        # Once in company, once alone.
        assert engine.statistics().restarts == 2


async def test_hostile_jobs_one_after_the_other_do_not_put_a_model_aside_that_did_others_well(
    open_engine: OpenEngine, scene: Scene, tmp_path: Path, autojump_clock: MockClock
) -> None:
    manifest, files = write_model(tmp_path)
    found: dict[str, Any] = {}
    scene.before = dies_of("X")
    async with open_engine() as engine:
        await engine.load(manifest, files)
        await answered(engine, found, asking(manifest.id, "good"))
        for _ in range(9):
            await answered(engine, found, asking(manifest.id, "X"))
            assert isinstance(found["X"], EngineFailed)
        assert not engine.statistics().quarantined
        assert (await engine.infer(asking(manifest.id, "good"))).data == found["good"]


async def test_a_job_that_gets_a_little_further_each_time_is_not_tried_for_ever(
    open_engine: OpenEngine, scene: Scene, tmp_path: Path, autojump_clock: MockClock
) -> None:
    manifest, files = write_model(tmp_path)
    found: dict[str, Any] = {}

    def before(worker: FakeWorker, message: Message) -> None:
        # It makes one token more than the worker before it did.
        if message["do"] == "step" and worker.steps > worker.id:
            raise EngineFailed("the worker ended (signal 11): it said nothing")

    scene.before = before
    async with open_engine() as engine:
        await engine.load(manifest, files)
        await answered(engine, found, asking(manifest.id, "X", tokens=100))
    assert isinstance(found["X"], EngineFailed)
    assert len(scene.lives) == DEATHS_MAX


async def test_who_is_doubted_goes_by_itself_and_those_under_way_are_only_paused(
    open_engine: OpenEngine, scene: Scene, tmp_path: Path, autojump_clock: MockClock
) -> None:
    manifest, files = write_model(tmp_path)
    found: dict[str, Any] = {}

    def before(worker: FakeWorker, _message: Message) -> None:
        if worker.id == 1 and worker.steps == 3:
            raise EngineFailed("the worker ended (signal 9): it said nothing")

    scene.before = before
    async with open_engine() as engine:
        await engine.load(manifest, files)
        async with trio.open_nursery() as nursery:
            for prompt in "abc":
                nursery.start_soon(answered, engine, found, asking(manifest.id, prompt, 9))
    assert found == whole("abc", 9)
    # Each made what it had made and one token more; then all went on together.
    assert scene.lives[1].moved == [1] * 9 + [3] * 6


async def test_a_job_that_was_given_up_while_its_step_was_under_way_leaves_no_trace(
    open_engine: OpenEngine, scene: Scene, tmp_path: Path, autojump_clock: MockClock
) -> None:
    manifest, files = write_model(tmp_path)
    found: dict[str, Any] = {}
    scopes = [trio.CancelScope() for _ in range(3)]

    async def asked(scope: trio.CancelScope, prompt: str) -> None:
        with scope:
            await answered(engine, found, asking(manifest.id, prompt, 9))

    def before(_worker: FakeWorker, message: Message) -> None:
        # One goes while it is under way, one as the worker dies, one before it begins again.
        count = len(list(scene.steps())) if message["do"] == "step" else 0
        if count in (2, 4, 6):
            scopes[count // 2 - 1].cancel()
        if count == 4:
            raise EngineFailed("the worker ended (signal 9): it said nothing")

    scene.before = before
    async with open_engine() as engine:
        await engine.load(manifest, files)
        async with trio.open_nursery() as nursery:
            for scope, prompt in zip(scopes, "xyz", strict=True):
                nursery.start_soon(asked, scope, prompt)
            nursery.start_soon(answered, engine, found, asking(manifest.id, "good", 9))
        assert found == whole(["good"], 9)
        assert engine.statistics().jobs_queued == 0
        assert (await engine.infer(asking(manifest.id, "later"))).data == whole(["later"])["later"]
        assert scene.lives[-1].answers == {manifest.id: []}


async def test_a_model_that_is_unloaded_ends_its_jobs_and_no_others_and_can_come_back(
    open_engine: OpenEngine, scene: Scene, tmp_path: Path, autojump_clock: MockClock
) -> None:
    manifest, files = write_model(tmp_path)
    other, other_files = write_model(tmp_path, "other")
    found: dict[str, Any] = {}

    def before(_worker: FakeWorker, message: Message) -> None:
        if message["do"] == "unload":
            raise EngineFailed("the worker ended (signal 9): it said nothing")

    async with open_engine() as engine:
        await engine.load(manifest, files)
        await engine.load(other, other_files)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(answered, engine, found, asking(manifest.id, "a", 50))
            nursery.start_soon(answered, engine, found, asking(other.id, "b", 50))
            await trio.sleep(0.1)
            # It dies just then.
            scene.before = before
            await engine.unload(manifest.id)
        assert isinstance(found["a"], ModelRefused)
        assert found["b"] == whole("b", 50)["b"]
        await engine.load(manifest, files)
        assert (await engine.infer(asking(manifest.id, "a"))).data == whole("a")["a"]


async def test_without_a_worker_those_who_wait_are_told_and_it_is_tried_again_later(
    open_engine: OpenEngine, scene: Scene, tmp_path: Path, autojump_clock: MockClock
) -> None:
    manifest, files = write_model(tmp_path)
    found: dict[str, Any] = {}

    def before(_worker: FakeWorker, message: Message) -> None:
        if message["do"] == "step":
            scene.missing = "clang is not installed"
            raise EngineFailed("the worker ended (signal 9): it said nothing")

    scene.before = before
    async with open_engine() as engine:
        await engine.load(manifest, files)
        await answered(engine, found, asking(manifest.id, "a"))
        assert isinstance(found["a"], EngineMissing)
        assert "clang is not installed; tried again in 10 min" in str(found["a"])
        assert engine.statistics().quarantined == {
            manifest.id: "clang is not installed; tried again in 10 min"
        }
        scene.missing, scene.before = "", nothing
        await trio.sleep(PAUSE_S_MIN + 1)
        assert set(engine.loaded()) == {manifest.id}
        assert not engine.statistics().quarantined
        assert (await engine.infer(asking(manifest.id, "a"))).data == whole("a")["a"]


async def test_a_model_that_was_put_aside_is_tried_again_ever_more_seldom_until_it_is_well(
    open_engine: OpenEngine, scene: Scene, tmp_path: Path, autojump_clock: MockClock
) -> None:
    manifest, files = write_model(tmp_path)
    other, other_files = write_model(tmp_path, "other")
    loads: list[float] = []

    def before(_worker: FakeWorker, message: Message) -> None:
        if message["do"] == "load" and message["manifest"] == manifest.to_bytes():
            loads.append(trio.current_time())
            if not mended:
                raise EngineFailed("the worker ended (signal 11): it said nothing")

    mended = True
    scene.before = before
    async with open_engine() as engine:
        await engine.load(manifest, files)
        await engine.load(other, other_files)
        mended = False
        scene.lives[0].kill()
        await trio.sleep(60)
        quarantined = engine.statistics().quarantined
        assert "tried again in 10 min" in quarantined[manifest.id]
        with pytest.raises(ModelRefused, match="put aside: it failed 3 times in a row here"):
            await engine.infer(asking(manifest.id, "a"))
        with pytest.raises(ModelRefused, match="tried again in"):
            await engine.load(manifest, files)
        assert (await engine.infer(asking(other.id, "b"))).data == whole("b")["b"]
        del loads[:]
        await trio.sleep(10 * PAUSE_S_MAX)
        # The others were there all the time.
        assert (await engine.infer(asking(other.id, "b"))).data == whole("b")["b"]
        pauses = [later - earlier for earlier, later in pairwise(loads)]
        assert [round(pause / PAUSE_S_MIN) for pause in pauses[:4]] == [2, 4, 8, 16]
        assert all(round(pause) == PAUSE_S_MAX for pause in pauses[-2:])
        mended = True
        await trio.sleep(PAUSE_S_MAX)
        assert (await engine.infer(asking(manifest.id, "a"))).data == whole("a")["a"]
        assert not engine.statistics().quarantined


async def test_a_model_on_trial_is_put_aside_by_its_first_failure_unless_it_was_well(
    open_engine: OpenEngine, scene: Scene, tmp_path: Path, autojump_clock: MockClock
) -> None:
    manifest, files = write_model(tmp_path)
    found: dict[str, Any] = {}
    scene.before = dies_of("X")
    async with open_engine() as engine:
        await engine.load(manifest, files)
        # It never did a job well here.
        for _ in range(3):
            assert not engine.statistics().quarantined
            await answered(engine, found, asking(manifest.id, "X"))
        assert "tried again in 10 min" in engine.statistics().quarantined[manifest.id]
        await trio.sleep(PAUSE_S_MIN + 1)
        await answered(engine, found, asking(manifest.id, "X"))
        assert "tried again in 20 min" in engine.statistics().quarantined[manifest.id]
        await trio.sleep(2 * PAUSE_S_MIN + 1)
        await answered(engine, found, asking(manifest.id, "good"))
        await answered(engine, found, asking(manifest.id, "X"))
        assert not engine.statistics().quarantined
        assert found["good"] == whole(["good"])["good"]


async def test_a_model_that_nobody_wants_any_more_is_not_tried_again(
    open_engine: OpenEngine, scene: Scene, tmp_path: Path, autojump_clock: MockClock
) -> None:
    manifest, files = write_model(tmp_path)

    def before(_worker: FakeWorker, message: Message) -> None:
        raise EngineFailed("the worker ended (signal 11): it said nothing")

    scene.before = before
    async with open_engine() as engine:
        for _ in range(FAILURES_MAX):
            with pytest.raises((EngineFailed, ModelRefused)):
                await engine.load(manifest, files)
        await engine.unload(manifest.id)
        assert manifest.id in engine.statistics().quarantined
        asked = len(scene.asked)
        await trio.sleep(PAUSE_S_MIN + 1)
        assert len(scene.asked) == asked
        assert not engine.statistics().quarantined
        scene.before = nothing
        assert (await engine.load(manifest, files)).model == manifest.id


async def test_a_step_that_a_living_worker_refuses_is_begun_again_and_nothing_is_made_twice(
    open_engine: OpenEngine, scene: Scene, tmp_path: Path, autojump_clock: MockClock
) -> None:
    manifest, files = write_model(tmp_path)
    found: dict[str, Any] = {}

    def before(worker: FakeWorker, _message: Message) -> None:
        if worker.steps == 3:
            raise ModelRefused("not this time")

    scene.before = before
    async with open_engine() as engine:
        await engine.load(manifest, files)
        async with trio.open_nursery() as nursery:
            for prompt in PROMPTS:
                nursery.start_soon(answered, engine, found, asking(manifest.id, prompt))
    assert found == whole(PROMPTS)
    assert len(scene.lives) == 1
