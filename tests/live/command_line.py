"""The command line as a person uses it: real processes, and what they say when something is wrong.

Nothing here knows the inside of a peer; it types commands, reads what comes, and sends signals.
"""

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
DEADLINE_S = 80.0
START_DEADLINE_S = 60.0
LOOPBACK = ("--listen", "/ip4/127.0.0.1/tcp/0")


@dataclass(frozen=True, slots=True)
class Done:
    """A command that has ended."""

    code: int
    out: str
    err: str

    @property
    def error(self) -> str:
        """What it says went wrong; fails unless that is one line, and the exit code tells it."""
        lines = self.err.splitlines()
        assert self.code not in (0, 70), self
        assert len(lines) == 1, self
        assert lines[0].startswith("error: "), self
        return lines[0].removeprefix("error: ")

    @property
    def error_document(self) -> dict[str, str]:
        """The error as --json prints it, and nothing beside it."""
        found: dict[str, dict[str, str]] = json.loads(self.out)
        assert list(found) == ["error"], self
        assert found["error"]["message"] in self.error
        return found["error"]

    @property
    def document(self) -> dict[str, Any]:
        assert self.code == 0, self
        found: dict[str, Any] = json.loads(self.out)
        return found


def environment(extra: Mapping[str, str]) -> dict[str, str]:
    path = os.pathsep.join([*filter(None, [extra.get("PYTHONPATH")]), str(ROOT)])
    # Without a terminal rich asks these how wide it is; a test's machine may set either.
    kept = {key: value for key, value in os.environ.items() if key not in ("COLUMNS", "LINES")}
    return {**kept, **extra, "PYTHONPATH": path}


@dataclass(slots=True)
class _Forking:
    """The process that runs commands; see `tests.live.forking`."""

    process: subprocess.Popen[bytes] | None = None


_forking = _Forking()


@contextmanager
def commands_running() -> Iterator[None]:
    """For as long as the block runs, commands need not wait for their imports."""
    with subprocess.Popen(
        [sys.executable, "-m", "tests.live.forking"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=ROOT,
        env=environment({}),
    ) as process:
        before, _forking.process = _forking.process, process
        try:
            yield
        finally:
            _forking.process = before
            # It reads to the end, and then ends.
            process.communicate()


def baton(*arguments: object) -> Done:
    """Run one command to its end."""
    return at_once([arguments])[0]


def baton_in(extra: Mapping[str, str], *arguments: object) -> Done:
    """Run one command to its end, in an environment of its own."""
    ran = subprocess.run(
        [sys.executable, "-m", "node", *map(str, arguments)],
        capture_output=True,
        stdin=subprocess.DEVNULL,
        env=environment(extra),
        timeout=DEADLINE_S,
        check=False,
    )
    return Done(ran.returncode, ran.stdout.decode(), ran.stderr.decode())


def at_once(commands: Sequence[Sequence[object]], *, uid: int | None = None) -> list[Done]:
    """Run commands that do not disturb each other, some at a time; what each came to.

    `uid` is the user to be, for root.
    """
    with tempfile.TemporaryDirectory() as folder:
        jobs = [
            {
                "arguments": [*map(str, arguments)],
                "out": f"{folder}/{place}.out",
                "err": f"{folder}/{place}.err",
                "uid": uid,
            }
            for place, arguments in enumerate(commands)
        ]
        process = _forking.process
        assert process is not None
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps(jobs).encode() + b"\n")
        process.stdin.flush()
        # Each command has a deadline there.
        codes = json.loads(process.stdout.readline())
        return [
            Done(code, Path(str(job["out"])).read_text(), Path(str(job["err"])).read_text())
            for code, job in zip(codes, jobs, strict=True)
        ]


@dataclass(frozen=True, slots=True)
class Peer:
    """A running `join`."""

    process: subprocess.Popen[bytes]
    state: Path
    id: str
    address: str
    # Of a gateway: where clients find it.
    url: str = ""

    def ask(self, *arguments: object) -> Done:
        return baton(*arguments, "--state", self.state)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> Done:
        """Send a signal, and wait for the end."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.ended()

    def ended(self) -> Done:
        out, err = self.process.communicate(timeout=DEADLINE_S)
        return Done(self.process.returncode, out.decode(), err.decode())


@contextmanager
def joined(
    state: Path,
    *arguments: object,
    extra: Mapping[str, str] | None = None,
    program: Sequence[str] = ("-m", "node"),
    placed: bool = True,
) -> Iterator[Peer]:
    """A peer that is up; SIGKILLed at the end of the block if it still runs.

    Unless the arguments say where it listens, or it is not `placed`, this machine alone reaches it.
    """
    command = [*program, "join", "--json", "--state", str(state), *map(str, arguments)]
    if placed and "--listen" not in arguments and "--port" not in arguments:
        command += LOOPBACK
    process = subprocess.Popen(
        [sys.executable, *command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(extra or {}),
    )
    try:
        found = _announced(process)
        yield Peer(process, state, found["peer"], found["addresses"][0], found.get("http", ""))
    finally:
        process.kill()
        process.communicate()


def _announced(process: subprocess.Popen[bytes]) -> dict[str, Any]:
    assert process.stdout is not None
    text = b""
    # Its own end, or the test's timeout, ends this.
    while not text.endswith(b"\n}\n"):
        line = process.stdout.readline()
        if not line:
            _, err = process.communicate()
            raise AssertionError(f"the peer did not start: {err.decode()}")
        text += line
    found: dict[str, Any] = json.loads(text)
    if "error" in found:
        _, err = process.communicate()
        raise AssertionError(f"the peer did not start: {err.decode()}")
    return found


def numbers_in(line: str) -> set[int]:
    return {int(it) for it in re.findall(r"\d+", line)}
