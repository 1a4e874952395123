"""The container's file copies what the package is made of, and starts what there is."""

import json
import re
import subprocess
from pathlib import Path

from click.testing import CliRunner

from node.commands.cli import cli
from node.upgrading.locked import name_in
from tests.tidy.tree import PACKAGES, ROOT

TEXT = (ROOT / "Containerfile").read_text(encoding="utf-8")
STEPS = TEXT.replace("\\\n", "").splitlines()


def lists_of(word: str) -> list[str]:
    (found,) = re.findall(rf"^{word} (\[.*\])$", TEXT, re.MULTILINE)
    return [str(it) for it in json.loads(found)]


def test_what_it_copies_is_there_and_is_all_of_the_package() -> None:
    copied = {
        name
        for line in re.findall(r"^COPY (.*)$", TEXT, re.MULTILINE)
        for name in line.split()[:-1]
    }
    assert set(PACKAGES) <= copied
    assert all((ROOT / name).exists() for name in copied)


def test_what_it_installs_has_the_hashes_of_a_release(tmp_path: Path) -> None:
    (line,) = (it for it in STEPS if it.startswith("RUN python -c"))
    (tmp_path / "node").symlink_to(ROOT / "node")
    (tmp_path / "pyproject.toml").symlink_to(ROOT / "pyproject.toml")
    program = line.removeprefix("RUN ").partition(" && ")[0]
    subprocess.run(["sh", "-c", program], cwd=tmp_path, check=True)
    found = [name_in(it) for it in (tmp_path / "libraries.txt").read_text().splitlines()]
    assert {"libp2p", "fastecdsa", "trio"} <= {*found}
    assert (tmp_path / "build.txt").read_text().count("--hash=sha256:") > 1
    installs = re.findall(r"pip install (.*?) &&", line)
    assert len(installs) == 3
    assert all("--require-hashes" in it for it in installs[:2])
    assert "--no-index" in installs[2]
    assert all(it.startswith("$strict ") for it in installs)
    assert re.search(r'strict="[^"]*--no-deps --no-build-isolation"', line)
    assert not [it for it in STEPS if it != line and "pip install" in it]


def test_it_starts_a_command_that_is_there() -> None:
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert f"{lists_of('ENTRYPOINT')[0]} = " in project
    words = lists_of("CMD")
    shown = CliRunner().invoke(cli, [words[0], "--help"]).output
    assert all(it in shown for it in words if it.startswith("--"))


def test_it_runs_as_nobody_in_particular() -> None:
    assert re.search(r"^USER (?!root)\w+$", TEXT, re.MULTILINE)
