"""Each model has a worker of its own: what becomes of one is nothing to the others."""

import os
import signal
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from node.engines.host.launch import EngineConfig, prepare
from node.engines.host.worker_process import open_worker
from tests.engines.conftest import OpenEngine
from tests.engines.fake_worker import (
    FakeWorker,
    Message,
    Scene,
    answered,
    asking,
    frames_of,
    take_over,
    write_model,
)
from tests.engines.tiny import write_tiny
from wire.errors import EngineFailed, ModelRefused
from wire.model import Manifest


@pytest.fixture
def scene(monkeypatch: pytest.MonkeyPatch) -> Scene:
    return take_over(monkeypatch)


def whole(prompt: str, tokens: int = 4) -> bytes:
    return b"".join(frames_of(prompt, tokens))


def loading(message: Message, manifest: Manifest) -> bool:
    return message["do"] == "load" and message["manifest"] == manifest.to_bytes()


async def test_while_one_worker_hangs_the_others_answer_at_once(
    open_engine: OpenEngine, scene: Scene, tmp_path: Path, autojump_clock: MockClock
) -> None:
    ill, well = write_model(tmp_path, "ill"), write_model(tmp_path, "well")
    found: dict[str, Any] = {}
    async with open_engine() as engine:
        await engine.load(*ill)
        await engine.load(*well)
        scene.lives[0].hangs = True
        async with trio.open_nursery() as nursery:
            nursery.start_soon(answered, engine, found, asking(ill[0].id, "a"))
            await trio.sleep(1)
            began_at_s = trio.current_time()
            await answered(engine, found, asking(well[0].id, "b"))
            assert trio.current_time() - began_at_s < 1
            assert found == {"b": whole("b")}
            nursery.cancel_scope.cancel()
        assert [life.running for life in scene.lives] == [True, True]


async def test_while_one_model_is_loaded_others_answer_and_it_is_told_how_far_it_is(
    open_engine: OpenEngine, scene: Scene, tmp_path: Path, autojump_clock: MockClock
) -> None:
    slow, well = write_model(tmp_path, "slow"), write_model(tmp_path, "well")
    scene.progress = lambda message: (
        [100_000 * step for step in range(10)] * loading(message, slow[0])
    )
    found: dict[str, Any] = {}
    async with open_engine(load_stall_s=60.0) as engine:
        await engine.load(*well)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(engine.load, *slow)
            # Far longer than any one step may take.
            await trio.sleep(275)
            assert engine.statistics().loading == {slow[0].id: 0.5}
            assert set(engine.loaded()) == {well[0].id}
            await answered(engine, found, asking(well[0].id, "b"))
            assert found == {"b": whole("b")}
        assert not engine.statistics().loading
        assert (await engine.infer(asking(slow[0].id, "a"))).data == whole("a")


async def test_a_model_that_dies_when_it_is_loaded_takes_no_other_with_it(
    open_engine: OpenEngine, scene: Scene, tmp_path: Path, autojump_clock: MockClock
) -> None:
    ill, well = write_model(tmp_path, "ill"), write_model(tmp_path, "well")

    def before(_worker: FakeWorker, message: Message) -> None:
        if loading(message, ill[0]):
            raise EngineFailed("the worker ended (signal 8): it said nothing")

    scene.before = before
    async with open_engine() as engine:
        await engine.load(*well)
        for _ in range(9):
            with pytest.raises((EngineFailed, ModelRefused)):
                await engine.load(*ill)
        assert scene.lives[0].running
        assert engine.statistics().restarts == 0
        assert set(engine.statistics().quarantined) == {ill[0].id}
        assert (await engine.infer(asking(well[0].id, "b"))).data == whole("b")


async def test_a_model_that_is_unloaded_while_it_loads_is_gone_and_not_blamed(
    open_engine: OpenEngine, scene: Scene, tmp_path: Path, autojump_clock: MockClock
) -> None:
    manifest, files = write_model(tmp_path)
    scene.progress = lambda _: [1] * 1000
    outcome: list[str] = []

    async def load() -> None:
        with pytest.raises(ModelRefused) as caught:
            await engine.load(manifest, files)
        outcome.append(str(caught.value))

    async with open_engine() as engine, trio.open_nursery() as nursery:
        nursery.start_soon(load)
        await trio.sleep(100)
        await engine.unload(manifest.id)
        await trio.sleep(100)
        assert outcome == ["the model was unloaded"]
        assert not scene.lives[0].running
        assert not engine.statistics().quarantined
        scene.progress = lambda _: []
        assert (await engine.load(manifest, files)).model == manifest.id


