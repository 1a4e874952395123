"""A worker that dies, hangs or starves takes nothing with it, and comes back."""

import os
import signal

import numpy as np
import pytest
import trio

from node.engines.host.engine import TinygradEngine
from node.engines.host.launch import default_device
from node.engines.interface import Job
from tests.engines.tiny import texts, tiny_tensors, to_safetensors, write_tiny
from wire.content import ContentId
from wire.errors import EngineFailed, EngineMissing, ModelRefused
from wire.payload import Vectors


def job(model: ContentId, *lines: str) -> Job:
    return Job(model=model, operation="embed", input=texts(*lines), parameters={}, deadline_s=60)


async def until_busy(engine: TinygradEngine, done: int) -> None:
    """Until a batch is under way: some units are done, more are queued."""
    with trio.fail_after(30):
        while engine.statistics().units_done <= done or not engine.queue_s:
            await trio.sleep(0.001)


async def until_gone(process: int) -> None:
    with trio.fail_after(10):
        while True:
            try:
                os.kill(process, 0)
            except ProcessLookupError:
                return
            await trio.sleep(0.01)


@pytest.mark.parametrize("blow", [signal.SIGKILL, signal.SIGSTOP])
async def test_a_batch_whose_worker_dies_or_hangs_is_answered_after_a_restart(
    open_engine, tmp_path, blow
) -> None:
    manifest, files = write_tiny(tmp_path)
    lines = tuple(f"a b c d {'e ' * (n % 20)}" for n in range(256))
    async with open_engine(batch_timeout_s=1.0) as engine:
        await engine.load(manifest, files)
        undisturbed = await engine.infer(job(manifest.id, *lines))
        done = engine.statistics().units_done
        answers = []

        async def ask() -> None:
            answers.append(await engine.infer(job(manifest.id, *lines)))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            await until_busy(engine, done)
            os.kill(engine.worker_ids[manifest.id], blow)
        assert answers == [undisturbed]
        assert engine.statistics().restarts == 1
        assert engine.statistics().last_failure


async def test_a_worker_that_dies_idle_is_back_before_the_next_job(open_engine, tmp_path) -> None:
    manifest, files = write_tiny(tmp_path)
    async with open_engine() as engine:
        await engine.load(manifest, files)
        first = engine.worker_ids[manifest.id]
        os.kill(first, signal.SIGKILL)
        with trio.fail_after(30):
            while engine.worker_ids.get(manifest.id) in (first, None):
                await trio.sleep(0.01)
        assert (await engine.infer(job(manifest.id, "a"))).units == 1
        assert "signal 9" in engine.statistics().last_failure


async def test_nothing_outlives_the_block(open_engine, tmp_path) -> None:
    manifest, files = write_tiny(tmp_path)
    async with open_engine() as engine:
        await engine.load(manifest, files)
        worker = engine.worker_ids[manifest.id]
        os.kill(worker, 0)
    with pytest.raises(ProcessLookupError):
        os.kill(worker, 0)


async def test_a_cancelled_load_ends_its_worker(open_engine, tmp_path) -> None:
    manifest, files = write_tiny(tmp_path)
    async with open_engine() as engine:
        with trio.move_on_after(0.3) as scope:
            await engine.load(manifest, files)
        assert scope.cancelled_caught
        assert (await engine.load(manifest, files)).model == manifest.id


@pytest.mark.own_device
async def test_a_worker_short_of_memory_says_so_and_the_model_is_put_aside_at_the_third_time(
    open_engine, tmp_path
) -> None:
    manifest, files = write_tiny(tmp_path, tokens_max=24)
    async with open_engine(memory_bytes_max=120 << 20) as engine:
        for _ in range(2):
            with pytest.raises(EngineFailed, match="memory"):
                await engine.load(manifest, files)
        with pytest.raises(ModelRefused, match="3 times in a row"):
            await engine.load(manifest, files)
        with pytest.raises(ModelRefused, match="put aside"):
            await engine.load(manifest, files)
        with pytest.raises(ModelRefused, match="put aside"):
            await engine.infer(job(manifest.id, "a"))


async def test_a_model_that_answers_with_infinities_fails_its_job_and_no_other_model(
    open_engine, tmp_path
) -> None:
    good, files = write_tiny(tmp_path)
    folder = tmp_path / "wild"
    folder.mkdir()
    wild, wild_files = write_tiny(folder, weights=to_safetensors(wild_tensors()))
    async with open_engine() as engine:
        await engine.load(good, files)
        with pytest.raises(ModelRefused, match="not finite"):
            await engine.load(wild, wild_files)
        assert (await engine.infer(job(good.id, "a"))).units == 1
        assert engine.statistics().restarts == 0


def wild_tensors() -> dict[str, np.ndarray]:
    tensors = tiny_tensors()
    return {name: array * np.float32(1e30) for name, array in tensors.items()}


async def test_two_models_are_both_back_after_a_crash(open_engine, tmp_path) -> None:
    one, files = write_tiny(tmp_path)
    other, _ = write_tiny(tmp_path, tokens_max=24)
    async with open_engine() as engine:
        for manifest in (one, other):
            await engine.load(manifest, files)
        before = [await engine.infer(job(m.id, "a b", "c")) for m in (one, other)]
        os.kill(engine.worker_ids[manifest.id], signal.SIGKILL)
        after = [await engine.infer(job(m.id, "a b", "c")) for m in (one, other)]
        assert before == after
        assert Vectors.from_bytes(after[0].data).rows == 2


@pytest.mark.own_device
async def test_without_clang_the_reason_and_the_command_are_in_one_line(
    open_engine, tmp_path
) -> None:
    manifest, files = write_tiny(tmp_path)
    async with open_engine(search_path=str(tmp_path)) as engine:
        with pytest.raises(EngineMissing) as caught:
            await engine.load(manifest, files)
    assert "clang is not installed" in str(caught.value)
    assert "apt-get install clang" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.own_device
async def test_a_compiler_that_does_not_run_is_named(open_engine, tmp_path) -> None:
    manifest, files = write_tiny(tmp_path)
    (tmp_path / "clang").write_text("#!/bin/sh\nexit 3\n")
    (tmp_path / "clang").chmod(0o700)
    async with open_engine(search_path=str(tmp_path)) as engine:
        with pytest.raises(EngineMissing, match="does not run"):
            await engine.load(manifest, files)


@pytest.mark.parametrize("device", ["AMD", "KFD+AMD", "NVK+NV", "METAL"])
@pytest.mark.own_device
async def test_as_root_no_driver_is_put_at_risk(open_engine, tmp_path, monkeypatch, device) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    manifest, files = write_tiny(tmp_path)
    async with open_engine(device=device) as engine:
        with pytest.raises(EngineMissing, match="root"):
            await engine.load(manifest, files)


@pytest.mark.own_device
async def test_the_profile_says_library_precision_and_device(open_engine) -> None:
    async with open_engine() as engine:
        assert engine.profile == f"tinygrad-0.14.0 f32 {default_device()}"
