"""Sentences a second through the network, with 32 clients, beside plain tinygrad called one by one.

There are an asking peer and an inference peer over TCP and noise, each with its LMDB store, and
three verifiers where answers are checked. Every peer has a worker process of its own for MiniLM.
All sentences differ, so that no answer comes from an earlier one. The plain program is
`embed_engine`'s.
"""

import sys
import tempfile
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import trio

from node.asking.run import TaskRequest
from node.engines.formats.minilm import MINILM_ID
from node.engines.host.engine import open_tinygrad_engine
from node.engines.host.launch import EngineConfig, prepare
from node.peer import Node
from node.task.events import ignore_event
from p2p.over_libp2p import TcpTransport
from store import open_store
from tests.bench.embed_engine import CLIENTS, SENTENCES
from tests.node.network import I, Network, S, V, replace
from wire.kinds import Level, Role
from wire.payload import Texts
from wire.task import Stage

ROUNDS = 16
STAGE = Stage(role=Role.INFER, operation="embed", model=MINILM_ID, parameters={})


def run() -> dict[str, Any]:
    """Sentences per second: unchecked, checked by 2 of 3, and plain; the ratios to plain."""
    with tempfile.TemporaryDirectory(prefix="baton-bench-") as folder:
        return trio.run(_compare, Path(folder))


async def _compare(folder: Path) -> dict[str, Any]:
    config = EngineConfig()
    found: dict[str, Any] = {}
    for name, level, verifiers in (
        ("unchecked", Level.SIGNED, 0),
        ("checked", Level.REPLAYED, 3),
    ):
        async with AsyncExitStack() as stack:
            place = folder / name
            asker = await _network(place, folder / "cache", config, verifiers, stack)
            # A warm-up run, so that every stream is open and every graph captured.
            await _clients(asker, level, 1, "warm")
            found[f"{name}_per_s"] = round(await _clients(asker, level, ROUNDS, name), 1)
    launch = await prepare(folder / "cache", config)
    done = await trio.run_process(
        [sys.executable, "-m", "tests.bench.embed_engine", "--plain"],
        env=dict(launch.environment),
        capture_stdout=True,
    )
    plain = found["plain_per_s"] = round(float(done.stdout), 1)
    for name in ("unchecked", "checked"):
        found[f"{name}_to_plain"] = round(found[f"{name}_per_s"] / plain, 2)
    return found | {"clients": CLIENTS, "aim": ">= 1 x plain; >= 3 x with micro-batching"}


async def _network(
    folder: Path, cache: Path, config: EngineConfig, verifiers: int, stack: AsyncExitStack
) -> Node:
    network = Network(stack, folder)
    tcp = TcpTransport(wall_ns=lambda: 1)
    for roles in ((S,), (I, S), *([(V, S)] * verifiers)):
        place = folder / f"store-{len(network.nodes)}"
        place.parent.mkdir(parents=True, exist_ok=True)
        engine = await stack.enter_async_context(open_tinygrad_engine(cache, config=config))
        await network.add(
            *roles,
            models=("minilm",),
            engine=engine,
            store=await stack.enter_async_context(open_store(place, quota_bytes=1 << 30)),
            listen=("/ip4/127.0.0.1/tcp/0",),
            alter=lambda parts: replace(parts, transport=tcp),
        )
    with trio.fail_after(120):
        await network.settled(within_s=120)
    return network.nodes[0]


async def _clients(asker: Node, level: Level, rounds: int, name: str) -> float:
    async def client(number: int) -> None:
        for step in range(rounds):
            sentence = SENTENCES[(number + step * CLIENTS) % len(SENTENCES)]
            data = Texts(texts=(f"{sentence} {name} {number} {step}",)).to_bytes()
            needed = 0 if level is Level.SIGNED else 2
            request = TaskRequest(
                stages=(STAGE,),
                input=data,
                level=level,
                verifiers=3 if needed else 0,
                needed=needed,
            )
            task = await asker.tasks.submit(request)
            await asker.tasks.watch(task, ignore_event)

    began_at_s = trio.current_time()
    async with trio.open_nursery() as nursery:
        for number in range(CLIENTS):
            nursery.start_soon(client, number)
    return CLIENTS * rounds / (trio.current_time() - began_at_s)
