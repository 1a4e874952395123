"""Whether a GPU can be used at all, asked before any model is loaded on it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from node.engines.host.launch import EngineConfig, prepare
from node.engines.host.worker_process import open_worker
from wire.errors import EngineError, EngineFailed, EngineMissing

# A driver that was never used before compiles its own parts first.
CHECK_TIMEOUT_S = 120.0


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundDevice:
    """A device as its driver calls it; sizes are 0 where the driver does not tell.

    `note` says what would make it work better; empty if nothing would.
    """

    name: str
    compiler: str
    note: str
    size_bytes: int
    free_bytes: int


async def check_device(cache_folder: Path, config: EngineConfig) -> FoundDevice:
    """Open the device in a worker and compute something on it.

    EngineMissing says what this machine lacks, or that its driver does not work.
    """
    reply: dict[str, Any] = {}
    failure: EngineError | None = None
    async with open_worker(await prepare(cache_folder, config)) as worker:
        # Raised outside of the block, so that it is not one of a group.
        try:
            reply = await worker.ask({"do": "device"}, timeout_s=CHECK_TIMEOUT_S)
        except EngineFailed as error:
            # A broken driver may take its process with it.
            failure = EngineMissing(
                f"the driver of {config.device} does not work: {error.message}",
                todo="install the driver anew, or choose another device with --device",
            )
        except EngineError as error:
            failure = error
    if failure is not None:
        raise failure
    return FoundDevice(
        name=str(reply["name"]),
        compiler=str(reply["compiler"]),
        note=str(reply["note"]),
        size_bytes=int(reply["size_bytes"]),
        free_bytes=int(reply["free_bytes"]),
    )
