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
