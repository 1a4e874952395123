"""Real peers over TCP, struck at random for minutes while they work: nothing accepted is lost.

Twelve processes run: two ask, the others infer or verify. Tasks are sent at a fixed rate (open
loop). Peers that do not ask get SIGKILL (and start again with their state folder) or SIGSTOP (and
later SIGCONT). Each asker is killed once too, so that it must finish its tasks from its journal.
The output of hash models is easy to compute, so every answer, and every token at its place, is
compared.

`--hours H` is another soak: of one peer at home under load, whose address changes again and again.
See `_home_soak.py`.
"""

import argparse
import os
import signal
import socket
import tempfile
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import trio

from node.devnet.open_loop import Latencies, moments
from node.devnet.tasks import Stream
from node.engines.hash_engine import hash_manifest, hash_piece
from node.engines.hash_vector import hash_vector
from node.local.control import call
from node.task.events import Restarted, Streamed
from tests.bench import _home_soak
from tests.bench._processes import PeerProcess, end_all, start_all
from wire.errors import BatonError
from wire.payload import Vectors
from wire.tree import name_of

ASKERS = 2
# At any moment so many workers of each kind are not struck, so that the network can do its work.
LEFT_OF_A_KIND = 2
DEADLINE_S = 60
GRACE_S = 30.0
# A stream takes a second or two, long enough for a fault in its middle. Checking a stream is faster
# than making it, as with real models.
UNIT_S = {"infer": 0.02, "verify": 0.004}
TOKENS_MIN, TOKENS_MAX = 30, 100
DIMENSIONS = 64
TOKEN_BYTES = 64
STRIKE_EVERY_S = 6.0
DOWN_S = (2.0, 10.0)
FROZEN_S = (5.0, 40.0)
SETTLE_DEADLINE_S = 60.0
JOURNAL_EVERY_S = 2.0
WHY_KEPT = 30


@dataclass(slots=True, kw_only=True)
class Asked:
    """One task, and when it was due."""

    number: int
    asker: PeerProcess
    due_wall_s: float
    arguments: dict[str, Any]
    output: str
    stream: Stream
    task: str = ""


