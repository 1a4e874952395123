"""What every engine is to the rest of a peer. It knows nothing of any library that runs models.

An engine holds models and answers jobs. It owns no policy: it does not choose work, does not keep
results and does not check anybody. Bytes go in, bytes come out, and a job that cannot be done ends
in one of `wire.errors`, never in a hang.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from wire.content import ContentId
from wire.errors import BatonError, ModelNotLoaded, ModelRefused
from wire.kinds import RefusalCode
from wire.layers import LayerRange
from wire.message import Progress
from wire.model import Manifest
from wire.operations import GENERATE, STAGE
from wire.schema import Parameters

# A pass of an embedding model takes at most this many texts; host and worker both count by it.
OFFER_TEXTS_MAX = 64


# Parameters of `embed`: 1 where texts are JSON arrays of tokens; 1 where their counts are told.
TOKEN_IDS, TOKEN_COUNTS = "token_ids", "token_counts"


# The precision of models in whole numbers, which have the same on every device.
EXACT_PROFILE = "exact"
# Models in whole numbers: the same bits on every device.
EXACT_FORMATS = frozenset({"exact", "exact-text"})


@dataclass(frozen=True, slots=True)
class Part:
    """A piece of an output that is made bit by bit: the `units` after the first `position`.

    `segment` is what its maker signed up to its end (`wire.segment`), of some pieces.
    """

    position: int
    units: int
    data: bytes
    segment: bytes = b""


# What a verifier asks of its own engine alone.
REPLAY = "replay"
# To who asks for a model that is on its way for the first time.
LOADING_RETRY_S = 5.0

Emit = Callable[[Part], Awaitable[None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One leg's work. `deadline_s` counts from the moment `infer` is called.

    An operation is one of `wire.operations`, or `REPLAY`, which what generates can do too: judge
    an answer that somebody claims (`node.engines.replay`).

    `resume` is what another peer is said to have emitted of it. An engine that emits checks it
    against what it makes itself, and emits what comes after; from where it differs on, if it does.
    """

    model: ContentId
    operation: str
    input: bytes
    parameters: Parameters
    deadline_s: float
    resume: Progress | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """What a job made. `units` are texts embedded, or tokens made.

    `layers` is what other peers signed that ran layers for it (`wire.stage.StageLeg`).
    """

    data: bytes
    units: int
    layers: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """A model that is ready. `units_per_s` is measured at warm-up and follows the real work.

    `profile` is what a receipt says did the work: library, version, precision, class of device.
    """

    model: ContentId
    manifest: Manifest
    profile: str
    units_per_s: float
    memory_bytes: int
    # Of one job that is alone, where an engine does more with several; 0 where that is the same.
    job_units_per_s: float = 0.0
    # Whether every engine of this profile has the same numbers to the bit.
    exact: bool = False
    # The layers that are here where others have the rest; None: all.
    layers: LayerRange | None = None

    def same_bits_as(self, profile: str) -> bool:
        """Whether an engine of this profile has the same numbers to the bit."""
        whole = self.manifest.format in EXACT_FORMATS
        return whole or (self.exact and self.profile == profile)

    @property
    def middle(self) -> LayerRange | None:
        """The layers that are here, if the first is not: then only rows go through them."""
        return None if self.layers is None or self.layers.begins else self.layers

    @property
    def operations(self) -> tuple[str, ...]:
        """What may be asked of it here."""
        return self.manifest.operations if self.middle is None else (STAGE,)


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineStatistics:
    """What an engine did since it was opened. `last_failure` is in words, empty if none."""

    jobs_queued: int
    units_queued: int
    units_done: int
    restarts: int
    running: bool
    last_failure: str
    # Models that failed too often: why, and when the engine tries them again by itself, unless
    # they are unloaded. Models that are loaded when they are asked for.
    quarantined: Mapping[ContentId, str] = field(default_factory=dict)
    resting: frozenset[ContentId] = frozenset()
    # How much of a load under way is done, from 0 to 1.
    loading: Mapping[ContentId, float] = field(default_factory=dict)
    # Of language models: pages of keys and values that answers use, and how many there are.
    pages: Mapping[ContentId, tuple[int, int]] = field(default_factory=dict)


