"""What a peer's owner looks at: settings, notes, a screen; and completion for their shell."""

import subprocess
import sys
from pathlib import Path

import pytest

from node.commands.cli_owner import SHELLS
from tests.live.command_line import Peer, baton, environment


def test_each_setting_says_where_it_came_from(asker: Peer) -> None:
    rows = {it["name"]: it for it in asker.ask("config", "show", "--json").document["settings"]}
    assert rows["roles"] == {"name": "roles", "value": "store", "origin": "command line"}
    assert rows["leave_s"]["origin"] == "default"
    assert rows["state"]["value"] == str(asker.state)
    assert rows["peers.network"] == {
        "name": "peers.network",
        "value": "baton",
        "origin": "default",
    }
    assert "command line" in asker.ask("config", "show").out


def test_notes_and_a_screen_of_the_running_peer(asker: Peer) -> None:
    assert "lines" in asker.ask("logs", "--json").document
    screen = asker.ask("top", "--once", "--every", "0.2").out
    assert f"…{asker.id[-6:]}" in screen
    assert "own tasks" in screen
    assert "units/s" in screen


@pytest.mark.parametrize("shell", SHELLS)
def test_a_completion_script_asks_the_command_itself(shell: str) -> None:
    script = baton("completion", shell).out
    assert f"_BATON_COMPLETE={shell}_complete" in script
    words = {"COMP_WORDS": "baton verif", "COMP_CWORD": "1"}
    if shell == "bash":
        asked = subprocess.run(
            [sys.executable, "-c", "from node.commands.cli import cli; cli(prog_name='baton')"],
            env=environment({**words, "_BATON_COMPLETE": "bash_complete"}),
            capture_output=True,
            check=False,
        )
        assert b"verify" in asked.stdout


def test_a_doctor_of_a_running_peer_finds_what_is_wrong_and_nothing_else(asker: Peer) -> None:
    told = {it["name"]: it for it in asker.ask("doctor", "--json").document["findings"]}
    for name in ("same-key", "folder-in-use", "folder-modes", "port-taken", "network-refuses"):
        assert told[name]["state"] == "ok", told[name]
    assert told["paused"]["seen"] == "the peer takes work"


def test_a_doctor_says_what_keeps_a_peer_from_its_bootstrap(tmp_path: Path) -> None:
    gone = "/ip4/127.0.0.1/tcp/1/p2p/12D3KooWAU1jyZ5Bs2ypJWmVvWYRYrJyjDVGWDcrnxiwGy1PP8iS"
    (tmp_path / "state").mkdir(mode=0o755)
    words = ("doctor", gone, "--state", str(tmp_path / "state"))
    said = baton(*words)
    assert said.code == 1
    assert "bootstrap-refuses" in said.out
    assert "no peer runs on" in said.out
    assert f"chmod 700 {tmp_path / 'state'}" in said.out
    fixed = baton(*words, "--fix")
    assert "folder-modes" not in fixed.out
    assert (tmp_path / "state").stat().st_mode & 0o777 == 0o700
