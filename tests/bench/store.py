"""Durable 1 KiB puts by many writers, through the store and through bare LMDB, side by side.

Both write to the same disk with the same durability, in rounds that alternate, so that other load
on the machine affects both. `single` waits for each put; `together` puts many rows with each commit
that it waits for, as a bundle of tasks does. Bare LMDB writes groups as large as the store's groups
were on average, with keys made beforehand, and only key and value: the least possible work.
Processor time is stated beside the rates: a busy disk hides what the store costs.
"""

import hashlib
import json
import random
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import lmdb
import trio

import store
from store.seam import Row, Table, Write

WRITERS = 32
PUTS_PER_ROUND = 1600
ROUNDS = 15
VALUE_BYTES = 1024
ROWS_TOGETHER = 32

KeyedRows = list[tuple[bytes, bytes]]
# How one writer puts its part of the rows.
Writing = Callable[[store.Store, KeyedRows], Awaitable[None]]


@dataclass
class _Measured:
    """Rates and processor times of both, one for each round."""

    ours: list[float] = field(default_factory=list)
    bare: list[float] = field(default_factory=list)
    ours_cpu_s: list[float] = field(default_factory=list)
    bare_cpu_s: list[float] = field(default_factory=list)
    rows_per_commit: int = 0

    def summary(self, rows: int) -> dict[str, Any]:
        ratios = [a / b for a, b in zip(self.ours, self.bare, strict=True)]
        ours_cpu_s, bare_cpu_s = sum(self.ours_cpu_s), sum(self.bare_cpu_s)
        return {
            "rows_per_commit": self.rows_per_commit,
            "store_puts_per_s": round(statistics.median(self.ours)),
            "bare_lmdb_puts_per_s": round(statistics.median(self.bare)),
            "ratio": round(statistics.median(ratios), 3),
            "ratio_min": round(min(ratios), 3),
            "ratio_max": round(max(ratios), 3),
            "store_cpu_us_per_put": round(ours_cpu_s / len(self.ours) / rows * 1e6, 1),
            "bare_lmdb_cpu_us_per_put": round(bare_cpu_s / len(self.bare) / rows * 1e6, 1),
        }


def run() -> dict[str, Any]:
    """The rates of both, in puts a second, and their ratio, from the medians of all rounds."""
    with tempfile.TemporaryDirectory(prefix="baton-bench-") as folder:
        return trio.run(_compare, Path(folder))


async def _compare(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = {
        "writers": WRITERS,
        "value_bytes": VALUE_BYTES,
        "rounds": ROUNDS,
        "rows_together": ROWS_TOGETHER,
    }
    # Many rows at once are done sooner: more of them make a round as long.
    for name, writing, rows in (
        ("single", _one_by_one, PUTS_PER_ROUND),
        ("together", _together, 4 * WRITERS * ROWS_TOGETHER),
    ):
        measured = await _alternate(folder / name, writing, rows)
        found[name] = measured.summary(rows)
    return found


async def _alternate(folder: Path, writing: Writing, rows_per_round: int) -> _Measured:
    source, measured = random.Random(0), _Measured()
    folder.mkdir()
    environment = lmdb.open(str(folder / "bare"), map_size=1 << 30, max_dbs=1)
    table = environment.open_db(b"blocks")
    async with store.open_store(folder / "ours", quota_bytes=1 << 30) as kept:
        for round_number in range(ROUNDS + 1):
            values = [source.randbytes(VALUE_BYTES) for _ in range(rows_per_round)]
            rows = [(hashlib.sha256(value).digest(), value) for value in values]
            before = kept.statistics()
            ours_s, ours_cpu_s = await _through_store(kept, writing, rows)
            commits = kept.statistics().commits - before.commits
            measured.rows_per_commit = round(len(rows) / commits)
            bare_s, bare_cpu_s = _through_lmdb(environment, table, rows, measured.rows_per_commit)
            # The first round warms both up.
            if round_number:
                measured.ours.append(len(rows) / ours_s)
                measured.bare.append(len(rows) / bare_s)
                measured.ours_cpu_s.append(ours_cpu_s)
                measured.bare_cpu_s.append(bare_cpu_s)
    environment.close()
    return measured


async def _one_by_one(kept: store.Store, rows: KeyedRows) -> None:
    for _, value in rows:
        await kept.put(value)


async def _together(kept: store.Store, rows: KeyedRows) -> None:
    for at in range(0, len(rows), ROWS_TOGETHER):
        some = rows[at : at + ROWS_TOGETHER]
        await kept.commit(Write(rows=tuple([Row(Table.JOURNAL, *row) for row in some])))


async def _through_store(
    kept: store.Store, writing: Writing, rows: KeyedRows
) -> tuple[float, float]:
    start_s, start_cpu_s = time.perf_counter(), time.process_time()
    async with trio.open_nursery() as nursery:
        for number in range(WRITERS):
            nursery.start_soon(writing, kept, rows[number::WRITERS])
    return time.perf_counter() - start_s, time.process_time() - start_cpu_s


def _through_lmdb(
    environment: Any, table: Any, rows: Sequence[tuple[bytes, bytes]], group: int
) -> tuple[float, float]:
    start_s, start_cpu_s = time.perf_counter(), time.process_time()
    for at in range(0, len(rows), group):
        with environment.begin(write=True, db=table) as transaction:
            for key, value in rows[at : at + group]:
                transaction.put(key, value)
    return time.perf_counter() - start_s, time.process_time() - start_cpu_s


if __name__ == "__main__":
    print(json.dumps(run(), indent=2))
