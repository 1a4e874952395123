"""The peer that is upgraded: stopped politely, started as it was, as a process or as a service."""

import fcntl
import os
import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import trio

from node.commands.ask import SOCKET
from node.commands.service import UNIT, Service, with_python
from node.local.control import call, unheard
from node.upgrading.started import Started
from store.folder import locked_by
from store.private_file import open_own
from wire.errors import BatonError, Disconnected, InputError, TooSlow

# The old peer has as long to finish what it holds; a service's own limit is a minute.
FINISH_S = 900.0
# A new peer that is not healthy has as long to end politely before it is killed.
END_S = 30.0
CALL_S = 10.0
_LOOK_S = 0.2
_SAID_BYTES = 4096
# A peer that fails says so last.
_LAST_LINES = 3


class Keeper(Protocol):
    """What starts and stops the peer."""

    async def start(self, prefix: Path) -> None:
        """Start the version in `prefix`; it is not waited for."""
        ...

    async def stop(self, *, by_force: bool) -> None:
        """Have the peer finish and end; `by_force` one that will not is killed. BatonError."""
        ...

    async def begun(self) -> bool:
        """Whether one that was started has not ended, whoever started it, also a killed upgrade."""
        ...

    def ended(self) -> str:
        """Why the peer that was started has ended by itself; "" if it has not."""
        ...

    async def last_error(self) -> str:
        """What the peer said went wrong when it ended; "" if it said nothing."""
        ...


@dataclass(slots=True)
class AsProcess:
    """A peer that nothing keeps: it goes on as a process of its own, and writes to `log`."""

    state: Path
    old: Started
    log: Path
    process: subprocess.Popen[bytes] | None = field(default=None, init=False)

    async def start(self, prefix: Path) -> None:
        self.process = await trio.to_thread.run_sync(self._start, prefix)

    def _start(self, prefix: Path) -> subprocess.Popen[bytes]:
        # Nothing of the folder that it starts in, or of PYTHONPATH, takes the place of a package.
        words = [str(prefix / "bin" / "python"), "-I", "-m", "node", *self.old.arguments]
        try:
            with self.log.open("wb") as log, self._held() as held:
                return subprocess.Popen(  # noqa: S603
                    words,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    cwd=self.old.folder,
                    start_new_session=True,
                    pass_fds=(held,),
                )
        except OSError as error:
            raise BatonError(f"{words[0]} cannot be started: {error.strerror}") from error

    @contextmanager
    def _held(self) -> Iterator[int]:
        """A lock that the peer which is started holds until it ends, whatever it then runs."""
        descriptor = open_own(self._lock, os.O_RDWR)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield descriptor
        finally:
            os.close(descriptor)

    @property
    def _lock(self) -> Path:
        return self.log.with_name("peer.lock")

    async def begun(self) -> bool:
        return await trio.to_thread.run_sync(self._is_begun)

    def _is_begun(self) -> bool:
        try:
            with self._held():
                return False
        except BlockingIOError:
            return True

    async def stop(self, *, by_force: bool) -> None:
        processes = await trio.to_thread.run_sync(self._processes)
        try:
            await call(self.state / SOCKET, "leave", {}, unheard, deadline_s=CALL_S)
        except (TooSlow, Disconnected):
            # It may have heard it: a signal besides would end it before it has finished.
            pass
        except BatonError:
            # It does not listen, or does not yet: the signal says the same.
            _signal(processes, signal.SIGTERM)
        if await self._is_over(END_S if by_force else FINISH_S):
            return
        if by_force:
            _signal(processes, signal.SIGKILL)
            if await self._is_over(END_S):
                return
        which = ", ".join(map(str, processes))
        raise BatonError(
            f"the peer (process {which}) has not ended within {FINISH_S / 60:.0f} min",
            todo="go on when it has: python -m node upgrade",
        )

    def _processes(self) -> list[int]:
        """The process that has the folder, or else those that are about to take it."""
        process = locked_by(self.state)
        return [process] if process else _having_locked(self._lock)

    async def _is_over(self, within_s: float) -> bool:
        """Whether the folder is free, and nobody any more who was started for it."""
        with trio.move_on_after(within_s):
            while locked_by(self.state) or await self.begun():
                await trio.sleep(_LOOK_S)
            return True
        return False

    def ended(self) -> str:
        if self.process is None or self.process.poll() is None:
            return ""
        with self.log.open("rb") as file:
            lines = file.read(_SAID_BYTES).decode(errors="replace").strip().splitlines()
        said = next((it for it in lines if it.startswith("error: ")), lines[-1] if lines else "")
        return f"it ended with {self.process.returncode}: {said[:300]}"

    async def last_error(self) -> str:
        return self.ended()


