"""Passes through a range of a model's layers: the work of a model of which the first are elsewhere.

One pass at a time, in the order in which they came. What a pass depends on is kept by the worker:
when that dies, whoever has a session hears of it and begins again.
"""

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from node.engines.each_alone import each_alone
from node.engines.formats.gguf import FILE
from node.engines.host.format_queue import check_files, within
from node.engines.host.pending import PendingJob, fail_all
from node.engines.interface import Emit, Found, Job, Loaded, Output
from node.engines.other_layers import BEGIN, END, SESSION
from wire.codec import Value
from wire.content import ContentId
from wire.errors import BatonError, EngineError, EngineFailed
from wire.model import Manifest
from wire.operations import STAGE
from wire.stage import ROWS_MAX, StageRows


@dataclass(slots=True, eq=False, kw_only=True)
class StageJob(PendingJob):
    """One pass, or the begin or the end of a session, and what came of it."""

    message: dict[str, Value]
    rows: int
    data: bytes = b""


@dataclass(frozen=True, slots=True)
class StageOffer:
    """One message to the worker."""

    model: ContentId
    job: StageJob
    message: dict[str, Value]


class StageScheduler:
    """See `node.engines.host.format_queue.FormatScheduler`."""

    operations = frozenset({STAGE})
    units_at_once = 2 * ROWS_MAX

    def __init__(self, _jobs_max: int, wake: Callable[[], None]) -> None:
        self._wake = wake
        self._jobs: deque[StageJob] = deque()
        self._pages = (0, 0)

    @property
    def units(self) -> int:
        return sum(it.rows for it in self._jobs if not it.over)

    @property
    def ready(self) -> bool:
        return any(not it.over for it in self._jobs)

    def __len__(self) -> int:
        return len(self._jobs)

    def pages(self, _: ContentId) -> tuple[int, int]:
        """How many pages sessions have, of how many, at the last pass."""
        return self._pages

    def check(self, manifest: Manifest, files: Mapping[str, Path]) -> None:
        """ModelRefused unless the manifest's one file is a GGUF file."""
        check_files(manifest, files, (FILE,))

    def offer(self) -> StageOffer | None:
        """The oldest pass; None if there is none."""
        job = next((it for it in self._jobs if not it.over), None)
        return None if job is None else StageOffer(job.model, job, job.message)

    def settle(self, offer: StageOffer, reply: dict[str, Any]) -> int:
        data = reply["data"]
        if not isinstance(data, bytes):
            raise EngineFailed("the worker answered what are no rows")
        used, count = reply["pages"]
        self._pages = used, count
        offer.job.data = data
        offer.job.ended.set()
        return offer.job.rows

    def tells_speed(self, offer: StageOffer, units: int) -> bool:
        # Between passes it is others' turn: how long one takes says little of many.
        return False

    def give_back(self, offer: StageOffer, error: EngineError) -> int:
        """The pass failed, and is not tried again: what it depends on may be gone."""
        if not offer.job.over:
            offer.job.give_up(error)
        return 1

    def fail(self, model: ContentId, kind: type[BatonError], message: str) -> None:
        """End every pass with an error of this kind."""
        fail_all(self._jobs, model, kind, message)

    def restarted(self) -> None:
        """What waits finds out by itself that its session is unknown."""

    async def infer(self, job: Job, ready: Loaded, emit: Emit | None) -> Output:
        """Do one pass: a `wire.stage.StageRows` goes in, the rows come out."""
        rows = len(StageRows.from_bytes(job.input).owners) if job.input else 0
        number = {name: int(job.parameters.get(name, 0)) for name in (SESSION, BEGIN, END)}
        message: dict[str, Value] = {
            "do": "stage",
            "model": job.model,
            "rows": job.input,
            **number,
        }
        pending = StageJob(model=job.model, message=message, rows=rows)
        self._jobs.append(pending)
        self._wake()
        try:
            with within(job.deadline_s):
                await pending.ended.wait()
        finally:
            self._jobs.remove(pending)
        if pending.failure is not None:
            raise pending.failure
        return Output(data=pending.data, units=rows)

    async def infer_many(self, jobs: Sequence[Job], ready: Loaded) -> list[Found]:
        """As `infer` does each; what came of each, in order."""

        async def infer(job: Job) -> Output:
            return await self.infer(job, ready, None)

        return await each_alone(infer, jobs)
