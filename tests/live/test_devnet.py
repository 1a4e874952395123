"""`devnet` and `load` as a person types them: what comes out, and what is refused in one line."""

import json
from pathlib import Path

import pytest

from tests.live.command_line import Done, Peer, at_once, baton

SMALL = ("devnet", "--peers", "8", "--seconds", "3", "--load", "2/s", "--json")

REFUSED: dict[str, tuple[tuple[object, ...], tuple[str, ...]]] = {
    "a fault that is none": (("--faults", "explode=1"), ("'explode=1'", "kill", "truncator")),
    "a share that is none": (("--faults", "kill=7"), ("7 is not a share",)),
    "a fault after the end": (("--faults", "kill=0.2@90"), ("kill=0.2@90", "over")),
    "an end of what has none": (("--faults", "kill=0.2+5"), ("kill has no end",)),
    "a run made another": (("--replay", "x.json", "--seed", "3"), ("--seed", "cannot be given")),
    "no load": (("--load", "0"), ("not a possible rate",)),
    "a load in words": (("--load", "much"), ("'much'", "10/s")),
    "no network": (("--peers", "1"), ("1 peers",)),
    "more than there may be": (("--peers", "20001"), ("20001 peers", "20000")),
    "no time": (("--seconds", "0"), ("0 seconds",)),
    "a page in no folder": (("--html", "nowhere/x.html"), ("nowhere",)),
    "a file that is not there": (("--replay", "nowhere.json"), ("nowhere.json",)),
}


def test_what_makes_no_run_is_refused_in_one_line() -> None:
    commands = [("devnet", *typed) for typed, _ in REFUSED.values()]
    for name, done in zip(REFUSED, at_once(commands), strict=True):
        words = REFUSED[name][1]
        assert all(word in done.error for word in words), (name, done)


@pytest.mark.soak
def test_a_report_replays_its_run_and_one_of_another_version_is_refused(tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    first = baton(*SMALL, "--faults", "kill=0.2", "--html", page)
    report = tmp_path / "report.json"
    report.write_text(first.out)
    assert "</svg>" in page.read_text()
    again = baton("devnet", "--replay", report, "--json").document
    for same in ("tasks_due", "faults", "tokens", "replay", "run"):
        assert again[same] == first.document[same]
    assert again["tasks_answered"] == again["tasks_accepted"] > 0
    report.write_text(json.dumps({"run": {**again["run"], "version": 99}}))
    error = baton("devnet", "--replay", report).error
    assert "version 99" in error
    assert "version 1" in error
    report.write_text("{}")
    assert "not a report" in baton("devnet", "--replay", report).error


def test_disks_and_sockets_take_real_time_and_hold_too() -> None:
    for done in at_once([(*SMALL, "--store", "lmdb"), (*SMALL, "--transport", "tcp")]):
        found = done.document
        assert found["tasks_lost"] == found["invariants_violated"] == 0
        assert found["tasks_answered"] > 0


def loaded(*typed: object) -> Done:
    rest = ("--rate", "5/s", "--seconds", "2", "--verdicts", "1/1", "--json")
    return baton("load", *typed, *rest)


def test_load_through_the_running_peer_and_through_one_of_its_own(asker: Peer) -> None:
    for done in (loaded("--state", asker.state), loaded(asker.address)):
        found = done.document
        assert found["tasks_answered"] == found["tasks_due"] > 0
        rows = found["latency_table"]
        assert rows[-1]["percent"] == 100
        assert rows[-1]["count"] == found["tasks_answered"]
        assert [it["latency_s"] for it in rows] == sorted(it["latency_s"] for it in rows)


def test_load_that_is_none_or_nowhere_is_refused(tmp_path: Path) -> None:
    commands = [
        ("load", "--rate", "0", "--state", tmp_path),
        ("load", "--rate", "1/h", "--seconds", "1", "--state", tmp_path),
        ("load", "--state", tmp_path),
    ]
    none, less, nowhere = at_once(commands)
    assert "not a possible rate" in none.error
    assert "less than one task" in less.error
    assert "no peer is running" in nowhere.error
