"""Opens the engines of one peer, as its configuration and its owner's limits say."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path

from node.config import NodeConfig
from node.engines.by_format import EnginesByFormat
from node.engines.hash_engine import HashEngine
from node.engines.host import embedding
from node.engines.host.engine import open_tinygrad_engine
from node.engines.host.launch import EngineConfig
from node.engines.interface import Engine
from node.guest.rules import GuestConfig
from node.models.devices import Devices
from node.models.on_demand import open_on_demand
from wire.errors import EngineMissing
from wire.kinds import Role

TINYGRAD_FORMATS = (*embedding.FORMATS, "gguf", "onnx")
# An owner who sets limits wants the machine to stay fast for other programs.
NICENESS = 10


@asynccontextmanager
async def open_engine(
    config: NodeConfig, cache_folder: Path, base: EngineConfig
) -> AsyncIterator[Engine]:
    """The engines that this peer's models need; a worker process starts with its first model."""
    engines: dict[str, Engine] = {}
    async with AsyncExitStack() as stack:
        # A peer without models may get some while it runs.
        only_hash = set(config.models) == {"hash"}
        if {Role.INFER, Role.VERIFY} & config.roles and not only_hash:
            try:
                opened = await _opened(stack, cache_folder, worker_configs(config.guest, base))
            except EngineMissing:
                if config.models:
                    raise
            else:
                engines = dict.fromkeys(TINYGRAD_FORMATS, opened)
        if "hash" in config.models or not engines:
            engines["hash"] = HashEngine()
        budget_bytes = memory_budget_bytes(config.guest, base)
        yield await stack.enter_async_context(
            open_on_demand(EnginesByFormat(engines), budget_bytes)
        )


def worker_configs(guest: GuestConfig, base: EngineConfig) -> list[EngineConfig]:
    """One configuration for each device that is used."""
    limited = replace(
        base,
        share=guest.cpu_share,
        niceness=NICENESS if guest.cpu_share < 1 or guest.pause_when_busy else 0,
        memory_bytes_max=guest.memory_bytes or base.memory_bytes_max,
    )
    if not guest.gpus:
        return [limited]
    return [
        replace(
            limited,
            device="CUDA",
            # The worker sees only this GPU, as its first.
            environment={**base.environment, "CUDA_VISIBLE_DEVICES": str(gpu)},
        )
        for gpu in guest.gpus
    ]


def memory_budget_bytes(guest: GuestConfig, base: EngineConfig) -> int:
    """How much memory all loaded models may take together, on each device."""
    if guest.gpus:
        assert guest.vram_bytes is not None, "GuestConfig checks it"
        return guest.vram_bytes
    return guest.memory_bytes or base.memory_bytes_max


async def _opened(stack: AsyncExitStack, cache: Path, configs: list[EngineConfig]) -> Engine:
    engines = [
        await stack.enter_async_context(open_tinygrad_engine(cache, config=config))
        for config in configs
    ]
    return engines[0] if len(engines) == 1 else Devices(engines)
