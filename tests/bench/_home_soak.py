"""A peer at home for hours, under load, whose router gets another address again and again.

`python -m tests.bench soak --hours 8 [--change-minutes 10] [--json]`, as root, in the lab of `nat`:
askers of another home and of the public internet ask it all the time. What it holds (memory,
threads, descriptors, tasks of its loop) is looked at every few seconds, and must not grow; it says
one line a minute at most, and serves again soon after each change. What is resident is told too,
and may grow until the store is full: it has the pages of the database's file, which the kernel
takes back when it needs them.

Before that come thousands of tasks as fast as they go. `pressed` says how many bytes each of them
left in the home: what does not end with a task shows there within minutes, not days.
"""

import argparse
import subprocess
import sys
import tempfile
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Any

import trio

from node.local.control import call, unheard
from tests.bench._nat_lab import named, open_lab, within
from tests.bench._process_figures import held_by
from tests.bench._processes import PeerProcess, end_all, start_all
from tests.bench._trend import trend_of
from wire.errors import BatonError
from wire.proof import SMALL_MAX

LISTEN = "/ip4/0.0.0.0/tcp/0"
RELAYS = ("third", "public", "second")
ROUTER = "cone-router"
WANS = ("45.101.0.1/8", "45.109.0.1/8")
LOOK_EVERY_S = 10.0
# A peer that has just begun fills its caches: so much of a run, and no more, is not looked at.
BEGIN_SHARE, BEGIN_S_MAX = 0.25, 1800.0
# Before that it serves so many tasks, one by one, for those that come together share a signature:
# what it remembers of signatures is full. Then so many at once.
FILL_TASKS, FILL_S_MAX = SMALL_MAX + 100, 900.0
PRESS_TASKS, PRESS_AT_ONCE, PRESS_S_MAX = 4000, 8, 900.0
DEADLINE_S = 60.0
KEPT_S = 300.0
LINES_PER_MINUTE = 1.0
AGAIN_S = 30.0


