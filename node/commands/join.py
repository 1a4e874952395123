"""`join`: runs a peer until it is told to leave."""

import os
import signal
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path

import trio
from trio import TaskStatus  # type: ignore[attr-defined]

from node.commands.narrating import narrate
from node.commands.network_of_peer import as_owned, in_network
from node.commands.output import (
    console,
    device_words,
    safe,
    show_aside,
    show_json,
)
from node.commands.run_log import run_log
from node.commands.running import collect_seldom, keep_one_heap, return_freed_memory
from node.commands.standard_streams import streams
from node.commands.to_type import advised, hint
from node.config import NodeConfig
from node.devnet.machine import Machine
from node.dispatch.layer_chain import LayerChains
from node.engines.host.device_check import FoundDevice
from node.engines.host.launch import EngineConfig
from node.engines.proving.prover import open_proofs
from node.guest.machine_use import GpuUse
from node.health.clock import wrong_clock_words
from node.ingest.opening import open_ingest, open_poster
from node.local.commands import LocalCommands
from node.local.control import Command, check_socket_path, open_control
from node.local.guest_manners import keep_manners
from node.local.peer_workflows import open_peer_workflows
from node.local.service_manager import ServiceManager, keep_told
from node.models.calibrations import PIN, kept_calibrations
from node.models.opening_engines import open_engine
from node.own_key import own_key
from node.own_port import at_own_port, keep_port
from node.peer import Dependencies, Node, open_node
from node.serving.sources import FolderSource, FolderSources, PydocSource, Source, Sources
from node.upgrading.journal import cut_words
from node.upgrading.started import Started, keep_started
from p2p import timeouts
from p2p.adverts import Environment
from p2p.peers import Surroundings
from p2p.traffic import Traffic
from p2p.transport import Transport
from store import Store, open_store
from wire.calibration import Calibration
from wire.content import ContentId
from wire.kinds import Role

# Whether output was lost is looked at this often; a note is for `status`, which nobody races.
NOTE_EVERY_S = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Runtime:
    """What only `node.__main__` may make: the seams to this machine."""

    environment: Environment
    transport: Transport
    # What moves over all that the transport opens.
    traffic: Traffic
    cache_folder: Path
    engine_config: EngineConfig
    machine: Machine
    service_manager: ServiceManager
    around: Surroundings
    started: Started


def open_sources(config: NodeConfig) -> Source:
    """What this peer's data role may bring in."""
    schemes: dict[str, Source] = {"pydoc": PydocSource()}
    if config.files:
        schemes["files"] = FolderSources(tuple(FolderSource(path) for path in config.files))
    return Sources(schemes)


@dataclass(frozen=True, slots=True)
class _Life:
    """When a peer is up, and when it was asked to leave."""

    up: trio.Event = field(default_factory=trio.Event)
    leave: trio.Event = field(default_factory=trio.Event)


