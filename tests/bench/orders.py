"""What a serving peer spends on one task of a standing order, by how many are under way at once.

The peer is `python -m node join` in a process of its own, over TCP and noise, with its store. The
asker is in this process and does nothing else: it signs tasks in batches, as a gateway's flush
does, puts them on its order and counts the outcomes. Processor time is the peer's alone.

`python -m tests.bench orders [SECONDS] [--under-way 8,40] [--old] [--profile]`; `--old` speaks as
peers before BUNDLES_VERSION do.
"""

import argparse
import json
import os
import signal
import sys
import tempfile
import time
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from random import Random
from typing import Any

import trio

from node.dispatch.handoff import Handoff
from node.dispatch.order import Heard, Order, OrderOutcome
from node.engines.hash_engine import hash_manifest
from p2p.adverts import Capacity, Environment
from p2p.over_libp2p import TcpTransport
from p2p.peers import Peers, PeersConfig, open_peers
from tests.bench._http_load import cpu_s
from tests.bench.gateway import ServerProcess, process_of
from wire import limits
from wire.content import ContentId, PeerId
from wire.errors import BatonError
from wire.generation import Generation
from wire.kinds import Level, Role
from wire.signed import Signed, sign_many
from wire.signing import SigningKey
from wire.task import CheckPolicy, Stage, Task
from wire.tree import name_of

UNDER_WAY = "8,40"
SECONDS = 10.0
WARM_UP_S = 2.0
# As many as a flush of a busy gateway signs.
SIGNED_TOGETHER = 32


def run(arguments: list[str]) -> dict[str, Any]:
    """Tasks a second, tasks in a bundle, and microseconds of the peer's processor for a task."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench orders")
    parser.add_argument("seconds", nargs="?", type=float, default=SECONDS)
    parser.add_argument("--under-way", default=UNDER_WAY, help="numbers, with commas between them")
    parser.add_argument("--old", action="store_true", help="an envelope for each record")
    parser.add_argument("--profile", action="store_true", help="shares of time by function")
    options = parser.parse_args(arguments)
    version = limits.ORDERS_VERSION if options.old else limits.SPOKEN_VERSION
    found: dict[str, Any] = {"seconds": options.seconds, "model": "hash, one token"}
    with tempfile.TemporaryDirectory(prefix="baton-bench-") as text:
        profile = Path(text, "profile.json")
        program = ["tests.bench._profiled", str(profile)] if options.profile else ["node"]
        join = ["join", "--network", "bench", "--role", "infer", "--model", "hash", "--json"]
        where = ["--listen", "/ip4/127.0.0.1/tcp/0", "--state", str(Path(text, "peer"))]
        with process_of([sys.executable, "-m", *program, *join, *where]) as peer:
            for number in map(int, options.under_way.split(",")):
                if options.profile:
                    os.kill(peer.pid, signal.SIGUSR1)
                measured = trio.run(_measured, peer, number, options.seconds, version)
                found[f"under_way_{number}"] = measured
        if options.profile:
            found["profile"] = json.loads(profile.read_text())
    return found


@dataclass(slots=True)
class _Load:
    """Tasks that are put on an order, another for each that ends."""

    order: Order
    key: SigningKey
    done: int = 0
    failed: int = 0
    # No prompt was asked before: no answer may come from an earlier one.
    _name: str = field(default_factory=lambda: os.urandom(4).hex())
    _asked: int = 0
    _ready: list[tuple[Signed[Task], bytes]] = field(default_factory=list)

    def put(self) -> None:
        if not self._ready:
            self._ready = list(islice(self._more(), SIGNED_TOGETHER))
        task, data = self._ready.pop()
        self.order.put(Handoff(task=task, input=data), trio.current_time() + 60, self.heard)

    def heard(self, heard: Heard | BatonError) -> None:
        if isinstance(heard, BatonError):
            self.failed += 1
        if isinstance(heard, OrderOutcome):
            self.failed += heard.refusal is not None
            self.done += heard.refusal is None
            self.put()

    def _more(self) -> list[tuple[Signed[Task], bytes]]:
        inputs = [self._input() for _ in range(SIGNED_TOGETHER)]
        tasks = sign_many([_task(it) for it in inputs], self.key)
        return list(zip(tasks, inputs, strict=True))

    def _input(self) -> bytes:
        self._asked += 1
        asked = Generation(
            prompt=f"turn {self._asked} of {self._name}",
            messages="",
            tools="",
            schema="",
            stop=(),
        )
        return asked.to_bytes()


def _task(data: bytes) -> Task:
    stage = Stage(
        role=Role.INFER, operation="generate", model=hash_manifest().id, parameters={"tokens": 1}
    )
    return Task(
        version=limits.TASK_VERSION,
        stages=(stage,),
        input=name_of(data),
        checking=CheckPolicy(level=Level.SIGNED, verifiers=0, needed=0, secret_hash=bytes(32)),
        issued_at_ms=int(time.time() * 1000),
        deadline_s=60,
        price_max=0,
        nonce=os.urandom(16),
    )


async def _measured(
    peer: ServerProcess, under_way: int, seconds: float, version: int
) -> dict[str, Any]:
    environment = Environment(wall_s=time.time, random=Random(1), entropy=os.urandom)
    config = PeersConfig(
        network="bench", bootstraps=(peer.told["addresses"][0],), listen=("/ip4/127.0.0.1/tcp/0",)
    )
    nothing = Capacity(roles=0, models=(), free_slots=0, queue_s=0.0)
    key = SigningKey(os.urandom(32))
    transport = TcpTransport(wall_ns=time.time_ns)
    async with (
        open_peers(transport, key, config, environment, lambda: nothing) as peers,
        trio.open_nursery() as nursery,
    ):
        await peers.join()
        serving = PeerId.parse(peer.told["peer"])
        with trio.fail_after(60):
            await _offered(peers, serving, hash_manifest().id)
        order = Order(peers, serving, version=version)
        nursery.start_soon(order.run)
        with trio.fail_after(10):
            await order.settled.wait()
        load = _Load(order, key)
        for _ in range(under_way):
            load.put()
        await trio.sleep(WARM_UP_S)
        done, sent, bundles = load.done, order.sent, order.bundles
        spent_s, began_at_s = cpu_s(peer.pid), trio.current_time()
        await trio.sleep(seconds)
        done, spent_s = load.done - done, cpu_s(peer.pid) - spent_s
        found = {
            "per_s": round(done / (trio.current_time() - began_at_s), 1),
            "cpu_us_per_task": round(spent_s * 1e6 / max(1, done)),
            "tasks_per_bundle": round((order.sent - sent) / max(1, order.bundles - bundles), 1),
            "failed": load.failed,
        }
        nursery.cancel_scope.cancel()
    return found


async def _offered(peers: Peers, peer: PeerId, model: ContentId) -> None:
    while True:
        advert = peers.view.advert_of(peer)
        if advert is not None and any(it.model == model for it in advert.record.models):
            return
        await trio.sleep(0.1)
