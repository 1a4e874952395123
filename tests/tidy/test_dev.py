"""`./dev` on machines that lack something says what and why, and touches nothing."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.tidy.tree import ROOT

# What `dev` may take for granted on any POSIX system, of all that these tests reach.
TOOLS = ("sh", "cat", "dirname", "id", "sleep")


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A copy of what `dev` needs of a clone, beside a machine (`bin`) with hardly anything on."""
    shutil.copytree(ROOT / ".ci", tmp_path / "clone" / ".ci")
    shutil.copy(ROOT / "dev", tmp_path / "clone" / "dev")
    (tmp_path / "bin").mkdir()
    for tool in TOOLS:
        found = shutil.which(tool)
        assert found
        (tmp_path / "bin" / tool).symlink_to(found)
    return tmp_path / "clone"


def run_dev(clone: Path, *words: str) -> tuple[int, str]:
    done = subprocess.run(
        ["sh", str(clone / "dev"), *words],
        env={"PATH": str(clone.parent / "bin")},
        cwd=clone.parent,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
        check=False,
    )
    return done.returncode, done.stdout


def give(clone: Path, name: str, script: str) -> None:
    """Put a program of that name on the machine."""
    program = clone.parent / "bin" / name
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)


def test_dev_alone_explains_itself(clone: Path) -> None:
    status, said = run_dev(clone)
    assert status == 0
    for command in ("install", "demo", "test"):
        assert f"./dev {command}" in said


def test_an_unknown_command_is_refused_with_the_usage(clone: Path) -> None:
    status, said = run_dev(clone, "dmeo")
    assert status == 2
    assert "usage: ./dev install" in said


def test_without_a_usable_python_dev_names_those_that_are(clone: Path) -> None:
    give(clone, "python3", "exit 1")
    status, said = run_dev(clone, "test")
    assert status == 1
    assert "Python 3.11, 3.12 or 3.13" in said
    assert not (clone / ".venv").exists()


def test_without_apt_dev_names_the_packages_and_installs_nothing(clone: Path) -> None:
    give(clone, "python3", f'exec "{sys.executable}" "$@"')
    status, said = run_dev(clone, "demo")
    assert status == 1
    assert "lacks" in said
    assert "clang" in said
    # Nothing has to be compiled: what is locked has wheels, or is Python alone.
    for package in ("gcc", "libgmp-dev", "python3.11-dev"):
        assert package not in said
    assert not (clone / ".venv").exists()


def test_when_apt_fails_dev_shows_its_words_and_the_line_to_run(clone: Path) -> None:
    give(clone, "python3", f'exec "{sys.executable}" "$@"')
    give(clone, "id", "echo 0")
    give(clone, "mktemp", 'echo "${0%/*}/log"')
    give(clone, "env", "echo no route to the mirror; exit 100")
    give(clone, "apt-get", "exit 100")
    for tool in ("tail", "rm"):
        (clone.parent / "bin" / tool).symlink_to(shutil.which(tool) or "")
    status, said = run_dev(clone, "test")
    assert status == 1
    assert "no route to the mirror" in said
    assert "apt-get update && apt-get install -y --no-install-recommends" in said
    assert not (clone / ".venv").exists()


def test_dev_installs_alone_and_says_what_is_next(clone: Path) -> None:
    """Where everything is there already nothing is fetched, and no network is run."""
    give(clone, "python3", f'exec "{sys.executable}" "$@"')
    made = clone / ".venv"
    (made / "bin").mkdir(parents=True)
    (made / "bin" / "python").symlink_to(sys.executable)
    script = (clone / "dev").read_text().split('\ncase "${1:-}" in')[0]
    root = f"root={clone} && cd {clone} && fingerprint .venv/bin/python"
    stamp = subprocess.check_output(["sh", "-c", f"{script}\n{root}"], text=True)
    (made / "made-from").write_text(stamp)
    status, said = run_dev(clone, "install")
    assert status == 0, said
    assert said == "dev: next:  . .venv/bin/activate  and then  python -m node --help\n"
