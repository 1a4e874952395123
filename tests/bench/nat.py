"""Whether peers behind every kind of router serve askers behind every other, and how fast.

`python -m tests.bench nat [--tasks 30] [--json]`, as root: a lab of network namespaces with real
routers of the kernel. Each place in turn runs a model, and peers of all other places ask it.
Before, it is measured what a relay's carrying costs, and one is killed in the middle of a stream.
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import trio

from node.local.control import call, unheard
from tests.bench._nat_lab import PLACES, PUBLIC, open_lab, within
from tests.bench._processes import PeerProcess, end_all, start_all
from tests.bench._relay_cost import relay_cost
from tests.bench._relay_killed import relay_killed
from wire.errors import BatonError

LISTEN = "/ip4/0.0.0.0/tcp/0"
REACHED_S = 90.0
ASK_DEADLINE_S = 30.0
# More than what has a line tried to be replaced, and how long that takes at most.
MUCH_BYTES, MUCH_TASKS, PUNCHED_S = 30_000, 4, 20.0
AFTER_TASKS = 5


def run(arguments: list[str]) -> dict[str, Any]:
    parser = argparse.ArgumentParser(prog="python -m tests.bench nat")
    parser.add_argument("--tasks", type=int, default=30, help="tasks of each pair")
    parser.add_argument("--places", nargs="+", choices=PLACES, default=[*PLACES])
    parser.add_argument("--json", action="store_true", help="as without: one JSON document")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder, open_lab():
        relay = {"cost": relay_cost(), "killed": trio.run(relay_killed, Path(folder))}
        # A run takes many minutes: what is known so far is of use.
        sys.stderr.write(f"{relay}\n")
        pairs: list[dict[str, Any]] = trio.run(_measure, Path(folder), options)
    return {
        "relay": relay,
        "pairs": pairs,
        "answered": sum(it["answered"] for it in pairs),
        "asked": sum(it["asked"] for it in pairs),
        "ways": Counter(it["how"] for it in pairs),
        "ways_after_much": Counter(it["after_much"] for it in pairs),
        "median_ms": {
            way: round(statistics.median(took), 2)
            for way in ("direct", "mapped", "kept")
            if (took := [it["median_ms"] for it in pairs if it["how"] == way and it["answered"]])
        },
        "punched_median_ms": [it["after_much_ms"] for it in pairs if it["after_much"] == "punched"],
        # Of the costs only the document tells: they are the machine's, and of what else it does.
        "held": all(it["answered"] == it["asked"] for it in pairs) and relay["killed"]["held"],
    }


async def _measure(folder: Path, options: argparse.Namespace) -> list[dict[str, Any]]:
    places: list[str] = options.places
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
            for place in dict.fromkeys((*places, *PUBLIC[:2]))
        }
        peers += askers.values()
        await start_all([*askers.values()])
        pairs = []
        for place in places:
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
            for asking in places:
                if asking != place:
                    pair = await _pair(askers[asking], server, place, reach, options.tasks)
                    pairs.append(pair)
                    # A run takes many minutes: what is known so far is of use.
                    sys.stderr.write(f"{pair}\n")
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
    """So many tasks, one after the other, from one place to another; then much at once.

    Where a relay carried it all, much is what has both ends try to do without it.
    """
    took_s, problems = await _asked(asker, place, tasks)
    how = await _how(asker, server, reach)
    after, after_s = how, took_s
    if how == "kept":
        _, more = await _asked(asker, place, MUCH_TASKS, "much " * (MUCH_BYTES // 5))
        problems += more
        with trio.move_on_after(PUNCHED_S):
            while (after := await _how(asker, server, reach)) == "kept":
                await trio.sleep(0.5)
        if after != "kept":
            after_s, more = await _asked(asker, place, AFTER_TASKS, "after ")
            problems += more
    return {
        "asker": asker.name,
        "server": place,
        "server_reach": reach,
        "how": how,
        "after_much": after,
        "asked": tasks,
        "answered": len(took_s),
        "first_ms": round(took_s[0] * 1e3, 1) if took_s else None,
        "median_ms": _median_ms(took_s),
        "after_much_ms": _median_ms(after_s),
        "problem": problems[0] if problems else "",
    }


async def _asked(
    asker: PeerProcess, place: str, tasks: int, text: str = ""
) -> tuple[list[float], list[str]]:
    """How long each took that was answered, in seconds, and why others were not."""
    took_s, problems = [], []
    for number in range(tasks):
        began_s = time.perf_counter()
        arguments = {
            "model": "hash",
            "text": f"{text}{asker.name} asks {place} {number}",
            "needed": 0,
            "verifiers": 0,
            "fresh": True,
        }
        try:
            await call(asker.socket, "ask", arguments, unheard, deadline_s=ASK_DEADLINE_S)
            took_s.append(time.perf_counter() - began_s)
        except BatonError as error:
            problems.append(error.message)
    return took_s, problems


async def _how(asker: PeerProcess, server: PeerProcess, reach: str) -> str:
    """By which way the two are connected."""
    rows = (await asker.ask("peers"))["peers"]
    if next((it["relayed"] for it in rows if it["peer"] == server.id), False):
        return "kept"
    punched = (await asker.ask("status"))["reach"]["punched"]
    if server.id in punched:
        return "punched"
    return "mapped" if reach == "mapped" else "direct"


def _median_ms(took_s: list[float]) -> float | None:
    return round(statistics.median(took_s) * 1e3, 2) if took_s else None
