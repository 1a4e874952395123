"""`run` as a person uses it: through a pipe, in a terminal, with a peer and without one."""

import os
import pty
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from node.engines.hash_engine import hash_manifest
from tests.live.command_line import DEADLINE_S, Done, Peer, baton, environment, joined


def piped(text: str, *arguments: object) -> Done:
    ran = subprocess.run(
        [sys.executable, "-m", "node", "run", *map(str, arguments)],
        input=text.encode(),
        capture_output=True,
        env=environment({}),
        timeout=DEADLINE_S,
        check=False,
    )
    return Done(ran.returncode, ran.stdout.decode(), ran.stderr.decode())


def test_lines_of_a_pipe_are_questions_and_commands(asker: Peer, tmp_path: Path) -> None:
    talk = tmp_path / "talk.json"
    lines = f"hello\n\n/receipt\n/save {talk}\n/quit\nnever asked\n"
    done = piped(lines, "hash", "--state", asker.state, "--max-tokens", "3", "--verdicts", "1/1")
    assert (done.code, done.err) == (0, "")
    answer, *rest = done.out.splitlines()
    assert len(answer.split()) == 3
    receipt = Path(" ".join(rest).split("node verify ")[1].split()[0])
    assert baton("verify", receipt, "--json").document["holds"]
    again = asker.ask("ask", "hash", "--messages", talk, "--text", "go on", "--tokens", "2")
    assert again.code == 0, again
    assert "never asked" not in talk.read_text()


def test_the_first_error_ends_a_pipe_in_one_line(asker: Peer, state: Path) -> None:
    where = ("--state", asker.state)
    assert "'nonsense'" in piped("hello\n", "nonsense", *where).error
    assert "/fly" in piped("/fly\nhello\n", "hash", *where).error
    assert "there is no model 'nonsense'" in piped("hello\n", "nonsense", "--state", state).error


def test_a_device_is_for_the_peer_that_run_starts(asker: Peer) -> None:
    said = piped("hello\n", "hash", "--state", asker.state, "--device", "cl").error
    assert "a peer is running" in said
    assert "leave out --device cl" in said
    assert "no device 'tpu'" in piped("hello\n", "hash", "--device", "tpu").error


def test_without_a_peer_a_network_runs_for_the_time(state: Path) -> None:
    done = piped("hello\n", "hash", "--state", state, "--max-tokens", "2")
    assert (done.code, done.err, len(done.out.split())) == (0, "", 2)
    assert list((state / "receipts").glob("*.receipt"))
    assert "no peer is running" in baton("status", "--state", state).error


@dataclass(slots=True)
class Terminal:
    """What a person sees and types."""

    descriptor: int
    seen: str = ""

    def until(self, words: str) -> str:
        """Everything seen since the last call, up to these words."""
        ends_s = time.monotonic() + DEADLINE_S
        while words not in self.seen:
            ready, _, _ = select.select([self.descriptor], [], [], ends_s - time.monotonic())
            assert ready, self.seen
            self.seen += os.read(self.descriptor, 65536).decode(errors="replace")
        before, _, self.seen = self.seen.partition(words)
        return before

    def until_prompt(self) -> None:
        """Until the next question can be typed, which is when pasting is announced."""
        self.until("\x1b[?2004h")
        self.until(">>>")

    def type(self, text: str) -> None:
        os.write(self.descriptor, text.encode())


# Ctrl-C is for who has the terminal, as a command that a shell started does.
AS_A_SHELL = """
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.argv[1], sys.argv[1:])
"""


@contextmanager
def terminal(*arguments: object) -> Iterator[tuple[Terminal, subprocess.Popen[bytes]]]:
    own, theirs = pty.openpty()
    command = [sys.executable, "-m", "node", "run", *map(str, arguments)]
    process = subprocess.Popen(
        [sys.executable, "-c", AS_A_SHELL, *command],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env=environment({"TERM": "xterm-256color", "PROMPT_TOOLKIT_NO_CPR": "1"}),
        start_new_session=True,
    )
    os.close(theirs)
    try:
        yield Terminal(own), process
    finally:
        process.kill()
        process.wait()
        os.close(own)


def test_ctrl_c_stops_an_answer_and_not_the_conversation(asker: Peer) -> None:
    with terminal("hash", "--state", asker.state, "--max-tokens", "100000") as (screen, process):
        screen.until_prompt()
        screen.type("hello\r")
        screen.until("\x1b[?2004l")
        # Words come in, for far longer than it takes to type.
        screen.until(" ")
        screen.type("\x03")
        screen.until_prompt()
        screen.type("/receipt\r")
        screen.until("there is no answer yet")
        screen.until_prompt()
        screen.type("/quit\r")
        assert process.wait(DEADLINE_S) == 0
    # The task ended with it, soon after: nobody goes on for nothing.
    ends_s = time.monotonic() + 60
    while asker.ask("status", "--json").document["tasks"]["under_way"]:
        assert time.monotonic() < ends_s


def test_in_a_terminal_errors_and_ctrl_c_do_not_end_the_conversation(asker: Peer) -> None:
    with terminal("hash", "--state", asker.state, "--max-tokens", "2") as (screen, process):
        screen.until("is ready")
        screen.until_prompt()
        screen.type("/nothing\r")
        screen.until("there is no command /nothing")
        # What is typed while there is no prompt is nobody's.
        screen.until_prompt()
        screen.type("half a line\x03")
        screen.until("/quit or Ctrl-D leaves")
        screen.until_prompt()
        # Two lines are one question.
        screen.type("one\x1b\rtwo\r")
        screen.until_prompt()
        screen.type("/route\r")
        screen.until("generate")
        screen.until_prompt()
        screen.type("/quit\r")
        assert process.wait(DEADLINE_S) == 0
    assert "half a line" not in (asker.state / "chat-history").read_text()
    assert "+one\n+two\n" in (asker.state / "chat-history").read_text()


def test_questions_are_answered_from_an_index_with_its_passages_beside(
    commands: None, state: Path, tmp_path: Path
) -> None:
    talk = tmp_path / "talk.json"
    where = ("--state", state, "--max-tokens", "3", "--search", "hash")
    with joined(state, "--model", "hash") as peer:
        unchecked = ("--verdicts", "0/0", "--json")
        made = peer.ask("ask", "hash", "--source", "pydoc:pass", *unchecked).document
        lines = f"what does pass do?\n/save {talk}\n"
        done = piped(lines, "hash", "--index", made["index"], *where)
        assert (
            "is not an index"
            in piped("hello\n", "hash", "--index", hash_manifest().id, *where).error
        )
    assert done.code == 0, done
    assert len(done.out.splitlines()[0].split()) == 3
    assert "from 1. " in done.err
    # What was asked is kept as it was typed; the passages were for this one answer.
    assert "Text:" not in talk.read_text()
