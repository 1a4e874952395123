"""What differs by format, on the side of the peer: its jobs, and what the worker is sent.

The engine keeps the worker's life and asks one work after the other for its next offer. A work
keeps its jobs, never the worker: it does no IO and waits only for its own jobs.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import trio

from node.engines.host.pending import PendingJob
from node.engines.interface import Emit, Found, Job, Loaded, Output
from wire.codec import Value
from wire.content import ContentId
from wire.errors import BatonError, EngineError, ModelRefused, TooSlow
from wire.model import Manifest


class WorkerRequest(Protocol):
    """One message to the worker, and the model it is for."""

    @property
    def model(self) -> ContentId: ...

    @property
    def message(self) -> dict[str, Value]:
        """What the worker is asked; `model` in it names the model."""


class FormatScheduler(Protocol):
    """All jobs of one format. Every job it took is in `len()` until its `infer` returns."""

    @property
    def operations(self) -> frozenset[str]: ...

    @property
    def units_at_once(self) -> int:
        """Work beyond this only waits in the engine."""

    @property
    def units(self) -> int:
        """Units of work that are not done yet."""

    @property
    def ready(self) -> bool:
        """Whether there is anything to offer."""

    def __len__(self) -> int: ...

    def check(self, manifest: Manifest, files: Mapping[str, Path]) -> None:
        """What can be seen without starting the worker; ModelRefused."""

    def offer(self) -> Any:
        """The next `WorkerRequest`; None when nothing waits."""

    def settle(self, offer: Any, reply: dict[str, Any]) -> int:
        """Take in the worker's reply; how many wanted units it did.

        EngineFailed for a reply that answers something else: the worker is then killed.
        """

    def tells_speed(self, offer: Any, units: int) -> bool:
        """Whether an offer that did so many units says how fast the model is."""

    def give_back(self, offer: Any, error: EngineError) -> int:
        """An offer came to nothing: try it again, or end its jobs with the reason.

        How many jobs ended so, or were given up by those who asked while it was under way.
        """

    def fail(self, model: ContentId, kind: type[BatonError], message: str) -> None:
        """End every job of a model."""

    def restarted(self) -> None:
        """The worker is a new one: whatever the old one held of jobs is gone."""

    async def infer(self, job: Job, ready: Loaded, emit: Emit | None) -> Output:
        """Queue a job and wait for its end; cancelling takes it out of the queue."""

    async def infer_many(self, jobs: Sequence[Job], ready: Loaded) -> list[Found]:
        """Queue jobs at once and wait for all; cancelling takes them out of the queue."""


@contextmanager
def within(deadline_s: float) -> Iterator[None]:
    """TooSlow if a job is not done in that time."""
    try:
        with trio.fail_after(deadline_s):
            yield
    except trio.TooSlowError as error:
        raise TooSlow(f"not done within {deadline_s:g} s") from error


async def all_over(waiting: Sequence[tuple[Job, PendingJob]]) -> None:
    """Wait until every job has ended; TooSlow is the failure of one that took too long."""
    began_at_s = trio.current_time()
    for job, pending in sorted(waiting, key=lambda it: it[0].deadline_s):
        if not pending.over:
            with trio.move_on_at(began_at_s + job.deadline_s):
                await pending.ended.wait()
        if not pending.over:
            pending.fail(TooSlow(f"not done within {job.deadline_s:g} s"))


def check_files(
    manifest: Manifest, files: Mapping[str, Path], names: tuple[str, ...], profile: str = "f32"
) -> None:
    """Whether the files a format needs are there, in its precision and whole; ModelRefused."""
    if manifest.profile != profile:
        raise ModelRefused(
            f"{manifest.name} is defined in {manifest.profile[:40]}, not in {profile}"
        )
    sizes = {file.name: file.size_bytes for file in manifest.files}
    for name in names:
        if name not in sizes or name not in files:
            raise ModelRefused(f"{manifest.name} comes without {name}")
        try:
            size = files[name].stat().st_size
        except OSError as error:
            raise ModelRefused(f"{name} cannot be read: {error.strerror}") from error
        if size != sizes[name]:
            raise ModelRefused(f"{name} has {size} bytes, its manifest says {sizes[name]}")
