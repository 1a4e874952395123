"""What a process has taken so far, as the kernel counts it."""

import os
from pathlib import Path


def used_cpu_s(process: int) -> float:
    """Processor seconds of a process; 0 once it has ended."""
    try:
        words = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")


def peak_bytes(process: int) -> int:
    """The most that a process had in its own pages (`VmHWM`); 0 once it has ended."""
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except OSError:
        return 0
    found = [it.split()[1] for it in lines if it.startswith("VmHWM")]
    return int(found[0]) * 1024 if found else 0


def held_by(process: int) -> dict[str, float]:
    """What a process holds now: pages in megabytes, threads, descriptors; empty once it ended."""
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
        descriptors = sum(1 for _ in Path(f"/proc/{process}/fd").iterdir())
    except OSError:
        return {}
    told = {
        name: rest.split()[0]
        for name, _, rest in (it.partition(":") for it in lines)
        if rest.strip()
    }
    return {
        "resident_mb": int(told["VmRSS"]) / 1024,
        # Without the pages of files, which are the kernel's to take back.
        "own_mb": int(told["RssAnon"]) / 1024,
        "threads": float(told["Threads"]),
        "descriptors": float(descriptors),
    }
