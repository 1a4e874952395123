"""State folders that cannot be used, ports that cannot be had: refused, and nothing is lost."""

import contextlib
import hashlib
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from node.own_port import kept_port
from store.folder import open_folder as used_folder
from tests.live.command_line import LOOPBACK, Done, Peer, at_once, environment, joined
from tests.ports import free_port

NOBODY = 65_534
AS_ROOT = os.geteuid() == 0


def above(folder: Path) -> list[Path]:
    """The folders around it that pytest made for this user alone."""
    shared = Path(tempfile.gettempdir())
    return [it for it in folder.parents if shared in it.parents]


def another_version(state: Path) -> None:
    (state / "version").write_text("baton state 99\n")


def open_key(state: Path) -> None:
    (state / "key").chmod(0o644)


def short_key(state: Path) -> None:
    os.truncate(state / "key", 5)


def piped_key(state: Path) -> None:
    (state / "key").unlink()
    os.mkfifo(state / "key", 0o600)


def open_folder(state: Path) -> None:
    state.chmod(0o777)


def a_file(state: Path) -> None:
    shutil.rmtree(state)
    state.write_text("I was here first")


def half_migrated(state: Path) -> None:
    (state / "version").write_text("baton state 1 to 2\n")


FOLDERS: dict[str, tuple[Callable[[Path], None], tuple[str, ...]]] = {
    "another version": (another_version, ("'baton state 99'", "another state folder")),
    "one that is half brought forward": (half_migrated, ("'baton state 1 to 2'", "run the")),
    "a key that others may read": (open_key, ("0644", "chmod 600")),
    "a key cut short": (short_key, ("32 bytes", "has 5")),
    "a pipe in the place of the key": (piped_key, ("plain file", "move it away")),
    "a folder that others may write to": (open_folder, ("0777", "chmod 700")),
    "a file": (a_file, ("is a file", "--state")),
}
OTHERS = {
    "a folder in use": ("in use by another running peer", "process"),
    "a path too long for a socket": ("too long", "107", "--state"),
    "a port that is taken": ("Address already in use", "choose another"),
    "an address that is taken": ("Address already in use", "choose another"),
    "an address of another machine": ("192.0.2.1", "Cannot assign"),
    "a port that is none": ("tcp/99999", "/ip4/0.0.0.0/tcp/4710"),
    "a way of listening that is not ours": ("cannot be listened on", "/ip4/0.0.0.0/tcp/4710"),
    "a model nobody knows": ("'nonsense'", "hash, minilm"),
}


@pytest.fixture(scope="module")
def outcomes(network: dict[str, Peer], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Done]:
    folder = tmp_path_factory.mktemp("s")
    asker = network["asker"]
    commands: dict[str, tuple[object, ...]] = {}
    for number, (name, (spoil, _)) in enumerate(FOLDERS.items()):
        state = folder / str(number)
        state.mkdir(mode=0o700)
        for kept in ("key", "version"):
            shutil.copy(asker.state / kept, state / kept)
        spoil(state)
        commands[name] = ("--state", state, *LOOPBACK)
    fresh = ("--state", folder / "fresh")
    with closing(socket.socket()) as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        commands |= {
            "a folder in use": ("--state", asker.state, *LOOPBACK),
            "a path too long for a socket": ("--state", folder / ("x" * 120), *LOOPBACK),
            "a port that is taken": (*fresh, "--port", port),
            "an address that is taken": (*fresh, "--listen", f"/ip4/127.0.0.1/tcp/{port}"),
            "an address of another machine": (*fresh, "--listen", "/ip4/192.0.2.1/tcp/0"),
            "a port that is none": (*fresh, "--listen", "/ip4/127.0.0.1/tcp/99999"),
            "a way of listening that is not ours": (*fresh, "--listen", "/ip4/127.0.0.1/udp/1"),
            "a model nobody knows": (*fresh, *LOOPBACK, "--model", "nonsense"),
        }
        # Each has a folder of its own, so that none is in another's way.
        for number, name in enumerate(list(commands)[-6:]):
            commands[name] = ("--state", folder / f"f{number}", *commands[name][2:])
        done = at_once([("join", "--json", *it) for it in commands.values()])
    return dict(zip(commands, done, strict=True))