@dataclass(slots=True)
class Soak:
    """A run: the peers, and how the tasks ended so far."""

    askers: list[PeerProcess]
    workers: list[PeerProcess]
    random: Random
    seconds: float
    counts: Counter[str] = field(default_factory=Counter)
    latencies: Latencies = field(default_factory=Latencies)
    why: list[str] = field(default_factory=list)
    # Failures that tasks met and got around.
    on_the_way: Counter[str] = field(default_factory=Counter)
    cut: list[Asked] = field(default_factory=list)
    loads: list[float] = field(default_factory=list)
    started_at_s: float = 0.0

    def note(self, count: str, line: str) -> None:
        self.counts[count] += 1
        if len(self.why) < WHY_KEPT:
            at_s = trio.current_time() - self.started_at_s
            self.why.append(f"{at_s:.0f} s, {count}: {line}")

    # Load

    async def drive(self, rate: float) -> None:
        """Hand every task over when it is due, and wait for the end of each."""
        random = Random(self.random.random())
        async with trio.open_nursery() as nursery:
            for number, at_s in enumerate(moments(rate, self.seconds, random)):
                await trio.sleep_until(self.started_at_s + at_s)
                asked = drawn(number, random, random.choice(self.askers))
                nursery.start_soon(self._one, asked, self.started_at_s + at_s)

    async def _one(self, asked: Asked, due_at_s: float) -> None:
        self.counts["due"] += 1
        starts = asked.asker.starts
        if not asked.asker.up:
            self.counts["not_accepted_asker_down"] += 1
            return

        def tell(event: Mapping[str, Any]) -> None:
            self._hear(asked, event)

        patience_s = DEADLINE_S + GRACE_S
        try:
            done = await call(
                asked.asker.socket, "ask", asked.arguments, tell, deadline_s=patience_s
            )
        except BatonError as error:
            struck = not asked.asker.up or asked.asker.starts != starts
            if not asked.task:
                self.note("not_accepted", str(error))
            elif struck:
                self.counts["cut_by_asker_kill"] += 1
                self.cut.append(asked)
            else:
                self.note("lost", f"task {asked.number} {asked.task}: {error}")
            return
        self._answered(asked, done, trio.current_time() - due_at_s)
        self.counts["tokens"] += len(asked.stream.expected)
        self.counts["tokens_lost"] += asked.stream.lost
        self.counts["tokens_doubled"] += asked.stream.doubled

    def _hear(self, asked: Asked, event: Mapping[str, Any]) -> None:
        match event["event"]:
            case "accepted":
                asked.task = event["task"]
                self.counts["accepted"] += 1
            case "piece":
                data = event["data"]
                units = len(data) // TOKEN_BYTES
                asked.stream.see(Streamed(event["position"], units, data))
            case "restarted":
                self.counts["streams_taken_back"] += 1
                asked.stream.see(Restarted(event["position"]))
            case "failed":
                self.on_the_way[f"{event['what']}: {event['why']}"[:80]] += 1

    def _answered(self, asked: Asked, row: Mapping[str, Any], latency_s: float) -> None:
        self.counts["answered"] += 1
        self.latencies.note(latency_s)
        if latency_s > DEADLINE_S:
            self.note("late", f"task {asked.number} took {latency_s:.1f} s")
        if row["output"] != asked.output:
            self.note("wrong", f"task {asked.number} {asked.task}")
        if not row["verified"]:
            self.note("unverified", f"task {asked.number} {asked.task}")

    async def read_journals(self) -> None:
        """Wait for the answers of tasks whose asker was killed, until their deadlines."""
        while True:
            for asker in self.askers:
                if asker.up and any(it.asker is asker for it in self.cut):
                    await self._read_journal(asker)
            self._give_up()
            await trio.sleep(JOURNAL_EVERY_S)

    async def _read_journal(self, asker: PeerProcess) -> None:
        try:
            rows = (await asker.ask("receipts"))["receipts"]
        except BatonError as error:
            # The asker is busy, or was just killed; the next round looks again.
            self.note("journals_unread", str(error))
            return
        found = {row["task"]: row for row in rows}
        for asked in [it for it in self.cut if it.task in found]:
            self.cut.remove(asked)
            row = found[asked.task]
            self.counts["answered_from_journal"] += 1
            self._answered(asked, row, row["answered_at_ms"] / 1000 - asked.due_wall_s)

    def _give_up(self) -> None:
        for asked in [it for it in self.cut if time.time() > it.due_wall_s + DEADLINE_S + GRACE_S]:
            self.cut.remove(asked)
            self.note("lost", f"task {asked.number} {asked.task}: not in its journal's answers")

    # Strikes

    async def strike(self) -> None:
        """Kill or freeze some worker every few seconds."""
        async with trio.open_nursery() as struck:
            while trio.current_time() < self.started_at_s + self.seconds:
                able = [it for it in self.workers if it.up and self._may_strike(it)]
                if able:
                    peer = self.random.choice(able)
                    peer.up = False
                    how = self._kill if self.random.random() < 0.5 else self._freeze
                    struck.start_soon(how, peer)
                await trio.sleep(self.random.expovariate(1 / STRIKE_EVERY_S))

    def _may_strike(self, peer: PeerProcess) -> bool:
        return sum(it.up and it.roles == peer.roles for it in self.workers) > LEFT_OF_A_KIND

    async def _kill(self, peer: PeerProcess) -> None:
        down_s = self.random.uniform(*DOWN_S)
        self.counts["kills"] += 1
        await peer.kill()
        await trio.sleep(down_s)
        while not peer.up:
            try:
                await peer.start()
            except BatonError as error:
                # Do what a person would do: read the error, and try again.
                self.note("failed_starts", str(error))
        self.counts["restarts"] += 1

    async def _freeze(self, peer: PeerProcess) -> None:
        frozen_s = self.random.uniform(*FROZEN_S)
        self.counts["freezes"] += 1
        peer.signal(signal.SIGSTOP)
        await trio.sleep(frozen_s)
        peer.signal(signal.SIGCONT)
        peer.up = True

    async def strike_askers(self) -> None:
        """Kill each asker once: the first after a third of the run, the second after two thirds."""
        for place, asker in enumerate(self.askers, 1):
            await trio.sleep_until(
                self.started_at_s + self.seconds * place / (len(self.askers) + 1)
            )
            self.counts["asker_kills"] += 1
            await self._kill(asker)

    async def look(self) -> None:
        """Sample the machine's load, and note peers that ended by themselves."""
        told: set[int] = set()
        while True:
            self.loads.append(os.getloadavg()[0])
            for peer in (*self.askers, *self.workers):
                process = peer.process
                if peer.up and peer.ended and process is not None and process.pid not in told:
                    told.add(process.pid)
                    self.note("crashes", f"{peer.name}: {peer.last_words()}")
            await trio.sleep(5.0)

    def document(self) -> dict[str, Any]:
        zero = ("lost", "late", "wrong", "unverified", "tokens_lost", "tokens_doubled", "crashes")
        counts = dict.fromkeys(("due", "accepted", "answered", *zero), 0) | dict(self.counts)
        return {
            "held": not any(counts[it] for it in zero) and counts["accepted"] == counts["answered"],
            **counts,
            "p50_s": self.latencies.percentile_s(50),
            "p99_s": self.latencies.percentile_s(99),
            "most_s": self.latencies.percentile_s(100),
            "load_average": {
                "mean": round(sum(self.loads) / len(self.loads), 1),
                "most": round(max(self.loads), 1),
            },
            "why": self.why,
            "on_the_way": dict(self.on_the_way.most_common(20)),
        }


