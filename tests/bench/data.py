"""Outside data by the bulk: rows of a table per second, folders beside plain copying.

    python -m tests.bench data rows [COUNT]    a Parquet table, on a model that hashes its texts
    python -m tests.bench data folders [--megabytes 1000] [--files 10000]

Rows: one peer, which runs the model, and the command beside it, as a person would have them. Memory
is the most that each of the two processes had in its own pages (`VmHWM`). The clock says how fast
it was here; what a row takes of a processor (`us_per_row`) depends little on what else the machine
does, and the slower of the two processes says what two free cores would give
(`rows_per_s_by_cpu`). The command's start is no matter of its rows: it is left out of these.
"""

import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from subprocess import DEVNULL, PIPE, Popen
from typing import Any

import pyarrow as pa
from pyarrow import parquet

from tests.bench._folders import folders
from tests.bench._process_figures import peak_bytes, used_cpu_s
from tests.live.command_line import ROOT, Peer, baton_in, environment, joined

ROWS = 1_000_000
# Rows that the table is made of at a time.
_GROUP = 50_000


def run(arguments: list[str]) -> dict[str, Any]:
    """What each part measures; all parts where none is named."""
    part, more = (arguments[0], arguments[1:]) if arguments else ("", [])
    if part not in ("", "rows", "folders"):
        raise SystemExit("which part? rows, folders")
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="baton-bench-") as folder:
        if part != "folders":
            found["rows"] = rows(Path(folder), int(more[0]) if more else ROWS)
        if part != "rows":
            found["folders"] = folders(Path(folder), more)
    return found


def rows(folder: Path, count: int) -> dict[str, Any]:
    """A table of `count` rows asked of the hash model, from begin to end."""
    table, out = folder / "data.parquet", folder / "results.parquet"
    _write_table(table, count)
    with joined(folder / "s", "--role", "infer", "--model", "hash") as peer:
        _until_ready(peer)
        before_s = used_cpu_s(peer.process.pid)
        began_s = time.monotonic()
        words = ["ask", "hash", "--rows", table, "--column", "text", "--out", out]
        words += ["--level", "signed", "--json", "--state", peer.state]
        with _command(words) as command:
            command_bytes, command_cpu_s = _watched(command)
            assert command.stdout is not None
            done = json.loads(command.stdout.read())
        took_s = time.monotonic() - began_s
        peer_bytes = peak_bytes(peer.process.pid)
        peer_cpu_s = used_cpu_s(peer.process.pid) - before_s
    verify_s = _cpu_of(["verify", f"{out}.receipts", "--json"])
    idle_s = _cpu_of(["--version"])
    found = parquet.ParquetFile(out)
    right = found.metadata.num_rows == done["rows"] == count
    us_per_row = {
        "command": round((command_cpu_s - idle_s) / count * 1e6, 1),
        "peer": round(peer_cpu_s / count * 1e6, 1),
        "verify": round((verify_s - idle_s) / count * 1e6, 1),
    }
    per_s, most_mb = count / took_s, max(command_bytes, peer_bytes) / 1e6
    return {
        "rows": count,
        "seconds": round(took_s, 1),
        "rows_per_s": round(per_s),
        "us_per_row": us_per_row,
        "rows_per_s_by_cpu": round(1e6 / max(us_per_row["command"], us_per_row["peer"])),
        "command_cpu_s": round(command_cpu_s, 1),
        "peer_cpu_s": round(peer_cpu_s, 1),
        "command_peak_mb": round(command_bytes / 1e6),
        "peer_peak_mb": round(peer_bytes / 1e6),
        "right": right,
        "aim": ">= 10,000 rows/s, <= 400 MB",
        "met": right and per_s >= 10_000 and most_mb <= 400,
    }


def _write_table(path: Path, count: int) -> None:
    schema = pa.schema([("id", pa.int64()), ("text", pa.string())])
    with parquet.ParquetWriter(path, schema) as writer:
        for first in range(0, count, _GROUP):
            numbers = range(first, min(count, first + _GROUP))
            texts = [f"row {it} of a table that has {count} of them" for it in numbers]
            writer.write_table(pa.table({"id": list(numbers), "text": texts}, schema=schema))


def _until_ready(peer: Peer) -> None:
    """A first question, so that nothing is loaded while the clock runs."""
    words = ("ask", "hash", "warm up", "--level", "signed", "--json", "--state", peer.state)
    answer = baton_in({}, *words)
    assert answer.code == 0, answer.err


@contextmanager
def _command(words: list[Any]) -> Iterator[Popen[bytes]]:
    with Popen(
        [sys.executable, "-m", "node", *map(str, words)],
        stdin=DEVNULL,
        stdout=PIPE,
        env=environment({}),
        cwd=ROOT,
    ) as process:
        yield process
    assert process.returncode == 0


def _cpu_of(words: list[str]) -> float:
    """The processor seconds of a command, which succeeds."""
    before_s = sum(os.times()[2:4])
    with _command(words) as command:
        command.communicate()
    return sum(os.times()[2:4]) - before_s


def _watched(process: Popen[bytes]) -> tuple[int, float]:
    """The peak of a process in bytes and its processor seconds, looked at until it ends."""
    most, cpu_s = 0, 0.0
    while process.poll() is None:
        most, cpu_s = max(most, peak_bytes(process.pid)), max(cpu_s, used_cpu_s(process.pid))
        time.sleep(0.05)
    return most, cpu_s
