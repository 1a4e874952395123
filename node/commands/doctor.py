"""`doctor`: looks at the machine, the peer and the way to others, and says what is wrong."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import trio

from node.commands.ask import SOCKET
from node.commands.cli_peer import PORT_DEFAULT
from node.commands.join import Runtime
from node.commands.output import console, safe, show_json
from node.commands.to_type import advised, hint
from node.gateway.keys import keys_file, read_keys
from node.health.examining import examine, is_sound
from node.health.facts import Facts
from node.health.finding import Finding, State
from node.health.local_look import LocalLook
from node.health.network_look import NetworkLook, ask_router, call_all
from node.local.control import call, unheard
from node.own_port import kept_port, port_in
from wire.errors import BatonError
from wire.plural import plural
from wire.signing import SigningKey

PEER_DEADLINE_S = 10.0
_COLOURS = {State.OK: "green", State.WARN: "yellow", State.BAD: "red", State.UNKNOWN: "dim"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Patient:
    """What is looked at: a state folder, the port if one was typed, and bootstraps to call."""

    state: Path
    port: int | None
    bootstraps: tuple[str, ...]


async def doctor(
    patient: Patient, runtime: Runtime, *, as_json: bool, fix: bool, everything: bool
) -> int:
    """Show what is wrong; returns 0 only if nothing is bad."""
    fixed = await trio.to_thread.run_sync(_fix, patient.state) if fix else []
    facts = await look(patient, runtime)
    findings, runs = _judged(facts), facts.peer is not None
    if as_json:
        rows = [asdict(it) | {"state": it.state.value} for it in findings]
        show_json({"sound": is_sound(findings), "runs": runs, "fixed": fixed, "findings": rows})
    else:
        _show(findings, fixed, everything=everything)
        if not runs:
            console.print(
                hint(
                    f"no peer runs on {safe(patient.state)}: start one with python -m node join,"
                    " or name another with --state"
                )
            )
    return 0 if is_sound(findings) else 1


async def examined(state: Path, runtime: Runtime) -> Sequence[Finding]:
    """All causes for the peer that runs on this state folder, as its console shows them."""
    return _judged(await look(Patient(state=state, port=None, bootstraps=()), runtime))


def _judged(facts: Facts) -> tuple[Finding, ...]:
    """The findings; what they advise is about the state folder that was named."""
    return tuple(replace(it, advice=advised(it.advice)) for it in examine(facts))


async def look(patient: Patient, runtime: Runtime) -> Facts:
    """All facts, gathered side by side, each with its own deadline."""
    here, network = LocalLook(patient.state), NetworkLook()
    peer, peers, settings = await _peer(patient.state)
    service = await trio.to_thread.run_sync(here.service)
    named = patient.port or (None if service is None else service.port)
    listening = 0 if peer is None else port_in(peer["addresses"])
    port = listening or named or kept_port(patient.state) or PORT_DEFAULT
    told = "" if settings is None else settings.get("peers.bootstraps", "")
    bootstraps = patient.bootstraps or tuple(filter(None, told.split(", ")))
    found: dict[str, Any] = {}

    async def see(name: str, function: Callable[..., Any], *arguments: Any) -> None:
        found[name] = await trio.to_thread.run_sync(function, *arguments)

    async def ask() -> None:
        router = network.gateway()
        found["router"] = None if router is None else await ask_router(router)

    async def dial() -> None:
        key = SigningKey(runtime.environment.entropy(32))
        found["calls"] = await call_all(runtime.transport, key, bootstraps) if bootstraps else ()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(see, "port", here.port, port)
        nursery.start_soon(see, "state", here.folder)
        nursery.start_soon(see, "resources", here.resources)
        nursery.start_soon(see, "tools", here.tools, runtime.engine_config.search_path)
        nursery.start_soon(see, "network", network.network, port)
        nursery.start_soon(see, "gateway_keys", _key_count, patient.state)
        nursery.start_soon(ask)
        nursery.start_soon(dial)
    found |= {"service": service, "port": replace(found["port"], named=bool(named))}
    found["wall_s"] = runtime.environment.wall_s()
    return Facts(peer=peer, peers=peers, settings=settings, **found)


async def _peer(
    state: Path,
) -> tuple[dict[str, Any] | None, tuple[dict[str, Any], ...] | None, dict[str, str] | None]:
    """What the running peer says of itself, of others and of its settings; None if none runs."""
    try:
        status = await call(state / SOCKET, "status", {}, unheard, deadline_s=PEER_DEADLINE_S)
        peers = await call(state / SOCKET, "peers", {}, unheard, deadline_s=PEER_DEADLINE_S)
        config = await call(state / SOCKET, "config", {}, unheard, deadline_s=PEER_DEADLINE_S)
    except BatonError:
        return None, None, None
    return status, tuple(peers["peers"]), {it["name"]: it["value"] for it in config["settings"]}


def _key_count(state: Path) -> int | None:
    try:
        return len(read_keys(keys_file(state)))
    except BatonError:
        return None


def _fix(state: Path) -> list[str]:
    """What needs no root and harms nobody: the modes of the state folder and of its key."""
    fixed = []
    for path, mode in ((state, 0o700), (state / "key", 0o600)):
        try:
            if path.stat().st_mode & 0o077:
                path.chmod(mode)
                fixed.append(f"chmod {mode:o} {path}")
        except OSError:
            # It is not there, or not ours: the findings say so.
            continue
    return fixed


def _show(findings: Sequence[Finding], fixed: Sequence[str], *, everything: bool) -> None:
    for line in fixed:
        console.print(f"[green]did[/green] {safe(line)}")
    for finding in findings:
        if everything or finding.state in (State.WARN, State.BAD):
            colour = _COLOURS[finding.state]
            name = f"[{colour}]{finding.state.value:<11}[/{colour}] [bold]{finding.name}[/bold]"
            console.print(f"{name}: {safe(finding.seen)}")
            if finding.advice:
                console.print(f"            → {safe(finding.advice)}")
    counts = {state: sum(it.state is state for it in findings) for state in State}
    told = ", ".join(f"{number} {state.value}" for state, number in counts.items() if number)
    console.print(f"{plural(len(findings), 'cause')} looked at: {told}")
    if not everything and (counts[State.OK] or counts[State.UNKNOWN]):
        console.print("[dim]those that are ok or cannot be told: doctor --all[/dim]")
