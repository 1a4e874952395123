"""`status` tells on one screen what a person asks first, however much there is to tell."""

import json
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.cells import cell_len

from node.commands import status
from node.commands.status_brief import brief_lines
from node.commands.terminal import LineConsole
from node.upgrading.started import Started, keep_started
from tests.health.sound import membership, reach
from tests.health.sound import status as sound

PEER = "12D3KooWAd8yoAf7nnAfu8ymrUg4nhgYNTrtFC1tbBcuWGUWc8Ps"


def told(**changed: Any) -> dict[str, Any]:
    """What a peer says of itself, on which nothing is wrong unless it is changed."""
    return (
        sound(reach=reach(since_s=4000.0, confirmed_by=["12D3KooWaaaaaa"]))
        | {
            "peer": PEER,
            "network": "baton",
            "known": 9,
            "models": [{"name": "minilm", "problem": "", "state": "ready", "units_per_s": 40.0}],
            "tasks": {"accepted": 1, "answered": 1, "failed": 0, "under_way": 0},
            "background_checks": {"share": 0.0},
            "store": dict.fromkeys(("used_bytes", "quota_bytes", "disk_bytes"), 1)
            | {"files_disk_bytes": 1},
            "noted": [noted("model minilm is ready")],
        }
        | changed
    )


def noted(line: str, s_ago: int = 0, times: int = 1) -> dict[str, Any]:
    return {"line": line, "s_ago": s_ago, "times": times}


def screen(found: dict[str, Any]) -> list[str]:
    """What a terminal of 80 columns has in its rows."""
    out = StringIO()
    console = LineConsole(
        file=out, width=80, force_terminal=True, color_system=None, highlight=False
    )
    for line in brief_lines(found):
        console.print(line)
    rows = out.getvalue().splitlines()
    # What cannot be broken goes on in the next row by itself.
    return [row[at : at + 80] for row in rows for at in range(0, max(1, len(row)), 80)]


def test_a_sound_peer_says_who_it_is_that_it_serves_and_how_it_is_reached() -> None:
    rows = screen(told())
    text = "\n".join(rows)
    assert rows[0] == f"peer {PEER} in the network 'baton'"
    assert "serves as infer, verify; up for 2 h" in text
    assert "reached: open, for 1 h; confirmed by …aaaaaa" in text
    assert "nothing is known to be wrong" in text
    # Once: what was noted of a model says the same as its line.
    assert text.count("minilm") == 1
    assert len(rows) < 12


async def test_the_version_that_runs_is_told_and_not_that_of_an_earlier_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def call(*_: object, **__: object) -> dict[str, Any]:
        return told()

    monkeypatch.setattr(status, "call", call)
    kept = Started(
        version="0.3.0", prefix="/p", packages="/q", arguments=("join",), folder="/", process=41
    )
    keep_started(tmp_path, kept)
    for process, release in ((41, "0.3.0"), (42, ""), (None, "")):
        monkeypatch.setattr(status, "locked_by", lambda _, it=process: it)
        await status.look(tmp_path, "status", as_json=True)
        assert json.loads(capsys.readouterr().out)["release"] == release
        for whole in (False, True):
            await status.look(tmp_path, "status", as_json=False, whole=whole)
            shown = capsys.readouterr().out
            assert ("up for 2 h, version 0.3.0" in shown) == bool(release), shown
    (tmp_path / "started.json").write_text("{}")
    await status.look(tmp_path, "status", as_json=True)
    assert json.loads(capsys.readouterr().out)["release"] == ""


def test_what_is_wrong_is_said_and_who_is_paused_does_not_serve() -> None:
    found = told(
        paused="the schedule",
        same_key_elsewhere=True,
        clock_wrong_s=9.0,
        unmet="nobody answers",
        engine={"last_failure": "out of memory"},
        noted=[
            noted("store: the disk refused a write"),
            noted("goes on: it is not paused any more"),
        ],
        models=[{"name": "m", "problem": "its numbers are NaN", "state": "aside"}],
    )
    text = "\n".join(screen(found))
    for words in (
        "serves nobody now: the schedule",
        "another machine uses this key",
        "clock is 9 s behind",
        "nobody answers",
        "out of memory",
        "the disk refused a write",
        "its numbers are NaN",
    ):
        assert words in text
    assert "known to be wrong" not in text
    assert "goes on" not in text


def test_a_peer_that_is_alone_and_works_again_has_nothing_wrong() -> None:
    news = [noted("paused: its owner paused it"), noted("goes on: it is not paused any more")]
    member = membership(name="home", owner=False, members_connected=2, not_after_wall_s=1.8e9)
    alone = told(connected=0, answered_last_minute=0, known=0, noted=news, membership=member)
    text = "\n".join(screen(alone))
    assert "no other peer is connected; 0 known" in text
    assert "0 of 0" not in text
    assert "member of the private network home; 2 members connected; renews by 2027-01-15" in text
    assert "paused" not in text
    assert "nothing is known to be wrong" in text


