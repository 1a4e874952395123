"""What the system says of who gets the processor: of this process, of others, of the machine.

Linux tells for each thread how long it ran and how long it could have run and did not. Elsewhere
only the machine's load is known, and nobody else's wait is.
"""

import os
import threading
from collections.abc import Callable, Iterable
from pathlib import Path

import trio

from p2p.timeouts.slowdown import Reading

_NS_PER_S = 1e9
_PROCESSES = Path("/proc")


class Scheduler:
    """Reads the figures of the thread that makes it: the one that trio runs in."""

    def __init__(self, processes: Path = _PROCESSES) -> None:
        self._own = processes / str(os.getpid()) / "task" / str(threading.get_native_id())
        self._processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 0

    def read(self) -> Reading:
        """The figures of this moment, on trio's clock."""
        ran_s, waited_s = _figures(self._own) or (0.0, 0.0)
        processors = self._processors or os.cpu_count() or 1
        return Reading(
            at_s=trio.current_time(),
            ran_s=ran_s,
            waited_s=waited_s,
            load=os.getloadavg()[0] / processors,
        )


class Processes:
    """How long some processes could have run and did not: at each look, the one that waited most.

    `find` gives their numbers; those that they started count too. Whoever waits for their work
    waits for the slowest of them.
    """

    def __init__(self, find: Callable[[], Iterable[int]], processes: Path = _PROCESSES) -> None:
        self._find = find
        self._processes = processes
        self._waited_s: dict[int, float] = {}
        self._total_s = 0.0

    def __call__(self) -> float:
        """Seconds so far."""
        found = {pid: waited_s for pid in self._all() if (waited_s := self._read(pid)) is not None}
        # One that was not there at the last look counts from the next on.
        lost_s = [waited_s - self._waited_s.get(pid, waited_s) for pid, waited_s in found.items()]
        self._waited_s = found
        self._total_s += max(lost_s, default=0.0)
        return self._total_s

    def _read(self, pid: int) -> float | None:
        figures = _figures(self._processes / str(pid))
        return None if figures is None else figures[1]

    def _all(self) -> list[int]:
        pids = list(self._find())
        for pid in pids:
            # The list grows while it is read: children of children come last.
            pids.extend(_children(self._processes / str(pid) / "task" / str(pid)))
        return pids


def _figures(folder: Path) -> tuple[float, float] | None:
    """What a thread ran and waited, in seconds; None where nobody says."""
    try:
        ran_ns, waited_ns, _ = (folder / "schedstat").read_bytes().split()
    except (OSError, ValueError):
        return None
    return int(ran_ns) / _NS_PER_S, int(waited_ns) / _NS_PER_S


def _children(folder: Path) -> list[int]:
    try:
        return [int(it) for it in (folder / "children").read_bytes().split()]
    except (OSError, ValueError):
        return []
