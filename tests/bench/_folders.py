"""A folder of many files: published, fetched, fetched from four, published again, copied plainly.

Every peer is a process of its own, as is each side of the plain copy. They take turns, so that one
waits for nobody else; what is told is the clock's, with the processor seconds of both sides beside
it, since on a machine that does other work too they say more.
"""

import argparse
import json
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from random import Random
from typing import Any

import trio

from node.commands.ask import SOCKET
from node.local.control import call
from tests.bench._plain_copy import files_of
from tests.bench._process_figures import peak_bytes, used_cpu_s
from tests.live.command_line import ROOT, Peer, environment, joined
from wire.content import ContentId

FOLDERS = 100
SOURCES = 4
DEADLINE_S = 1800
AIM = 0.6


def folders(place: Path, arguments: list[str]) -> dict[str, Any]:
    """Publish and fetch `--megabytes` in `--files`; the ratio is that of plain copying."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench data folders")
    parser.add_argument("--megabytes", type=int, default=1000)
    parser.add_argument("--files", type=int, default=10_000)
    parser.add_argument("--json", action="store_true", help="what is printed is JSON anyway")
    options = parser.parse_args(arguments)
    folder, size_bytes = place / "in", options.megabytes * 1_000_000
    write_files(folder, options.files, size_bytes // options.files)
    plain_s, plain_cpu_s = plain_copy(folder, place / "plain")
    with ExitStack() as stack:
        maker = stack.enter_context(joined(place / "maker", "--role", "store"))
        put = timed([maker], "put-folder", {"path": str(folder)})
        taker = stack.enter_context(joined(place / "taker", maker.address, "--role", "store"))
        wanted = {"id": put["id"], "deadline_s": DEADLINE_S}
        one = timed([taker, maker], "get-folder", {**wanted, "path": str(place / "one")})
        same = _same(folder, place / "one")
        changed = changed_again(folder, maker, taker, place)
        others = [
            stack.enter_context(joined(place / f"o{it}", maker.address, "--role", "store"))
            for it in range(SOURCES - 1)
        ]
        # What changed is back as it was, so that all have the same.
        for other in [maker, *others]:
            again = timed([other], "put-folder", {"path": str(folder)})
        taker.process.kill()
        last = stack.enter_context(joined(place / "last", maker.address, "--role", "store"))
        wanted["id"] = again["id"]
        four = timed([last, maker, *others], "get-folder", {**wanted, "path": str(place / "four")})
        same = same and _same(folder, place / "four")
        peaks = {"maker": peak_bytes(maker.process.pid), "taker": peak_bytes(last.process.pid)}
    ratio = plain_s / one["seconds"]
    return {
        "files": options.files,
        "megabytes": options.megabytes,
        "plain": {"seconds": round(plain_s, 1), "cpu_s": round(plain_cpu_s, 1)},
        "put": _shown(put),
        "get": _shown(one),
        "get_from_4": _shown(four),
        "peak_mb": {name: round(it / 1e6) for name, it in peaks.items()},
        "changed": changed,
        "same": same,
        "put_of_plain": round(plain_s / put["seconds"], 2),
        "get_of_plain": round(ratio, 2),
        "get_of_plain_cpu": round(plain_cpu_s / one["cpu_s"], 2),
        "four_of_one": round(one["seconds"] / four["seconds"], 2),
        "aim": f"get >= {AIM} x plain; only what changed travels",
        "met": same and ratio >= AIM and changed["met"],
    }


def write_files(folder: Path, count: int, size_bytes: int) -> None:
    """`count` files of chance, in a hundred folders."""
    random = Random(15)
    for number in range(count):
        path = folder / f"{number % FOLDERS:02}" / f"{number:05}.bin"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(random.randbytes(size_bytes))


def plain_copy(folder: Path, place: Path) -> tuple[float, float]:
    """Seconds of the clock and of the processors that plain copying takes."""
    program = [sys.executable, "-m", "tests.bench._plain_copy"]
    with subprocess.Popen(
        [*program, "send", str(folder)], stdout=subprocess.PIPE, cwd=ROOT, env=environment({})
    ) as sender:
        assert sender.stdout is not None
        address = sender.stdout.readline().decode().strip()
        taken = subprocess.run(
            [*program, "take", address, str(place)],
            stdout=subprocess.PIPE,
            cwd=ROOT,
            env=environment({}),
            check=True,
            timeout=DEADLINE_S,
        )
        sides = [json.loads(taken.stdout), json.loads(sender.stdout.readline())]
    assert _same(folder, place)
    return sides[0]["seconds"], sum(it["cpu_s"] for it in sides)


def timed(peers: list[Peer], command: str, arguments: dict[str, Any]) -> dict[str, Any]:
    """A command of the first of these peers, with its seconds and those of all processors."""

    async def asked() -> dict[str, Any]:
        answer = await call(
            peers[0].state / SOCKET, command, arguments, lambda _: None, deadline_s=DEADLINE_S
        )
        return dict(answer)

    before_s, began_s = _cpu_of(peers), time.monotonic()
    found = trio.run(asked)
    took_s = time.monotonic() - began_s
    return {**found, "seconds": took_s, "cpu_s": _cpu_of(peers) - before_s}


def changed_again(folder: Path, maker: Peer, taker: Peer, place: Path) -> dict[str, Any]:
    """One file changed: what publishing stores then, and what of it travels."""
    file = next(files_of(folder))
    before = file.read_bytes()
    file.write_bytes(b"changed" + before[7:])
    put = timed([maker], "put-folder", {"path": str(folder)})
    wanted = {"id": put["id"], "path": str(place / "changed"), "deadline_s": DEADLINE_S}
    get = timed([taker, maker], "get-folder", wanted)
    file.write_bytes(before)
    # Beside the file itself: the node of its folder, and the top.
    allowed = len(before) + 2 * 64 * 1024
    return {
        "put": _shown(put),
        "get": _shown(get),
        "stored_bytes": put["stored_bytes"],
        "met": put["stored_bytes"] <= allowed and get["received_bytes"] <= allowed,
    }


def _same(one: Path, other: Path) -> bool:
    def digests(top: Path) -> dict[str, ContentId]:
        return {
            path.relative_to(top).as_posix(): ContentId.of(path.read_bytes())
            for path in files_of(top)
        }

    return digests(one) == digests(other)


def _shown(found: dict[str, Any]) -> dict[str, Any]:
    shown = {name: round(found[name], 1) for name in ("seconds", "cpu_s")}
    if "received_bytes" in found:
        shown["received_bytes"] = found["received_bytes"]
    return shown


def _cpu_of(peers: list[Peer]) -> float:
    return sum(used_cpu_s(it.process.pid) for it in peers)
