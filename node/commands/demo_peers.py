"""The processes of the demo: each a peer like any other, started, asked and ended."""

import json
import os
import subprocess
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import trio

from p2p import timeouts
from p2p.timeouts import Processes
from wire.errors import BatonError

# Of the process's own time: what it could have run and was not let run is none.
START_DEADLINE_S = 60.0
STOP_S = 5.0


@dataclass(slots=True)
class DemoPeer:
    """One process of the demo, and what is known of it."""

    name: str
    roles: tuple[str, ...]
    state: Path
    model: str | None = None
    extra: tuple[str, ...] = ()
    # A command to run it with, and where it listens: on the far side of a link, for one.
    within: tuple[str, ...] = ()
    listen: str = "/ip4/127.0.0.1/tcp/0"
    process: trio.Process | None = None
    id: str = ""
    status: Mapping[str, Any] = field(default_factory=dict)
    killed: bool = False

    @property
    def socket(self) -> Path:
        return self.state / "control.sock"

    @property
    def ready(self) -> bool:
        """Whether it is there, with its model if it has one to run."""
        models = self.status.get("models", [])
        return bool(self.id) and (
            self.model is None or any(it["state"] == "ready" for it in models)
        )


async def start_peer(peer: DemoPeer, bootstrap: str | None) -> str:
    """Start one process; its first address. BatonError with its own words if it ends instead."""
    command = [*peer.within, sys.executable, "-m", "node", "join"]
    command += [bootstrap] if bootstrap else []
    command += ["--json", "--with-parent", str(os.getpid()), "--state", str(peer.state)]
    command += ["--listen", peer.listen, *peer.extra]
    command += [part for role in peer.roles for part in ("--role", role)]
    command += ["--model", peer.model] if peer.model else []
    errors = peer.state.with_suffix(".log")
    with errors.open("wb") as log:
        peer.process = await trio.lowlevel.open_process(
            command, stdout=subprocess.PIPE, stderr=log, stdin=subprocess.DEVNULL
        )
    assert peer.process.stdout is not None
    text = bytearray()
    with timeouts.move_on_after(START_DEADLINE_S, starved=Processes(lambda: pids_of([peer]))):
        while part := await peer.process.stdout.receive_some(65_536):
            text += part
            if text.rstrip().endswith(b"}"):
                found = json.loads(text)
                peer.id = found["peer"]
                return str(found["addresses"][0])
    raise BatonError(f"the {peer.name} peer did not start: {last_line(errors)}")


def pids_of(peers: Iterable[DemoPeer]) -> list[int]:
    """The processes that are waited for."""
    return [it.process.pid for it in peers if it.process is not None and not it.killed]


def last_line(log: Path) -> str:
    lines = log.read_text(errors="replace").strip().splitlines()
    return lines[-1].removeprefix("error: ") if lines else "it said nothing; see --debug"


async def stop_peers(peers: list[DemoPeer]) -> None:
    running = [it.process for it in peers if it.process and it.process.returncode is None]
    for process in running:
        process.terminate()
    with trio.move_on_after(STOP_S):
        for process in running:
            await process.wait()
    for process in running:
        if process.returncode is None:
            process.kill()
            await process.wait()
