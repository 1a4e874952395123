"""The lock names everything that is run, and what is run is what the lock names."""

import re
import tomllib
from importlib import metadata

from click.testing import CliRunner
from packaging.requirements import Requirement

from node.commands.cli_versions import installed, versions_command
from node.upgrading.locked import needed, needed_by
from tests.tidy.tree import ROOT

LOCKED = re.compile(r"^([a-z0-9-]+)==([^\s;]+)", re.MULTILINE)


def normalised(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def locked() -> dict[str, str]:
    return dict(LOCKED.findall((ROOT / ".ci" / "requirements.lock").read_text(encoding="utf-8")))


def reached() -> set[str]:
    """Everything that the project's own libraries ask for, and what these ask for, and so on."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = (ROOT / ".ci" / "unused.txt").read_text(encoding="utf-8").splitlines()
    unused = {normalised(it) for it in lines if it and not it.startswith("#")}
    found: set[str] = set()
    waiting = [Requirement(it) for it in project["dependencies"]]
    while waiting:
        one = waiting.pop()
        name = normalised(one.name)
        if name in found | unused:
            continue
        found.add(name)
        for line in metadata.requires(name) or ():
            asked = Requirement(line)
            extras = one.extras or {""}
            if asked.marker is None or any(asked.marker.evaluate({"extra": it}) for it in extras):
                waiting.append(asked)
    return found


def test_all_that_is_run_is_locked_in_the_version_that_runs() -> None:
    lock, here = locked(), installed()
    assert len(lock) > 50
    missing = reached() - lock.keys()
    assert not missing, f"{sorted(missing)} not in .ci/requirements.lock"
    other = {it: (here[it], lock[it]) for it in reached() if here.get(it) != lock[it]}
    assert not other, f"installed is not what is locked: {other}"


def test_the_command_names_them_as_a_requirements_file_does() -> None:
    said = CliRunner().invoke(versions_command, []).output.splitlines()
    assert said[0].startswith("# python 3.")
    named = dict(it.split("==") for it in said[1:])
    assert reached() <= named.keys()
    assert all(Requirement(it) for it in said[1:])


def test_a_release_brings_the_versions_that_were_tested() -> None:
    lock = locked()
    text = (ROOT / "node" / "upgrading" / "libraries.lock").read_text(encoding="utf-8")
    brought = dict(LOCKED.findall(text))
    assert reached() <= brought.keys()
    assert len(LOCKED.findall(needed(text, reached()))) < len(brought)
    other = {it: (brought[it], lock[it]) for it in brought.keys() & lock.keys()}
    assert all(ours == theirs for ours, theirs in other.values()), other
    # What has to be compiled has no wheel, and is not needed: see .ci/overrides.txt.
    assert brought["fastecdsa"] == "4.0.0"


def test_what_a_release_needs_is_all_that_its_libraries_need() -> None:
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    text = (ROOT / "node" / "upgrading" / "libraries.lock").read_text(encoding="utf-8")
    found = dict(LOCKED.findall(needed_by(project, text)))
    assert reached() <= found.keys()
    assert "ezkl" not in found
    assert dict(LOCKED.findall(needed_by(project, text, ["ezkl"]))).keys() > found.keys()
