"""What a worker tells every loader about where it runs, and what its process takes of memory."""

import resource
import sys
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
    # The kernel counts in KiB, macOS in bytes.
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024
