"""Whether peers behind every kind of router serve askers behind every other, and how fast.

`python -m tests.bench nat [--tasks 30] [--json]`, as root: a lab of network namespaces with real
routers of the kernel. Each place in turn runs a model, and peers of all other places ask it.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import trio

from node.local.control import call, unheard
from tests.bench._nat_lab import PLACES, PUBLIC, open_lab, within
from tests.bench._processes import PeerProcess, end_all, start_all
from wire.errors import BatonError

LISTEN = "/ip4/0.0.0.0/tcp/0"
REACHED_S = 90.0
ASK_DEADLINE_S = 30.0


def run(arguments: list[str]) -> dict[str, Any]:
    parser = argparse.ArgumentParser(prog="python -m tests.bench nat")
    parser.add_argument("--tasks", type=int, default=30, help="tasks of each pair")
    parser.add_argument("--json", action="store_true", help="as without: one JSON document")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder, open_lab():
        pairs: list[dict[str, Any]] = trio.run(_measure, Path(folder), options.tasks)
    direct = [it["median_ms"] for it in pairs if it["how"] == "direct" and it["answered"]]
    relayed = [it["median_ms"] for it in pairs if it["how"] == "kept" and it["answered"]]
    return {
        "pairs": pairs,
        "answered": sum(it["answered"] for it in pairs),
        "asked": sum(it["asked"] for it in pairs),
        "direct_pairs": len(direct),
        "kept_pairs": len(relayed),
        "direct_median_ms": round(statistics.median(direct), 2) if direct else None,
        "kept_median_ms": round(statistics.median(relayed), 2) if relayed else None,
        "held": all(it["answered"] == it["asked"] for it in pairs),
    }


async def _measure(folder: Path, tasks: int) -> list[dict[str, Any]]:
    first = PeerProcess(
        name="first",
        roles=("store",),
        state=folder / "first",
        listen=LISTEN,
        within=within("third"),
    )
    peers = [first]
    try:
        await first.start()
        found = first.address.replace("127.0.0.1", "45.3.0.10")
        askers = {
            place: PeerProcess(
                name=place,
                roles=("store",),
                state=folder / place,
                bootstraps=(found,),
                listen=LISTEN,
                within=within(place),
            )
            for place in dict.fromkeys((*PLACES, *PUBLIC[:2]))
        }
        peers += askers.values()
        await start_all([*askers.values()])
        pairs = []
        for place in PLACES:
            server = PeerProcess(
                name=f"serving {place}",
                roles=("infer",),
                state=folder / f"serving-{place}",
                bootstraps=(found,),
                listen=LISTEN,
                model="hash",
                within=within(place),
            )
            peers.append(server)
            await server.start()
            reach = await _reached(server)
            pairs += [
                await _pair(askers[asking], server, place, reach, tasks)
                for asking in PLACES
                if asking != place
            ]
            await server.kill()
            await trio.sleep(2.0)
        return pairs
    finally:
        await end_all(peers)


async def _reached(server: PeerProcess) -> str:
    """Wait until the peer has found out how others reach it; how that is."""
    with trio.move_on_after(REACHED_S):
        while True:
            how = str((await server.ask("status"))["reach"]["how"])
            if how in ("open", "mapped", "kept"):
                return how
            await trio.sleep(1.0)
    return "alone"


async def _pair(
    asker: PeerProcess, server: PeerProcess, place: str, reach: str, tasks: int
) -> dict[str, Any]:
    """So many tasks, one after the other, from one place to another."""
    took_s, problems = [], []
    for number in range(tasks):
        began_s = time.perf_counter()
        arguments = {
            "model": "hash",
            "text": f"{asker.name} asks {place} {number}",
            "needed": 0,
            "verifiers": 0,
            "fresh": True,
        }
        try:
            await call(asker.socket, "ask", arguments, unheard, deadline_s=ASK_DEADLINE_S)
            took_s.append(time.perf_counter() - began_s)
        except BatonError as error:
            problems.append(error.message)
    rows = (await asker.ask("peers"))["peers"]
    relayed = next((it["relayed"] for it in rows if it["peer"] == server.id), None)
    return {
        "asker": asker.name,
        "server": place,
        "server_reach": reach,
        "how": "kept" if relayed else "direct",
        "asked": tasks,
        "answered": len(took_s),
        "first_ms": round(took_s[0] * 1e3, 1) if took_s else None,
        "median_ms": round(statistics.median(took_s) * 1e3, 2) if took_s else None,
        "problem": problems[0] if problems else "",
    }
