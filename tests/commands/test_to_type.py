"""A command that somebody is told to type is about the state folder that was named."""

import ast
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from node.commands.cli import cli
from node.commands.to_type import hint, todo_here
from tests.tidy.tree import ROOT

# What is printed with a command in it that is not for this state folder, or for no folder.
ELSEWHERE = {
    "join --genesis": "every peer of the network is started with it",
    "workflows add": "it is for the machines that stand by",
}


def in_context(state: str | None) -> click.Context:
    context = click.Context(cli, info_name="baton")
    below = click.Context(cli.commands["status"], parent=context)
    below.params["state"] = Path(state or "~/.baton")
    return below


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ("start one: python -m node join", "start one: python -m node join --state /s/a"),
        (
            "python -m node join (or name another with --state)",
            "python -m node join --state /s/a (or name another with --state)",
        ),
        ("python -m node app key add LABEL", "python -m node app key add --state /s/a LABEL"),
        ("python -m node run smollm2", "python -m node run --state /s/a smollm2"),
        ("python -m node wallet shows its key", "python -m node wallet --state /s/a shows its key"),
        (
            "go on: python -m node upgrade; or end it: python -m node upgrade --back",
            "go on: python -m node upgrade --state /s/a; or end it:"
            " python -m node upgrade --state /s/a --back",
        ),
        # Where it is named already, for another's peer, and where there is none to name.
        ("python -m node join --model m --state /x", None),
        ("check it: python -m node verify /s/a/receipts/baf.receipt", None),
        ("have the owner print one: python -m node owner sign PEER", None),
        ("ask the network's owner for a new line: python -m node invite --label NAME", None),
        ("ask its owner for an invite: python -m node invite", None),
        ("python -m node demo", None),
        ("python -m node --help", None),
        ("python -m node nosuch", None),
        ("nothing to type", None),
    ],
)
def test_a_command_to_type_names_the_folder_that_was_named(said: str, meant: str | None) -> None:
    assert todo_here(said, in_context("/s/a")) == (said if meant is None else meant)
    assert todo_here(said, in_context(None)) == said
    assert hint(said) == said
    with in_context("/s/a"):
        assert hint(said) == (said if meant is None else meant)


def test_a_folder_with_an_odd_name_is_quoted_and_is_no_markup() -> None:
    with in_context("/a b/[red]"):
        assert hint("python -m node join") == r"python -m node join --state '/a b/\[red]'"
    assert todo_here("python -m node join", in_context("/[x]")).endswith("--state '/[x]'")


def test_a_user_without_a_home_is_told_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """As the user of a service."""
    monkeypatch.delenv("HOME")
    monkeypatch.setattr("os.path.expanduser", lambda path: path)
    with in_context("/var/lib/baton"):
        assert hint("python -m node join") == "python -m node join --state /var/lib/baton"
    with in_context(None):
        assert hint("python -m node join") == "python -m node join"


def test_what_commands_print_and_what_errors_say_names_it(tmp_path: Path) -> None:
    state = str(tmp_path / "one")
    shown = CliRunner().invoke(cli, ["app", "list", "--state", state]).output
    assert f"python -m node app new --state {state} NAME" in " ".join(shown.split())
    failed = CliRunner().invoke(cli, ["status", "--state", state])
    assert f"python -m node join --state {state}" in str(failed.exception)


def test_every_command_that_is_printed_goes_that_way() -> None:
    """What errors say is filled in by itself; what is printed has to be given to `hint`."""
    missing = []
    for file in sorted((ROOT / "node" / "commands").glob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "console.print":
                text = ast.unparse(node)
                plain = any(
                    isinstance(it, ast.Constant) and "python -m node " in str(it.value)
                    for it in ast.walk(node)
                )
                if plain and "hint(" not in text and not any(it in text for it in ELSEWHERE):
                    missing.append(f"{file.name}:{node.lineno}")
    assert not missing
