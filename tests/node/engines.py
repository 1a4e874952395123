"""Engines for the tests: slow, counted, refusing, lying; everything else is the hash engine."""

from collections.abc import Callable

import numpy as np
import trio

from node.engines.hash_engine import HashEngine
from node.engines.interface import Emit, Job, Output
from node.models.probing import PROBE_TEXT
from wire.errors import EngineFailed, Refused
from wire.payload import Texts, Vectors

# An honest engine that says it takes this long is asked after one that says it takes no time.
HONEST_UNIT_S = 0.05


# Who means harm does not begin with its own peer's probe; and no test counts the probes.
PROBE = Texts(texts=(PROBE_TEXT,)).to_bytes()


class Counted(HashEngine):
    """Counts the jobs it was given; does its own peer's probes as they should be done."""

    def __init__(self, unit_s: float = HONEST_UNIT_S, jobs_max: int = 64) -> None:
        super().__init__(unit_s, jobs_max)
        self.calls = 0

    async def infer(self, job: Job, emit: Emit | None = None) -> Output:
        self.calls += job.input != PROBE
        return await super().infer(job, emit)


class Liar(Counted):
    """Says that it takes no time, and alters what it answers."""

    def __init__(self, alter: Callable[[Output], Output]) -> None:
        super().__init__(unit_s=0.0)
        self.alter = alter

    async def infer(self, job: Job, emit: Emit | None = None) -> Output:
        output = await super().infer(job, emit)
        return output if job.input == PROBE else self.alter(output)


class Stuck(Counted):
    """Takes every job and finishes none; `began` is set with the first."""

    def __init__(self) -> None:
        super().__init__(unit_s=0.0)
        self.began = trio.Event()

    async def infer(self, job: Job, emit: Emit | None = None) -> Output:
        if job.input == PROBE:
            return await super().infer(job, emit)
        self.calls += 1
        self.began.set()
        await trio.sleep_forever()
        raise AssertionError


class Broken(Counted):
    """Fails at every job."""

    def __init__(self) -> None:
        super().__init__(unit_s=0.0)

    async def infer(self, job: Job, emit: Emit | None = None) -> Output:
        if job.input == PROBE:
            return await super().infer(job, emit)
        self.calls += 1
        raise EngineFailed("the worker ran out of memory")


class Busy(Counted):
    """Refuses the first jobs, and says when to come back."""

    def __init__(self, refusals: int, retry_after_s: float) -> None:
        super().__init__(unit_s=0.0)
        self.refusals = refusals
        self.retry_after_s = retry_after_s
        self.asked_at_s: list[float] = []

    async def infer(self, job: Job, emit: Emit | None = None) -> Output:
        if job.input == PROBE:
            return await super().infer(job, emit)
        self.asked_at_s.append(trio.current_time())
        if len(self.asked_at_s) <= self.refusals:
            raise Refused("the queue is full", retry_after_s=self.retry_after_s)
        return await super().infer(job, emit)


def one_row(output: Output) -> Output:
    return _changed(output, lambda rows: rows[0].__imul__(-1.0))


def some_rows(*wrong: int) -> Callable[[Output], Output]:
    """Makes these rows wrong, where an output has them."""

    def alter(output: Output) -> Output:
        def change(rows: np.ndarray) -> None:
            rows[[it for it in wrong if it < len(rows)]] *= -1.0

        return _changed(output, change)

    return alter


def all_rows(output: Output) -> Output:
    return _changed(output, lambda rows: rows.__imul__(0.5))


def not_numbers(output: Output) -> Output:
    return _changed(output, lambda rows: rows.fill(np.nan))


def one_row_less(output: Output) -> Output:
    vectors = Vectors.from_bytes(output.data)
    less = Vectors(
        dimensions=vectors.dimensions,
        rows=vectors.rows - 1,
        data=vectors.data[: -4 * vectors.dimensions],
    )
    return Output(data=less.to_bytes(), units=output.units)


def no_vectors(output: Output) -> Output:
    return Output(data=b"anything at all", units=output.units)


def more_units(output: Output) -> Output:
    return Output(data=output.data, units=output.units * 1000)


def _changed(output: Output, change: Callable[[np.ndarray], object]) -> Output:
    vectors = Vectors.from_bytes(output.data)
    rows = np.frombuffer(vectors.data, "<f4").reshape(vectors.rows, vectors.dimensions).copy()
    change(rows)
    altered = Vectors(dimensions=vectors.dimensions, rows=vectors.rows, data=rows.tobytes())
    return Output(data=altered.to_bytes(), units=output.units)