@dataclass(slots=True)
class AsService:
    """A peer that systemd keeps: its unit is written anew with another Python."""

    service: Service
    state: Path
    # The unit as it was, and the prefixes that it may name.
    unit: str
    old: Path
    new: Path

    async def start(self, prefix: Path) -> None:
        text = self.unit if prefix == self.old else with_python(self.unit, self.old, prefix)
        assert text is not None
        try:
            await trio.to_thread.run_sync(self.service.write, text)
        except PermissionError as error:
            raise InputError(
                f"{self.service.file} may not be written by this user", todo="run it with sudo"
            ) from error
        await self.service.systemctl("daemon-reload")
        # It says no where nothing had failed.
        with suppress(BatonError):
            await self.service.systemctl("reset-failed", UNIT)
        await self.service.systemctl("start", "--no-block", UNIT)

    async def stop(self, *, by_force: bool) -> None:
        # It kills by itself what does not end: the unit says after how long.
        await self.service.systemctl("stop", UNIT, deadline_s=FINISH_S)
        if not await _is_free(self.state, END_S):
            raise BatonError(
                f"{self.state} is still in use by a peer that is not the service's",
                todo="end that one: python -m node leave",
            )

    async def begun(self) -> bool:
        said = await self.service.systemctl("show", UNIT, "--property=ActiveState")
        return said.strip() not in ("ActiveState=inactive", "ActiveState=failed")

    def ended(self) -> str:
        # It starts the peer again and again; the time it has to be healthy decides.
        return ""

    async def last_error(self) -> str:
        with suppress(BatonError):
            lines = (await self.service.journal(_LAST_LINES)).splitlines()
            return next((it[:300] for it in reversed(lines) if it.startswith("error: ")), "")
        return ""


def _signal(processes: Sequence[int], number: signal.Signals) -> None:
    for process in processes:
        try:
            os.kill(process, number)
        except ProcessLookupError:
            continue
        except PermissionError as error:
            raise InputError(
                f"process {process} belongs to another user", todo="run this as that user"
            ) from error


def _having_locked(file: Path) -> list[int]:
    """The processes of this user that hold the lock of a file; who only reads it is no peer."""
    found = set()
    wanted = file.stat()
    for each in Path("/proc").glob("[0-9]*/fd/*"):
        # It may have ended, or be another user's.
        with suppress(OSError):
            if os.path.samestat(each.stat(), wanted) and "\nlock:" in _about(each):
                found.add(int(each.parts[2]))
    return sorted(found - {os.getpid()})


def _about(descriptor: Path) -> str:
    return (descriptor.parents[1] / "fdinfo" / descriptor.name).read_text(encoding="ascii")


async def _is_free(state: Path, within_s: float) -> bool:
    """Whether nobody uses the state folder any more."""
    with trio.move_on_after(within_s):
        while locked_by(state):
            await trio.sleep(_LOOK_S)
        return True
    return False


async def status_of(state: Path) -> dict[str, Any] | None:
    """What the running peer says of itself; None if it does not answer."""
    try:
        return await call(
            state / SOCKET, "status", {"ask_around": False}, unheard, deadline_s=CALL_S
        )
    except BatonError:
        return None
