"""Each cause that can be made in a fake root, or in a folder, is found: alone, and by its name.

A root is a folder with the files of /proc and /sys that a machine would have; state folders, ports
and locks are real ones of this machine. What cannot be made so without a network of its own (what
bootstraps, routers and other peers say) is proved with facts in tests/health, and by `bench nat`.
"""

import os
import socket
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from node.health.examining import examine
from node.health.facts import Facts
from node.health.finding import State
from node.health.local_look import LocalLook
from store.folder import FOLDER_VERSION, open_folder
from tests.health.sound import facts

_FILES = {
    "proc/meminfo": "MemAvailable: 8000000 kB\n",
    "proc/pressure/cpu": "some avg10=0.00 avg60=1.00 avg300=0.00 total=1\n",
    "proc/pressure/memory": "some avg10=0.00 avg60=0.00 avg300=0.00 total=1\n",
    "proc/self/cgroup": "0::/baton\n",
    "sys/fs/cgroup/baton/memory.max": "max\n",
    "sys/fs/cgroup/baton/memory.events": "oom_kill 0\n",
    "sys/fs/cgroup/baton/pids.max": "max\n",
    "sys/class/thermal/thermal_zone0/temp": "50000\n",
    "sys/class/thermal/thermal_zone0/trip_point_0_temp": "95000\n",
    "sys/class/power_supply/BAT0/type": "Battery\n",
    "sys/class/power_supply/AC/type": "Mains\n",
    "sys/class/power_supply/AC/online": "1\n",
    "sys/devices/system/cpu/cpu0/thermal_throttle/core_throttle_count": "0\n",
}
_SAID = {
    "timedatectl": "yes\n",
    "busctl": "u 2\n",
    "systemctl": "LoadState=loaded\nUnitFileState=enabled\nNRestarts=0\nResult=success\n",
    "loginctl": "yes\n",
    "clang": "clang version 14\n",
}
# Files that differ, and what commands say instead, by the name of the cause.
_BY_FILES: dict[str, dict[str, str]] = {
    "memory": {"proc/meminfo": "MemAvailable: 100000 kB\n"},
    "limits": {"sys/fs/cgroup/baton/pids.max": "64\n"},
    "heat": {"sys/class/thermal/thermal_zone0/temp": "93000\n"},
    "starved": {"proc/pressure/memory": "some avg10=0.00 avg60=55.00 avg300=0.00 total=1\n"},
    "gpu": {"dev/nvidia0": ""},
}
_BY_WORDS: dict[str, dict[str, str | None]] = {
    "metered": {"busctl": "u 1\n"},
    "clock": {"timedatectl": "no\n"},
    "compiler": {"clang": None},
    "service": {
        "systemctl": "LoadState=loaded\nUnitFileState=disabled\nNRestarts=0\nResult=success\n"
    },
}
# More of the same cause: other ways in which a machine has it.
_ALSO: dict[str, tuple[str, dict[str, str]]] = {
    "heat, on battery": ("heat", {"sys/class/power_supply/AC/online": "0\n"}),
    "heat, slowed down": (
        "heat",
        {"sys/devices/system/cpu/cpu0/thermal_throttle/core_throttle_count": "9\n"},
    ),
    "memory, of its group": (
        "memory",
        {
            "sys/fs/cgroup/baton/memory.max": "300000000\n",
            "sys/fs/cgroup/baton/memory.current": "290000000\n",
        },
    ),
    "memory, killed": ("memory", {"sys/fs/cgroup/baton/memory.events": "oom_kill 2\n"}),
}


class Made:
    """A machine of its own: a root, a state folder, and what commands say."""

    def __init__(self, folder: Path) -> None:
        self.root, self.state = folder / "root", folder / "state"
        self.said: dict[str, str | None] = dict(_SAID)
        self.wall_s = time.time()
        self.put(_FILES)
        with open_folder(self.state):
            pass
        (self.state / "key").write_bytes(bytes(32))
        (self.state / "key").chmod(0o600)
        tools = folder / "bin"
        tools.mkdir()
        (tools / "clang").write_text("#!/bin/sh\n")
        (tools / "clang").chmod(0o755)
        self.search_path = str(tools)

    def put(self, files: dict[str, str]) -> None:
        for name, text in files.items():
            file = self.root / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)

    def output_of(self, words: Sequence[str]) -> str | None:
        return self.said.get(Path(words[0]).name)

    def seen(self, port: int = 0) -> Facts:
        """What a stopped peer's doctor sees here; the network around is a sound one."""
        look = LocalLook(self.state, self.root, self.output_of)
        resources = look.resources()
        return replace(
            facts(),
            port=look.port(port),
            state=look.folder(),
            resources=replace(resources, open_files_max=resources.open_files_max),
            tools=look.tools(self.search_path),
            service=look.service(),
            wall_s=self.wall_s,
            peer=None,
            peers=None,
            settings=None,
        )


