"""The whole path with a model that does nothing, beside the same bytes echoed over bare libp2p.

Three legs (data, infer, verify) over TCP and noise, each peer with its own LMDB store: what is left
is the cost of the path itself: journal, signatures, receipts, lottery, verdicts, keeping. The echo
sends as many bytes three times, there and back, over an open stream of an unwrapped py-libp2p host.
Both run in one process, in turn, so that other load on the machine affects both; processor time is
affected least. Garbage is collected as seldom as in a peer that `join` started.
"""

import gc
import statistics
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import trio
from libp2p import create_new_ed25519_key_pair, new_host
from libp2p.custom_types import TProtocol
from libp2p.peer.peerinfo import PeerInfo
from multiaddr import Multiaddr

from node.asking.run import TaskRequest
from node.commands.running import collect_seldom
from node.engines.hash_engine import hash_manifest
from node.peer import Node
from node.task.events import ignore_event
from tests.bench._tcp_network import first_of
from tests.node.network import D, I, S, V
from wire.kinds import Role
from wire.task import Stage

TASKS = 300
WARM_UP = 30
ECHO = TProtocol("/bench/echo/1")
# The bytes that the legs of one task send, in both directions, with all receipts: measured below.
ECHO_BYTES = 2048

ROLES = ((S,), (D, S), (I, S), (V, S), (V, S), (V, S))


def run(arguments: list[str]) -> dict[str, Any]:
    """Seconds per task and per three echoes; `tasks` may be given as the first argument."""
    tasks = int(arguments[0]) if arguments else TASKS
    with tempfile.TemporaryDirectory(prefix="baton-bench-") as folder:
        return trio.run(_compare, Path(folder), tasks)


async def _compare(folder: Path, tasks: int) -> dict[str, Any]:
    ours: list[float] = []
    bare: list[float] = []
    ours_cpu: list[float] = []
    bare_cpu: list[float] = []
    async with AsyncExitStack() as stack:
        asker = await first_of(folder, stack, ROLES)
        echo = await stack.enter_async_context(_bare_echo())
        gc.collect()
        collect_seldom()
        for number in range(WARM_UP + tasks):
            began_at_s, began_cpu_s = trio.current_time(), time.process_time()
            await _one_task(asker, number)
            between_s, between_cpu_s = trio.current_time(), time.process_time()
            for _ in range(3):
                await echo()
            if number >= WARM_UP:
                ours.append(between_s - began_at_s)
                bare.append(trio.current_time() - between_s)
                ours_cpu.append(between_cpu_s - began_cpu_s)
                bare_cpu.append(time.process_time() - between_cpu_s)
    path, echoes = _milliseconds(ours), _milliseconds(bare)
    path_cpu, echoes_cpu = _milliseconds(ours_cpu), _milliseconds(bare_cpu)
    return {
        "tasks": tasks,
        "path_ms": path,
        "three_echoes_ms": echoes,
        "echo_bytes": ECHO_BYTES,
        "ratio_p50": round(path["p50"] / echoes["p50"], 2),
        "path_cpu_ms": path_cpu,
        "three_echoes_cpu_ms": echoes_cpu,
        "cpu_ratio_p10": round(path_cpu["p10"] / echoes_cpu["p10"], 2),
        "cpu_ratio_mean": round(sum(ours_cpu) / sum(bare_cpu), 2),
        "aim": "p50 <= 2.5 x the echoes",
    }


async def _one_task(asker: Node, number: int) -> None:
    model = hash_manifest().id
    window = {"source": "pydoc:try", "first": number % 14, "count": 1}
    fetch = Stage(role=Role.DATA, operation="fetch", model=None, parameters=window)
    # The number makes each a job of its own, so that nothing is served from an earlier one.
    complete = Stage(
        role=Role.INFER, operation="complete", model=model, parameters={"tokens": 1, "n": number}
    )
    task = await asker.tasks.submit(TaskRequest(stages=(fetch, complete), input=None))
    await asker.tasks.watch(task, ignore_event)


@asynccontextmanager
async def _bare_echo() -> AsyncIterator[Any]:
    listen = [Multiaddr("/ip4/127.0.0.1/tcp/0")]
    server, client = (
        new_host(key_pair=create_new_ed25519_key_pair()),
        new_host(key_pair=create_new_ed25519_key_pair()),
    )

    async def answer(stream: Any) -> None:
        while data := await stream.read(ECHO_BYTES):
            await stream.write(data)

    server.set_stream_handler(ECHO, answer)
    async with server.run(listen), client.run(listen):
        await client.connect(PeerInfo(server.get_id(), server.get_addrs()))
        stream = await client.new_stream(server.get_id(), [ECHO])
        payload = b"x" * ECHO_BYTES

        async def echo() -> None:
            await stream.write(payload)
            got = 0
            while got < ECHO_BYTES:
                got += len(await stream.read(ECHO_BYTES - got))

        yield echo
        await stream.reset()
        await client.close()
        await server.close()


def _milliseconds(seconds: list[float]) -> dict[str, float]:
    cuts = statistics.quantiles(seconds, n=100)
    return {f"p{it}": round(cuts[it - 1] * 1000, 2) for it in (10, 50, 99)}
