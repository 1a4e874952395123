"""Opens the engines of one peer, as its configuration and its owner's limits say."""

import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path

from node.config import NodeConfig
from node.engines.by_format import EnginesByFormat
from node.engines.hash_engine import HashEngine
from node.engines.host import embedding
from node.engines.host.device_check import FoundDevice, check_device
from node.engines.host.engine import open_tinygrad_engine
from node.engines.host.launch import WAYS_IN, EngineConfig
from node.engines.interface import Engine
from node.engines.other_layers import OtherLayers
from node.guest.rules import GuestConfig
from node.models.devices import Devices
from node.models.inspect import memory_of
from node.models.on_demand import open_on_demand
from wire.errors import EngineMissing
from wire.kinds import Role
from wire.model import Manifest

TINYGRAD_FORMATS = (*embedding.FORMATS, "exact", "exact-text", "gguf", "onnx")
# What the drivers of these makers show where they run.
NVIDIA, AMD = Path("/proc/driver/nvidia"), Path("/dev/kfd")
# An owner who sets limits wants the machine to stay fast for other programs.
NICENESS = 10


@asynccontextmanager
async def open_engine(
    config: NodeConfig,
    cache_folder: Path,
    base: EngineConfig,
    found: Callable[[FoundDevice], object] = lambda _: None,
    others: OtherLayers | None = None,
) -> AsyncIterator[Engine]:
    """The engines that this peer's models need; a worker process starts with its first model.

    `others` have the layers that this peer does not hold. `found` is told of each GPU that is used,
    as its driver calls it. EngineMissing says why a GPU cannot be: nothing is run on the processor
    instead.
    """
    engines: dict[str, Engine] = {}
    async with AsyncExitStack() as stack:
        # A peer without models may get some while it runs.
        only_hash = set(config.models) == {"hash"}
        if {Role.INFER, Role.VERIFY} & config.roles and not only_hash:
            try:
                base = replace(base, layers=config.layers)
                configs = worker_configs(config.guest, base)
                for device in configs:
                    if device.on_gpu:
                        found(await check_device(cache_folder, device))
                opened = await _opened(stack, cache_folder, configs, others)
            except EngineMissing:
                # Who chose a device does not get the processor instead.
                if config.models or config.guest.on_gpu:
                    raise
            else:
                engines = dict.fromkeys(TINYGRAD_FORMATS, opened)
        if "hash" in config.models or not engines:
            engines["hash"] = HashEngine()
        budget_bytes = memory_budget_bytes(config.guest, base)

        def estimate(manifest: Manifest, files: Mapping[str, Path]) -> int:
            on_gpu = config.guest.on_gpu
            memory = memory_of(manifest.format, files, on_gpu=on_gpu, layers=config.layers)
            # A worker takes as many conversations at once as the budget has room for.
            return memory.within(budget_bytes)

        yield await stack.enter_async_context(
            open_on_demand(EnginesByFormat(engines), budget_bytes, estimate)
        )


def worker_configs(guest: GuestConfig, base: EngineConfig) -> list[EngineConfig]:
    """One configuration for each device that is used."""
    limited = replace(
        base,
        share=guest.cpu_share,
        niceness=NICENESS if guest.cpu_share < 1 or guest.pause_when_busy else 0,
        memory_bytes_max=memory_budget_bytes(guest, base),
    )
    if not guest.on_gpu:
        return [limited]
    device = guest.device or machines_gpu()
    return [_on_gpu(limited, device, number) for number in guest.gpus or (None,)]


def _on_gpu(base: EngineConfig, device: str, number: int | None) -> EngineConfig:
    """A worker for one GPU; without a number for the first one that its driver shows."""
    match device:
        case "cuda" if number is not None:
            # The worker sees only this GPU, as its first.
            only = {**base.environment, "CUDA_VISIBLE_DEVICES": str(number)}
            return replace(base, device="CUDA", environment=only)
        case "amd":
            way_in = WAYS_IN["AMD"] if number is None else f"{WAYS_IN['AMD']}:{number}"
            return replace(base, device=f"{way_in}+AMD")
        case _:
            return replace(base, device=device.upper(), index=number or 0)


def machines_gpu(nvidia: Path = NVIDIA, amd: Path = AMD, system: str = sys.platform) -> str:
    """The device that this machine's GPU is, by the driver that is there; NVIDIA's if none is."""
    if system == "darwin":
        return "metal"
    return "amd" if amd.exists() and not nvidia.exists() else "cuda"


def memory_budget_bytes(guest: GuestConfig, base: EngineConfig) -> int:
    """How much memory all loaded models may take together, on each device."""
    allowed = guest.vram_bytes if guest.on_gpu else guest.memory_bytes
    return allowed or base.memory_bytes_max


async def _opened(
    stack: AsyncExitStack,
    cache: Path,
    configs: list[EngineConfig],
    others: OtherLayers | None,
) -> Engine:
    engines = [
        await stack.enter_async_context(open_tinygrad_engine(cache, config=config, others=others))
        for config in configs
    ]
    return engines[0] if len(engines) == 1 else Devices(engines)
