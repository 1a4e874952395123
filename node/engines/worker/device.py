"""What a worker tells every loader about where it runs, and what its process takes of memory."""

import resource
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from node.engines.worker.load_progress import LoadProgress


@dataclass(frozen=True, slots=True)
class WorkerDevice:
    """`cache` is the folder of captured graphs, `versions` what they depend on besides the model.

    `memory_bytes_max` bounds the process's address space; 0: no bound. `progress` is of its load.
    """

    cache: Path
    versions: str
    memory_bytes_max: int
    progress: LoadProgress


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
