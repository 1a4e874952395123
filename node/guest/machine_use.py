"""How much of this machine other programs use: processors by /proc, GPUs by their drivers.

Where a system does not say, the answer is None: nothing is guessed.
"""

import importlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

PROC = Path("/proc")
CARDS = Path("/sys/class/drm")
# What AMD's driver tells, by the names that are used here; the first one in hundredths.
_AMD_FILES = {
    "busy_share": "gpu_busy_percent",
    "used_bytes": "mem_info_vram_used",
    "size_bytes": "mem_info_vram_total",
}
# utime, stime, cutime, cstime in /proc/PID/stat, after the name in brackets.
_TIMES = slice(11, 15)
_PARENT = 1
_IDLE = slice(3, 5)


@dataclass(slots=True)
class CpuUse:
    """The share of all processors that other programs took since the last look."""

    proc: Path = PROC
    own_process: int = field(default_factory=os.getpid)
    # Our own processes, as of the last look.
    own: frozenset[int] = frozenset()
    _before: tuple[int, int, int] | None = None

    def others(self) -> float | None:
        """None at the first look, and where the system does not tell."""
        try:
            total, busy = self._machine()
            own = self._own()
        except (OSError, ValueError, IndexError):
            return None
        before, self._before = self._before, (total, busy, own)
        if before is None or total <= before[0]:
            return None
        # A parent counts the time of a child that ended, once the parent has waited for the child.
        others = busy - before[1] - max(0, own - before[2])
        return min(1.0, max(0.0, others / (total - before[0])))

    def _machine(self) -> tuple[int, int]:
        line = (self.proc / "stat").read_text(encoding="ascii").split("\n", 1)[0]
        # The first eight fields; the user field already has the guests' time.
        ticks = [int(it) for it in line.split()[1:9]]
        return sum(ticks), sum(ticks) - sum(ticks[_IDLE])

    def _own(self) -> int:
        """Ticks of this process and of everything it started."""
        parents: dict[int, int] = {}
        ticks: dict[int, int] = {}
        for process, fields in self._processes():
            parents[process] = int(fields[_PARENT])
            ticks[process] = sum(int(it) for it in fields[_TIMES])
        self.own = frozenset(it for it in ticks if self._is_own(it, parents))
        return sum(ticks[it] for it in self.own)

    def _is_own(self, process: int, parents: dict[int, int]) -> bool:
        for _ in range(64):
            if process == self.own_process:
                return True
            process = parents.get(process, 0)
        return False

    def _processes(self) -> Iterator[tuple[int, Sequence[str]]]:
        for folder in self.proc.iterdir():
            if folder.name.isdecimal():
                try:
                    text = (folder / "stat").read_text(encoding="utf-8", errors="replace")
                except OSError:
                    # The process ended while we looked.
                    continue
                yield int(folder.name), text.rpartition(")")[2].split()


@dataclass(slots=True)
class GpuUse:
    """The share of the given GPUs that other programs use: the busiest GPU counts."""

    gpus: tuple[int, ...]
    cards: Path = CARDS
    _nvml: Any = None
    _since_us: int = 0

    def others(self, own: frozenset[int], *, resting: bool) -> float | None:
        """`own` are our processes; `resting`: they do no work now. None where no driver tells."""
        if self._nvml is None:
            self._nvml = _nvml()
        if self._nvml is not False:
            return self._by_nvml(own)
        # These drivers do not tell use by process: only use while we rest is surely not ours.
        return self._by_files() if resting else None

    def rows(self) -> dict[str, dict[str, int | float | str]]:
        """By number: `name`, `busy_share`, `used_bytes` and `size_bytes`, as drivers tell them."""
        if self._nvml is None:
            self._nvml = _nvml()
        row = self._row_by_files if self._nvml is False else self._row_by_nvml
        return {str(gpu): row(gpu) for gpu in self.gpus}

    def _row_by_nvml(self, gpu: int) -> dict[str, int | float | str]:
        try:
            handle = self._nvml.nvmlDeviceGetHandleByIndex(gpu)
            memory = self._nvml.nvmlDeviceGetMemoryInfo(handle)
            return {
                "name": str(self._nvml.nvmlDeviceGetName(handle)),
                "busy_share": self._nvml.nvmlDeviceGetUtilizationRates(handle).gpu / 100,
                "used_bytes": int(memory.used),
                "size_bytes": int(memory.total),
            }
        except self._nvml.NVMLError:
            return {}

    def _row_by_files(self, gpu: int) -> dict[str, int | float | str]:
        device, row = self.cards / f"card{gpu}" / "device", {}
        for name, file in _AMD_FILES.items():
            try:
                row[name] = int((device / file).read_text())
            except (OSError, ValueError):
                continue
        if "busy_share" in row:
            return {**row, "busy_share": row["busy_share"] / 100}
        return dict(row)

    def _by_nvml(self, own: frozenset[int]) -> float | None:
        shares = []
        for gpu in self.gpus:
            try:
                handle = self._nvml.nvmlDeviceGetHandleByIndex(gpu)
                samples = self._nvml.nvmlDeviceGetProcessUtilization(handle, self._since_us)
            except self._nvml.NVMLError:
                # No process used the GPU since, or the driver does not tell.
                continue
            latest: dict[int, tuple[int, int]] = {}
            for it in samples:
                latest[it.pid] = max(latest.get(it.pid, (0, 0)), (it.timeStamp, it.smUtil))
            self._since_us = max([self._since_us, *(at for at, _ in latest.values())])
            shares.append(sum(used for pid, (_, used) in latest.items() if pid not in own) / 100)
        return max(shares, default=0.0)

    def _by_files(self) -> float | None:
        shares = []
        for gpu in self.gpus:
            try:
                text = (self.cards / f"card{gpu}" / "device" / "gpu_busy_percent").read_text()
                shares.append(int(text) / 100)
            except (OSError, ValueError):
                continue
        return max(shares, default=None)


def _nvml() -> Any:
    """NVIDIA's own library, if it and a driver are there; else False."""
    try:
        found = importlib.import_module("pynvml")
    except ImportError:
        return False
    try:
        found.nvmlInit()
    except found.NVMLError:
        return False
    return found
