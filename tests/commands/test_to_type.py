"""A command that somebody is told to type is about the state folder that was named."""

import ast
import re
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from node.commands import to_type
from node.commands.cli import cli
from node.commands.service import Service
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
        ("or have another machine check: python -m node join /ip4/9 --role verify", None),
        (
            "print an invite: python -m node invite > FILE; and have another machine join with it:"
            " python -m node join --invite-file FILE",
            "print an invite: python -m node invite --state /s/a > FILE; and have another machine"
            " join with it: python -m node join --invite-file FILE",
        ),
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


@pytest.mark.parametrize(
    ("said", "user", "meant"),
    [
        ("start one: python -m node join (or name another)", "", "systemctl start baton"),
        ("start one: python -m node join", "--user", "systemctl --user start baton"),
        (
            "start it with: python -m node join --console",
            "",
            "python -m node service install … --console",
        ),
        (
            "restart with: python -m node join … --model m",
            "--user",
            "python -m node service install --user … --model m",
        ),
        ("see it with: python -m node logs", "", "python -m node logs --state /s/a"),
        ("have another machine check: python -m node join ADDRESS", "", "join ADDRESS"),
    ],
)
def test_who_is_kept_by_a_service_is_started_by_it(
    said: str, user: str, meant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(to_type, "service_of", lambda _state: user)
    told = todo_here(said, in_context("/s/a"))
    assert meant in told
    assert "start baton" in meant or "start baton" not in told


def test_a_service_of_this_user_keeps_the_folder_that_nobody_names(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert to_type.service_of(tmp_path / ".baton") is None
    unit = Service(for_user=True).file
    unit.parent.mkdir(parents=True)
    unit.touch()
    assert to_type.service_of(tmp_path / ".baton") == "--user"
    assert to_type.service_of(tmp_path / "other") is None
    said = "start one: python -m node join"
    assert todo_here(said, in_context(None)) == "start one: systemctl --user start baton"


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


# Peers of one's own, in a network that they know already.
OWN = ("node/commands/quantize.py", "node/client/http.py", "node/commands/demo.py")


def test_how_another_machine_joins_is_said_by_one_piece_of_code() -> None:
    """It is not the same in a private network, one with a name or one with a ledger."""
    line = re.compile(r"python -m node join (?:ADDRESS )?--role|_JOIN = ")
    found = [
        str(file.relative_to(ROOT))
        for room in ("node", "p2p", "wire", "store")
        for file in (ROOT / room).rglob("*.py")
        if line.search(file.read_text(encoding="utf-8"))
    ]
    assert sorted({*found} - {*OWN}) == ["p2p/joining.py"]
