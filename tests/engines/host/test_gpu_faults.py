"""A GPU that is lost, full, too small, or held by others: it is said, and nobody else suffers."""

import re
from pathlib import Path

import numpy as np
import pytest
from onnx import helper

from node.engines.host import launch
from node.engines.interface import Job
from node.engines.worker.device import OpenedDevice, WorkerDevice
from node.engines.worker.load_progress import LoadProgress
from tests.engines.conftest import OpenEngine
from tests.engines.failing_gpu import ARMED, LOST
from tests.engines.onnx_models import FLOAT, call, kept_at, made, manifest_of, to_arrays, value
from tests.engines.opencl import CL, need_opencl
from tests.engines.tiny import texts, write_tiny
from tests.engines.tiny_gguf import gguf_manifest, write_gguf
from wire.errors import EngineFailed, ModelRefused

pytestmark = pytest.mark.own_device
FAILURES = {
    "lost": f"the GPU was lost, says the OpenCL driver: {LOST}",
    "full": "the GPU's memory ran out: Allocation of .* failed on CL",
}


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch, cache: Path) -> Path:
    """The file that says how the driver fails next."""
    need_opencl()
    monkeypatch.setattr(launch, "WORKER", "tests.engines.failing_gpu")
    return cache / ARMED


@pytest.mark.parametrize("failure", FAILURES)
async def test_a_job_whose_gpu_fails_is_done_by_a_new_worker(
    failure: str, failing: Path, open_engine: OpenEngine, tmp_path: Path
) -> None:
    manifest, files = write_tiny(tmp_path)
    job = Job(
        model=manifest.id, operation="embed", input=texts("a b"), parameters={}, deadline_s=60
    )
    async with open_engine(device=CL) as engine:
        await engine.load(manifest, files)
        before = await engine.infer(job)
        failing.write_text(f"{failure} 0")
        assert await engine.infer(job) == before
        assert engine.statistics().restarts == 1
        assert re.search(FAILURES[failure], engine.statistics().last_failure)


async def test_a_model_is_not_blamed_for_a_gpu_that_is_lost_while_it_is_compiled(
    failing: Path, open_engine: OpenEngine, tmp_path: Path
) -> None:
    nodes = [helper.make_node("Neg", ["x"], ["y"])]
    model = made(nodes, [value("x", FLOAT, 3, 2)], [value("y", FLOAT, 3, 2)])
    manifest, files = manifest_of(kept_at(tmp_path, model))
    numbers = np.arange(6, dtype=np.float32).reshape(3, 2)
    async with open_engine(device=CL) as engine:
        # The first kernel is the one with which the device is tried when it is opened.
        failing.write_text("lost 1")
        with pytest.raises(EngineFailed, match="the GPU was lost"):
            await engine.load(manifest, files)
        await engine.load(manifest, files)
        answer = to_arrays((await engine.infer(call(manifest.id, {"x": numbers}))).data)
        assert np.array_equal(answer["y"], -numbers)


def place(memory_bytes_max: int) -> WorkerDevice:
    return WorkerDevice(Path(), "tinygrad", memory_bytes_max, LoadProgress(lambda _: None), "CUDA")


def test_a_gpu_gives_no_more_than_other_programs_left() -> None:
    found = OpenedDevice(
        name="RTX", compiler="CUDA", versions="12", size_bytes=8 << 30, free_bytes=3 << 30
    )
    held = place(6 << 30).opened(found)
    assert held.memory_bytes_max == 3 << 30
    assert held.memory_words == "3072 of the 8192 MiB of RTX are free"
    # What is compiled for one driver and one card is not run with another.
    assert held.versions == "tinygrad 12"
    enough = place(2 << 30).opened(found)
    assert (enough.memory_bytes_max, enough.memory_words) == (2 << 30, "")


async def test_a_model_larger_than_its_share_of_a_gpu_is_refused_with_both_numbers(
    open_engine: OpenEngine, tmp_path: Path
) -> None:
    need_opencl()
    file = write_gguf(tmp_path / "model.gguf", sizes=(64, 1, 128, 4, 2, 512))
    async with open_engine(device=CL, memory_bytes_max=1 << 20) as engine:
        with pytest.raises(ModelRefused, match="needs 3 MiB of memory; it may use 1 MiB"):
            await engine.load(*gguf_manifest(file))