async def test_an_unloaded_model_leaves_no_process(open_engine: OpenEngine, tmp_path: Path) -> None:
    one, files = write_tiny(tmp_path)
    other, _ = write_tiny(tmp_path, tokens_max=24)
    async with open_engine() as engine:
        for manifest in (one, other):
            await engine.load(manifest, files)
        workers = dict(engine.worker_ids)
        assert len(set(workers.values())) == 2
        await engine.unload(one.id)
        with trio.fail_after(10):
            while Path(f"/proc/{workers[one.id]}").exists():
                await trio.sleep(0.01)
        assert engine.worker_ids == {other.id: workers[other.id]}


async def test_a_share_of_the_processor_is_that_of_all_models_together(
    open_engine: OpenEngine, scene: Scene, tmp_path: Path, autojump_clock: MockClock
) -> None:
    models = [write_model(tmp_path, name) for name in ("one", "two")]
    found: dict[str, Any] = {}
    async with open_engine(share=0.5) as engine:
        for model in models:
            await engine.load(*model)

        async def took(count: int) -> float:
            began_at_s = trio.current_time()
            async with trio.open_nursery() as nursery:
                for at, (manifest, _) in enumerate(models[:count]):
                    job = asking(manifest.id, f"{at}", tokens=50)
                    nursery.start_soon(answered, engine, found, job)
                    # Steps that end at the same instant would find the other model between two of
                    # its own or not, by the order in which tasks run.
                    await trio.sleep(0.005)
            return trio.current_time() - began_at_s

        alone_s, both_s = await took(1), await took(2)
    # A step takes 0.01 s of a core. Two models do twice the work in twice the time.
    assert alone_s == pytest.approx(50 * 0.02, rel=0.2)
    assert both_s == pytest.approx(2 * alone_s, rel=0.2)


PROGRAM = """
import sys, time
from node.engines.frames import read_frame, to_frame
out = sys.stdout.buffer
read_frame(sys.stdin.buffer)
for step in map(float, sys.argv[1:]):
    time.sleep(step)
    out.write(to_frame({"progress": 600_000}))
    out.flush()
if sys.argv[1:]:
    out.write(to_frame({"done": 1}))
    out.flush()
sys.stdin.buffer.read()
"""


@pytest.mark.parametrize(("steps", "ends"), [((0.2,) * 5, True), ((0.2,) * 2, True), ((), False)])
async def test_a_load_is_ended_only_when_nothing_of_it_was_done_for_so_long(
    tmp_path: Path, steps: tuple[float, ...], ends: bool
) -> None:
    (tmp_path / "saying.py").write_text(PROGRAM)
    launch = await prepare(tmp_path / "cache", EngineConfig())
    environment = {**launch.environment}
    environment["PYTHONPATH"] += f"{os.pathsep}{tmp_path}"
    launch = type(launch)(
        arguments=("saying", *map(str, steps)), environment=environment, folder=launch.folder
    )
    seen: list[int] = []
    # Time for Python to start on a busy machine, where it has to answer.
    stall_s = 30.0 if ends else 0.5
    async with open_worker(launch) as worker:
        if ends:
            # A call may need a graph, which takes as long as a load.
            what = "load" if len(steps) > 4 else "call"
            assert await worker.ask({"do": what}, timeout_s=stall_s, on_progress=seen.append)
            assert seen == [600_000] * len(steps)
            return
        with pytest.raises(EngineFailed, match=r"no progress for 0\.5 s, at 0 %"):
            await worker.ask({"do": "load"}, timeout_s=stall_s, on_progress=seen.append)
        assert not worker.running


async def test_a_real_load_says_how_far_it_is_and_a_stopped_one_is_ended(
    open_engine: OpenEngine, tmp_path: Path
) -> None:
    # A shape that no other test compiled.
    manifest, files = write_tiny(tmp_path, tokens_max=16)
    shares: list[float] = []
    async with open_engine() as engine, trio.open_nursery() as nursery:

        async def look() -> None:
            while True:
                shares.extend(engine.statistics().loading.values())
                await trio.sleep(0.01)

        nursery.start_soon(look)
        await engine.load(manifest, files)
        nursery.cancel_scope.cancel()
    assert shares == sorted(shares)
    assert len(set(shares)) > 1
    assert all(0 <= share <= 1 for share in shares)
    async with open_engine(load_stall_s=0.5) as engine, trio.open_nursery() as nursery:

        async def stop() -> None:
            while not engine.worker_ids:
                await trio.sleep(0.001)
            os.kill(engine.worker_ids[manifest.id], signal.SIGSTOP)

        nursery.start_soon(stop)
        with pytest.raises(EngineFailed, match=r"no progress for 0\.5 s"):
            await engine.load(manifest, files)
