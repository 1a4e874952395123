"""What a peer costs when there is nothing to do: processor time and memory, without a model.

Five real processes that know each other are watched after they have settled. The figures are the
mean of their processor time and the largest of their memories.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

PEERS = 5
SETTLE_S = 15
WATCH_S = 60


def run(arguments: list[str]) -> dict[str, Any]:
    """Share of one core in percent, and resident megabytes; seconds to watch as an argument."""
    watch_s = float(arguments[0]) if arguments else WATCH_S
    with tempfile.TemporaryDirectory(prefix="baton-bench-") as folder:
        peers: list[subprocess.Popen[bytes]] = []
        try:
            bootstrap: list[str] = []
            for number in range(PEERS):
                peers.append(_start(Path(folder) / str(number), bootstrap))
                bootstrap = bootstrap or [_address(peers[0])]
            time.sleep(SETTLE_S)
            before = [_cpu_s(it.pid) for it in peers]
            time.sleep(watch_s)
            used = [after - it for after, it in zip(map(_pid_cpu_s, peers), before, strict=True)]
            resident = [_resident_mb(it.pid) for it in peers]
        finally:
            for peer in peers:
                peer.terminate()
            for peer in peers:
                peer.wait(30)
    return {
        "peers": PEERS,
        "watched_s": watch_s,
        "cpu_percent_of_a_core": round(100 * sum(used) / len(used) / watch_s, 2),
        "resident_mb": round(max(resident), 1),
        "aim": "< 1 % of a core, < 200 MB",
    }


def _start(state: Path, bootstrap: list[str]) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "node", "join", *bootstrap, "--json", "--state", str(state)]
    command += ["--listen", "/ip4/127.0.0.1/tcp/0", "--role", "store"]
    return subprocess.Popen(command, stdout=subprocess.PIPE)


def _address(peer: subprocess.Popen[bytes]) -> str:
    assert peer.stdout is not None
    text = b""
    while not text.rstrip().endswith(b"}"):
        text += peer.stdout.readline()
    return str(json.loads(text)["addresses"][0])


def _pid_cpu_s(peer: subprocess.Popen[bytes]) -> float:
    return _cpu_s(peer.pid)


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _resident_mb(pid: int) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise AssertionError(pid)