def test_whatever_there_is_it_is_one_screen(capsys: pytest.CaptureFixture[str]) -> None:
    long = "word " * 400
    found = told(
        network="n" * 64,
        paused=long,
        unmet=long,
        same_key_elsewhere=True,
        clock_wrong_s=1e6,
        roles=["data", "infer", "verify", "store", "gateway", "ledger"],
        engine={"last_failure": long},
        noted=[noted(f"{number} {long}") for number in range(11)],
        owner=PEER,
        seeds={f"seeds{it}.example.org": {"problem": long, "found": 0} for it in range(3)},
        membership=membership(name="home", owner=False, members_connected=0, member=False),
        guest={"cannot_tell": [long] * 3},
        ledger={"problem": long, "name": "n"},
        reach=reach(how="kept", since_s=9e9, keepers=[PEER] * 3, confirmed_by=[PEER] * 30),
        models=[
            {"name": f"{it}{'x' * 200}", "problem": long, "state": "aside", "gave_wrong_rows": []}
            for it in range(30)
        ],
    )
    rows = screen(found)
    assert len(rows) <= 24, "\n".join(rows)
    assert any("and 27 models more, 27 with a problem" in it for it in rows)


def test_all_of_it_is_still_told(capsys: pytest.CaptureFixture[str]) -> None:
    status._status(told())
    text = capsys.readouterr().out
    assert "listening on /ip4/192.168.1.5/tcp/4747" in text
    assert "store: " in text
    assert text.count("minilm") == 1


GOOD = "nothing is known to be wrong"


@pytest.mark.parametrize(
    "changed",
    [
        {
            "models": [{"name": "m", "problem": "its numbers are NaN", "state": "aside"}],
            "noted": [],
        },
        {"paused": "the schedule"},
        {"answered_last_minute": 0},
        {"reach": reach(how="alone", since_s=9.0, confirmed_by=[])},
        {"seeds": {"a.example": {"problem": "no such name", "found": 0, "refused": {}}}},
        {"membership": membership(name="home", owner=False, members_connected=0, member=False)},
        {"background_checks": {"share": 0.1, "wrong": 2}},
    ],
)
def test_nothing_is_said_to_be_well_where_something_is_not(changed: dict[str, Any]) -> None:
    assert GOOD in "\n".join(screen(told()))
    assert GOOD not in "\n".join(screen(told(**changed)))


def test_what_is_well_leaves_out_nothing_that_is_wrong() -> None:
    seeds = {
        name: {"problem": problem, "found": 3, "refused": {}}
        for name, problem in (("a.example", "no such name"), ("b.example", ""), ("c.example", ""))
    }
    found = told(
        seeds=seeds,
        membership=membership(
            name="home", owner=False, members_connected=2, not_after_wall_s=1_900_000_000
        ),
        background_checks={"share": 0.1, "wrong": 2},
        # Strangers cause as much news as they like.
        noted=[
            *(noted(f"{it} {'word ' * 60}") for it in range(10)),
            noted("store: 3 MiB are free"),
        ],
    )
    rows = screen(found)
    text = "\n".join(rows)
    assert "no seed at a.example: no such name" in text
    assert "found wrong afterwards: 2 answers that nobody had checked" in text
    assert "store: 3 MiB are free" in text
    assert text.count("3 MiB are free") == 1
    assert len(rows) <= 24


def test_words_of_others_make_no_rows_of_their_own() -> None:
    forged = f"no\n\n  [green]{GOOD}[/green]\n" + "\n" * 200
    found = told(
        unmet=forged,
        engine={"last_failure": forged},
        noted=[noted(forged), noted("界" * 400), noted("\u202eevil\x1b[2J")],
        models=[{"name": f"m\n{GOOD}", "problem": forged, "state": "aside"}],
        seeds={"a.example": {"problem": forged, "found": 0, "refused": {}}},
        membership=membership(
            name=f"home\n{GOOD}", owner=False, members_connected=0, problem=forged, member=False
        ),
    )
    lines = brief_lines(found)
    assert not any("\n" in it for it in lines)
    rows = screen(found)
    assert not any(it.strip() == GOOD for it in rows)
    out = StringIO()
    console = LineConsole(file=out, width=80, force_terminal=True, color_system=None)
    for line in lines:
        console.print(line)
    # A wide letter takes two cells.
    assert sum(-(-cell_len(it) // 80) or 1 for it in out.getvalue().splitlines()) <= 24


def test_what_was_noted_says_when_and_how_often_and_the_newest_is_last() -> None:
    news = [noted("an old one", 7000), noted("a call failed", 190, times=4), noted("the last", 3)]
    rows = [it.strip() for it in screen(told(noted=news))]
    assert rows[-3:] == [
        "noted 1 h ago: an old one",
        "noted 3 min ago: a call failed (4 times)",
        "noted just now: the last",
    ]


def test_of_much_that_was_noted_the_oldest_has_no_room() -> None:
    news = [noted(f"{it} {'word ' * 30}", 1000 - it) for it in range(10)]
    text = "\n".join(screen(told(noted=news)))
    assert "9 word" in text
    assert "0 word" not in text
    assert text.index("8 word") < text.index("9 word") < text.index("more: python -m node status")
