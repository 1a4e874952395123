"""What a waiting person sees: a peer that loads is no failure; each GPU has its line."""

from typing import Any

import pytest
from rich.console import Console

from node.commands.ask import _verdict_words, show_event, show_route
from node.commands.output import console
from node.commands.status import _layer_lines, _orders_line, _peers
from node.commands.top import live_picture_of, picture_of
from node.dispatch.order_tags import OrderFigures

PEER = "12D3KooWAd8yoAf7nnAfu8ymrUg4nhgYNTrtFC1tbBcuWGUWc8Ps"
LOOK: dict[str, Any] = {
    "peer": PEER,
    "uptime_s": 12.0,
    "paused": "",
    "connected": 2,
    "known": 3,
    "answered_last_minute": 2,
    "tasks": {"under_way": 0, "answered": 1, "failed": 0},
    "legs_under_way": 0,
    "legs_done": 4,
    "checks_done": 0,
    "engine": {"units_done": 40, "memory_bytes": 1000},
    "store": {"used_bytes": 1, "quota_bytes": 2},
    "models": [],
}


def screen_of(look: dict[str, Any]) -> str:
    console = Console(width=80, record=True)
    with console.capture() as seen:
        console.print(picture_of(LOOK, {**look, "uptime_s": 13.0}))
    return seen.get()


@pytest.mark.parametrize(
    ("row", "words"),
    [
        (
            {"name": "H200", "busy_share": 0.35, "used_bytes": 3e9, "size_bytes": 8e9},
            "GPU 0      H200, 35 % busy, 3.0 GB of 8.0 GB",
        ),
        ({"busy_share": 0.4}, "GPU 0      40 % busy"),
        ({}, "GPU 0      its driver does not tell"),
        ({"name": "\x1b[2J"}, "GPU 0      \ufffd[2J"),
    ],
)
def test_each_gpu_has_a_line(row: dict[str, Any], words: str) -> None:
    assert words in screen_of({**LOOK, "gpus": {"0": row}})
    assert "GPU" not in screen_of(LOOK)


def test_the_live_screen_says_how_it_is_left_and_what_a_speed_is_in() -> None:
    model = {"name": "m", "state": "ready", "problem": "", "units_per_s": 12.5}
    console = Console(width=80)
    with console.capture() as seen:
        console.print(live_picture_of(LOOK, {**LOOK, "uptime_s": 13.0, "models": [model]}))
    lines = seen.get().splitlines()
    assert "Ctrl-C ends this screen" in lines[0]
    assert any("12.5 units/s" in it for it in lines)
    # What is shown once has nothing to end.
    assert "Ctrl-C" not in screen_of(LOOK)


def test_a_peer_that_loads_is_waited_for(capsys: pytest.CaptureFixture[str]) -> None:
    event = {"event": "failed", "what": "infer", "peer": PEER, "code": "loading"}
    show_event({**event, "why": "the model is loading, 60 % here"})
    assert f"waiting for …{PEER[-6:]}: the model is loading, 60 %" in capsys.readouterr().out
    show_event({**event, "code": "busy", "why": "busy"})
    assert "waiting" not in capsys.readouterr().out


def test_standing_orders_have_a_line_each(capsys: pytest.CaptureFixture[str]) -> None:
    figures = OrderFigures(open=2, tasks=90, bundles=8, in_use=30, free=50)
    quiet = OrderFigures(open=0, tasks=7, bundles=7, in_use=0, free=0)
    assert quiet.as_map()["tasks_per_bundle"] == 1.0
    console.print(_orders_line(figures.as_map(), "of others here"))
    said = " ".join(capsys.readouterr().out.split())
    assert said == (
        "standing orders of others here: 2, 11.2 tasks in a bundle, 30 of 80 places in use"
    )


def test_status_says_who_has_the_rest_of_a_models_layers_and_who_lied() -> None:
    rest = [{"peer": PEER, "layers": "layers 3-8 of 9"}]
    lines = _layer_lines({"rest": rest, "gave_wrong_rows": rest})
    assert lines[0].startswith("    the rest: layers 3-8 of 9 at ")
    assert "gave wrong rows of layers 3-8 of 9 and is banned" in lines[1]
    assert _layer_lines({"name": "minilm"}) == []


def test_a_kept_answer_is_not_said_to_cost_anything_again(
    capsys: pytest.CaptureFixture[str],
) -> None:
    charge = {"for": "leg", "leg": 1, "peer": PEER, "amount": 22_800}
    paid: dict[str, Any] = {"route": [], "verdicts": [], "charges": [charge]}
    paid |= {"charged": 22_800, "price_max": 50_000}
    show_route({**paid, "kept_before": False})
    assert "nothing now" not in capsys.readouterr().out
    show_route({**paid, "kept_before": True})
    assert "then, and nothing now" in capsys.readouterr().out


def test_a_verdict_tells_how_far_off_it_found_the_answer_only_if_it_did() -> None:
    verdict = {"peer": PEER, "agrees": True, "sampled": [0], "rows": 1, "worst": 0.0}
    assert _verdict_words(verdict, str).endswith(": 1 of 1 row")
    assert _verdict_words({**verdict, "worst": 2e-7}, str).endswith(", off by 2e-07 at most")


def test_columns_that_no_peer_fills_are_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    row = {
        "peer": PEER,
        "roles": ["data"],
        "models": [],
        "connected": True,
        "standing": "good",
        "stake": {"claimed": 0, "known": None},
        "heard_s_ago": 2,
        "addresses": [],
        "owner": None,
    }
    _peers({"me": PEER, "peers": [row]})
    alone = capsys.readouterr().out
    assert "address" in alone
    assert not {"models", "staked", "owner"} & set(alone.split())
    _peers({"me": PEER, "peers": [row, {**row, "owner": PEER}]})
    assert "owner" in capsys.readouterr().out
