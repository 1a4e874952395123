"""Durable 1 KiB puts by many writers, through the store and through bare LMDB, side by side.

Both write to the same disk with the same durability, in rounds that alternate, so that other load
on the machine affects both. Bare LMDB writes groups as large as the store's groups were on average,
with keys made beforehand, and only key and value: the least possible work.
"""

import hashlib
import json
import random
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import lmdb
import trio

import store

WRITERS = 32
PUTS_PER_ROUND = 1600
ROUNDS = 15
VALUE_BYTES = 1024


def run() -> dict[str, Any]:
    """The rates of both, in puts a second, and their ratio, from the medians of all rounds."""
    with tempfile.TemporaryDirectory(prefix="baton-bench-") as folder:
        return trio.run(_compare, Path(folder))


async def _compare(folder: Path) -> dict[str, Any]:
    source = random.Random(0)
    ours: list[float] = []
    bare: list[float] = []
    environment = lmdb.open(str(folder / "bare"), map_size=1 << 30, max_dbs=1)
    table = environment.open_db(b"blocks")
    async with store.open_store(folder / "ours", quota_bytes=1 << 30) as kept:
        for round_number in range(ROUNDS + 1):
            values = [source.randbytes(VALUE_BYTES) for _ in range(PUTS_PER_ROUND)]
            before = kept.statistics()
            ours_s = await _through_store(kept, values)
            after = kept.statistics()
            group = round((after.puts - before.puts) / (after.commits - before.commits))
            bare_s = _through_lmdb(environment, table, values, group)
            # The first round warms both up.
            if round_number:
                ours.append(PUTS_PER_ROUND / ours_s)
                bare.append(PUTS_PER_ROUND / bare_s)
    environment.close()
    return {
        "writers": WRITERS,
        "value_bytes": VALUE_BYTES,
        "rounds": ROUNDS,
        "group": group,
        "store_puts_per_s": round(statistics.median(ours)),
        "bare_lmdb_puts_per_s": round(statistics.median(bare)),
        "ratio": round(statistics.median(a / b for a, b in zip(ours, bare, strict=True)), 3),
        "ratio_min": round(min(a / b for a, b in zip(ours, bare, strict=True)), 3),
        "ratio_max": round(max(a / b for a, b in zip(ours, bare, strict=True)), 3),
    }


async def _through_store(kept: store.Store, values: list[bytes]) -> float:
    async def writer(part: list[bytes]) -> None:
        for value in part:
            await kept.put(value)

    start_s = time.perf_counter()
    async with trio.open_nursery() as nursery:
        for number in range(WRITERS):
            nursery.start_soon(writer, values[number::WRITERS])
    return time.perf_counter() - start_s


def _through_lmdb(environment: Any, table: Any, values: list[bytes], group: int) -> float:
    rows = [(hashlib.sha256(value).digest(), value) for value in values]
    start_s = time.perf_counter()
    for at in range(0, len(rows), group):
        with environment.begin(write=True, db=table) as transaction:
            for key, value in rows[at : at + group]:
                transaction.put(key, value)
    return time.perf_counter() - start_s


if __name__ == "__main__":
    print(json.dumps(run(), indent=2))
