"""`load`: tasks sent at a fixed rate (open loop), and how long each took from when it was due."""

import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import trio

from node.commands.ask import SOCKET
from node.commands.join import Runtime
from node.commands.output import console, show_json, show_table
from node.config import NodeConfig
from node.devnet.open_loop import Latencies, moments
from node.engines.hash_engine import HashEngine
from node.local.ask_commands import AskCommands
from node.local.control import call, unheard
from node.peer import Dependencies, open_node
from node.serving.sources import Sources
from p2p.peers import PeersConfig
from store import key_seed, open_store
from wire.errors import BatonError, InputError
from wire.kinds import Role
from wire.plural import plural
from wire.signing import SigningKey

QUOTA_BYTES = 1 << 30
# Longer than any deadline by so much is waited for an answer.
GRACE_S = 30.0
ERRORS_KEPT = 10

Ask = Callable[[Mapping[str, Any]], Awaitable[object]]


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadConfig:
    """What is asked: tasks a second, for how long, by how many clients at once."""

    state: Path
    bootstraps: tuple[str, ...]
    network: str
    model: str
    rate: float
    seconds: float
    clients: int
    deadline_s: int
    needed: int
    verifiers: int


@dataclass(slots=True)
class Outcome:
    """What became of the tasks so far."""

    due: int = 0
    answered: int = 0
    late: int = 0
    # Due while every client was still waiting for another answer, and handed over late.
    waited: int = 0
    latencies: Latencies = field(default_factory=Latencies)
    errors: dict[str, int] = field(default_factory=dict)

    @property
    def failed(self) -> int:
        return sum(self.errors.values())

    def note_error(self, line: str) -> None:
        key = line if line in self.errors or len(self.errors) < ERRORS_KEPT else "other errors"
        self.errors[key] = self.errors.get(key, 0) + 1

    def document(self, config: LoadConfig) -> dict[str, Any]:
        return {
            "model": config.model,
            "rate": config.rate,
            "seconds": config.seconds,
            "clients": config.clients,
            "tasks_due": self.due,
            "tasks_answered": self.answered,
            "tasks_failed": self.failed,
            "tasks_late": self.late,
            "tasks_waited_for_a_client": self.waited,
            "p50_s": self.latencies.percentile_s(50),
            "p99_s": self.latencies.percentile_s(99),
            "latency_table": self.latencies.table(),
            "errors": self.errors,
        }


async def load(config: LoadConfig, runtime: Runtime, *, as_json: bool) -> int:
    """Ask, wait for every task to end, and show; the exit code."""
    outcome = Outcome()
    async with _asking(config, runtime) as ask:
        await drive(config, ask, outcome, runtime.environment.random)
    if as_json:
        show_json(outcome.document(config))
    else:
        _show(config, outcome)
    return 0 if outcome.answered == outcome.due and not outcome.late else 1


async def drive(config: LoadConfig, ask: Ask, outcome: Outcome, random: Random) -> None:
    """Hand every task over at its moment, or as soon after it as a client is free."""
    clients = trio.CapacityLimiter(config.clients)
    started_at_s = trio.current_time()
    # Texts differ, also from an earlier run's: what was answered before costs nothing.
    salt = random.randbytes(4).hex()

    async def one(number: int, due_at_s: float) -> None:
        outcome.waited += not clients.available_tokens
        async with clients:
            try:
                await ask(_arguments(config, f"load {salt} task {number}"))
            except BatonError as error:
                outcome.note_error(str(error)[:120])
                return
        latency_s = trio.current_time() - due_at_s
        outcome.answered += 1
        outcome.late += latency_s > config.deadline_s
        outcome.latencies.note(latency_s)

    async with trio.open_nursery() as nursery:
        for number, at_s in enumerate(moments(config.rate, config.seconds, random)):
            await trio.sleep_until(started_at_s + at_s)
            outcome.due += 1
            nursery.start_soon(one, number, started_at_s + at_s)


def _arguments(config: LoadConfig, text: str) -> dict[str, Any]:
    return {
        "model": config.model,
        "text": text,
        "deadline_s": config.deadline_s,
        "needed": config.needed,
        "verifiers": config.verifiers,
        "fresh": True,
    }


@asynccontextmanager
async def _asking(config: LoadConfig, runtime: Runtime) -> AsyncIterator[Ask]:
    """Through the running peer of --state; with bootstraps, through a peer of our own."""
    patience_s = config.deadline_s + GRACE_S
    if not config.bootstraps:
        socket = config.state / SOCKET

        async def ask_peer(arguments: Mapping[str, Any]) -> object:
            return await call(socket, "ask", arguments, unheard, deadline_s=patience_s)

        # Whether a peer is there is said at once, not for each task.
        await call(socket, "status", {}, unheard, deadline_s=10.0)
        yield ask_peer
        return
    with tempfile.TemporaryDirectory(prefix="baton-load-") as folder:
        async with _own_peer(config, runtime, Path(folder)) as local:

            async def ask_own(arguments: Mapping[str, Any]) -> object:
                return await local.ask(arguments, unheard)

            yield ask_own


@asynccontextmanager
async def _own_peer(
    config: LoadConfig, runtime: Runtime, state: Path
) -> AsyncIterator[AskCommands]:
    node_config = NodeConfig(
        state=state,
        peers=PeersConfig(
            network=config.network, bootstraps=config.bootstraps, listen=("/ip4/0.0.0.0/tcp/0",)
        ),
        roles=frozenset({Role.STORE}),
        quota_bytes=QUOTA_BYTES,
        # What is measured is the load that was asked for.
        background_checks=0.0,
        leave_s=1.0,
    )
    async with open_store(state, quota_bytes=QUOTA_BYTES) as store:
        dependencies = Dependencies(
            key=SigningKey(key_seed(state, lambda: runtime.environment.entropy(32))),
            environment=runtime.environment,
            transport=runtime.transport,
            store=store,
            engine=HashEngine(),
            sources=Sources({}),
        )
        async with open_node(node_config, dependencies) as node:
            yield AskCommands(node)


def _show(config: LoadConfig, outcome: Outcome) -> None:
    console.print(
        f"[bold]{outcome.answered} of {plural(outcome.due, 'task')} answered[/bold] at"
        f" {config.rate:g}/s by"
        f" {config.clients} clients: {outcome.failed} failed, {outcome.late} late,"
        f" {outcome.waited} were sent late because every client was busy"
    )
    rows = [
        (f"{it['percent']:g} %", f"{it['latency_s']:.3f} s", int(it["count"]))
        for it in outcome.latencies.table()
    ]
    show_table("latency, from when each task was due", ("of all tasks", "at most", "tasks"), rows)
    for line, count in outcome.errors.items():
        console.print(f"{count} x {line}", markup=False)


def check(config: LoadConfig) -> None:
    """InputError for a load in which nothing would be asked."""
    if config.rate * config.seconds < 1:
        raise InputError(
            f"{config.rate:g} tasks a second for {config.seconds:g} s is less than one task",
            todo="give a higher --rate, or more --seconds",
        )