def together(
    parts: Sequence[EngineStatistics], quarantined: Mapping[ContentId, str]
) -> EngineStatistics:
    """The counts of several engines as of one; whoever asks knows what it means to be put aside."""
    return EngineStatistics(
        jobs_queued=sum(it.jobs_queued for it in parts),
        units_queued=sum(it.units_queued for it in parts),
        units_done=sum(it.units_done for it in parts),
        restarts=sum(it.restarts for it in parts),
        running=all(it.running for it in parts),
        last_failure=next((it.last_failure for it in parts if it.last_failure), ""),
        quarantined=quarantined,
        loading={model: share for it in parts for model, share in it.loading.items()},
        pages=_pages_together(parts),
    )


def _pages_together(parts: Sequence[EngineStatistics]) -> dict[ContentId, tuple[int, int]]:
    """The pages of models that several devices may have, each for itself."""
    found: dict[ContentId, tuple[int, int]] = {}
    for part in parts:
        for model, (used, count) in part.pages.items():
            before = found.get(model, (0, 0))
            found[model] = (before[0] + used, before[1] + count)
    return found


class Engine(Protocol):
    """Holds models and answers jobs; jobs may be given to it concurrently."""

    @property
    def free_slots(self) -> int:
        """How many more jobs would be taken now."""

    @property
    def units_at_once(self) -> int:
        """Work beyond this only waits in the engine: it is as well kept where turns are fair."""

    @property
    def queue_s(self) -> float:
        """How long what is queued will take, by measured speed."""

    async def load(self, manifest: Manifest, files: Mapping[str, Path]) -> Loaded:
        """Make a model ready; `files` says where each file of the manifest lies.

        The caller has checked the files' hashes. A model that is loaded already is not loaded
        again. ModelRefused, EngineMissing, EngineFailed.
        """

    async def unload(self, model: ContentId) -> None:
        """Forget a model; its queued jobs end in ModelRefused. Unknown models are no error."""

    def loaded(self) -> Mapping[ContentId, Loaded]:
        """The models that are ready."""

    def ready(self, model: ContentId) -> Loaded | None:
        """One of `loaded`, without looking at the others: it is asked for with every job."""

    async def infer(self, job: Job, emit: Emit | None = None) -> Output:
        """Do one job. Cancelling this call cancels the work.

        An operation that makes its output piece by piece gives each piece, in order, to `emit`
        and waits for it; the output is all of it, with what `resume` said. Refused (the queue is
        full), TooSlow (the deadline passed), ModelRefused (not loaded, or it cannot do this),
        EngineFailed, WireError (the input is not what the operation reads).
        """

    async def infer_many(self, jobs: Sequence[Job]) -> "list[Found]":
        """Do many jobs of one model and one operation, each as `infer` does it, without pieces.

        What came of each, in order: the error of one is no matter of the others. Every
        `deadline_s` counts from this call. Cancelling this call cancels all of the work.
        """

    def statistics(self) -> EngineStatistics:
        """Counts and the last failure."""


# What came of one job of many.
Found = Output | BatonError


def loading_words(share: float) -> str:
    """What is said of a model that is being loaded."""
    return f"loading, {share * 100:.0f} %"


def ready_model(ready: Loaded | None, job: Job, operations: frozenset[str]) -> Loaded:
    """The model a job names, if it is loaded and the engine can do what is asked of it."""
    if ready is None:
        raise ModelNotLoaded(f"model {job.model.short} is not loaded here", todo="load it first")
    asked = GENERATE if job.operation == REPLAY else job.operation
    if asked not in ready.operations or job.operation not in operations:
        raise ModelRefused(
            f"{ready.manifest.name} is not run for {job.operation[:40]!r} here",
            code=RefusalCode.UNSUPPORTED,
        )
    return ready
