"""A peer whose owner chose a GPU runs its models there or not at all."""

from pathlib import Path

import pytest

from node.config import NodeConfig
from node.engines.formats.gguf import describe
from node.engines.formats.model_memory import ModelMemory
from node.engines.host.device_check import FoundDevice
from node.engines.host.launch import EngineConfig
from node.guest.rules import GuestConfig
from node.models.opening_engines import open_engine
from tests.engines.opencl import need_opencl
from tests.engines.tiny_gguf import gguf_manifest, write_gguf
from wire.errors import EngineMissing, ModelRefused


def config(state: Path, **guest: object) -> NodeConfig:
    return NodeConfig(state=state, models=("any",), guest=GuestConfig(device="cl", **guest))


async def test_what_the_driver_calls_the_gpu_is_told_before_any_model_is_loaded(
    tmp_path: Path,
) -> None:
    need_opencl()
    told: list[FoundDevice] = []
    async with open_engine(config(tmp_path), tmp_path, EngineConfig(), told.append) as engine:
        assert not engine.loaded()
    assert [it.compiler for it in told] == ["OpenCL"]


async def test_a_gpu_that_cannot_be_used_is_no_reason_to_take_the_processor(
    tmp_path: Path,
) -> None:
    need_opencl()
    base = EngineConfig(driver_environment={"OCL_ICD_VENDORS": str(tmp_path)})
    # Without a model, too: one may be added while the peer runs.
    for peer in (config(tmp_path), NodeConfig(state=tmp_path, guest=GuestConfig(device="cl"))):
        with pytest.raises(EngineMissing, match="pocl-opencl-icd"):
            async with open_engine(peer, tmp_path / "cache", base):
                pytest.fail("it was opened")


async def test_a_model_beyond_the_gpus_memory_is_refused_with_both_numbers_before_it_is_loaded(
    tmp_path: Path,
) -> None:
    need_opencl()
    file = write_gguf(tmp_path / "model.gguf", sizes=(64, 1, 128, 4, 2, 512))
    least = describe(file).memory(on_gpu=True).least_bytes
    peer = config(tmp_path, vram_bytes=least - 1)
    async with open_engine(peer, tmp_path, EngineConfig()) as engine:
        numbers = f"takes {least / 1e6:.1f} MB of memory, and models may take {least / 1e6:.1f} MB"
        with pytest.raises(ModelRefused, match=numbers):
            await engine.load(*gguf_manifest(file))
        # No worker was started for it.
        assert not engine.statistics().running


def test_what_a_model_takes_grows_with_its_budget_up_to_all_conversations() -> None:
    memory = ModelMemory(weights_bytes=100, besides_bytes=20, slot_bytes=10, slots_max=8)
    assert (memory.least_bytes, memory.most_bytes) == (130, 200)
    assert [memory.slots(it) for it in (0, 129, 130, 139, 140, 200, 10**9)] == [0, 0, 1, 1, 2, 8, 8]
    assert [memory.within(it) for it in (0, 129, 130, 139, 199, 200, 10**9)] == [
        *(130, 130, 130, 130, 190, 200, 200),
    ]
    # A model that keeps nothing of what it was asked.
    plain = ModelMemory(weights_bytes=100, besides_bytes=20)
    assert (plain.least_bytes, plain.most_bytes, plain.within(10)) == (120, 120, 120)


def test_on_a_gpu_the_table_of_words_stays_with_the_worker(tmp_path: Path) -> None:
    sizes = (64, 1, 128, 4, 2, 512)
    open_table = describe(write_gguf(tmp_path / "a.gguf", sizes=sizes))
    tied = describe(write_gguf(tmp_path / "b.gguf", sizes=sizes, tied=True))
    table = 512 * 64 * 4
    items = sum(it.items for it in open_table.tensors.values())
    assert open_table.memory(on_gpu=True).weights_bytes == 4 * items - table
    assert tied.memory(on_gpu=True).weights_bytes == 4 * items - table
    for model in (open_table, tied):
        assert model.memory(on_gpu=True).slot_bytes == model.slot_bytes
        assert model.memory(on_gpu=False).most_bytes == model.memory_bytes