def _wrong_modes(made: Made) -> None:
    made.state.chmod(0o755)


def _open_key(made: Made) -> None:
    (made.state / "key").chmod(0o644)


def _newer_folder(made: Made) -> None:
    (made.state / "version").write_text(f"baton state {FOLDER_VERSION + 1}\n")


def _cut_key(made: Made) -> None:
    (made.state / "key").write_bytes(b"cut")


def _store_of_one_file(made: Made) -> None:
    (made.state / "store").write_text("")


def _never_set(made: Made) -> None:
    """No battery, and no time server since: the machine counts from 1970."""
    made.wall_s = 300.0
    made.said["timedatectl"] = "no\n"


def _gone_back(made: Made) -> None:
    made.wall_s -= 3 * 365 * 86_400.0


def _far_ahead(made: Made) -> None:
    made.wall_s += 70 * 365 * 86_400.0


_BY_HAND: dict[str, tuple[str, Callable[[Made], None]]] = {
    "folder-modes": ("folder-modes", _wrong_modes),
    "folder-modes, of the key": ("folder-modes", _open_key),
    "folder-version": ("folder-version", _newer_folder),
    "folder-damaged, its key": ("folder-damaged", _cut_key),
    "folder-damaged, its store": ("folder-damaged", _store_of_one_file),
    "clock, of 1970": ("clock", _never_set),
    "clock, years behind": ("clock", _gone_back),
    "clock, far ahead": ("clock", _far_ahead),
}


def run() -> dict[str, Any]:
    """What was found of each cause; `held` if each was found alone, and none without one."""
    found: dict[str, list[str]] = {}
    with _machine() as made:
        found["(sound)"] = _wrong(made.seen())
    for name, files in _BY_FILES.items():
        found[name] = _with(lambda made, files=files: made.put(files))
    for name, said in _BY_WORDS.items():
        found[name] = _with(lambda made, said=said: made.said.update(said))
    for name, (_, files) in _ALSO.items():
        found[name] = _with(lambda made, files=files: made.put(files))
    for name, (_, change) in _BY_HAND.items():
        found[name] = _with(change)
    found["port-taken"] = _with_port_taken()
    found["folder-in-use"] = _with_folder_in_use()
    meant = {name: cause for name, (cause, _) in (_ALSO | _BY_HAND).items()}
    missed = {
        name: it
        for name, it in found.items()
        if name != "(sound)" and it != [meant.get(name, name)]
    }
    return {
        "causes": len({meant.get(it, it) for it in found}) - 1,
        "made": len(found) - 1,
        "on_a_sound_machine": found["(sound)"],
        "not_found_alone": missed,
        "held": not missed and not found["(sound)"],
    }


def _with(change: Callable[[Made], object]) -> list[str]:
    with _machine() as made:
        change(made)
        return _wrong(made.seen())


def _with_port_taken() -> list[str]:
    with _machine() as made, socket.socket() as other:
        other.bind(("", 0))
        other.listen()
        return _wrong(made.seen(other.getsockname()[1]))


def _with_folder_in_use() -> list[str]:
    """A process holds the folder's lock, and answers nobody."""
    with _machine() as made:
        reading, writing = os.pipe()
        child = os.fork()
        if not child:
            with open_folder(made.state):
                os.write(writing, b"!")
                os.read(reading, 0)
                signal_wait()
        os.read(reading, 1)
        try:
            return _wrong(made.seen())
        finally:
            os.kill(child, 9)
            os.waitpid(child, 0)
            os.close(reading)
            os.close(writing)


def signal_wait() -> None:
    """Wait until this process is killed."""
    import signal

    while True:
        signal.pause()


def _wrong(seen: Facts) -> list[str]:
    return [it.name for it in examine(seen) if it.state in (State.WARN, State.BAD)]


@contextmanager
def _machine() -> Iterator[Made]:
    with tempfile.TemporaryDirectory(prefix="baton-bench-") as folder:
        yield Made(Path(folder))
