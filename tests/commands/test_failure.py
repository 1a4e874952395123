"""Every wrong usage is answered by one line: what is wrong, and what to type instead."""

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import click
import pytest

from node.commands.cli import cli
from node.commands.command import Assembly
from node.commands.failure import EXIT_BUG, EXIT_INTERRUPTED, failure_of, leaves
from node.commands.standard_streams import OutputLost
from wire.errors import InputError, TaskFailed
from wire.kinds import RefusalCode

# What a newcomer types, and what the answer names: what is wrong, and what to do.
WRONG = {
    "": ("Missing command", "python -m node demo"),
    "runn smollm2": ("'runn'", "'run'"),
    "run": ("'MODEL'", "run smollm2"),
    "run smollm2 --temperature 9": ("9", "run --help"),
    "run smollm2 --verdicts two": ("'two'", "2/3"),
    "ask": ("'MODEL'", 'ask smollm2 "What'),
    "ask smollm2": ("nothing to ask", 'ask smollm2 "…"'),
    "ask smollm2 what is this": ("(is this)", 'ask smollm2 "What'),
    "ask smollm2 --text a --file b": ("one thing", "one of --text"),
    "ask smollm2 hello --source pydoc:try": ("one thing", "one of --text"),
    "ask smollm2 --text ''": ("empty", "--text"),
    "ask smollm2 --file /nope": ("/nope", "--file"),
    "ask smollm2 --messages /nope": ("/nope", "--messages"),
    "ask smollm2 hello --verdicts 3/2": ("3 of 2", "2/3"),
    "ask smollm2 hello --deadline 0": ("0", "ask --help"),
    "ask smollm2 hello --image cat.png": ("images", "--text"),
    "verify": ("'FILE|ID'", "verify"),
    "verify /nope": ("/nope", "python -m node receipts"),
    "put": ("'FILE'", "put ./report.txt"),
    "put /": ("not a file", "one file"),
    "get": ("'CONTENT_ID'", "get baf"),
    "join --role king": ("'king'", "infer"),
    "join --memory lots": ("'lots'", "20GB"),
    "join --schedule 25:00-99:00": ("25:00-99:00", "22:00-08:00"),
    "join --port abc": ("'abc'", "join --help"),
    "join --http nowhere:99999 --role gateway": ("99999", "127.0.0.1:8000"),
    "models ad model.gguf": ("'ad'", "'add'"),
    "models add": ("FILE|FOLDER|CONTENT-ID", "models add ./model.gguf"),
    "models rm": ("'NAME|ID'", "models rm"),
    "keys": ("Missing command", "keys add"),
    "keys add": ("'NAME'", "keys add"),
    "config": ("Missing command", "config show"),
    "completion tcsh": ("'tcsh'", "'bash'"),
    "devnet --peers 2": ("2 peers", "--peers 8"),
    "devnet --faults explode=0.1": ("explode=0.1", "NAME=SHARE"),
    "load --rate fast": ("'fast'", "10/s"),
    "--debugg": ("'--debugg'", "'--debug'"),
}


@pytest.mark.parametrize("typed", WRONG)
def test_a_newcomer_is_told_what_is_wrong_and_what_to_do(
    typed: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assembly = Assembly(wall_s=lambda: 0.0, entropy=bytes, runtime=SimpleNamespace)
    words = ["" if it == "''" else it for it in typed.split()]
    with pytest.raises(Exception) as raised:  # noqa: PT011 - of any kind, and looked at below
        cli.main(words, standalone_mode=False, obj=assembly)
    failure = failure_of([raised.value])
    what, todo = WRONG[typed]
    assert failure.exit_code in (1, 2)
    assert what in failure.message
    assert failure.line.count("\n") == 0
    assert len(failure.line) < 500
    place = failure.line.index(what)
    assert todo in failure.line[place + len(what) :] or todo in failure.todo


def test_the_error_that_says_most_counts() -> None:
    group = ExceptionGroup("", [ValueError("x"), ExceptionGroup("", [InputError("a", todo="b")])])
    failure = failure_of([*leaves(group)])
    assert (failure.exit_code, failure.line) == (1, "a: b")
    assert failure.document == {
        "error": {"kind": "input_error", "message": "a", "todo": "b", "code": "malformed"}
    }
    assert failure_of([ValueError("x"), KeyboardInterrupt()]).exit_code == EXIT_INTERRUPTED
    assert failure_of([click.Abort()]).line == ""
    assert failure_of([OutputLost(BrokenPipeError())]).output_lost
    bug = failure_of([ValueError("x")])
    assert bug.exit_code == EXIT_BUG
    assert bug.document["error"]["kind"] == "bug"
    code = failure_of([TaskFailed("no", code=RefusalCode.LOADING)]).code
    assert code == "loading"


def test_words_of_others_do_not_steer_the_terminal() -> None:
    assert failure_of([InputError("\x1b[2Jgone")]).line == "?[2Jgone"


def test_a_bug_outside_of_any_nursery_ends_in_one_line_and_a_document() -> None:
    """As where a module refuses to be imported, because the program's files are being replaced."""
    fails = "def fail():\n    assert False\nprogram._run = fail\n"
    program = f"import node.__main__ as program\n{fails}program.main()"
    command = [sys.executable, "-c", program, "join", "--json"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == EXIT_BUG
    (line,) = ended.stderr.splitlines()
    assert "a bug in Baton (AssertionError: at <string>:3)" in line
    assert json.loads(ended.stdout)["error"]["kind"] == "bug"


def test_a_bug_without_words_is_told_by_its_place() -> None:
    with pytest.raises(AssertionError) as raised:
        raise AssertionError
    assert "commands/test_failure.py:" in failure_of([raised.value]).line
    assert "unknown place" in failure_of([AssertionError()]).line
