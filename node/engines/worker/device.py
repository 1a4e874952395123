"""What a worker tells every loader about where it runs, and what its process takes of memory."""

import resource
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

from node.engines.worker.driver_words import FALLBACKS
from node.engines.worker.load_progress import LoadProgress
from wire.codec import Value


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenedDevice:
    """A device that computes. `name` and sizes are as its driver tells them, 0 where it does not.

    `versions` is what compiled kernels depend on: architecture, compiler, driver.
    """

    name: str
    compiler: str
    versions: str
    size_bytes: int = 0
    free_bytes: int = 0

    def to_plain(self) -> dict[str, Value]:
        """What the engine is told; `note` names a better compiler that is missing, if one is."""
        return {
            "name": self.name,
            "compiler": self.compiler,
            "note": FALLBACKS.get(self.compiler, ""),
            "size_bytes": self.size_bytes,
            "free_bytes": self.free_bytes,
        }


@dataclass(frozen=True, slots=True)
class WorkerDevice:
    """`cache` is the folder of captured graphs, `versions` what they depend on besides the model.

    `memory_bytes_max` is what a model may take of the device's memory; 0: no bound; `memory_words`
    says why it is less than the owner allowed. `progress` is of its load. `kind` is as in
    tinygrad: CPU, CL, CUDA, ...
    """

    cache: Path
    versions: str
    memory_bytes_max: int
    progress: LoadProgress
    kind: str = "CPU"
    memory_words: str = ""
    # The first and the last layer that a language model is loaded with; None: all.
    layers: tuple[int, int] | None = None
    # How many threads it may use while it is loaded.
    threads: int = 1
    # Asks the engine something in the middle of its question, and waits for what it says.
    asking: Callable[[dict[str, Value]], dict[str, Any]] | None = None

    @property
    def on_gpu(self) -> bool:
        """Whether a model's memory is another one than this process's own."""
        return self.kind != "CPU"

    def opened(self, device: OpenedDevice) -> Self:
        """The same with what is known once the GPU is open: no more memory than it has free."""
        there_bytes = device.free_bytes or device.size_bytes
        limit_bytes, words = self.memory_bytes_max, ""
        if there_bytes and (there_bytes < limit_bytes or not limit_bytes):
            limit_bytes = there_bytes
            words = (
                f"{there_bytes >> 20} of the {device.size_bytes >> 20} MiB of {device.name} are"
                " free"
            )
        return replace(
            self,
            versions=f"{self.versions} {device.versions}",
            memory_bytes_max=limit_bytes,
            memory_words=words,
        )


def memory_bytes() -> int:
    """The most memory that this process has had."""
    # Where the kernel says it: `getrusage` counts what the parent had when it started this one.
    with suppress(OSError, ValueError, IndexError):
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
        (line,) = [it for it in lines if it.startswith("VmHWM:")]
        return int(line.split()[1]) * 1024
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # In KiB, on macOS in bytes.
    return most if sys.platform == "darwin" else most * 1024
