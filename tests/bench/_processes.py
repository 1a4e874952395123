"""Peers as processes of their own, for the benches that strike them: started, killed, frozen.

Each runs `python -m node join`. With `unit_s` its hash model takes so long for each text or token,
so that a fault can strike in the middle. Everything else is the peer that a person starts.
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import trio

from node.local.control import call
from tests.live.command_line import ROOT, environment
from wire.errors import BatonError

START_DEADLINE_S = 300.0
LOOK_DEADLINE_S = 10.0
LOOPBACK = "/ip4/127.0.0.1/tcp/0"


@dataclass(slots=True, kw_only=True)
class PeerProcess:
    """One peer. `within` is a command that runs it in a network namespace."""

    name: str
    roles: tuple[str, ...]
    state: Path
    bootstraps: tuple[str, ...] = ()
    listen: str = LOOPBACK
    model: str | None = None
    unit_s: float = 0.0
    within: tuple[str, ...] = ()
    # How far the peer's wall clock is behind or ahead, in seconds, read each time it is asked.
    clock_file: Path | None = None
    process: trio.Process | None = None
    id: str = ""
    address: str = ""
    up: bool = False
    starts: int = 0

    @property
    def socket(self) -> Path:
        return self.state / "control.sock"

    @property
    def log(self) -> Path:
        return self.state.with_suffix(".log")

    async def start(self) -> None:
        """Start it and wait until it is up; BatonError with its last output if it ends instead."""
        with self.log.open("ab") as log:
            self.process = await trio.lowlevel.open_process(
                self._command(),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                cwd=ROOT,
                env=environment({}),
            )
        assert self.process.stdout is not None
        text = bytearray()
        with trio.move_on_after(START_DEADLINE_S):
            while part := await self.process.stdout.receive_some(65_536):
                text += part
                if text.rstrip().endswith(b"}"):
                    found = json.loads(text)
                    self.id, self.address = found["peer"], found["addresses"][0]
                    self.up = True
                    self.starts += 1
                    return
        raise BatonError(f"{self.name} did not start: {self.last_words()}")

    def _command(self) -> list[str]:
        program = self._clock() + (
            "import functools, node.models.opening_engines as opening\n"
            f"opening.HashEngine = functools.partial(opening.HashEngine, unit_s={self.unit_s})\n"
            "from node.__main__ import main\n"
            "main()"
        )
        run = ["-c", program] if self.unit_s or self.clock_file else ["-m", "node"]
        command = [*self.within, sys.executable, *run, "join", *self.bootstraps, "--json"]
        command += ["--with-parent", str(os.getpid()), "--state", str(self.state)]
        command += [
            "--listen",
            self.listen,
            *(it for role in self.roles for it in ("--role", role)),
        ]
        return command + (["--model", self.model] if self.model else [])

    def _clock(self) -> str:
        """The lines of a program that give it a clock of its own."""
        if self.clock_file is None:
            return ""
        return (
            "import pathlib, time\n"
            f"clock, true_s = pathlib.Path({str(self.clock_file)!r}), time.time\n"
            "time.time = lambda: true_s() + float(clock.read_text())\n"
        )

    def last_words(self) -> str:
        lines = self.log.read_text(errors="replace").strip().splitlines()
        return lines[-1] if lines else "it said nothing"

    @property
    def ended(self) -> bool:
        return self.process is not None and self.process.returncode is not None

    def signal(self, number: signal.Signals) -> None:
        assert self.process is not None
        if not self.ended:
            self.process.send_signal(number)

    async def kill(self) -> None:
        """End it with SIGKILL, which also ends a frozen process."""
        self.up = False
        assert self.process is not None
        self.signal(signal.SIGKILL)
        await self.process.wait()
        if self.process.stdout is not None:
            await self.process.stdout.aclose()

    async def ask(self, command: str, arguments: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """The peer's answer to a command that only reads."""
        return await call(
            self.socket, command, arguments or {}, _unheard, deadline_s=LOOK_DEADLINE_S
        )


def _unheard(event: Mapping[str, Any]) -> None:
    """Ignore events: such commands have none."""


async def start_all(peers: list[PeerProcess]) -> None:
    """Start peers at the same time, and wait until all of them are up."""
    async with trio.open_nursery() as nursery:
        for peer in peers:
            nursery.start_soon(peer.start)


async def end_all(peers: list[PeerProcess]) -> None:
    """End every process that still runs, in whatever state it is."""
    with trio.CancelScope(shield=True):
        for peer in peers:
            if peer.process is not None:
                await peer.kill()
