"""`workflows` as a person types it: a file kept, run, shown, and gone on with after SIGKILL."""

import json
import signal
import time
from pathlib import Path

import pytest

from tests.live.command_line import DEADLINE_S, Peer, baton, joined

EMBED = '[model]\nname = "hash"\noperation = "embed"\nlevel = "signed"\n'


def written(folder: Path, text: str, name: str = "daily.toml") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def test_a_workflow_is_kept_run_shown_and_forgotten(asker: Peer, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    text = f'cron = "0 9 * * *"\nzone = "Europe/Berlin"\n[source]\ntext = "hello"\n{EMBED}'
    file = written(tmp_path, text + f'[[to]]\nkind = "file"\npath = "{out}"\n')
    added = asker.ask("workflows", "add", file, "--json").document
    assert (added["name"], len(added["slots"])) == ("daily", 3)
    ran = asker.ask("workflows", "run", "daily", "--json").document
    assert (ran["end"], ran["by_hand"], ran["result"]["dimensions"]) == ("done", True, 64)
    assert baton("verify", ran["receipt"], "--state", asker.state, "--json").document["holds"]
    listed = asker.ask("workflows", "list", "--json").document["workflows"]
    assert [(it["name"], it["entries"]) for it in listed] == [("daily", 1)]
    page = asker.ask("workflows", "history", "daily")
    assert "done by hand" in page.out
    assert "Europe/Berlin" in asker.ask("workflows", "show", "daily").out
    assert json.loads(out.read_text())["receipt"] == ran["receipt"]
    assert asker.ask("workflows", "pause", "daily", "--json").document["paused"]
    assert "paused" in asker.ask("workflows", "list").out
    assert not asker.ask("workflows", "resume", "daily", "--json").document["paused"]
    assert asker.ask("workflows", "rm", "daily").code == 0
    assert "no workflow 'daily' here" in asker.ask("workflows", "run", "daily").error
    assert "no workflows yet" in asker.ask("workflows", "list").out


def test_what_is_wrong_with_a_file_is_said_with_its_line(asker: Peer, tmp_path: Path) -> None:
    file = written(tmp_path, 'every = "5m"\n[source]\nname = "a"\nquorum = 0\n')
    assert "line 4: quorum is a whole number from 1" in asker.ask("workflows", "add", file).error
    document = asker.ask("workflows", "add", file, "--json").error_document
    assert document["message"].startswith("line 4: ")
    assert "cannot be read" in asker.ask("workflows", "add", tmp_path / "gone.toml").error
    big = written(tmp_path, "#" * 20_000, "big.toml")
    assert "more than 16384 bytes" in asker.ask("workflows", "add", big).error
    nobody = baton("workflows", "list", "--state", tmp_path / "s")
    assert "no peer is running" in nobody.error


@pytest.mark.soak
def test_after_sigkill_a_workflow_goes_on_and_no_slot_is_doubled(
    state: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out.jsonl"
    text = f'every = "1s"\n[source]\ntext = "hello"\n{EMBED}[[to]]\nkind = "file"\n'
    file = written(tmp_path, f'missed = "all"\n{text}path = "{out}"\n')
    roles = ("--role", "infer", "--model", "hash")

    def lines(count: int) -> list[int]:
        """Wait for so many results; their numbers."""
        until_s = time.monotonic() + DEADLINE_S
        while time.monotonic() < until_s:
            found = out.read_text().splitlines() if out.exists() else []
            if len(found) >= count:
                return [json.loads(it)["number"] for it in found]
            time.sleep(0.1)
        raise AssertionError(f"{count} results did not come")

    with joined(state, *roles) as peer:
        assert peer.ask("workflows", "add", file).code == 0
        lines(2)
        peer.stop(signal.SIGKILL)
    before = len(lines(2))
    with joined(state, *roles) as peer:
        numbers = lines(before + 3)
        assert numbers == list(range(1, len(numbers) + 1))
        history = peer.ask("workflows", "history", "daily", "--json", "--count", 1000).document
        done = [it["slot"] for it in history["entries"] if it["end"] == "done"]
        assert len(done) == len(set(done)) >= before
