"""The processes of the demo: each a peer like any other, started, asked and ended."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import trio

from node.engines.formats.minilm import MINILM_ID
from p2p import timeouts
from p2p.timeouts import Processes
from wire.errors import BatonError, InputError

# Of the process's own time: what it could have run and was not let run is none.
START_DEADLINE_S = 60.0
STOP_S = 5.0
MARKER = "baton-demo"
# The language model that words the answer.
WRITER = "smollm2"


@dataclass(slots=True)
class DemoPeer:
    """One process of the demo, and what is known of it."""

    name: str
    roles: tuple[str, ...]
    state: Path
    model: str | None = None
    # A language model that it runs besides.
    writer: str | None = None
    extra: tuple[str, ...] = ()
    # A command to run it with, and where it listens: on the far side of a link, for one.
    within: tuple[str, ...] = ()
    listen: str = "/ip4/127.0.0.1/tcp/0"
    process: trio.Process | None = None
    id: str = ""
    status: Mapping[str, Any] = field(default_factory=dict)
    killed: bool = False
    # What its work was charged at, in millionths of a credit.
    earned: int = 0

    @property
    def socket(self) -> Path:
        return self.state / "control.sock"

    @property
    def ready(self) -> bool:
        """Whether it is there, with its model if it has one to run."""
        return bool(self.id) and (self.model is None or self.embeds)

    @property
    def embeds(self) -> bool:
        """Whether the model that is not the language model is ready."""
        rows = self.status.get("models", [])
        return any(it["state"] == "ready" and it["name"] != WRITER for it in rows)


def planned(folder: Path, files: tuple[Path, ...]) -> list[DemoPeer]:
    """Seven peers: one brings data, two infer, three verify, one asks."""
    shared = tuple(part for path in files for part in ("--files", str(path)))
    # Only the first knows where the packaged model lies; the others have its content id alone.
    by_id, writer = str(MINILM_ID), WRITER
    return [
        DemoPeer("data", ("data", "store"), folder / "data", extra=shared),
        DemoPeer("infer-1", ("infer", "store"), folder / "infer-1", model="minilm", writer=writer),
        DemoPeer("infer-2", ("infer", "store"), folder / "infer-2", model=by_id, writer=writer),
        *(
            DemoPeer(f"verify-{n}", ("verify", "store"), folder / f"verify-{n}", model=by_id)
            for n in (1, 2)
        ),
        # One verifier checks the language model too: each that does takes a gigabyte and a half.
        DemoPeer("verify-3", ("verify", "store"), folder / "verify-3", model=by_id, writer=writer),
        DemoPeer("asker", ("store",), folder / "asker"),
    ]


def prepare_folder(folder: Path) -> None:
    """An empty folder of the demo's own; never somebody's files."""
    if folder.exists() and any(folder.iterdir()):
        if not (folder / MARKER).exists():
            raise InputError(
                f"{folder} is not empty, and no earlier demo made it",
                todo="name another folder with --folder",
            )
        shutil.rmtree(folder)
    # By default it lies in the state folder of a later peer, which nobody else may open.
    for path in (*reversed(folder.absolute().parents), folder):
        path.mkdir(exist_ok=True, mode=0o700)
    (folder / MARKER).write_text("made by python -m node demo; may be deleted\n")


@asynccontextmanager
async def open_peers(peers: list[DemoPeer]) -> AsyncIterator[None]:
    """Start every peer, and end every one of them when the block ends, however it ends."""
    try:
        bootstrap = await start_peer(peers[0], None)
        async with trio.open_nursery() as nursery:
            for peer in peers[1:]:
                nursery.start_soon(start_peer, peer, bootstrap)
        yield
    finally:
        with trio.CancelScope(shield=True):
            await stop_peers(peers)


async def start_peer(peer: DemoPeer, bootstrap: str | None) -> str:
    """Start one process; its first address. BatonError with its own words if it ends instead."""
    command = [*peer.within, sys.executable, "-m", "node", "join"]
    command += [bootstrap] if bootstrap else []
    command += ["--json", "--with-parent", str(os.getpid()), "--state", str(peer.state)]
    command += ["--listen", peer.listen, *peer.extra]
    command += [part for role in peer.roles for part in ("--role", role)]
    command += [part for it in (peer.model, peer.writer) if it for part in ("--model", it)]
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
            if text.rstrip().endswith(b"\n}"):
                found = json.loads(text)
                if "error" in found:
                    break
                peer.id = found["peer"]
                return str(found["addresses"][0])
    raise BatonError(f"the {peer.name} peer did not start: {last_line(errors)}")


def pids_of(peers: Iterable[DemoPeer]) -> list[int]:
    """The processes that are waited for."""
    return [it.process.pid for it in peers if it.process is not None and not it.killed]


def last_line(log: Path) -> str:
    """What a peer said last on standard error."""
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