@pytest.mark.parametrize("name", [*FOLDERS, *OTHERS])
def test_one_line_says_what_is_wrong_with_the_place(outcomes: dict[str, Done], name: str) -> None:
    line = outcomes[name].error
    words = FOLDERS[name][1] if name in FOLDERS else OTHERS[name]
    assert all(word in line for word in words), line
    assert outcomes[name].error_document["kind"] != "bug"


def test_who_has_the_folder_is_named_by_its_process(outcomes: dict[str, Done], asker: Peer) -> None:
    assert f"process {asker.process.pid}" in outcomes["a folder in use"].error
    assert asker.ask("status", "--json").document["peer"] == asker.id


def test_a_folder_without_permission_is_refused(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("p")
    if AS_ROOT:
        # Others are let through to a folder that stays root's own.
        for place in (folder, *above(folder)):
            place.chmod(0o755)
    else:
        folder.chmod(0o500)
    uid = NOBODY if AS_ROOT else None
    commands = [("join", "--json", "--state", folder / it, *LOOPBACK) for it in ("x", "x/y")]
    for done in at_once(commands, uid=uid):
        assert "Permission denied" in done.error
        assert "folder of yours" in done.error
    assert not (folder / "x").exists()


def test_whose_a_folder_is_that_cannot_be_read_is_said(tmp_path: Path) -> None:
    if not AS_ROOT:
        pytest.skip("only root may be another user")
    (tmp_path / "s").mkdir(mode=0o700)
    for place in (tmp_path, *above(tmp_path)):
        place.chmod(0o755)
    named = ("--state", tmp_path / "s")
    commands = [(it, *named) for it in ("join", "status", "doctor", "leave")]
    for done in at_once(commands, uid=NOBODY):
        assert f"{tmp_path}/s belongs to the user root: run this as that user" in done.error


def test_a_port_that_is_not_allowed_is_said(tmp_path: Path) -> None:
    if not AS_ROOT:
        pytest.skip("the privileged port may be free to this user")
    first = Path("/proc/sys/net/ipv4/ip_unprivileged_port_start")
    if int(first.read_text()) <= 80:
        pytest.skip("this machine lets everybody have every port")
    folder = tmp_path / "s"
    folder.mkdir(mode=0o700)
    os.chown(folder, NOBODY, NOBODY)
    for place in (tmp_path, *above(tmp_path)):
        place.chmod(0o755)
    [done] = at_once(
        [("join", "--json", "--state", folder, "--listen", "/ip4/127.0.0.1/tcp/80")], uid=NOBODY
    )
    assert "Permission denied" in done.error
    assert "choose another" in done.error


def test_a_killed_peers_socket_does_not_hinder_the_next_start(state: Path) -> None:
    with joined(state, "--role", "store") as peer:
        peer.stop(signal.SIGKILL)
        assert (state / "control.sock").exists()
        assert "no peer is running" in peer.ask("status").error
        with joined(state, "--role", "store") as again:
            assert again.id == peer.id
            assert again.ask("status", "--json").document["peer"] == peer.id


def test_a_port_is_kept_over_a_start_at_which_another_program_has_it(state: Path) -> None:
    plain = ("--role", "store", "--no-lan", "--no-map-port", "--network", "kept-port")
    port = free_port()
    with joined(state, *plain, "--port", port) as peer:
        assert peer.stop().code == 0
    with closing(socket.socket()) as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("", port))
        other.listen()
        with joined(state, *plain, placed=False) as peer:
            assert f"/tcp/{port}/" not in peer.address
            assert f"port {port} is taken" in peer.ask("logs").out
            [line] = peer.stop().err.splitlines()
            assert f"say {port}" in line
        doctor = ("doctor", "--json", "--state", state)
        told = at_once([doctor, (*doctor, "--port", port)])
        for done, state_of_it in zip(told, ("warn", "bad"), strict=True):
            [it] = [it for it in json.loads(done.out)["findings"] if it["name"] == "port-taken"]
            assert (it["state"], f"port {port}" in it["seen"]) == (state_of_it, True)
    assert kept_port(state) == port


