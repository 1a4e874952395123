"""What is read of a machine, shown a machine that the test made."""

import os
import socket
from collections.abc import Sequence
from pathlib import Path

import pytest

from node.guest.sensors import said_by
from node.health.local_look import LocalLook
from store.folder import open_folder


def put(root: Path, **files: str) -> Path:
    for name, text in files.items():
        file = root / name.replace("__", "/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return root


def silent(_: Sequence[str]) -> None:
    return None


def look(root: Path) -> LocalLook:
    return LocalLook(root / "state", root, silent)


def test_a_port_that_another_program_has_is_told_with_its_process(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("", 0))
        other.listen()
        port = other.getsockname()[1]
        found = LocalLook(tmp_path).port(port)
        assert (found.taken, found.holder) == (True, os.getpid())
        assert found.command
    assert LocalLook(tmp_path).port(port).taken is False


def test_a_folder_that_a_peer_uses_is_told_with_its_process(tmp_path: Path) -> None:
    there = LocalLook(tmp_path / "state")
    assert there.folder().there is False
    assert there.folder().writable
    with open_folder(tmp_path / "state"):
        found = there.folder()
        assert (found.locked_by, found.mode, found.version) == (
            os.getpid(),
            0o700,
            "baton state 1",
        )
        assert found.sync_s is not None
    assert there.folder().locked_by == 0
    assert not list((tmp_path / "state").glob(".doctor*"))


def test_what_is_damaged_in_a_folder_is_told(tmp_path: Path) -> None:
    there = LocalLook(tmp_path / "state")
    with open_folder(tmp_path / "state") as state:
        assert there.folder().damage == ""
    # As `models add` leaves it before the first start.
    (state / "store").mkdir()
    assert there.folder().damage == ""
    (state / "started.json").write_text("{}")
    assert f"{state}/key is gone" in str(there.folder().damage)
    (state / "key").write_bytes(b"cut")
    assert "not as long as a key" in str(there.folder().damage)
    (state / "key").write_bytes(bytes(32))
    assert there.folder().damage == ""
    (state / "files").write_text("")
    assert "files is no folder" in str(there.folder().damage)


def test_a_folder_whose_disk_is_not_mounted_is_no_new_one(tmp_path: Path) -> None:
    (tmp_path / "state").symlink_to(tmp_path / "disk" / "baton")
    assert "disk/baton, which is not there" in str(LocalLook(tmp_path / "state").folder().damage)


def test_the_way_back_from_a_half_migrated_folder_is_told(tmp_path: Path) -> None:
    with open_folder(tmp_path / "state") as state:
        (state / "version").write_text("baton state 1 to 2\n")
        (state / "kept" / "v1").mkdir(parents=True)
        assert f"on a copy of {state}/kept/v1" in LocalLook(state).folder().way_out


def test_memory_is_what_the_control_group_still_lets_take(tmp_path: Path) -> None:
    root = put(
        tmp_path,
        proc__meminfo="MemTotal: 100 kB\nMemAvailable: 2097152 kB\n",
        proc__self__cgroup="0::/box\n",
        sys__fs__cgroup__box__pids="",
    )
    group = root / "sys/fs/cgroup/box"
    (group / "memory.max").write_text("1000\n")
    (group / "memory.current").write_text("400\n")
    (group / "memory.events").write_text("low 0\noom_kill 3\n")
    (group / "pids.max").write_text("64\n")
    found = look(root).resources()
    assert (found.available_bytes, found.limit_bytes) == (2 << 30, 600)
    assert (found.killed_for_memory, found.tasks_max) == (3, 64)
    (group / "memory.max").write_text("max\n")
    assert look(root).resources().limit_bytes is None


def test_heat_power_and_pressure_are_read(tmp_path: Path) -> None:
    root = put(
        tmp_path,
        sys__class__thermal__thermal_zone0__temp="91500\n",
        sys__class__power_supply__BAT0__type="Battery\n",
        sys__class__power_supply__AC__type="Mains\n",
        sys__class__power_supply__AC__online="0\n",
        proc__pressure__memory="some avg10=1.00 avg60=37.50 avg300=0 total=1\nfull avg60=9 x\n",
    )
    found = look(root).resources()
    assert found.hottest_celsius == 91.5
    assert found.on_battery is True
    assert found.pressure == {"memory": 0.375}
    (root / "sys/class/power_supply/AC/online").write_text("1\n")
    assert look(root).resources().on_battery is False


def test_a_machine_that_tells_nothing_gives_nothing(tmp_path: Path) -> None:
    found = look(tmp_path).resources()
    assert (found.available_bytes, found.hottest_celsius, found.on_battery) == (None, None, None)
    assert found.clock_synchronized is None
    assert look(tmp_path).service() is None


@pytest.mark.parametrize("text", ["", "\x00" * 9, "MemAvailable:\n", "MemAvailable: x kB\n"])
def test_odd_files_are_no_trouble(tmp_path: Path, text: str) -> None:
    root = put(tmp_path, proc__meminfo=text, proc__self__cgroup=text)
    assert look(root).resources().available_bytes is None


def test_a_gpu_without_its_library_is_told(tmp_path: Path) -> None:
    put(tmp_path, dev__nvidia0="")
    found = look(tmp_path).tools("/nowhere")
    assert found.gpu_nodes == ("/dev/nvidia0",)
    assert found.missing_libraries == ("libcuda.so.1",)
    assert "clang is not installed" in found.compiler_problem
    put(tmp_path, usr__lib64__x="")
    (tmp_path / "usr/lib64/libcuda.so.1").write_text("")
    assert look(tmp_path).tools("/nowhere").missing_libraries == ()


def test_when_the_newest_file_was_written_is_told(tmp_path: Path) -> None:
    there = look(tmp_path)
    there.state.mkdir()
    assert there.folder().newest_wall_s is None
    for name, wall_s in (("old", 1_000_000_000), ("new", 1_800_000_000)):
        (there.state / name).touch()
        os.utime(there.state / name, (wall_s, wall_s))
    # Who looks writes there, and a link says nothing of this peer.
    (there.state / "link").symlink_to("/proc/self/status")
    assert there.folder().newest_wall_s == 1_800_000_000


def test_the_service_is_read_as_systemd_tells_it(tmp_path: Path) -> None:
    def say(words: Sequence[str]) -> str | None:
        if words[0] == "loginctl":
            return "no\n"
        if "--user" not in words:
            return "LoadState=not-found\n"
        return "LoadState=loaded\nUnitFileState=enabled\nNRestarts=7\nResult=success\n"

    found = LocalLook(tmp_path, tmp_path, say).service()
    assert found is not None
    assert (found.found, found.for_user, found.enabled, found.lingers) == (True, True, True, False)
    assert (found.restarts, found.port) == (7, None)


@pytest.mark.parametrize(
    ("typed", "port"),
    [
        ("--state {} --port 4801", 4801),
        ("--port=4801 --state={}", 4801),
        ("--state {} --listen /ip4/0.0.0.0/tcp/4801", 4801),
        ("--state {} --role infer", None),
        ("--state {} --port 0", None),
        ("--state {} --port 99999", None),
        ("--state {}/other --port 4801", None),
        ("--port 4801", None),
    ],
)
def test_the_port_that_a_service_names_for_this_folder_is_told(
    tmp_path: Path, typed: str, port: int | None
) -> None:
    command = f"python -m node join {typed.format(tmp_path)}"
    said = f"LoadState=loaded\nExecStart={{ path=python ; argv[]={command} ; pid=0 }}\n"
    found = LocalLook(tmp_path, tmp_path, lambda _: said).service()
    assert found is not None
    assert found.port == port


def test_a_program_that_is_not_there_or_fails_says_nothing() -> None:
    assert said_by(["no-such-program-here"]) is None
    assert said_by(["false"]) is None
    assert said_by(["echo", "yes"]) == "yes\n"