async def join(
    config: NodeConfig, runtime: Runtime, *, as_json: bool, with_parent: int | None = None
) -> None:
    """Run a peer until SIGTERM or Ctrl-C; BatonError says why it could not, or had to end."""
    keep_one_heap()
    _outlive_terminal()
    check_socket_path(config.socket)
    life = _Life()
    async with trio.open_nursery() as nursery:
        await nursery.start(_hear_signals, life, nursery.cancel_scope)
        if with_parent is not None:
            nursery.start_soon(_follow_parent, with_parent, life, nursery.cancel_scope)
        found: list[FoundDevice] = []
        async with (
            _open_peer(config, runtime, found.append) as (node, commands),
            _open_http(node) as url,
            _open_console(node, commands, runtime) as console_url,
        ):
            nursery.start_soon(_leave_when_asked, node, life, nursery.cancel_scope)
            announce(node, url, found, console_url, as_json=as_json)
            nursery.start_soon(_note_lost_output, node)
            if not as_json:
                nursery.start_soon(narrate, node)
            if config.guest.watched_gpus:
                node.status_sources["gpus"] = GpuUse(config.guest.watched_gpus).rows
            nursery.start_soon(keep_manners, node, runtime.environment.wall_s, runtime.traffic)
            life.up.set()
            nursery.start_soon(keep_told, node, runtime.service_manager)
            collect_seldom()
            nursery.start_soon(return_freed_memory)
            await life.leave.wait()
            runtime.service_manager.tell(stopping=1)
            if run_log.is_json:
                run_log.write("leaving", "finishing the work in hand")
            elif not as_json:
                console.print("leaving: finishing the work in hand …")
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def _open_peer(
    config: NodeConfig, runtime: Runtime, found: Callable[[FoundDevice], object]
) -> AsyncIterator[tuple[Node, dict[str, Command]]]:
    # Said before the folder is opened, which a cut upgrade may have left to a newer version.
    cut = await trio.to_thread.run_sync(cut_words, config.state)
    clock = unset_clock_words(runtime.environment.wall_s())
    for problem in filter(None, (cut, clock)):
        show_aside(safe(problem))
    async with AsyncExitStack() as stack:
        quota_bytes, patience = config.quota_bytes, timeouts.move_on_after
        opened = open_store(config.state, quota_bytes=quota_bytes, move_on_after=patience)
        store = await stack.enter_async_context(opened)
        key = own_key(config.state, store, lambda: runtime.environment.entropy(32))
        # After the key: who has one of these and no key has lost it.
        await trio.to_thread.run_sync(keep_started, config.state, runtime.started)
        chains = LayerChains()
        calibrations, problems = await _calibrations(config, store)
        dependencies = Dependencies(
            key=key,
            environment=runtime.environment,
            transport=runtime.transport,
            store=store,
            engine=await stack.enter_async_context(
                open_engine(config, runtime.cache_folder, runtime.engine_config, found, chains)
            ),
            sources=await trio.to_thread.run_sync(open_sources, config),
            chains=chains,
            ingest=await trio.to_thread.run_sync(
                open_ingest, config.state, runtime.environment.wall_s
            )
            if Role.DATA in config.roles
            else None,
            calibrations=calibrations,
            around=runtime.around.only(lan=config.lan, router=config.map_port),
            proofs=await stack.enter_async_context(
                open_proofs(config.state, config.srs, proves=Role.INFER in config.roles)
            ),
        )
        config = await in_network(as_owned(config, key), key, store)
        config = await trio.to_thread.run_sync(at_own_port, config)
        node = await stack.enter_async_context(open_node(config, dependencies))
        addresses = node.peers.endpoint.addresses
        if moved := await trio.to_thread.run_sync(keep_port, config, addresses):
            show_aside(moved)
        for problem in filter(None, (*problems, cut, clock, moved)):
            node.note(problem)
        poster = await trio.to_thread.run_sync(open_poster)
        workflows = await stack.enter_async_context(open_peer_workflows(node, poster))
        commands = {**LocalCommands(node).commands(), **workflows}
        await stack.enter_async_context(open_control(config.socket, commands))
        yield node, commands


def unset_clock_words(wall_s: float) -> str:
    """One line about a clock that was never set, as of a machine without a battery; "" if it was.

    A peer that meets others hears it of them; the first of a network would sign what none believe.
    """
    wrong = wrong_clock_words(wall_s)
    if not wrong:
        return ""
    return f"{wrong}: no other peer will believe what it signs; set it: timedatectl set-ntp true"


async def _calibrations(
    config: NodeConfig, store: Store
) -> tuple[Mapping[ContentId, Calibration], list[str]]:
    """What the owner had measured, and what is wrong with it; who is judged by it may fetch it."""
    kept, problems = await trio.to_thread.run_sync(kept_calibrations, config.state)
    for table in kept.values():
        await store.put(table.to_bytes(), pin=PIN)
    return kept, problems


@asynccontextmanager
async def _open_http(node: Node) -> AsyncIterator[str | None]:
    """Serve HTTP to clients if this peer is a gateway; yields the base URL, or None."""
    if node.config.gateway is None:
        yield None
        return
    # Web libraries take a while to load, and other peers need none.
    from node.gateway.server import open_gateway

    async with open_gateway(node, node.config.gateway) as url:
        yield url


@asynccontextmanager
async def _open_console(
    node: Node, commands: dict[str, Command], runtime: Runtime
) -> AsyncIterator[str | None]:
    """Serve the console if it was asked for; yields its address, or None."""
    if node.config.console is None:
        yield None
        return
    # Other peers need neither templates nor the causes of trouble.
    from node.commands.doctor import examined
    from node.console.server import open_console

    look = partial(examined, node.config.state, runtime)
    async with open_console(node, node.config.console, commands, look, advised) as url:
        yield url


