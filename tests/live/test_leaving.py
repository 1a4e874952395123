"""Signals and closed pipes: a peer leaves politely, a command ends at once, nobody stays behind."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import datetime
from pathlib import Path

import pytest

from tests.live.command_line import DEADLINE_S, ROOT, Done, Peer, baton, environment, joined

INTERRUPTED = 130
UNREAD = 1
STRANGER = "12D3KooWHesAVqSWPi4ohCdc3VcvppH54inVL3GSMg6QscGsf6aN"


def started(*arguments: object) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "node", *map(str, arguments)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment({}),
        cwd=ROOT,
        # A shell starts what runs behind it deaf to Ctrl-C, and its children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
    )


def ended(process: subprocess.Popen[bytes]) -> Done:
    out, err = process.communicate(timeout=DEADLINE_S)
    return Done(process.returncode, out.decode(), err.decode())


def test_a_log_of_objects_is_one_on_each_line_from_the_first_word_to_the_last(
    tmp_path: Path,
) -> None:
    (tmp_path / "invite").write_text("no invite\n")
    state = ("--log", "json", "--state", tmp_path / "state", "--listen", "/ip4/127.0.0.1/tcp/0")
    wrong = ended(started("join", *state, "--invite-file", tmp_path / "invite"))
    assert wrong.code == 1
    assert wrong.err == ""
    (told,) = [json.loads(it) for it in wrong.out.splitlines()]
    assert told["about"] == "error"
    assert "this is no invite" in told["error"]["message"]
    assert "give one of them" in baton("join", "--json", *state).error
    peer = started("join", *state, "--role", "infer", "--model", "hash")
    assert peer.stdout is not None
    lines = [peer.stdout.readline()]
    # Its own end, or the test's timeout, ends this.
    while b"hash: ready" not in lines[-1]:
        lines.append(peer.stdout.readline())
        assert lines[-1]
    peer.send_signal(signal.SIGTERM)
    done = ended(peer)
    assert (done.code, done.err) == (0, "")
    said = [json.loads(it) for it in [*lines, *done.out.splitlines()]]
    assert all({"at", "about", "text"} <= it.keys() for it in said)
    assert [*map(datetime.fromisoformat, [it["at"] for it in said])]
    assert said[0]["about"] == "up"
    assert said[0]["state"] == str(tmp_path / "state")
    assert said[-1]["about"] == "leaving"


def until(true: Callable[[], bool], deadline_s: float = DEADLINE_S) -> None:
    ends_s = time.monotonic() + deadline_s
    while not true():
        assert time.monotonic() < ends_s, "it did not come to pass"
        time.sleep(0.05)


def peers_on(folder: Path) -> list[int]:
    """The processes that were started with a state folder in `folder`."""
    found = []
    for place in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = place.read_bytes()
        except OSError:
            continue
        if b"join" in command and os.fsencode(folder) in command:
            found.append(int(place.parent.name))
    return found


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_peer_that_is_asked_to_stop_leaves_politely(
    network: dict[str, Peer], state: Path, number: signal.Signals
) -> None:
    with joined(state, network["asker"].address, "--role", "store") as peer:
        done = peer.stop(number)
    assert (done.code, done.err) == (0, "")
    assert not (state / "control.sock").exists()


@contextmanager
def frozen(peer: Peer) -> Iterator[None]:
    """While nobody answers, there is time to interrupt a question."""
    peer.process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        peer.process.send_signal(signal.SIGCONT)


def test_an_interrupted_question_ends_at_once_and_the_peer_goes_on(
    network: dict[str, Peer],
) -> None:
    asker = network["asker"]
    with frozen(network["infer"]):
        process = started(
            "ask", "hash", "--text", "x", "--fresh", "--verdicts", "0/0", "--state", asker.state
        )
        assert process.stdout is not None
        assert b"accepted" in process.stdout.readline()
        process.send_signal(signal.SIGINT)
        done = ended(process)
        assert (done.code, done.err.strip()) == (INTERRUPTED, "")
        found = asker.ask("status", "--json").document
    assert found["peer"] == asker.id
    # What was accepted goes on without whoever asked.
    assert found["tasks"]["under_way"] >= 1


def test_a_question_to_a_peer_that_ends_is_told_so(network: dict[str, Peer], state: Path) -> None:
    with (
        joined(state, network["asker"].address, "--role", "store") as peer,
        frozen(network["infer"]),
    ):
        process = started("ask", "hash", "--text", "x", "--verdicts", "0/0", "--state", state)
        assert process.stdout is not None
        assert b"accepted" in process.stdout.readline()
        peer.stop(signal.SIGKILL)
        line = ended(process).error
    assert "closed the connection" in line
    assert "python -m node join" in line


def test_output_that_nobody_reads_any_more_is_no_error(network: dict[str, Peer]) -> None:
    process = started("peers", "--state", network["asker"].state)
    assert process.stdout is not None
    process.stdout.close()
    process.stdout = None
    _, err = process.communicate(timeout=DEADLINE_S)
    assert (process.returncode, err) == (UNREAD, b"")


def test_a_peer_whose_output_nobody_reads_any_more_goes_on(state: Path) -> None:
    process = started(
        "join", "--listen", "/ip4/127.0.0.1/tcp/0", "--role", "store", "--state", state
    )
    assert process.stdout is not None
    process.stdout.close()
    process.stdout = None
    until((state / "control.sock").exists)
    until(lambda: baton("status", "--state", state).code == 0)
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=DEADLINE_S)
    assert (process.returncode, err) == (0, b"")


def test_a_peer_that_has_nobody_to_meet_yet_can_be_stopped(tmp_path: Path) -> None:
    with closing(socket.socket()) as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        port, state = silent.getsockname()[1], tmp_path / "s"
        process = started("join", f"/ip4/127.0.0.1/tcp/{port}/p2p/{STRANGER}", "--state", state)
        # Its bootstrap never answers; it has called.
        silent.settimeout(DEADLINE_S)
        with closing(silent.accept()[0]):
            process.send_signal(signal.SIGINT)
            done = ended(process)
    assert (done.code, done.out, done.err) == (0, "", "")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_demo_that_is_ended_leaves_no_peer_behind(tmp_path: Path, number: signal.Signals) -> None:
    folder = tmp_path / "d"
    process = started("demo", "--folder", folder)
    until((folder / "data" / "control.sock").exists)
    process.send_signal(number)
    done = ended(process)
    until(lambda: not peers_on(folder), DEADLINE_S)
    if number is signal.SIGINT:
        assert (done.code, done.err.strip()) == (INTERRUPTED, "")
