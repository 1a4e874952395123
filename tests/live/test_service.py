"""The peer as a service: its unit, what systemd thinks of that, and what systemd is told."""

import os
import re
import shutil
import signal
import socket
import subprocess
from pathlib import Path

import pytest

from tests.live.command_line import ROOT, baton, baton_in, joined

EXPOSURE_MAX = 2.0
# Far more than a start takes; a message that does not come fails the test.
PATIENCE_S = 60.0


def lines_of(*arguments: object) -> list[str]:
    done = baton("service", "install", "--print", *arguments)
    assert done.code == 0, done
    return done.out.splitlines()


def test_the_unit_starts_the_peer_with_the_options_that_were_given() -> None:
    model = '/srv/a "b" $c 100%.gguf'
    lines = lines_of("--role", "infer", "--model", model, "--port", "4747")
    (start,) = [it for it in lines if it.startswith("ExecStart=")]
    assert start.endswith(
        "join --state /var/lib/baton --role infer"
        ' --model "/srv/a \\"b\\" $$c 100%%.gguf" --port 4747'
    )
    assert "Type=notify" in lines
    assert "PrivateDevices=yes" in lines


def test_a_service_with_a_gpu_sees_gpus_and_no_other_device() -> None:
    for option in (("--gpu", "0"), ("--device=cuda",)):
        lines = lines_of(*option)
        assert "PrivateDevices=yes" not in lines
        assert "DevicePolicy=closed" in lines
        assert "DeviceAllow=char-nvidia rw" in lines


def test_a_users_service_keeps_the_users_state_folder() -> None:
    lines = lines_of("--user", "--role", "store")
    assert not any("/var/lib" in it or it.startswith("DynamicUser") for it in lines)
    assert "WantedBy=default.target" in lines


def test_a_path_is_whole_since_a_service_starts_in_another_folder() -> None:
    typed = ("--model", "./a.gguf", "--model=b.gguf", "--model", "minilm", "--genesis", "c")
    (start,) = [it for it in lines_of("--user", *typed) if it.startswith("ExecStart=")]
    assert start.endswith(
        f"join --model {ROOT}/a.gguf --model={ROOT}/b.gguf --model minilm --genesis {ROOT}/c"
    )

    typed = ("--invite-file", "bob.invite", "--state=s", "--srs", "d", "--owner", "of")
    (start,) = [it for it in lines_of("--user", *typed) if it.startswith("ExecStart=")]
    assert start.endswith(
        f"join --invite-file {ROOT}/bob.invite --state={ROOT}/s --srs {ROOT}/d --owner {ROOT}/of"
    )


def test_an_invite_is_handed_over_by_systemd_and_is_in_no_unit() -> None:
    for typed in (("--invite-file", "a b%.invite"), ("--invite-file=a b%.invite",)):
        lines = lines_of("--role", "infer", *typed)
        (start,) = [it for it in lines if it.startswith("ExecStart=")]
        assert start.endswith("join --state /var/lib/baton --role infer")
        assert f"LoadCredential=baton-invite:{ROOT}/a b%%.invite" in lines
        # Once the file is gone the service starts all the same.
        assert "SetCredential=baton-invite:gone" in lines
    assert not any("Credential" in it for it in lines_of("--role", "infer"))
    for user in ((), ("--user",)):
        said = baton("service", "install", "--print", *user, "baton1abcdefgh").error
        assert "--invite-file" in said


@pytest.mark.parametrize(
    "typed",
    [
        ("--files", "/srv/a\nExecStartPre=/bin/evil"),
        ("--invite-file", "/srv/a\nUser=root"),
        ("--invite-file=/srv/a\\",),
        ("--srs", b"/srv/\xff"),
    ],
)
def test_no_word_adds_a_line_to_the_unit(typed: tuple[str | bytes, ...]) -> None:
    words = [it if isinstance(it, str) else os.fsdecode(it) for it in typed]
    done = baton("service", "install", "--print", *words)
    assert done.code == 1, done
    assert len(done.error.strip().splitlines()) <= 2
    assert "evil" not in done.out
    assert "User=" not in done.out


def test_what_join_would_not_take_is_said_at_once(tmp_path: Path) -> None:
    assert "--schedule" in baton("service", "install", "--user", "--schedule", "noon").error
    (tmp_path / "invite").write_text("baton1abc\n")
    altered = ("--invite-file", tmp_path / "invite")
    assert "cut or altered" in baton("service", "install", "--user", *altered).error
    assert "/var/lib/baton" in baton("service", "install", "--print", "--state", tmp_path).error
    assert "No such option '--modle'" in baton("service", "install", "--modle", "x").error
    assert "--port" in baton("service", "install", "--print", "--port", "99999").error


@pytest.mark.parametrize("options", [(), ("--gpu", "0")])
def test_systemd_finds_the_service_little_exposed(tmp_path: Path, options: tuple[str, ...]) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed")
    unit = tmp_path / "baton.service"
    unit.write_text("\n".join(lines_of(*options)) + "\n")
    said = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", str(unit)],
        capture_output=True,
        text=True,
        check=False,
    )
    found = re.search(r"Overall exposure level for baton.service: ([\d.]+)", said.stdout)
    assert found is not None, said
    assert float(found[1]) <= EXPOSURE_MAX


def test_the_service_manager_is_told_that_the_peer_is_up_lives_and_leaves(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(PATIENCE_S)
        # A peer that is silent for three seconds would be started again: it speaks each second.
        extra = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "3000000"}
        with joined(tmp_path / "state", "--role", "store", extra=extra) as peer:
            first = manager.recv(4096).decode().splitlines()
            assert first[0] == "READY=1"
            assert first[1].startswith("STATUS=0 of 0 peers answered")
            assert manager.recv(4096).decode().splitlines()[0] == "WATCHDOG=1"
            assert peer.stop(signal.SIGTERM).code == 0
        told = b""
        while not told.startswith(b"STOPPING=1"):
            told = manager.recv(4096)


def test_without_systemd_the_command_says_what_to_do_instead(tmp_path: Path) -> None:
    if Path("/run/systemd/system").exists():
        pytest.skip("systemd runs here")
    for command in ("status", "logs"):
        assert "python -m node join" in baton("service", command).error
    # No unit is left behind, which systemd would start some day.
    home = {"HOME": str(tmp_path)}
    assert "systemd does not run" in baton_in(home, "service", "install", "--user").error
    assert not [*tmp_path.rglob("*.service")]
    assert baton("service", "remove").error.startswith("there is no ")
