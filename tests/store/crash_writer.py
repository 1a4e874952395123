"""A writer to be killed in mid-write. Run as a program; see test_crash.py.

`crash_writer.py FOLDER ROUNDS SEED` forks one child for each round. The child first reads back all
that earlier children said was kept, then writes until it is killed at a moment nobody chose with
care. Forked rather than started, as starting Python a hundred times takes most of a minute.
"""

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

import trio

from store import Pin, Row, Store, Table, Write, open_store
from wire import limits
from wire.content import ContentId

QUOTA_BYTES = 1 << 30
WRITERS = 8
KILL_S_MAX = 0.060
PROMISES_READ_MAX = 60


def content(number: int) -> bytes:
    """The bytes that this number stands for: mostly small, sometimes a tree of several blocks."""
    size_bytes = (30, 1000, 5000, 40_000, 3 * limits.BLOCK_BYTES_MAX + 77)[number % 5]
    word = number.to_bytes(8, "big")
    return (word * (size_bytes // 8 + 1))[:size_bytes]


async def verify(store: Store, promised: list[int], sample: random.Random) -> None:
    """Raise unless everything promised is there and is what it should be."""
    recent = promised[-PROMISES_READ_MAX // 2 :]
    older = sample.sample(promised, min(len(promised), PROMISES_READ_MAX // 2))
    for number in {*recent, *older}:
        row = store.read(Table.JOURNAL, number.to_bytes(8, "big"))
        assert row is not None, f"the record of {number} is gone"
        content_id = ContentId(row)
        data = await store.get(content_id)
        assert data == content(number), f"{number} came back as something else"
        assert store.pins(limit=1), "the pins are gone"


async def write_for_ever(store: Store, start: int, out: int) -> None:
    """Put, and say so only after the store has said so."""

    async def writer(number: int) -> None:
        while True:
            data, key = content(number), number.to_bytes(8, "big")
            if number % 5 == 4:
                content_id = await store.put(data, pin="crash")
                await store.write(Table.JOURNAL, key, content_id)
            else:
                # Blob, pin and record in one step: after a crash there is all of it or nothing.
                content_id = ContentId.of(data)
                await store.commit(
                    Write(
                        rows=(Row(Table.JOURNAL, key, content_id),),
                        blobs=(data,),
                        pins=(Pin(content_id, "crash"),),
                    )
                )
            os.write(out, key)
            number += WRITERS

    async with trio.open_nursery() as nursery:
        for offset in range(WRITERS):
            nursery.start_soon(writer, start + offset)


async def child(folder: Path, promised: list[int], seed: int, out: int) -> None:
    async with open_store(folder, quota_bytes=QUOTA_BYTES) as store:
        await verify(store, promised, random.Random(seed))
        os.write(out, b"verified")
        await write_for_ever(store, max(promised, default=-1) + 1, out)


async def last_look(folder: Path, promised: list[int]) -> int:
    """Everything, once, and the store's own check; returns how many blobs were whole."""
    async with open_store(folder, quota_bytes=QUOTA_BYTES) as store:
        for number in promised:
            row = store.read(Table.JOURNAL, number.to_bytes(8, "big"))
            assert row is not None, f"the record of {number} is gone"
            assert await store.get(ContentId(row)) == content(number)
        report = await store.check()
        assert report.healthy, report
    return len(promised)


def run_round(folder: Path, promised: list[int], seed: int) -> tuple[list[int], bool]:
    """Kill one child in mid-write; returns what it promised, and whether it wrote when it died."""
    reads, writes = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reads)
        trio.run(child, folder, promised, seed, writes)
        os._exit(1)
    os.close(writes)
    # The child is timed from when it begins to write, or a slow start would be all there is.
    said = os.read(reads, 8)
    # Every other child is timed from its first promise: on a busy machine few would come to one.
    first = os.read(reads, 8) if seed % 2 else b""
    time.sleep(random.Random(seed).uniform(0, KILL_S_MAX))
    os.kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    with os.fdopen(reads, "rb") as file:
        promises = first + file.read()
    assert said == b"verified", f"round {seed}: what was promised did not come back"
    assert os.WIFSIGNALED(status), f"round {seed}: the child ended by itself"
    return [
        int.from_bytes(promises[at : at + 8], "big") for at in range(0, len(promises) // 8 * 8, 8)
    ], bool(promises)


def main() -> None:
    folder, rounds, seed = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    promised: list[int] = []
    writing = 0
    for number in range(rounds):
        more, wrote = run_round(folder, promised, seed + number)
        # Numbers that were under way when a child died are not used again.
        promised = sorted({*promised, *more})
        writing += wrote
    whole = trio.run(last_look, folder, promised)
    print(json.dumps({"rounds": rounds, "killed_while_writing": writing, "whole": whole}))


if __name__ == "__main__":
    main()
