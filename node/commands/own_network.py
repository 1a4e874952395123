"""A network of one machine for as long as a command runs: a peer as a process of its own."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from node.models.inspect import is_path
from wire.errors import BatonError

LEAVE_S = 10.0
LOG = "peer.log"


@contextmanager
def own_network(state: Path, model: str, device: Sequence[str] = ()) -> Iterator[None]:
    """Run a peer on the state folder until the block ends; it serves `model`, if that is no file.

    `device` are options of `join` that say what the model runs on.

    It is a process group of its own, so that Ctrl-C in the terminal does not reach it, and it ends
    by itself if this process is killed. BatonError says why it did not start.
    """
    state.mkdir(parents=True, exist_ok=True, mode=0o700)
    log = state / LOG
    with log.open("wb") as errors:
        process = subprocess.Popen(  # noqa: S603
            [*command_of(state, model), *device],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            process_group=0,
        )
    try:
        _wait_until_up(process, log)
        yield
    finally:
        _end(process)


def command_of(state: Path, model: str) -> Sequence[str]:
    """The command line of the peer.

    A file is kept by whoever runs the command, once the peer is up: if both kept it, the second
    copy would take the place of the first, which is being loaded.
    """
    served = () if is_path(model) else ("--model", model)
    return (
        *(sys.executable, "-m", "node", "join", "--json", "--with-parent", str(os.getpid())),
        *("--state", str(state), "--role", "infer", "--role", "store", *served),
        *("--listen", "/ip4/127.0.0.1/tcp/0"),
    )


def _wait_until_up(process: subprocess.Popen[bytes], log: Path) -> None:
    """Until it has announced itself with one JSON document, or has ended."""
    assert process.stdout is not None
    text = b""
    while line := process.stdout.readline():
        text += line
        try:
            document = json.loads(text)
        except ValueError:
            continue
        if "error" not in document:
            return
    process.wait()
    lines = log.read_text(errors="replace").strip().splitlines()
    why = (
        lines[-1].removeprefix("error: ")
        if lines
        else f"it said nothing (exit {process.returncode})"
    )
    raise BatonError(f"no network could be started on this machine: {why}")


def _end(process: subprocess.Popen[bytes]) -> None:
    """Have it leave politely; kill it if that takes too long."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
    try:
        process.wait(LEAVE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    if process.stdout is not None:
        process.stdout.close()
