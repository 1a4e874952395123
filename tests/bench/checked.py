"""Tasks that 2 of 3 verifiers check, beside tasks that nobody checks, from 64 clients each.

An asker, an inference peer and three verifiers in this process, over TCP and noise, each with its
own LMDB store. Both kinds of tasks come in turn, so that other load on the machine affects both.
What counts is processor time for one task, of all peers together: the rates are those of one core.

`python -m tests.bench checked [SECONDS]`
"""

import statistics
import tempfile
import time
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import trio

from node.asking.run import TaskRequest
from node.engines.hash_engine import hash_manifest
from node.peer import Node
from node.task.events import ignore_event
from tests.bench._tcp_network import first_of
from tests.node.network import I, S, V
from wire.kinds import Level, Role
from wire.task import Stage

CLIENTS = 64
SECONDS = 6.0
WARM_UP_S = 2.0
ROUNDS = 2

ROLES = ((S,), (I, S), (V,), (V,), (V,))


def run(arguments: list[str]) -> dict[str, Any]:
    """Tasks a second, latencies, processor time for one task; their ratio by processor time."""
    seconds = float(arguments[0]) if arguments else SECONDS
    with tempfile.TemporaryDirectory(prefix="baton-bench-") as folder:
        return trio.run(_compare, Path(folder), seconds)


async def _compare(folder: Path, seconds: float) -> dict[str, Any]:
    found: dict[str, list[dict[str, float]]] = {"unchecked": [], "checked_2_of_3": []}
    async with AsyncExitStack() as stack:
        asker = await first_of(folder, stack, ROLES)
        for turn in range(ROUNDS):
            for name, figures in found.items():
                figures.append(await _load(asker, f"{turn} {name}", seconds, name != "unchecked"))
    best = {
        name: min(figures, key=lambda it: it["cpu_us_per_task"]) for name, figures in found.items()
    }
    ratio = best["unchecked"]["cpu_us_per_task"] / best["checked_2_of_3"]["cpu_us_per_task"]
    return {
        "clients": CLIENTS,
        **best,
        "checked_to_unchecked_per_core": round(ratio, 2),
        "aim": ">= 0.5",
    }


async def _load(asker: Node, name: str, seconds: float, checked: bool) -> dict[str, float]:
    took_s: list[float] = []
    asked = 0

    async def client() -> None:
        nonlocal asked
        while True:
            asked += 1
            began_at_s = trio.current_time()
            # The number makes each a job of its own, so that nothing is served from an earlier one.
            task = await asker.tasks.submit(_request(f"{name} {asked}", checked))
            await asker.tasks.watch(task, ignore_event)
            took_s.append(trio.current_time() - began_at_s)

    async with trio.open_nursery() as nursery:
        for _ in range(CLIENTS):
            nursery.start_soon(client)
        await trio.sleep(WARM_UP_S)
        took_s.clear()
        began_at_s, spent_s = trio.current_time(), time.process_time()
        await trio.sleep(seconds)
        spent_s = time.process_time() - spent_s
        measured_s = trio.current_time() - began_at_s
        nursery.cancel_scope.cancel()
    return {
        "per_s": round(len(took_s) / measured_s, 1),
        "p50_ms": round(statistics.median(took_s) * 1000, 1),
        "cpu_us_per_task": round(spent_s * 1e6 / max(1, len(took_s))),
    }


def _request(text: str, checked: bool) -> TaskRequest:
    stage = Stage(
        role=Role.INFER, operation="complete", model=hash_manifest().id, parameters={"tokens": 1}
    )
    data = text.encode()
    if not checked:
        return TaskRequest(stages=(stage,), input=data, level=Level.SIGNED, verifiers=0, needed=0)
    return TaskRequest(stages=(stage,), input=data, level=Level.REPLAYED, verifiers=3, needed=2)