def drawn(number: int, random: Random, asker: PeerProcess) -> Asked:
    """A text to embed, or a stream of tokens, with the right output."""
    text, model = f"soak {random.random()} {number}", hash_manifest().id
    arguments: dict[str, Any] = {
        "model": "hash",
        "text": text,
        "deadline_s": DEADLINE_S,
        "needed": 2,
        "verifiers": 3,
        "fresh": True,
    }
    tokens: tuple[bytes, ...] = ()
    if random.random() < 0.5:
        count = random.randint(TOKENS_MIN, TOKENS_MAX)
        arguments |= {"operation": "complete", "parameters": {"tokens": count}}
        tokens = tuple(hash_piece(model, text.encode(), place) for place in range(count))
        output = b"".join(tokens)
    else:
        row = hash_vector(model, text, DIMENSIONS)
        output = Vectors(dimensions=DIMENSIONS, rows=1, data=row).to_bytes()
    return Asked(
        number=number,
        asker=asker,
        due_wall_s=time.time(),
        arguments=arguments,
        output=str(name_of(output)),
        stream=Stream(tokens),
    )


def run(arguments: list[str]) -> dict[str, Any]:
    """Minutes of load and strikes; `held` says whether nothing was lost."""
    if "--hours" in arguments:
        return _home_soak.run(arguments)
    parser = argparse.ArgumentParser(prog="python -m tests.bench soak")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--peers", type=int, default=12)
    parser.add_argument("--rate", type=float, default=1.5, help="tasks a second, in all")
    parser.add_argument("--seed", type=int, default=7)
    options = parser.parse_args(arguments)
    if options.peers < ASKERS + 2 * (LEFT_OF_A_KIND + 1):
        parser.error("there would be no peer to strike: give at least 8 peers")
    with tempfile.TemporaryDirectory(prefix="baton-soak-") as folder:
        return trio.run(_soak, options, Path(folder))


async def _soak(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    askers, workers = planned(folder, options.peers)
    soak = Soak(askers, workers, Random(options.seed), options.minutes * 60)
    try:
        await start_network(askers, workers)
        soak.started_at_s = trio.current_time()
        async with trio.open_nursery() as looking:
            looking.start_soon(soak.look)
            looking.start_soon(soak.read_journals)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(soak.strike)
                nursery.start_soon(soak.strike_askers)
                nursery.start_soon(soak.drive, options.rate)
            while soak.cut:
                await trio.sleep(1.0)
            looking.cancel_scope.cancel()
        left = [(await it.ask("status"))["tasks"]["under_way"] for it in askers]
    finally:
        await end_all([*askers, *workers])
    settings = {name: getattr(options, name) for name in ("minutes", "peers", "rate", "seed")}
    return {**settings, **soak.document(), "under_way_at_the_end": sum(left)}


def planned(folder: Path, count: int) -> tuple[list[PeerProcess], list[PeerProcess]]:
    """The askers and the workers. The askers are also the bootstraps: they keep their ports."""
    askers = [
        PeerProcess(
            name=f"ask-{place}",
            roles=("store",),
            state=folder / f"ask-{place}",
            listen=f"/ip4/127.0.0.1/tcp/{free_port()}",
        )
        for place in range(ASKERS)
    ]
    workers = [
        PeerProcess(
            name=f"{role}-{place}",
            roles=(role, "store"),
            state=folder / f"{role}-{place}",
            model="hash",
            unit_s=UNIT_S[role],
        )
        for place in range(count - ASKERS)
        for role in (("infer", "verify")[place % 2],)
    ]
    return askers, workers


async def start_network(askers: list[PeerProcess], workers: list[PeerProcess]) -> None:
    """Start all peers, and wait until every asker knows all of them."""
    first, *others = askers
    await first.start()
    for other in others:
        other.bootstraps = (first.address,)
    await start_all(others)
    first.bootstraps = tuple(it.address for it in others)
    for worker in workers:
        worker.bootstraps = tuple(it.address for it in askers)
    await start_all(workers)
    with trio.fail_after(SETTLE_DEADLINE_S):
        for asker in askers:
            while (await asker.ask("status"))["known"] < len(workers) + len(others):
                await trio.sleep(0.5)


def free_port() -> int:
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