def run(arguments: list[str]) -> dict[str, Any]:
    """Hours of load and new addresses; `held` says whether all was flat and answered."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench soak")
    parser.add_argument("--hours", type=float, required=True)
    parser.add_argument("--change-minutes", type=float, default=10.0, help="between two addresses")
    parser.add_argument("--rate", type=float, default=1.0, help="tasks a second, in all")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--press", type=int, default=PRESS_TASKS, help="tasks as fast as they go")
    parser.add_argument("--json", action="store_true", help="as without: one JSON document")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="baton-soak-") as folder, open_lab():
        soak: _Soak = trio.run(_soak, options, Path(folder))
    return {
        "hours": options.hours,
        "change_minutes": options.change_minutes,
        "rate": options.rate,
        **soak.document(),
    }


@dataclass(slots=True, kw_only=True)
class _Watched:
    """One peer and what was seen of it: (second, figure) pairs by the name of the figure."""

    peer: PeerProcess
    seen: dict[str, list[tuple[float, float]]] = field(default_factory=dict)

    async def look(self, at_s: float) -> None:
        process = self.peer.process
        assert process is not None
        found = {name: float(it) for name, it in held_by(process.pid).items()}
        found["log_lines"] = float(self.peer.log.read_bytes().count(b"\n"))
        try:
            status = await call(
                self.peer.socket, "status", {"ask_around": False}, unheard, deadline_s=30.0
            )
            found["loop_tasks"] = float(status["loop_tasks"])
        except BatonError:
            # It is too busy to say, or ended, which its descriptors tell.
            pass
        for name, value in found.items():
            self.seen.setdefault(name, []).append((at_s, value))

    def document(self, after_s: float) -> dict[str, Any]:
        """What each figure was in the end, and its trend since `after_s`."""
        rows: dict[str, Any] = {}
        for name, looks in self.seen.items():
            late = [it for it in looks if it[0] >= after_s]
            if name == "log_lines":
                rows[name] = {"per_minute": _rate_per_minute(late), "most": _most(looks)}
            elif len(late) >= 4:
                values = [value for _, value in late]
                rows[name] = {
                    "first": round(values[0], 1),
                    "last": round(values[-1], 1),
                    "most": round(max(values), 1),
                    **trend_of(late).as_map(),
                }
        return rows


@dataclass(slots=True)
class _Soak:
    home: _Watched
    others: list[_Watched]
    askers: list[PeerProcess]
    random: Random
    seconds: float
    counts: Counter[str] = field(default_factory=Counter)
    why: Counter[str] = field(default_factory=Counter)
    latencies_s: list[float] = field(default_factory=list)
    # Of each answer, when it was asked for and when it came; of each change, when it was made.
    answered_at_s: list[tuple[float, float]] = field(default_factory=list)
    changed_at_s: list[float] = field(default_factory=list)
    began_at_s: float = 0.0
    # How many tasks as fast as they went were done, and the bytes of the home's own memory then.
    pressed: list[tuple[float, float]] = field(default_factory=list)

    async def load(self, rate: float) -> None:
        """Ask at random moments, on average `rate` a second, until the time is over."""
        end_at_s = self.began_at_s + self.seconds
        async with trio.open_nursery() as nursery:
            while trio.current_time() < end_at_s:
                self.counts["asked"] += 1
                nursery.start_soon(self._one, self.counts["asked"], self.random.choice(self.askers))
                await trio.sleep(self.random.expovariate(rate))

    async def serve(self, tasks: int, at_once: int, seconds_max: float) -> None:
        """Have the home serve so many tasks as fast as it can; none of them is counted.

        Its own memory is looked at after each hundredth of them.
        """
        looks: list[tuple[float, float]] = []
        left = iter(range(tasks))

        async def ask() -> None:
            for number in left:
                with suppress(BatonError):
                    await self._ask(f"{tasks} {number}", self.random.choice(self.askers))
                if number % max(1, tasks // 100) == 0:
                    assert self.home.peer.process is not None
                    own_mb = held_by(self.home.peer.process.pid)["own_mb"]
                    looks.append((float(number), own_mb * (1 << 20)))

        with trio.move_on_after(seconds_max):
            async with trio.open_nursery() as nursery:
                for _ in range(at_once):
                    nursery.start_soon(ask)
        self.pressed = sorted(looks)

    async def _ask(self, name: str, asker: PeerProcess) -> None:
        arguments: dict[str, Any] = {
            "model": "hash",
            "text": f"soak {name} " + "word " * self.random.randrange(400),
            "deadline_s": int(DEADLINE_S),
            "needed": 0,
            "verifiers": 0,
            "fresh": True,
        }
        if self.random.random() < 0.5:
            tokens = self.random.randrange(4, 40)
            arguments |= {"operation": "complete", "parameters": {"tokens": tokens}}
        await call(asker.socket, "ask", arguments, unheard, deadline_s=DEADLINE_S + 10.0)

    async def _one(self, number: int, asker: PeerProcess) -> None:
        began_at_s = trio.current_time()
        try:
            await self._ask(str(number), asker)
        except BatonError as error:
            self.counts["not_answered"] += 1
            self.why[error.message[:120]] += 1
        else:
            self.counts["answered"] += 1
            self.latencies_s.append(trio.current_time() - began_at_s)
            self.answered_at_s.append((began_at_s, trio.current_time()))

    async def change(self, every_s: float) -> None:
        """Give the home's router its other address, again and again."""
        here = 0
        while True:
            await trio.sleep(every_s)
            self.counts["changes"] += 1
            _ip("addr", "del", WANS[here], "dev", "wan")
            here = 1 - here
            _ip("addr", "add", WANS[here], "dev", "wan")
            self.changed_at_s.append(trio.current_time())

    def again_s(self) -> list[float]:
        """After each change, how long until the first answer to who asked after it."""
        found = []
        for at_s in self.changed_at_s:
            after = [came for asked, came in self.answered_at_s if asked > at_s]
            if after:
                found.append(round(min(after) - at_s, 1))
        return found

    async def watch(self) -> None:
        told_at_s = trio.current_time()
        while True:
            at_s = trio.current_time()
            for it in (self.home, *self.others):
                await it.look(at_s - self.began_at_s)
            if at_s >= told_at_s + 300.0:
                # A run takes hours: what is known so far is of use.
                told_at_s = at_s
                last = {name: it[-1][1] for name, it in self.home.seen.items()}
                sys.stderr.write(f"{at_s - self.began_at_s:.0f} s: {dict(self.counts)} {last}\n")
            await trio.sleep(LOOK_EVERY_S)

    def document(self) -> dict[str, Any]:
        after_s = min(BEGIN_S_MAX, BEGIN_SHARE * self.seconds)
        home = self.home.document(after_s)
        took_s = sorted(self.latencies_s)
        grows = [name for name, it in home.items() if it.get("flat") is False]
        again_s = self.again_s()
        return {
            "held": not set(grows) - {"resident_mb"}
            and home["log_lines"]["per_minute"] <= LINES_PER_MINUTE
            and max(again_s, default=0.0) <= AGAIN_S,
            "grows": grows,
            "pressed": _left_by_each(self.pressed),
            "again_s": again_s,
            "looked_at_after_s": round(after_s),
            **dict(self.counts),
            "why": dict(self.why.most_common(10)),
            "p50_s": round(took_s[len(took_s) // 2], 3) if took_s else None,
            "p99_s": round(took_s[len(took_s) * 99 // 100], 3) if took_s else None,
            "most_s": round(took_s[-1], 3) if took_s else None,
            "home": home,
            "others": {it.peer.name: it.document(after_s) for it in self.others},
        }


def _left_by_each(looks: list[tuple[float, float]]) -> dict[str, Any] | None:
    """How many bytes each task left, from the second half, and between which limits it may be."""
    late = looks[len(looks) // 2 :]
    if len(late) < 4:
        return None
    trend = trend_of(late)
    return {
        "tasks": round(looks[-1][0]),
        "grew_mb": round((looks[-1][1] - looks[0][1]) / (1 << 20), 2),
        "bytes_a_task": round(trend.slope, 1),
        "bytes_a_task_low": round(trend.low, 1),
        "bytes_a_task_high": round(trend.high, 1),
    }


def _rate_per_minute(looks: list[tuple[float, float]]) -> float:
    if len(looks) < 2:
        return 0.0
    return round((looks[-1][1] - looks[0][1]) / (looks[-1][0] - looks[0][0]) * 60.0, 2)


def _most(looks: list[tuple[float, float]]) -> int:
    """The most lines between two looks."""
    return int(max((later[1] - it[1] for it, later in pairwise(looks)), default=0))


async def _soak(options: argparse.Namespace, folder: Path) -> _Soak:
    relays = [_peer(folder, place, place) for place in RELAYS]
    await relays[0].start()
    bootstrap = relays[0].address.replace("127.0.0.1", "45.3.0.10")
    askers = [_peer(folder, "asker at home", "refusing"), _peer(folder, "asker", "second")]
    home = _peer(folder, "home", "cone", serves=True)
    everyone = [*relays, *askers, home]
    for it in everyone[1:]:
        it.bootstraps = (bootstrap,)
    others = [_Watched(peer=it) for it in (*relays, *askers)]
    soak = _Soak(_Watched(peer=home), others, askers, Random(options.seed), options.hours * 3600)
    try:
        await start_all(everyone[1:])
        with trio.fail_after(KEPT_S):
            while (await home.ask("status"))["reach"]["how"] != "kept":
                await trio.sleep(1.0)
        await soak.serve(FILL_TASKS, 1, FILL_S_MAX)
        await soak.serve(options.press, PRESS_AT_ONCE, PRESS_S_MAX)
        soak.began_at_s = trio.current_time()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(soak.watch)
            nursery.start_soon(soak.change, options.change_minutes * 60.0)
            await soak.load(options.rate)
            nursery.cancel_scope.cancel()
    finally:
        await end_all(everyone)
    return soak


def _peer(folder: Path, name: str, place: str, *, serves: bool = False) -> PeerProcess:
    return PeerProcess(
        name=name,
        roles=("infer",) if serves else ("store",),
        state=folder / name.replace(" ", "-"),
        listen=LISTEN,
        model="hash" if serves else None,
        within=within(place),
    )


def _ip(*words: str) -> None:
    subprocess.run(["ip", "-n", named(ROUTER), *words], check=True)
