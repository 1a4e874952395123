"""What it costs that a relay carries a connection, beside a direct one, in the lab of `nat`.

A relay, one that charges its asker, and a directly called server on public machines, a server in
one home, an asker in another; each is a process of its own with the transport that peers have,
noise inside noise.
"""

import json
import subprocess
import sys
from typing import Any

from tests.bench._nat_lab import within
from tests.live.command_line import ROOT, environment

AIMS = {"mb_per_s": 40.0, "relay_cpu_ms_per_mb": 25.0, "added_ms": 1.5}
MEASURE_S = 300.0
_HOSTS = {
    "public": "45.1.0.10",
    "second": "45.2.0.10",
    "third": "45.3.0.10",
    "cone": "192.168.101.2",
}


def relay_cost() -> dict[str, Any]:
    """Milliseconds, megabytes a second and processor time of both ways."""
    processes: list[subprocess.Popen[bytes]] = []
    try:
        relay = _serving("public", processes)
        priced = _serving("third", processes)
        direct = _serving("second", processes)
        home = _serving("cone", processes, relay, priced)
        words = ["ask", direct, home, str(processes[3].pid)]
        words += [relay, str(processes[0].pid), priced, str(processes[1].pid)]
        asked = subprocess.run(
            [*_command("refusing"), *words],
            stdout=subprocess.PIPE,
            cwd=ROOT,
            env=environment({}),
            timeout=MEASURE_S,
            check=True,
        )
    finally:
        for process in processes:
            process.kill()
            process.communicate()
    ways = json.loads(asked.stdout)
    kept_way, direct_way = ways["kept"], ways["direct"]
    added_ms = kept_way["round_trip_ms"] - direct_way["round_trip_ms"]
    relay_ms = kept_way["cpu_ms_per_mb"]["relay"]
    priced_ms = ways["priced"]["cpu_ms_per_mb"]["relay"]
    return {
        **ways,
        "added_ms": round(added_ms, 2),
        # What it takes that a relay charges its asker, of one run.
        "priced_ratio": round(priced_ms / relay_ms, 3),
        "aims": AIMS,
        "held": max(kept_way["mb_per_s"]) >= AIMS["mb_per_s"]
        and relay_ms <= AIMS["relay_cpu_ms_per_mb"]
        and added_ms <= AIMS["added_ms"],
    }


def _command(place: str) -> list[str]:
    return [*within(place), sys.executable, "-m", "tests.bench._relay_end"]


def _serving(place: str, processes: list[subprocess.Popen[bytes]], *relay: str) -> str:
    """Start one there; where it is called."""
    process = subprocess.Popen(
        [*_command(place), "serve", place, *relay],
        stdout=subprocess.PIPE,
        cwd=ROOT,
        env=environment({}),
    )
    processes.append(process)
    assert process.stdout is not None
    address = str(json.loads(process.stdout.readline()))
    parts = address.split("/")
    parts[2] = _HOSTS[place]
    return "/".join(parts)
