"""A peer whose output nobody can take goes on: it is up, and does an honest task afterwards."""

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from tests.live.command_line import DEADLINE_S, LOOPBACK, ROOT, baton, environment

SERVES = ("--role", "infer", "--model", "hash")
FULL = Path("/dev/full")
COLUMNS = 40


@contextmanager
def joining(
    state: Path,
    *arguments: str,
    extra: Mapping[str, str] | None = None,
    shell: str = "",
    **streams: Any,
) -> Iterator[subprocess.Popen[bytes]]:
    """A `join` that tells its story, with these streams; `shell` redirects them in words of sh."""
    command = [sys.executable, "-m", "node", "join", "--state", str(state), *SERVES, *LOOPBACK]
    command += arguments
    if shell:
        command = ["sh", "-c", f'exec "$@" {shell}', "sh", *command]
    process = subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.DEVNULL, env=environment(extra or {}), **streams
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        for stream in (process.stdout, process.stderr):
            if stream is not None:
                stream.close()


def status_of(state: Path, process: subprocess.Popen[bytes]) -> dict[str, Any]:
    """What `status` says once the model is ready; fails if the peer ends before that."""
    until_at_s = time.monotonic() + DEADLINE_S
    while time.monotonic() < until_at_s:
        assert process.poll() is None, f"the peer ended with {process.returncode}"
        if (state / "control.sock").exists():
            done = baton("status", "--json", "--state", state)
            if done.code == 0 and [it["state"] for it in done.document["models"]] == ["ready"]:
                return done.document
        time.sleep(0.1)
    raise AssertionError("the peer was not ready in time")


def does_a_task(state: Path, process: subprocess.Popen[bytes]) -> None:
    status_of(state, process)
    text = f"{time.monotonic()}"
    done = baton("ask", "hash", "--text", text, "--verdicts", "0/0", "--json", "--state", state)
    assert done.document["result"]["dimensions"] > 0
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    assert process.wait(DEADLINE_S) == 0


def test_a_reader_that_went_away_is_missed_by_nobody(state: Path) -> None:
    with joining(state, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        process.stderr.close()
        does_a_task(state, process)


def test_a_reader_that_stands_still_stops_nobody(state: Path) -> None:
    reading, writing = os.pipe()
    try:
        fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 4096)
        os.set_blocking(writing, False)
        with suppress(BlockingIOError):
            while os.write(writing, b"x" * 512):
                pass
        # The description is shared: the peer's writes must not wait for it to be read.
        os.set_blocking(writing, True)
        with joining(state, stdout=writing, stderr=writing) as process:
            does_a_task(state, process)
    finally:
        os.close(reading)
        os.close(writing)


@pytest.mark.skipif(not FULL.exists(), reason="there is no device that is always full here")
def test_a_full_log_partition_is_told_in_status_and_ends_nothing(state: Path) -> None:
    with FULL.open("wb") as full, joining(state, stdout=full, stderr=full) as process:
        status_of(state, process)
        until_at_s = time.monotonic() + DEADLINE_S
        while not any("output were lost: No space" in it for it in problems(state)):
            assert time.monotonic() < until_at_s, problems(state)
            time.sleep(0.2)
        does_a_task(state, process)


def problems(state: Path) -> list[str]:
    found: list[str] = baton("status", "--json", "--state", state).document["problems"]
    return found


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&- <&-"])
def test_a_closed_descriptor_is_no_file_of_the_store(state: Path, closed: str) -> None:
    with joining(state, shell=closed) as process:
        does_a_task(state, process)
    # What is printed must not be in any file that took the number of the closed descriptor.
    for path in (it for it in state.rglob("*") if it.is_file()):
        assert b"another machine joins this network" not in path.read_bytes(), path


@pytest.mark.parametrize(
    "extra",
    [{"PYTHONIOENCODING": "ascii"}, {"LC_ALL": "C"}, {"LC_ALL": "", "LC_CTYPE": "", "LANG": "C"}],
)
def test_where_there_are_no_block_characters_marks_are_ascii(
    state: Path, tmp_path: Path, extra: dict[str, str]
) -> None:
    log = tmp_path / "log"
    with log.open("wb") as out, joining(state, extra=extra, stdout=out, stderr=out) as process:
        does_a_task(state, process)
    text = log.read_bytes()
    assert text.isascii(), text
    assert b"leaving: finishing the work in hand ." in text


@pytest.mark.parametrize("hang_up_first", [True, False])
def test_a_terminal_of_forty_columns_that_is_hung_up_is_not_needed(
    state: Path, hang_up_first: bool
) -> None:
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, COLUMNS, 0, 0))

    def own_terminal() -> None:
        os.setsid()
        fcntl.ioctl(1, termios.TIOCSCTTY, 0)

    with joining(
        state,
        extra={"TERM": "xterm"},
        stdout=theirs,
        stderr=theirs,
        preexec_fn=own_terminal,
    ) as process:
        os.close(theirs)
        status_of(state, process)
        text = b""
        while select.select([ours], [], [], 0.2)[0]:
            text += os.read(ours, 65_536)
        assert b"is up" in re.sub(rb"\x1b\[[0-9;]*m", b"", text)
        if hang_up_first:
            process.send_signal(signal.SIGHUP)
        # The system hangs up on the whole session when the other end of its terminal is closed.
        os.close(ours)
        time.sleep(0.2)
        does_a_task(state, process)


def test_a_command_that_only_shows_something_ends_quietly_without_a_reader(state: Path) -> None:
    with joining(state, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        status_of(state, process)
        command = [sys.executable, "-m", "node", "status", "--state", str(state)]
        one = subprocess.run(
            ["sh", "-c", '"$@" | true', "sh", *command],
            cwd=ROOT,
            env=environment({}),
            stderr=subprocess.PIPE,
            timeout=DEADLINE_S,
            check=True,
        )
        assert one.stderr == b""
        if FULL.exists():
            with FULL.open("wb") as full:
                other = subprocess.run(
                    command,
                    cwd=ROOT,
                    env=environment({}),
                    stdout=full,
                    stderr=subprocess.PIPE,
                    timeout=DEADLINE_S,
                    check=False,
                )
            assert other.returncode == 1
            assert other.stderr.decode().splitlines() == [
                "error: the output cannot be written: No space left on device:"
                " send it where there is room"
            ]
        does_a_task(state, process)


@pytest.mark.parametrize("words", [("status",), ("frobnicate",), ("verify", "/nope")])
def test_with_json_an_error_is_one_document_and_still_a_line(
    words: tuple[str, ...], tmp_path: Path
) -> None:
    state = () if words[0] == "frobnicate" else ("--state", tmp_path)
    done = baton(*words, "--json", *state)
    assert done.error_document["kind"] == ("usage" if words[0] == "frobnicate" else "input_error")