async def _leave_when_asked(node: Node, life: _Life, whole: trio.CancelScope) -> None:
    await node.leave_asked.wait()
    _stop(life, whole)


async def _hear_signals(
    life: _Life,
    whole: trio.CancelScope,
    task_status: TaskStatus[None],
) -> None:
    """Leave at the first signal; end at once at a second one, or before the peer is up."""
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        task_status.started()
        async for _ in signals:
            _stop(life, whole)


def _outlive_terminal() -> None:
    """Go on without a terminal when it is hung up or taken away: nothing held depends on it."""
    for number in (signal.SIGHUP, signal.SIGTTOU):
        signal.signal(number, signal.SIG_IGN)
    streams.keep_going()


async def _note_lost_output(node: Node) -> None:
    """Have `status` say what could not be shown, once for each reason."""
    noted = ""
    while True:
        if (problem := streams.problem()) != noted:
            noted = problem
            node.note(problem)
        await trio.sleep(NOTE_EVERY_S)


async def _follow_parent(parent: int, life: _Life, whole: trio.CancelScope) -> None:
    """End when whoever started this process is gone: peers of a demo do not outlive it."""
    # The parent says who it is, for it may be gone before this process can ask.
    while os.getppid() == parent:
        await trio.sleep(1.0)
    _stop(life, whole)


def _stop(life: _Life, whole: trio.CancelScope) -> None:
    if life.leave.is_set() or not life.up.is_set():
        whole.cancel()
    life.leave.set()


def announce(
    node: Node,
    url: str | None = None,
    devices: Sequence[FoundDevice] = (),
    console_url: str | None = None,
    *,
    as_json: bool,
) -> None:
    addresses = node.peers.endpoint.addresses
    join_line, members = node.peers.joining().line(), node.peers.members
    roles = ", ".join(sorted(role.name.lower() for role in node.config.roles))
    if as_json or run_log.is_json:
        document = {
            "peer": str(node.peers.me),
            "addresses": list(addresses),
            "join": join_line,
            "state": str(node.config.state),
            **({"unmet": unmet} if (unmet := node.peers.neighbours.unmet) else {}),
            **({} if url is None else {"http": url}),
            **({} if console_url is None else {"console": console_url}),
            **({} if node.ledger is None else {"ledger": str(node.ledger.genesis.id)}),
            **({} if members is None else {"private": str(members.credentials.network)}),
            **({"devices": [asdict(it) for it in devices]} if devices else {}),
        }
        if run_log.is_json:
            run_log.write("up", roles, document)
        else:
            show_json(document)
        return
    console.print(f"[bold]peer {node.peers.me}[/bold] is up: {roles}")
    if {Role.INFER, Role.VERIFY} & node.config.roles and not node.config.models:
        console.print(
            hint("  it runs no model yet: give --model, or python -m node models add FILE")
        )
    if (ledger := node.ledger) is not None:
        name, genesis_id = safe(ledger.genesis.name), ledger.genesis.id
        keeps = "this peer keeps its ledger" if ledger.member else "with a ledger"
        console.print(f"  in the network {name} ({genesis_id}), {keeps}")
    if members is not None:
        whose = "which this peer owns" if members.is_owner else "as an invited member"
        console.print(f"  in the private network {safe(members.credentials.name)}, {whose}")
    for device in devices:
        console.print(f"  models run {device_words(asdict(device))}")
    for address in addresses:
        console.print(f"  listening on {safe(address)}")
    if url is not None:
        console.print(f"  OpenAI clients: base_url [bold]{safe(url)}/v1[/bold]")
    if console_url is not None:
        console.print(hint(f"  console at {console_url}: python -m node open prints a link to it"))
    if members is not None and members.is_owner:
        console.print(hint("invite another machine with: python -m node invite"))
    elif members is not None:
        console.print("its owner invites other machines")
    console.print("another machine joins this network with\n")
    console.print(f"  [bold green]{safe(join_line)}[/bold green]\n")
    console.print(
        f"state in {safe(node.config.state)}; Ctrl-C finishes the work in hand and leaves"
    )
