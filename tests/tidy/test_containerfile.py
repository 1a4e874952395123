"""The container's file copies what the package is made of, and starts what there is."""

import json
import re

from click.testing import CliRunner

from node.commands.cli import cli
from tests.tidy.tree import PACKAGES, ROOT

TEXT = (ROOT / "Containerfile").read_text(encoding="utf-8")


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


def test_it_starts_a_command_that_is_there() -> None:
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert f"{lists_of('ENTRYPOINT')[0]} = " in project
    words = lists_of("CMD")
    shown = CliRunner().invoke(cli, [words[0], "--help"]).output
    assert all(it in shown for it in words if it.startswith("--"))


def test_it_runs_as_nobody_in_particular() -> None:
    assert re.search(r"^USER (?!root)\w+$", TEXT, re.MULTILINE)
