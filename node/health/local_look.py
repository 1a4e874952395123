"""Looks at this machine: the port, the state folder, memory, limits, heat, the service.

Everything is read below `root`, so that a test shows a machine of its own making. What cannot be
read is None, and no look takes longer than its deadline.
"""

import os
import re
import resource
import shutil
import socket
import stat
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from node.guest.sensors import Sensors, said_by
from node.health.facts import PortFacts, ResourceFacts, ServiceFacts, StateFacts, ToolFacts
from store.folder import (
    FOLDER_VERSION,
    KEY_FILE,
    SEED_BYTES,
    has_lost_key,
    leads_nowhere,
    locked_by,
    lost_key,
    way_out,
)

UNIT = "baton"
# A limit of cgroups that is as good as none.
_LIMIT_NONE = 1 << 60
_LISTENS = "0A"
_FILES_MAX = 1000
# By device node: the library without which its driver is of no use.
_LIBRARIES = {"nvidia0": "libcuda.so.1", "kfd": "libamdhip64.so"}
_LIBRARY_FOLDERS = (
    "usr/lib/x86_64-linux-gnu",
    "usr/lib/aarch64-linux-gnu",
    "usr/lib64",
    "usr/lib",
    "usr/local/cuda/lib64",
    "opt/rocm/lib",
)


