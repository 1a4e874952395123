"""How soon a peer at home serves again after its network changed, in homes of real routers.

`python -m tests.bench changes [--dead-s 300] [--asleep-s 60] [--json]`, as root, in the lab of
`nat`: its provider gives the router another address, the line is dead for minutes, the machine
sleeps and its clock jumps, the name server is dead while the peer starts. An asker of another home
asks it once a second; each time is from the end of what happened to the first answer.
"""

import argparse
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import trio

from node.local.control import call, unheard
from tests.bench._nat_lab import named, open_lab, within
from tests.bench._processes import PeerProcess, end_all, start_all
from wire.errors import BatonError

LISTEN = "/ip4/0.0.0.0/tcp/0"
KEPT_S = 300.0
ASK_DEADLINE_S = 8.0
# How soon a peer has to serve again, unaided.
AGAIN_S = 30.0
GIVEN_UP_S = 180.0
# Clocks of peers may differ by less; the one of a machine that slept jumps by so much.
LATE_S = 20.0
ROUTER, OLD_WAN, NEW_WAN = "cone-router", "45.101.0.1/8", "45.109.0.1/8"
NAME = "seed.baton.test"


def run(arguments: list[str]) -> dict[str, Any]:
    parser = argparse.ArgumentParser(prog="python -m tests.bench changes")
    parser.add_argument("--dead-s", type=float, default=300.0, help="how long the line is dead")
    parser.add_argument("--asleep-s", type=float, default=60.0, help="how long the machine sleeps")
    parser.add_argument("--json", action="store_true", help="as without: one JSON document")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder, open_lab():
        rows: list[dict[str, Any]] = trio.run(
            _measure, Path(folder), options.dead_s, options.asleep_s
        )
    return {"changes": rows, "held": all(it["again_s"] <= AGAIN_S for it in rows)}


@dataclass(slots=True)
class _Homes:
    """A peer that serves at home, and one that asks it from another."""

    folder: Path
    bootstrap: str
    asker: PeerProcess
    server: PeerProcess
    asked: int = 0

    async def served_s(self) -> float:
        """Seconds until the server answers; GIVEN_UP_S if it does not in that time."""
        began_at_s = trio.current_time()
        with trio.move_on_after(GIVEN_UP_S):
            while True:
                self.asked += 1
                arguments = {
                    "model": "hash",
                    "text": f"after a change {self.asked}",
                    "needed": 0,
                    "verifiers": 0,
                    "fresh": True,
                }
                with trio.move_on_after(ASK_DEADLINE_S):
                    try:
                        await call(
                            self.asker.socket,
                            "ask",
                            arguments,
                            unheard,
                            deadline_s=ASK_DEADLINE_S,
                        )
                    except BatonError:
                        await trio.sleep(1.0)
                    else:
                        return trio.current_time() - began_at_s
        return GIVEN_UP_S

    async def ready(self) -> None:
        """Wait until the server has found out how it is reached, and has answered."""
        with trio.fail_after(KEPT_S):
            while (await self.server.ask("status"))["reach"]["how"] != "kept":
                await trio.sleep(1.0)
        await self.served_s()


async def _measure(folder: Path, dead_s: float, asleep_s: float) -> list[dict[str, Any]]:
    first, *others = [
        PeerProcess(
            name=place,
            roles=("store",),
            state=folder / place,
            listen=LISTEN,
            within=within(place),
        )
        for place in ("third", "public", "second")
    ]
    await first.start()
    bootstrap = first.address.replace("127.0.0.1", "45.3.0.10")
    asker = PeerProcess(
        name="asker",
        roles=("store",),
        state=folder / "asker",
        bootstraps=(bootstrap,),
        listen=LISTEN,
        within=within("refusing"),
    )
    server = _server(folder / "server", bootstrap)
    homes = _Homes(folder, bootstrap, asker, server)
    for other in others:
        other.bootstraps = (bootstrap,)
    try:
        await start_all([*others, asker, server])
        changes: dict[str, Callable[[], Awaitable[None]]] = {
            "another WAN address": _other_address,
            f"no line for {dead_s:g} s": partial(_no_line, dead_s),
            f"asleep for {asleep_s:g} s, clock {LATE_S:g} s on": partial(_asleep, homes, asleep_s),
            "no name server at the start": partial(_no_names, homes),
        }
        rows = []
        for what, change in changes.items():
            await homes.ready()
            await change()
            again_s = await homes.served_s()
            found = (await homes.server.ask("status"))["reach"]
            rows.append(
                {
                    "change": what,
                    "again_s": round(again_s, 1),
                    "told": found["last_change"],
                    "how": found["how"],
                }
            )
            # A run takes many minutes: what is known so far is of use.
            sys.stderr.write(f"{rows[-1]}\n")
        return rows
    finally:
        await end_all([first, *others, asker, homes.server])
        shutil.rmtree(_etc(), ignore_errors=True)


def _server(state: Path, bootstrap: str) -> PeerProcess:
    clock = state.with_suffix(".clock")
    clock.write_text(str(-LATE_S))
    return PeerProcess(
        name=state.name,
        roles=("infer",),
        state=state,
        bootstraps=(bootstrap,),
        listen=LISTEN,
        model="hash",
        within=within("cone"),
        clock_file=clock,
    )


async def _other_address() -> None:
    # Of two addresses of one network the second one goes with the first.
    for words in (("addr", "del", OLD_WAN), ("addr", "add", NEW_WAN)):
        _ip(*words, "dev", "wan")


async def _no_line(dead_s: float) -> None:
    _ip("link", "set", "wan", "down")
    await trio.sleep(dead_s)
    _ip("link", "set", "wan", "up")


async def _asleep(homes: _Homes, asleep_s: float) -> None:
    homes.server.signal(signal.SIGSTOP)
    await trio.sleep(asleep_s)
    assert homes.server.clock_file is not None
    homes.server.clock_file.write_text("0")
    homes.server.signal(signal.SIGCONT)


async def _no_names(homes: _Homes) -> None:
    """The server's state is lost, and it is started before its name server."""
    await homes.server.kill()
    # Whoever runs in the place sees these files in place of the machine's own.
    _etc().mkdir(parents=True, exist_ok=True)
    (_etc() / "resolv.conf").write_text("nameserver 192.0.2.1\noptions timeout:2 attempts:2\n")
    hosts = _etc() / "hosts"
    hosts.write_text("127.0.0.1 localhost\n")
    named_bootstrap = homes.bootstrap.replace("/ip4/45.3.0.10/", f"/dns4/{NAME}/")
    homes.server = _server(homes.folder / "renewed", named_bootstrap)
    await homes.server.start()
    await trio.sleep(AGAIN_S)
    hosts.write_text(f"127.0.0.1 localhost\n45.3.0.10 {NAME}\n")


def _etc() -> Path:
    return Path("/etc/netns") / named("cone")


def _ip(*words: str) -> None:
    subprocess.run(["ip", "-n", named(ROUTER), *words], check=True)