def test_a_peer_whose_key_is_gone_is_not_begun_anew_without_a_word(kept_by_a_peer: Path) -> None:
    state = kept_by_a_peer
    (state / "key").rename(state / "elsewhere")
    [done] = at_once([("join", "--json", "--state", state, *LOOPBACK)])
    assert f"{state}/key is gone" in done.error
    assert f"mv {state} {state}.old" in done.error
    [told] = at_once([("doctor", "--json", "--state", state)])
    [damaged] = [it for it in json.loads(told.out)["findings"] if it["name"] == "folder-damaged"]
    assert (damaged["state"], damaged["seen"] in done.error) == ("bad", True)
    assert damaged["advice"] in done.error


@pytest.fixture
def kept_by_a_peer(state: Path) -> Path:
    """A state folder as a peer left it."""
    with joined(state, "--role", "store") as peer:
        assert peer.stop().code == 0
    return state


def digest_of(state: Path) -> str:
    """Of all that is kept there."""
    whole = hashlib.sha256()
    for file in sorted(it for it in state.rglob("*") if it.is_file()):
        whole.update(str(file).encode() + file.read_bytes())
    return whole.hexdigest()


def test_a_peers_folder_on_a_disk_that_cannot_be_written_or_of_another_user_stays_as_it_is(
    kept_by_a_peer: Path,
) -> None:
    if not AS_ROOT:
        pytest.skip("only root may mount a folder so that it can only be read, or give it away")
    state, before = kept_by_a_peer, digest_of(kept_by_a_peer)
    for words in (("--bind", str(state)), ("-o", "remount,ro,bind")):
        ran = subprocess.run(["mount", *words, str(state)], capture_output=True, check=False)
        if ran.returncode:
            pytest.skip(f"nothing may be mounted here: {ran.stderr.decode()}")
    try:
        [done] = at_once([("join", "--json", "--state", state, *LOOPBACK)])
    finally:
        subprocess.run(["umount", str(state)], check=True)
    assert "Read-only file system" in done.error
    assert "name another" in done.error
    os.chown(state, NOBODY, NOBODY)
    [done] = at_once([("join", "--json", "--state", state, *LOOPBACK)])
    assert "belongs to another user" in done.error
    assert f"chown 0 {state}" in done.error
    assert digest_of(state) == before
    os.chown(state, 0, 0)
    with joined(state, "--role", "store") as peer:
        assert peer.stop().code == 0


def filled(disk: Path) -> Path:
    """The file with which there is no byte left."""
    filling = disk / "filling"
    with filling.open("wb", buffering=0) as file:
        for size_bytes in (1 << 20, 1):
            with contextlib.suppress(OSError):
                while file.write(bytes(size_bytes)):
                    """Until the disk takes no more."""
    return filling


