"""What a stranger wrote is shown as words: it neither colours the screen nor moves the cursor."""

import json
import re
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from node.commands.demo_story import Story, on_event
from node.commands.narrating import narrate
from node.commands.output import show_json
from node.engines.hash_engine import hash_manifest
from tests.node.network import I, S, open_network
from tests.tidy.tree import ROOT
from wire.plural import plural


async def test_a_models_name_is_narrated_as_text_alone(
    autojump_clock: MockClock, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = hash_manifest(name="[/x]\x1b]0;owned\x07\x9b2J\u202e")
    async with open_network(tmp_path) as network:
        await network.start(S)
        async with network.outsider(S) as stranger:
            await stranger.store.put(manifest.to_bytes())
            node = await network.start(I, S, models=(str(manifest.id),))
            with trio.move_on_after(5):
                await narrate(node)
    told = capsys.readouterr().out
    assert "model [/x]" in told
    assert all(it.isprintable() or it == "\n" for it in told)


async def test_who_has_just_come_is_given_time_to_answer(
    autojump_clock: MockClock,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A peer that ran alone for hours is not told to look at its network once one connects."""
    async with open_network(tmp_path) as network:
        node = await network.start(S)
        await trio.sleep(300)
        monkeypatch.setattr(type(node.peers), "answered_last_minute", lambda _: (0, 1))
        with trio.move_on_after(50):
            await narrate(node)
        assert "no peer answered" not in capsys.readouterr().out
        with trio.move_on_after(90):
            await narrate(node)
        assert "no peer answered in the last minute" in capsys.readouterr().out


async def test_who_is_refused_again_and_again_fills_no_log(
    autojump_clock: MockClock,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A removed member calls for months, and each time is connected for a moment."""
    async with open_network(tmp_path) as network:
        node = await network.start(S)
        looks = iter(range(1_000_000))
        monkeypatch.setattr(
            type(node.peers), "answered_last_minute", lambda _: (0, next(looks) % 2)
        )
        with trio.move_on_after(60):
            await narrate(node)
        assert capsys.readouterr().out.count("peers: ") == 1
        # One that stays is told of.
        monkeypatch.setattr(type(node.peers), "answered_last_minute", lambda _: (1, 1))
        with trio.move_on_after(10):
            await narrate(node)
        assert "peers: 1 connected" in capsys.readouterr().out


def test_a_json_document_holds_no_letter_that_a_terminal_obeys(
    capsys: pytest.CaptureFixture[str],
) -> None:
    document = {"name": "\x1b[2J\x9b2J\u202eeman é"}
    show_json(document)
    told = capsys.readouterr().out
    assert told.isascii()
    assert all(it.isprintable() or it == "\n" for it in told)
    assert json.loads(told) == document


def test_a_count_agrees_with_its_word() -> None:
    counts = ((1, "entry"), (2000, "entry"), (0, "key"), (1, "leg"), (3, "batch"), (2, "process"))
    told = [plural(*it) for it in (*counts, (0, "epoch"))]
    assert told[:4] == ["1 entry", "2,000 entries", "0 keys", "1 leg"]
    assert told[4:] == ["3 batches", "2 processes", "0 epochs"]


def test_what_is_counted_for_people_is_counted_that_way() -> None:
    """A number before such a word, that is neither measured nor a limit, may be one."""
    words = "rows|tasks|legs|peers|members|entries|passages|checks|models|receipts|verdicts"
    counted = re.compile(rf"\{{([^{{}}:]*)(?::,)?\}} (?:{words})\b")
    found = [
        f"{file.name}: {match[0]}"
        for room in ("checking", "commands", "health", "local")
        for file in sorted((ROOT / "node" / room).glob("*.py"))
        for match in counted.finditer(file.read_text(encoding="utf-8"))
        # How far a table is, is said while it changes.
        if match[1] != "of" and "_MAX" not in match[1] and "_PER_" not in match[1]
    ]
    assert not found


def test_a_price_that_is_promised_in_a_moment_is_no_failure_on_the_demos_screen() -> None:
    story, told = Story(Path(), "why?", ()), list[str]()
    for code in ("not_paid", "loading", "busy", None):
        why = {"event": "failed", "what": "infer leg", "peer": "x", "why": f"{code}", "code": code}
        on_event(story, why, told.append)
    assert [it.rpartition(" ")[2] for it in told] == ["busy", "None"]
