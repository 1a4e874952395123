"""What can be typed: each command has help and examples, and each example is one that runs."""

import re
import shlex
import shutil
import tomllib
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import click
import pytest
import trio
from click.testing import CliRunner

from node.commands.cli import VERSION, cli
from node.commands.command import CALLED, Assembly, Command, Group, example_lines
from node.commands.models import meant_among
from tests.tidy.tree import ROOT
from wire.errors import InputError
from wire.motion import Parameter
from wire.signing import SigningKey

PATHS = ("report.txt", "model.gguf", "embedder/", "home/notes/", "photos/")


def every_command(group: click.Group = cli, words: tuple[str, ...] = ()) -> Iterator[tuple]:
    """The words of each command, and the command."""
    yield words, group
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from every_command(command, (*words, name))
        else:
            yield (*words, name), command


COMMANDS = dict(every_command())
EXAMPLES = [example for command in COMMANDS.values() for example in command.examples]
named = pytest.mark.parametrize("words", COMMANDS, ids=" ".join)


class Reached(Exception):
    """A command has understood its words, and would now begin its work."""


# Commands that are done when they return, without a loop.
AT_ONCE = ("keys", "completion", "versions", "network", "dashboard", "evidence")


@pytest.fixture
def no_work(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """In a folder with what examples name, and without the work that they would do."""

    def reached(*_: object, **__: object) -> None:
        raise Reached

    monkeypatch.setattr(trio, "run", reached)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    for path in PATHS:
        if path.endswith("/"):
            (tmp_path / path).mkdir(parents=True)
        else:
            (tmp_path / path).write_text("text")


@named
def test_help_shows_one_to_three_examples_as_they_are_typed(words: tuple[str, ...]) -> None:
    command = COMMANDS[words]
    assert isinstance(command, Command | Group)
    assert 1 <= len(command.examples) <= 3
    shown = CliRunner().invoke(cli, [*words, "--help"])
    assert shown.exit_code == 0
    # Past the last column of most terminals a line of it would break anywhere.
    assert max(map(len, shown.output.splitlines())) <= 80
    # As a shell reads a line that goes on in the next.
    joined = re.sub(r" \\\n +", " ", shown.output)
    for example in command.examples:
        assert f"  {CALLED} {example}\n" in joined
        assert words == () or shlex.split(example)[: len(words)] == list(words)


@pytest.mark.parametrize("example", EXAMPLES)
def test_every_example_is_understood(example: str, no_work: None) -> None:
    assembly = Assembly(
        wall_s=lambda: 0.0,
        entropy=bytes,
        runtime=lambda: SimpleNamespace(machine=None, transport=None),
    )
    # As a shell does before a command sees them.
    words = [
        str(Path(word).expanduser()) if word[0] == "~" else word for word in shlex.split(example)
    ]
    if words[0] == "verify" or words[:2] == ["receipts", "show"] or "--replay" in words:
        # They read the file that is named, which is no receipt and no report.
        shutil.copy("report.txt", "answer.receipt")
        with pytest.raises(InputError, match=r"cannot be read|not a receipt"):
            cli.main(words, standalone_mode=False, obj=assembly)
    elif words[:2] in (["keys", "rm"], ["keys", "allow"]):
        added = ["keys", "add", words[2], "--credits", "20"]
        cli.main(added, standalone_mode=False, obj=assembly)
        cli.main(words, standalone_mode=False, obj=assembly)
    elif words[0] == "sources" and words[1] in ("add", "list", "rm"):
        Path("prices.toml").write_text('kind = "http"\nurl = "https://example.org/"\n')
        if words[1] == "rm":
            added = ["sources", "add", words[2], "prices.toml"]
            cli.main(added, standalone_mode=False, obj=assembly)
        cli.main(words, standalone_mode=False, obj=assembly)
    elif words[0] == "app" and words[1] != "usage":
        if words[1] == "key":
            name = words[words.index("--app") + 1] if "--app" in words else "reader"
            modes = {"writer": ["call", "--price", "1"], "club": ["hold", "--hold", "1"]}
            mode = modes.get(name, ["open"])
            cli.main(["app", "new", name, "--mode", *mode], standalone_mode=False, obj=assembly)
        if words[:3] == ["app", "key", "revoke"]:
            added = ["app", "key", "add", words[3], "--app", name]
            cli.main(added, standalone_mode=False, obj=assembly)
        if "12D3KooW…" in words:
            words[words.index("12D3KooW…")] = str(SigningKey(bytes(32)).peer)
        cli.main(words, standalone_mode=False, obj=assembly)
    elif words[:2] in (["ledger", "check"], ["jury", "charge"]):
        with pytest.raises(InputError, match="cannot be read"):
            cli.main(words, standalone_mode=False, obj=assembly)
    elif words[0] in AT_ONCE and "--private" not in words:
        cli.main(words, standalone_mode=False, obj=assembly)
    else:
        with pytest.raises(Reached):
            cli.main(words, standalone_mode=False, obj=assembly)


@pytest.mark.parametrize("words", [("join",), ("ask",), ("devnet",), ("run",)], ids=" ".join)
def test_many_options_stand_under_headings(words: tuple[str, ...]) -> None:
    command = COMMANDS[words]
    context = click.Context(command, info_name=words[-1])
    sections = command.sections(context)
    assert "Options" not in [text for text, _ in sections]
    assert len({text for text, _ in sections}) == len(sections) >= 3
    assert all(1 <= len(rows) <= 12 for _, rows in sections)
    shown = {name.split()[0].rstrip(",") for _, rows in sections for name, _ in rows}
    there = [it for it in command.get_params(context) if isinstance(it, click.Option)]
    assert shown == {it.opts[0] for it in there if not it.hidden}


def test_who_is_new_to_join_finds_first_what_most_peers_are_told() -> None:
    join = COMMANDS["join",]
    text, rows = join.sections(click.Context(join, info_name="join"))[0]
    assert text == "What most peers are told"
    names = [name.split()[0] for name, _ in rows]
    assert names == ["--role", "--model", "--http", "--console", "--invite-file", "--state"]


def test_an_example_in_two_lines_is_one_for_a_shell() -> None:
    long = f'ask minilm --index {"b" * 59} --text "how do I  open a file?"'
    lines = example_lines(long)
    assert len(lines) == 3
    assert all(it.endswith(" \\") for it in lines[:-1])
    found = shlex.split("".join(it.removesuffix("\\") for it in lines))
    assert found == shlex.split(f"{CALLED} {long}")


@named
def test_every_command_and_option_says_what_it_is_for(words: tuple[str, ...]) -> None:
    command = COMMANDS[words]
    assert (command.help or "").rstrip().endswith(".")
    # What a list of commands shows is a whole sentence.
    # At 80 columns it has 62, beside names of up to ten letters.
    assert not command.get_short_help_str(62 if len(words) == 1 else 64).endswith("...")
    for option in command.params:
        if isinstance(option, click.Option):
            assert (option.help or "").endswith((".", "0.05.", "none.")), f"{words} {option.opts}"


@pytest.mark.parametrize("place", ["before", "after", "both"])
def test_what_a_group_is_given_is_its_commands_too(place: str, tmp_path: Path) -> None:
    tried = 0
    own = ["--state", str(tmp_path / "own"), "--json"]
    for words, group in COMMANDS.items():
        names = {it.name for it in group.params}
        if not isinstance(group, click.Group) or "state" not in names:
            continue
        given = [] if place == "after" else ["--state", str(tmp_path / "groups"), "--json"]
        above = group.make_context(words[-1], [*given, "x"])
        for name, command in group.commands.items():
            known = {it.name for it in command.params}
            if "state" not in known:
                continue
            typed = [] if place == "before" else own if "as_json" in known else own[:2]
            arguments = ["x" for it in command.params if isinstance(it, click.Argument)]
            context = command.make_context(
                name, [*typed, *arguments], parent=above, resilient_parsing=True
            )
            expected = tmp_path / ("groups" if place == "before" else "own")
            assert context.params.get("state", expected) == expected, (*words, name)
            assert context.params.get("as_json", True) is True, (*words, name)
            tried += 1
    assert tried >= 8


@pytest.mark.parametrize(
    ("typed", "nearest"),
    [
        (["sttaus"], "'status'"),
        (["models", "pll"], "'pull'"),
        (["key", "list"], "'keys'"),
        (["ask", "hash", "--txt", "a"], "'--text'"),
        (["join", "--modle", "hash"], "'--model'"),
        (["--debugg"], "'--debug'"),
    ],
)
def test_a_misspelt_name_is_answered_with_the_nearest_one(typed: list[str], nearest: str) -> None:
    with pytest.raises(click.UsageError) as refused:
        cli.main(typed, standalone_mode=False)
    assert nearest in refused.value.format_message()


def test_what_is_like_nothing_is_refused_without_a_guess() -> None:
    with pytest.raises(click.UsageError) as refused:
        cli.main(["zzzzzz"], standalone_mode=False)
    assert "Did you mean" not in refused.value.format_message()


def test_a_folder_that_is_named_and_not_there_has_no_peer_to_look_at(tmp_path: Path) -> None:
    found = CliRunner().invoke(cli, ["doctor", "--state", str(tmp_path / "nosuch")])
    assert isinstance(found.exception, InputError)
    assert "there is no state folder" in found.exception.message


@pytest.mark.parametrize("price", ["forest", "forest.onnx", "./forest.onnx", "hash"])
def test_a_price_names_a_file_that_is_served_as_it_is_called(price: str) -> None:
    served, wanted = ("./forest.onnx", "hash"), str(Path("forest.onnx").absolute())
    assert meant_among(price, served) == (price if price == "hash" else wanted)
    assert meant_among("forest", ("a/forest.onnx", "b/forest.onnx")) == "forest"


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        (["join", "--seed-dns-private"], "without --seed-dns"),
    ],
)
def test_an_option_that_would_do_nothing_is_refused(typed: list[str], words: str) -> None:
    assembly = Assembly(wall_s=lambda: 0.0, entropy=bytes, runtime=lambda: None)
    shown = CliRunner().invoke(cli, typed, obj=assembly)
    assert isinstance(shown.exception, InputError)
    assert words in shown.exception.message


def test_a_file_given_as_a_source_is_told_how_files_are_named() -> None:
    found = CliRunner().invoke(cli, ["ask", "minilm", "--source", "./t.txt"])
    assert isinstance(found.exception, InputError)
    assert "files:t.txt" in found.exception.todo
    assert "--file ./t.txt" in found.exception.todo


def test_the_version_is_the_one_that_is_built() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["version"] == VERSION
    assert CliRunner().invoke(cli, ["--version"]).output == f"baton {VERSION}\n"


def test_the_faults_of_a_devnet_are_explained_in_its_help() -> None:
    shown = CliRunner().invoke(cli, ["devnet", "--help"]).output
    assert "Faults of peers that misbehave:" in shown
    assert "Faults of a network with --economy:" in shown
    assert "lazy_verifier" in shown


def test_who_proposes_is_told_each_parameter_with_its_bounds() -> None:
    text = " ".join(CliRunner().invoke(cli, ["govern", "propose", "--help"]).output.split())
    assert "growth 1 % to 20 %, at first 5 %." in text
    assert "motion_bond 0.01 credits to 1000000 credits, at first 1 credit." in text
    assert all(it.name.lower() in text for it in Parameter)