@pytest.mark.soak
def test_a_peer_whose_disk_filled_up_while_it_was_down_says_so_and_loses_nothing(
    small_disk: Path, tmp_path: Path
) -> None:
    state, copy = small_disk / "s", tmp_path / "copy"
    (tmp_path / "small").write_bytes(secrets.token_bytes(1 << 20))
    with joined(state, "--role", "store") as peer:
        kept = peer.ask("put", tmp_path / "small", "--json").document["id"]
        assert peer.stop().code == 0
    filling = filled(small_disk)
    [done] = at_once([("join", "--json", "--state", state, *LOOPBACK)])
    assert "no room left" in done.error
    assert "free some space" in done.error
    filling.unlink()
    with joined(state, "--role", "store") as again:
        assert again.id == peer.id
        assert again.ask("get", kept, "--output", copy).code == 0
        assert copy.read_bytes() == (tmp_path / "small").read_bytes()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 24 MiB."""
    place = tmp_path / "d"
    place.mkdir()
    options = ["mount", "-t", "tmpfs", "-o", "size=24m,mode=700", "tmpfs", str(place)]
    if not AS_ROOT or subprocess.run(options, capture_output=True, check=False).returncode:
        pytest.skip("only root may mount a small disk")
    with ExitStack() as stack:
        stack.callback(subprocess.run, ["umount", "--lazy", str(place)], check=True)
        yield place


def test_a_full_disk_is_said_and_what_is_kept_can_be_read(small_disk: Path, tmp_path: Path) -> None:
    small, large = tmp_path / "small", tmp_path / "large"
    small.write_bytes(secrets.token_bytes(1 << 20))
    large.write_bytes(secrets.token_bytes(40 << 20))
    with joined(small_disk / "s", "--role", "store") as peer:
        kept = peer.ask("put", small, "--json").document["id"]
        line = peer.ask("put", large, "--json").error
        assert "the disk refused a write" in line
        assert "free some space" in line
        copy = tmp_path / "copy"
        assert peer.ask("get", kept, "--output", copy).code == 0
        assert copy.read_bytes() == small.read_bytes()
        assert peer.ask("status", "--json").document["peer"] == peer.id
        assert peer.stop().code == 0


def test_on_a_disk_that_is_already_full_join_says_so(small_disk: Path) -> None:
    with contextlib.suppress(OSError), (small_disk / "filling").open("wb", buffering=0) as file:
        while file.write(bytes(1 << 20)):
            """Until the disk takes no more."""
    [done] = at_once([("join", "--json", "--state", small_disk / "s", *LOOPBACK)])
    assert "no room left on the disk" in done.error
    assert "free some space" in done.error


def test_where_the_store_is_yet_to_be_made_a_full_disk_is_said_too(small_disk: Path) -> None:
    """What LMDB maps must be on the disk: the system ends whoever writes to what has no room."""
    with used_folder(small_disk / "s"):
        filled(small_disk)
    [done] = at_once([("join", "--json", "--state", small_disk / "s", *LOOPBACK)])
    assert "no room left on the disk" in done.error
    assert "free some space" in done.error


def test_a_disk_that_fills_up_under_a_peer_is_said_and_ends_nothing(
    state: Path, tmp_path: Path
) -> None:
    """Small answers still fit where a large file does not: the peer goes on with those."""
    full = (
        "import resource, sys; from node.__main__ import main;"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({2 << 20}, {2 << 20}));"
        "main()"
    )
    large = tmp_path / "large"
    large.write_bytes(secrets.token_bytes(8 << 20))
    serves = ("--role", "infer", "--model", "hash")
    with joined(state, *serves, program=("-c", full)) as peer:
        assert "refused a write" in peer.ask("put", large).error
        found = peer.ask("status", "--json").document["problems"]
        assert any("store: the disk refused a write" in it for it in found), found
        asking = ("ask", "hash", "--verdicts", "0/0", "--json")
        assert peer.ask(*asking, "--text", "after that").document["result"]["dimensions"]
        assert peer.stop().code == 0


def test_a_clock_that_was_never_set_is_said(state: Path) -> None:
    never_set = (
        "import time; from node.__main__ import main; whole_s, whole_ns = time.time, time.time_ns;"
        "begun_s = whole_s(); time.time = lambda: whole_s() - begun_s + 100;"
        "time.time_ns = lambda: whole_ns() - int((begun_s - 100) * 1e9);"
        "main()"
    )
    with joined(state, "--role", "store", program=("-c", never_set)) as peer:
        noted = peer.ask("status", "--json").document["problems"]
        done = peer.stop()
    assert done.code == 0
    assert "clock is in the year 1970" in done.err
    assert any("timedatectl set-ntp true" in it for it in noted), noted
    # Its doctor finds it too, by name, while no peer runs.
    line = [sys.executable, "-c", never_set, "doctor", "--json", "--state", str(state)]
    said = subprocess.run(line, capture_output=True, check=False, env=environment({})).stdout
    causes = {it["name"]: it for it in json.loads(said)["findings"]}
    assert causes["clock"]["state"] == "bad"
    assert "1970" in causes["clock"]["seen"]
    assert causes["clock"]["advice"]
