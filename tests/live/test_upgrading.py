"""Releases as a person has them: wheels of this tree, installed, run, upgraded, killed meanwhile.

All of it takes minutes and an index of packages, so it runs with --soak.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from node.upgrading.installing import installed
from node.upgrading.journal import read_journal, versions_folder
from node.upgrading.locked import normal
from node.upgrading.steps import UpgradeStep
from store.folder import folder_version, locked_by
from tests.live.command_line import LOOPBACK
from tests.live.releases import House, done, house, installed_by, wheel_of, without_compilers

pytestmark = [pytest.mark.soak, pytest.mark.timeout(1800)]
PATIENCE_S = 180.0
# A release that brings the state folder forward, and then cannot serve.
BROKEN = {
    "store/folder.py": ("FOLDER_VERSION = 1", "FOLDER_VERSION = 2"),
    "store/migrating.py": (
        "STEPS: Mapping[int, Migration] = {}",
        "STEPS: Mapping[int, Migration] = {1: lambda it: (it / 'brought').touch()}",
    ),
    "node/commands/join.py": (
        "        store = await stack.enter_async_context(opened)\n",
        "        await stack.enter_async_context(opened)\n        raise OSError('made so')\n",
    ),
}


@dataclass(frozen=True, slots=True)
class World:
    """What all of these tests need: wheels, and a search path without compilers."""

    folder: Path
    house: House
    path: str

    def release(self, version: str, **changed: object) -> Path:
        """The folder of a release with all that it needs beside it."""
        folder = self.folder / f"release-{version}"
        if not folder.exists():
            folder.mkdir()
            wheel_of(version, folder, BROKEN if changed else {})
            for wheel in self.house.wheels.iterdir():
                os.link(wheel, folder / wheel.name)
        return folder

    def index(self, folder: Path) -> Path:
        """The wheels as an index has them, for pip and uv alike."""
        for wheel in self.house.wheels.iterdir():
            # Some are no wheels: their names may have more parts.
            place = folder / normal(re.split(r"-\d", wheel.name)[0])
            place.mkdir(parents=True, exist_ok=True)
            shutil.copy(wheel, place)
            (place / "index.html").write_text(f'<a href="{wheel.name}">{wheel.name}</a>')
        return folder

    def baton(self, prefix: Path, *words: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [str(prefix / "bin" / "baton"), *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            # What is set for pip and uv adds nothing to a release, and puts nothing elsewhere.
            env={
                **os.environ,
                **{f"{it}_REQUIREMENT": "/nowhere/more.txt" for it in ("PIP", "UV")},
                **{f"{it}_INDEX_URL": "https://nowhere.invalid/" for it in ("PIP", "UV")},
                **{f"{it}_TARGET": "/nowhere" for it in ("PIP", "UV")},
                **{f"{it}_CONFIG_FILE": "/nowhere/its.toml" for it in ("PIP", "UV")},
                "PATH": self.path,
                "PYTHONPATH": "",
            },
        )

    def said(self, prefix: Path, *words: str) -> tuple[int, str]:
        process = self.baton(prefix, *words)
        out, _ = process.communicate(timeout=PATIENCE_S)
        return process.returncode, out

    def upgrade(self, prefix: Path, state: Path, *words: str) -> tuple[int, str]:
        return self.said(prefix, "upgrade", *words, "--state", str(state))


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    folder = tmp_path_factory.mktemp("r")
    path = without_compilers(folder)
    try:
        return World(folder, house(folder), path)
    except AssertionError as error:
        if "No matching distribution" in str(error):
            pytest.skip(f"no index of packages is reached: {str(error)[-300:]}")
        raise


@contextmanager
def started(world: World, prefix: Path, state: Path, *words: str) -> Iterator[str]:
    """A peer of an installed release; its id. Whatever uses the folder in the end is killed."""
    line = ("join", "--role", "store", "--state", str(state), *LOOPBACK, *words)
    process = world.baton(prefix, *line)
    try:
        until(lambda: status(world, prefix, state) is not None)
        found = status(world, prefix, state)
        assert found is not None
        yield str(found["peer"])
    finally:
        if number := locked_by(state):
            os.kill(number, signal.SIGKILL)
        process.kill()
        process.communicate()


def status(world: World, prefix: Path, state: Path) -> dict[str, object] | None:
    code, out = world.said(prefix, "status", "--json", "--state", str(state))
    return json.loads(out) if code == 0 else None


def until(held: Callable[[], object]) -> None:
    deadline_s = time.monotonic() + PATIENCE_S
    while not held():
        assert time.monotonic() < deadline_s
        time.sleep(0.02)


def running_prefix(state: Path) -> Path:
    """Where the Python of the peer lies."""
    number = locked_by(state)
    assert number
    words = Path(f"/proc/{number}/cmdline").read_bytes().split(b"\0")
    return Path(words[0].decode()).parents[1]


@pytest.mark.parametrize("how", ["uv", "pip"])
def test_a_peer_is_upgraded_twice_where_there_is_no_compiler(
    world: World, tmp_path: Path, how: str
) -> None:
    state = tmp_path / "s"
    wheel = wheel_of("0.1.0", tmp_path)
    prefix = installed_by(how, wheel, world.house, tmp_path / "old", world.path)
    with started(world, prefix, state) as me:
        for version in ("0.2.0", "0.3.0"):
            release = world.release(version)
            code, out = world.upgrade(prefix, state, str(release), "--offline")
            assert code == 0, out
            assert f"to {version}" in out
            prefix = versions_folder(state) / version
            assert running_prefix(state) == prefix
            told = status(world, prefix, state)
            assert told is not None
            assert told["peer"] == me
            # Extras come along.
            done(str(prefix / "bin" / "python"), "-I", "-c", "import segno")
        code, out = world.upgrade(prefix, state, str(release), "--offline")
        assert (code, "already runs" in out) == (1, True)


def test_a_release_that_cannot_serve_is_taken_back_with_its_folder(
    world: World, tmp_path: Path
) -> None:
    state = tmp_path / "s"
    prefix = installed_by(
        "uv", wheel_of("0.1.0", tmp_path), world.house, tmp_path / "o", world.path
    )
    with started(world, prefix, state) as me:
        release = world.release("0.9.0", broken=True)
        code, out = world.upgrade(prefix, state, str(release), "--offline")
        assert code == 1
        assert "0.1.0 runs again" in out, out
        assert "made so" in out
        told = status(world, prefix, state)
        assert told is not None
        assert told["peer"] == me
        assert folder_version(state) == (1, False)
        assert not (state / "brought").exists()
        assert (state.with_name("s.newer") / "brought").exists()


@pytest.mark.parametrize("how", ["uv", "pip"])
def test_a_library_that_was_altered_is_refused_and_the_old_version_serves_on(
    world: World, tmp_path: Path, how: str
) -> None:
    state = tmp_path / "s"
    wheel, new = wheel_of("0.1.0", tmp_path), wheel_of("0.2.0", tmp_path)
    prefix = installed_by("uv", wheel, world.house, tmp_path / "o", world.path)
    index = world.index(tmp_path / "index")
    (library,) = index.glob("sniffio/*.whl")
    sound = library.read_bytes()
    with zipfile.ZipFile(library) as files:
        whole = {it: files.read(it) for it in files.namelist()}
    first = next(it for it in whole if it.endswith(".py"))
    whole[first] = bytes([whole[first][0] ^ 1]) + whole[first][1:]
    # Nothing but its hash is wrong with it.
    with zipfile.ZipFile(library, "w") as files:
        for name, data in whole.items():
            files.writestr(name, data)
    if how == "uv":
        world = replace(world, path=f"{world.path}:{world.house.uv.parent}")
    with started(world, prefix, state) as me:
        process = locked_by(state)
        words = (str(new), "--index", index.as_uri())
        code, out = world.upgrade(prefix, state, *words)
        assert (code, "hash" in out.lower(), f"{how}: " in out) == (1, True, True), out
        told = status(world, prefix, state)
        assert told is not None
        assert (told["peer"], locked_by(state)) == (me, process)
        library.write_bytes(sound)
        code, out = world.upgrade(prefix, state, *words)
        assert code == 0, out
        assert running_prefix(state) == versions_folder(state) / "0.2.0"


@dataclass(frozen=True, slots=True)
class Watched:
    """An upgrade to the version `new`, seen from outside."""

    state: Path
    new: str

    @property
    def prefix(self) -> Path:
        return versions_folder(self.state) / self.new

    @property
    def step(self) -> UpgradeStep | None:
        journal = read_journal(versions_folder(self.state))
        return None if journal is None else journal.step


STOPPING, STARTING = UpgradeStep.STOPPING, UpgradeStep.STARTING
MOMENTS: dict[str, Callable[[Watched], object]] = {
    "the wheel is copied": lambda it: it.step,
    "the environment is begun": lambda it: (it.prefix / "bin").exists(),
    "it is being filled": lambda it: [*it.prefix.glob("lib/*/*/trio")],
    "it is whole": lambda it: installed(it.prefix),
    "the old one is told": lambda it: it.step is STOPPING,
    "the old one has ended": lambda it: it.step is STOPPING and not locked_by(it.state),
    "the new one is to start": lambda it: it.step is STARTING,
    "the new one starts": lambda it: it.step is STARTING and locked_by(it.state),
}


@pytest.mark.parametrize("ended", ["on", "back"])
def test_an_upgrade_that_is_killed_at_any_moment_goes_on_or_back(
    world: World, tmp_path: Path, ended: str
) -> None:
    state = tmp_path / "s"
    versions = versions_folder(state)
    prefix = installed_by(
        "uv", wheel_of("0.1.0", tmp_path), world.house, tmp_path / "o", world.path
    )
    kept = os.urandom(3_000_000)
    (tmp_path / "kept").write_bytes(kept)
    with started(world, prefix, state) as me:
        code, content = world.said(prefix, "put", str(tmp_path / "kept"), "--state", str(state))
        content_id = re.search(r"baf[a-z2-7]{56}", content)
        assert content_id is not None, content
        for number, moment in enumerate(MOMENTS):
            watched = Watched(state, f"0.2.{number}")
            killed_at(moment, world, watched, prefix)
            gone_on(world, watched, prefix, () if ended == "on" else ("--back",))
            prefix = watched.prefix if ended == "on" else prefix
            assert running_prefix(state) == prefix, moment
            assert read_journal(versions) is None
            told = status(world, prefix, state)
            assert told is not None
            assert told["peer"] == me
            out = tmp_path / f"again{number}"
            words = ("get", content_id[0], "--output", str(out), "--state", str(state))
            code, said = world.said(prefix, *words)
            assert code == 0, said
            assert out.read_bytes() == kept


def killed_at(moment: str, world: World, watched: Watched, old: Path) -> None:
    """Begin an upgrade and SIGKILL it as soon as the moment has come."""
    release = str(world.release(watched.new))
    words = ("upgrade", release, "--offline", "--state", str(watched.state))
    process = world.baton(old, *words)
    until(lambda: MOMENTS[moment](watched) or process.poll() is not None)
    assert process.poll() is None, (moment, process.communicate())
    process.kill()
    process.communicate()


def gone_on(world: World, watched: Watched, old: Path, words: tuple[str, ...]) -> None:
    """Have the killed upgrade go on, or back, once nothing that it began still writes."""

    def ended() -> bool:
        code, out = world.upgrade(old, watched.state, *words)
        assert code == 0 or "still installs" in out, out
        return code == 0

    until(ended)
