"""What paying adds to a task: the same small tasks, paid and unpaid, in turn in one process.

Two networks of an asker and a worker with a model that does nothing, over TCP and noise, each peer
with its own LMDB store. In one of them the worker asks for something. 64 clients ask at once; the
two have turns, so that other load on the machine affects both.

`python -m tests.bench paying [ROUNDS]`
"""

import statistics
import tempfile
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import trio

from node.asking.run import TaskRequest
from node.engines.hash_engine import hash_manifest
from node.paying_config import TypedPrice, TypedPrices
from node.peer import Node
from node.task.events import ignore_event
from tests.bench._tcp_network import first_of
from tests.node.network import I, Network, S
from wire.kinds import Level, Role
from wire.ledger import Genesis, Grant, Member
from wire.task import Stage

CLIENTS = 64
TASKS_PER_ROUND = 256
ROUNDS = 12
PRICE = 1000
ROLES = ((S, Role.LEDGER), (I, S))
THROUGHPUT_MIN, P50_MAX = 0.85, 1.1


def run(arguments: list[str]) -> dict[str, Any]:
    """Tasks a second and milliseconds, paid and unpaid, and what paying adds to a task."""
    rounds = int(arguments[0]) if arguments else ROUNDS
    with tempfile.TemporaryDirectory(prefix="baton-bench-") as folder:
        return trio.run(_compare, Path(folder), rounds)


@dataclass(slots=True)
class _Side:
    """One of the two networks."""

    asker: Node
    price_max: int
    asked: int = 0
    rates: list[float] = field(default_factory=list)
    times_s: list[float] = field(default_factory=list)

    async def round(self, count: int) -> None:
        """Have so many tasks done by CLIENTS at once."""
        left = iter(range(count))
        began_at_s = trio.current_time()
        async with trio.open_nursery() as nursery:
            for _ in range(CLIENTS):
                nursery.start_soon(self._client, left)
        self.rates.append(count / (trio.current_time() - began_at_s))

    async def _client(self, left: Any) -> None:
        for _ in left:
            self.asked += 1
            began_at_s = trio.current_time()
            stage = Stage(
                role=Role.INFER,
                operation="complete",
                model=hash_manifest().id,
                parameters={"tokens": 1, "n": self.asked},
            )
            wanted = TaskRequest(
                stages=(stage,), input=b"x", level=Level.SIGNED, price_max=self.price_max
            )
            task = await self.asker.tasks.submit(wanted)
            await self.asker.tasks.watch(task, ignore_event)
            self.times_s.append(trio.current_time() - began_at_s)

    @property
    def commits(self) -> int:
        return self.asker.dependencies.store.statistics().commits


async def _compare(folder: Path, rounds: int) -> dict[str, Any]:
    async with AsyncExitStack() as stack:
        sides = []
        for name, price in (("unpaid", 0), ("paid", PRICE)):
            place = folder / name
            place.mkdir()
            asker = await first_of(place, stack, ROLES, begin=lambda net, p=price: _begin(net, p))
            sides.append(_Side(asker, price))
        unpaid, paid = sides
        for side in sides:
            await side.round(CLIENTS)
            side.rates.clear()
            side.times_s.clear()
        assert paid.asker.paying is not None
        channels = paid.asker.paying.payer.channels
        before = (channels.vouchers, channels.orders, unpaid.commits, paid.commits)
        for number in range(rounds):
            for side in sides[:: 1 if number % 2 else -1]:
                await side.round(TASKS_PER_ROUND)
        after = (channels.vouchers, channels.orders, unpaid.commits, paid.commits)
        tasks = rounds * TASKS_PER_ROUND
        vouchers, orders, free_commits, commits = (
            (b - a) / tasks for a, b in zip(before, after, strict=True)
        )
        return _summary(unpaid, paid) | {
            "tasks": tasks,
            "vouchers_signed_per_task": round(vouchers, 4),
            "orders_per_1000_tasks": round(1000 * orders, 3),
            "commits_per_task": {"unpaid": round(free_commits, 4), "paid": round(commits, 4)},
            "charged": sum(it.charged for it in channels.by_peer.values()),
        }


def _begin(network: Network, price: int) -> dict[str, Any]:
    """A ledger that the asker keeps alone, and what the worker asks for."""
    asker = network.key(0).peer
    genesis = Genesis(
        version=1,
        name="bench",
        nonce=bytes(16),
        epoch_s=3600,
        account_min=1000,
        fund=0,
        grants=(Grant(account=asker, amount=10**12),),
        members=(Member(key=asker, weight=1),),
    )
    prices = TypedPrices({"hash": TypedPrice(price, 0, 0)} if price else {})
    return {"genesis": genesis, "prices": prices}


def _summary(unpaid: _Side, paid: _Side) -> dict[str, Any]:
    def told(side: _Side) -> dict[str, float]:
        return {
            "tasks_per_s": round(statistics.median(side.rates), 1),
            "p50_ms": round(statistics.median(side.times_s) * 1000, 2),
        }

    ratios = [b / a for a, b in zip(unpaid.rates, paid.rates, strict=True)]
    throughput = statistics.median(ratios)
    p50 = statistics.median(paid.times_s) / statistics.median(unpaid.times_s)
    return {
        "unpaid": told(unpaid),
        "paid": told(paid),
        "throughput_ratio": round(throughput, 3),
        "p50_ratio": round(p50, 3),
        "held": throughput >= THROUGHPUT_MIN and p50 <= P50_MAX,
    }