@dataclass(frozen=True, slots=True)
class LocalLook:
    """One machine, as its files tell. All of its methods wait for the disk."""

    state: Path
    root: Path = Path("/")
    output_of: Callable[[Sequence[str]], str | None] = said_by
    monotonic_s: Callable[[], float] = time.monotonic

    def port(self, number: int) -> PortFacts:
        """Who listens on the port."""
        try:
            with socket.socket() as probe:
                # As a server does: what has just ended is in nobody's way.
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(("", number))
        except PermissionError:
            return PortFacts(number=number)
        except OSError:
            holder = self._holder(number)
            return PortFacts(
                number=number,
                taken=True,
                holder=holder,
                command="" if holder is None else self._text(f"proc/{holder}/comm").strip(),
            )
        return PortFacts(number=number, taken=False)

    def _holder(self, number: int) -> int | None:
        """The process that listens on the port; None for another user's."""
        inodes = {
            fields[9]
            for name in ("tcp", "tcp6")
            for fields in map(str.split, self._text(f"proc/net/{name}").splitlines()[1:])
            if fields[3] == _LISTENS and int(fields[1].rpartition(":")[2], 16) == number
        }
        names = {f"socket:[{it}]" for it in inodes}
        for process in self._processes():
            with suppress(OSError):
                for link in (process / "fd").iterdir():
                    with suppress(OSError):
                        if str(link.readlink()) in names:
                            return int(process.name)
        return None

    def _processes(self) -> Iterator[Path]:
        with suppress(OSError):
            yield from (it for it in (self.root / "proc").iterdir() if it.name.isdecimal())

    def folder(self) -> StateFacts:
        """The state folder, and how its disk is."""
        named: Any = {
            "path": str(self.state),
            "version_here": f"baton state {FOLDER_VERSION}",
        }
        try:
            found = self.state.stat()
        except FileNotFoundError:
            if nowhere := leads_nowhere(self.state):
                return StateFacts(**named, there=True, damage=nowhere)
            found_at = self._disk(self._parent())
            return StateFacts(**named, there=False, locked_by=0, **found_at)
        except OSError:
            return StateFacts(**named, there=True)
        key_mode = None
        with suppress(OSError):
            key_mode = stat.S_IMODE((self.state / KEY_FILE).stat().st_mode)
        version = None
        with suppress(OSError):
            version = (self.state / "version").read_text(errors="replace")[:64].strip()
        return StateFacts(
            **named,
            there=True,
            is_own=found.st_uid == os.getuid(),
            mode=stat.S_IMODE(found.st_mode),
            key_mode=key_mode,
            version=version,
            way_out=way_out(self.state),
            damage=None if version is None else self._damage(),
            locked_by=locked_by(self.state),
            newest_wall_s=self._newest_wall_s(),
            **self._disk(self.state),
        )

    def _damage(self) -> str | None:
        """What keeps a peer from starting as itself on a folder that one has used."""
        try:
            for name in ("store", "files"):
                if (self.state / name).exists() and not (self.state / name).is_dir():
                    return f"{self.state}/{name} is no folder"
            if (self.state / KEY_FILE).stat().st_size != SEED_BYTES:
                return f"{self.state / KEY_FILE} is not as long as a key is"
        except FileNotFoundError:
            return lost_key(self.state).message * has_lost_key(self.state)
        except OSError:
            return None
        return ""

    def _newest_wall_s(self) -> float | None:
        """When the newest of the files right in the folder was written, by the clock of then."""
        try:
            with os.scandir(self.state) as files:
                some = islice((it for it in files if it.is_file(follow_symlinks=False)), _FILES_MAX)
                return max((it.stat(follow_symlinks=False).st_mtime for it in some), default=None)
        except OSError:
            return None

    def _parent(self) -> Path:
        """The nearest folder above the state folder that is there."""
        return next((it for it in self.state.absolute().parents if it.is_dir()), Path("/"))

    def _disk(self, place: Path) -> dict[str, Any]:
        try:
            found = os.statvfs(place)
        except OSError:
            return {}
        files_share = found.f_favail / found.f_files if found.f_files else None
        return {
            "free_bytes": found.f_bavail * found.f_frsize,
            "size_bytes": found.f_blocks * found.f_frsize,
            "free_files_share": files_share,
            **self._written(place),
        }

    def _written(self, place: Path) -> dict[str, Any]:
        """Whether a file can be kept there, and how long that takes."""
        file = place / f".doctor.{os.getpid()}"
        began_at_s = self.monotonic_s()
        try:
            descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except OSError:
            return {"writable": False}
        try:
            os.write(descriptor, bytes(4096))
            os.fsync(descriptor)
        except OSError:
            return {"writable": False}
        finally:
            os.close(descriptor)
            file.unlink(missing_ok=True)
        return {"writable": True, "sync_s": self.monotonic_s() - began_at_s}

    def resources(self) -> ResourceFacts:
        """Memory, limits, heat and power."""
        group = self._group()
        open_files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        sensors = Sensors(self.root, self.output_of, self.monotonic_s)
        critical = [*self._celsius("class/thermal/thermal_zone*/trip_point_0_temp")]
        synchronized = self.output_of(["timedatectl", "show", "-p", "NTPSynchronized", "--value"])
        return ResourceFacts(
            available_bytes=self._available_bytes(),
            limit_bytes=self._limit_bytes(group),
            killed_for_memory=_counted(self._text(f"{group}/memory.events"), "oom_kill"),
            open_files_max=open_files if open_files != resource.RLIM_INFINITY else _LIMIT_NONE,
            tasks_max=_number(self._text(f"{group}/pids.max")),
            pressure=dict(self._pressure()),
            hottest_celsius=max(sensors.temperatures(), default=None),
            critical_celsius=min((it for it in critical if it > 0), default=None),
            throttled=_number(
                self._text("sys/devices/system/cpu/cpu0/thermal_throttle/core_throttle_count")
            ),
            on_battery=sensors.on_battery(),
            metered=sensors.is_metered(),
            clock_synchronized=None if synchronized is None else synchronized.strip() == "yes",
        )

    def _group(self) -> str:
        """The folder of this process's control group, version 2, below the root."""
        for line in self._text("proc/self/cgroup").splitlines():
            if line.startswith("0::"):
                return f"sys/fs/cgroup{line[3:].strip()}".rstrip("/")
        return "sys/fs/cgroup"

    def _available_bytes(self) -> int | None:
        kib = _counted(self._text("proc/meminfo"), "MemAvailable:")
        return None if kib is None else kib << 10

    def _limit_bytes(self, group: str) -> int | None:
        """What the control group may still take; None without a limit."""
        limit = _number(self._text(f"{group}/memory.max"))
        used = _number(self._text(f"{group}/memory.current"))
        if limit is None or used is None or limit >= _LIMIT_NONE:
            return None
        return max(0, limit - used)

    def _pressure(self) -> Iterator[tuple[str, float]]:
        for name in ("cpu", "io", "memory"):
            for line in self._text(f"proc/pressure/{name}").splitlines():
                fields = dict(it.partition("=")[::2] for it in line.split()[1:])
                if line.startswith("some") and "avg60" in fields:
                    yield name, float(fields["avg60"]) / 100

    def _celsius(self, pattern: str) -> Iterator[float]:
        with suppress(OSError):
            for file in sorted((self.root / "sys").glob(pattern)):
                number = _number(self._text(str(file.relative_to(self.root))))
                if number is not None:
                    yield number / 1000

    def tools(self, search_path: str) -> ToolFacts:
        """The compiler as a peer finds it, and the GPUs."""
        clang = shutil.which("clang", path=search_path)
        version, problem = "", ""
        if clang is None:
            problem = "clang is not installed: every model is compiled with it"
        elif (said := self.output_of([clang, "--version"])) is None:
            problem = f"{clang} does not run"
        else:
            version = said.splitlines()[0] if said else clang
        nodes = [it for it in _LIBRARIES if (self.root / "dev" / it).exists()]
        return ToolFacts(
            compiler=version,
            compiler_problem=problem,
            gpu_nodes=tuple(f"/dev/{it}" for it in nodes),
            missing_libraries=tuple(
                _LIBRARIES[it] for it in nodes if not self._has(_LIBRARIES[it])
            ),
        )

    def _has(self, library: str) -> bool:
        return any((self.root / it / library).exists() for it in _LIBRARY_FOLDERS)

    def service(self) -> ServiceFacts | None:
        """The service of the machine, or else of this user; None where no systemd answers."""
        found = None
        for for_user in (False, True):
            user = ["--user"] if for_user else []
            said = self.output_of(["systemctl", *user, "show", UNIT, "-p", _PROPERTIES])
            if said is None:
                continue
            told = dict(it.partition("=")[::2] for it in said.splitlines())
            found = ServiceFacts(
                found=told.get("LoadState") == "loaded",
                for_user=for_user,
                enabled=told.get("UnitFileState", "").startswith("enabled"),
                restarts=_number(told.get("NRestarts", "")) or 0,
                result=told.get("Result", ""),
                lingers=self._lingers() if for_user else None,
                port=self._port_in(told.get("ExecStart", "")),
            )
            if found.found:
                break
        return found

    def _port_in(self, command: str) -> int | None:
        """The port that a unit's command names; None if it does not, or is of another folder."""
        state = _STATE_WORD.search(command)
        folder = Path(state[1] if state else "~/.baton").expanduser()
        port = _PORT_WORD.search(command)
        if port is None or folder.absolute() != self.state.absolute():
            return None
        number = int(port[1])
        return number if 0 < number <= 65535 else None

    def _lingers(self) -> bool | None:
        said = self.output_of(
            ["loginctl", "show-user", str(os.getuid()), "-p", "Linger", "--value"]
        )
        return None if said is None else said.strip() == "yes"

    def _text(self, name: str) -> str:
        """What a file below the root holds, at most 1 MiB; "" where it cannot be read."""
        try:
            with (self.root / name).open(encoding="utf-8", errors="replace") as file:
                return file.read(1 << 20)
        except OSError:
            return ""


_PROPERTIES = "LoadState,UnitFileState,NRestarts,Result,ExecStart"
# What `join` is told in the command of a unit.
_STATE_WORD = re.compile(r"\s--state[= ](\S+)")
_PORT_WORD = re.compile(r"\s(?:--port[= ]|--listen[= ]\S*/tcp/)([0-9]{1,5})\b")


def _number(text: str) -> int | None:
    text = text.strip()
    return int(text) if text.lstrip("-").isdecimal() else None


def _counted(text: str, name: str) -> int | None:
    """The number behind a name at the beginning of a line."""
    for line in text.splitlines():
        fields = line.split()
        if len(fields) > 1 and fields[0] == name:
            return _number(fields[1])
    return None
