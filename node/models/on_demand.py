"""An engine for more models than fit in memory: loaded on demand, least recently used unloaded.

An unloaded model stays on offer, and is loaded again for its next job. Other models serve
meanwhile, and several are loaded at once if there is room. How much memory a model takes is
computed from its files before it is loaded; a model that can never fit is refused then. Once it is
loaded, its measured memory counts if that is more.
"""

from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import trio

from node.engines.by_format import formats_of
from node.engines.each_alone import each_alone
from node.engines.interface import (
    LOADING_RETRY_S,
    Emit,
    Engine,
    EngineStatistics,
    Found,
    Job,
    Loaded,
    Output,
    loading_words,
)
from node.models.budget import ResidentModel, to_let_go
from node.models.inspect import memory_bytes
from wire.content import ContentId
from wire.errors import (
    EngineError,
    ModelNotLoaded,
    ModelQuarantined,
    ModelRefused,
    Refused,
    TooSlow,
)
from wire.kinds import RefusalCode
from wire.model import Manifest

Estimate = Callable[[Manifest, Mapping[str, Path]], int]


@dataclass(slots=True, eq=False)
class _Loading:
    """A load under way. It goes on even if nobody waits for it: others may need the model next."""

    ended: trio.Event = field(default_factory=trio.Event)
    failure: EngineError | None = None
    # Whether memory is reserved for this load; reserved memory counts as taken.
    has_room: bool = False


@dataclass(slots=True)
class _Known:
    """A model that this engine was given. `ready` is from the last time it was loaded."""

    # The manifest's id, which is worked out from all of it.
    model: ContentId
    manifest: Manifest
    files: dict[str, Path]
    memory_bytes: int
    used_at_s: float
    ready: Loaded | None = None
    # Whether it was loaded and not unloaded since. The engine itself loads a quarantined model
    # again, so the memory for it stays taken.
    held: bool = False
    jobs: int = 0
    refusal: ModelRefused | None = None
    loading: _Loading | None = None


@dataclass(slots=True, eq=False)
class OnDemand:
    """See `node.engines.interface.Engine` for what it promises. Made by `open_on_demand`."""

    engine: Engine
    budget_bytes: int
    estimate: Estimate
    nursery: trio.Nursery
    loads: int = 0
    _known: dict[ContentId, _Known] = field(default_factory=dict)
    # Loads reserve their memory one after the other, so that no model starves.
    _turn: trio.Lock = field(default_factory=trio.Lock)
    # Set unless a load waits for models in use. While it is not set, no job begins to use a model.
    _room: trio.Event = field(default_factory=trio.Event)
    _freed: trio.Event = field(default_factory=trio.Event)

    def __post_init__(self) -> None:
        self._room.set()

    @property
    def formats(self) -> frozenset[str] | None:
        return formats_of(self.engine)

    @property
    def free_slots(self) -> int:
        return self.engine.free_slots

    @property
    def units_at_once(self) -> int:
        return self.engine.units_at_once

    @property
    def queue_s(self) -> float:
        return self.engine.queue_s

    async def load(self, manifest: Manifest, files: Mapping[str, Path]) -> Loaded:
        """As in `Engine`; also ModelRefused if the model alone is larger than the budget."""
        size = await trio.to_thread.run_sync(self.estimate, manifest, files)
        if size > self.budget_bytes:
            raise ModelRefused(
                f"{manifest.name} takes {_size(size)} of memory,"
                f" and models may take {_size(self.budget_bytes)} here",
                todo="allow more with --memory (--vram on a GPU), if the machine has it",
            )
        model = manifest.id
        known = self._known.get(model)
        if known is None:
            known = _Known(model, manifest, dict(files), size, trio.current_time())
            self._known[model] = known
        known.refusal = None
        try:
            await self._brought(known)
        except EngineError:
            if known.ready is None and not known.held:
                # The model never ran here, so it is not on offer.
                self._known.pop(model, None)
            raise
        assert known.ready is not None
        return known.ready

    async def unload(self, model: ContentId) -> None:
        self._known.pop(model, None)
        await self.engine.unload(model)
        self._wake()

    def loaded(self) -> Mapping[ContentId, Loaded]:
        """The models that are ready, or will be loaded as soon as a job needs them."""
        ready = {model: self.ready(model) for model in self._known}
        return {model: it for model, it in ready.items() if it is not None}

    def ready(self, model: ContentId) -> Loaded | None:
        known = self._known.get(model)
        if known is None:
            return None
        ready = self.engine.ready(model)
        if ready is not None:
            known.ready = ready
        elif known.held or known.refusal is not None or self._is_quarantined(model):
            # The engine quarantined it.
            return None
        return known.ready

    def _is_quarantined(self, model: ContentId) -> bool:
        return model in self.engine.statistics().quarantined

    async def infer(self, job: Job, emit: Emit | None = None) -> Output:
        known = self._known.get(job.model)
        if known is None:
            raise ModelNotLoaded(
                f"model {job.model.short} is not loaded here", todo="load it first"
            )
        if known.ready is None and known.loading is not None:
            raise Refused(
                f"the model {known.manifest.name} is {self._how_far(known)}",
                code=RefusalCode.LOADING,
                retry_after_s=LOADING_RETRY_S,
            )
        known.used_at_s = trio.current_time()
        late_at_s = known.used_at_s + job.deadline_s
        at_once = self._room.is_set() and self._is_there(known)
        if not at_once:
            with self._in_time(known, late_at_s):
                while self._is_there(known) and not self._room.is_set():
                    await self._room.wait()
        # From here on the model is in use: it is not unloaded before the job is done.
        known.jobs += 1
        try:
            if not at_once:
                with self._in_time(known, late_at_s):
                    await self._brought(known)
                job = replace(job, deadline_s=max(0.0, late_at_s - trio.current_time()))
            return await self.engine.infer(job, emit)
        finally:
            known.jobs -= 1
            known.used_at_s = trio.current_time()
            self._wake()

    async def infer_many(self, jobs: Sequence[Job]) -> list[Found]:
        known = self._known.get(jobs[0].model)
        if known is None or not self._room.is_set() or not self._is_there(known):
            # Each waits for the model for as long as its own deadline allows.
            return await each_alone(self.infer, jobs)
        known.jobs += len(jobs)
        try:
            return await self.engine.infer_many(jobs)
        finally:
            known.jobs -= len(jobs)
            known.used_at_s = trio.current_time()
            self._wake()

    def statistics(self) -> EngineStatistics:
        found = self.engine.statistics()
        there = self.engine.loaded()
        resting = [
            model
            for model, it in self._known.items()
            if model not in there and it.ready and not it.held and not it.refusal
            if model not in found.quarantined
        ]
        quarantined = {
            model: it.refusal.message for model, it in self._known.items() if it.refusal is not None
        }
        waiting = {model: 0.0 for model, it in self._known.items() if it.loading is not None}
        return replace(
            found,
            quarantined={**quarantined, **found.quarantined},
            resting=frozenset(resting),
            loading={**waiting, **found.loading},
        )

    def _is_there(self, known: _Known) -> bool:
        return known.held and self.engine.ready(known.model) is not None

    @contextmanager
    def _in_time(self, known: _Known, late_at_s: float) -> Iterator[None]:
        try:
            with trio.fail_at(late_at_s):
                yield
        except trio.TooSlowError as error:
            how = self._how_far(known)
            raise TooSlow(f"{known.manifest.name} was not loaded in time: {how}") from error

    def _how_far(self, known: _Known) -> str:
        if known.loading is not None and not known.loading.has_room:
            return "waiting until other models are not in use"
        return loading_words(self.engine.statistics().loading.get(known.model, 0.0))

    async def _brought(self, known: _Known) -> None:
        """Load a model into memory."""
        while not self._is_there(known):
            if known.refusal is not None:
                raise known.refusal
            if why := self.engine.statistics().quarantined.get(known.model):
                # No memory is reserved for a quarantined model.
                raise ModelQuarantined(f"{known.manifest.name} is put aside: {why}")
            if known.loading is None:
                known.loading = _Loading()
                self.nursery.start_soon(self._load, known, known.loading)
            loading = known.loading
            await loading.ended.wait()
            if loading.failure is not None:
                raise loading.failure
            if not known.jobs:
                # The load succeeded, even if the model was unloaded for another one since.
                return

    async def _load(self, known: _Known, loading: _Loading) -> None:
        model = known.model
        try:
            async with self._turn:
                await self._make_room(known)
                loading.has_room = True
            known.ready = await self.engine.load(known.manifest, known.files)
            seen_bytes = max(known.memory_bytes, known.ready.memory_bytes)
            # The measured size never exceeds the budget, or the model could not be loaded again.
            known.memory_bytes = min(self.budget_bytes, seen_bytes)
            known.held = True
            self.loads += 1
            if self._known.get(model) is not known:
                # The model was unloaded meanwhile.
                await self.engine.unload(model)
        except ModelRefused as error:
            # The model itself is at fault, not the jobs that ask for it.
            refusal = loading.failure = ModelQuarantined(error.message, todo=error.todo)
            if model in self.engine.statistics().quarantined:
                known.held = True
            else:
                known.refusal = refusal
        except EngineError as error:
            loading.failure = error
        finally:
            known.loading = None
            loading.ended.set()
            self._wake()

    async def _make_room(self, wanted: _Known) -> None:
        """Unload the least recently used models; wait for those in use."""
        try:
            while (gone := to_let_go(*self._memory(wanted))) is None:
                if self._room.is_set():
                    self._room = trio.Event()
                await self._freed.wait()
        finally:
            self._room.set()
        for model in gone:
            # From here on a job for it loads it again.
            self._known[model].held = False
        for model in gone:
            await self.engine.unload(model)

    def _memory(self, wanted: _Known) -> tuple[list[ResidentModel], int, int]:
        there, quarantined = self.engine.loaded(), self.engine.statistics().quarantined
        held = [
            ResidentModel(
                model=model,
                memory_bytes=it.memory_bytes,
                used_at_s=it.used_at_s,
                busy=it.jobs > 0 or it.loading is not None,
            )
            for model, it in self._known.items()
            if it is not wanted
            if model in there
            or (it.held and model in quarantined)
            or (it.loading is not None and it.loading.has_room)
        ]
        return held, wanted.memory_bytes, self.budget_bytes

    def _wake(self) -> None:
        self._freed.set()
        self._freed = trio.Event()


def _size(size_bytes: int) -> str:
    return f"{size_bytes / 1e9:.1f} GB" if size_bytes >= 1e9 else f"{size_bytes / 1e6:.1f} MB"


@asynccontextmanager
async def open_on_demand(
    engine: Engine, budget_bytes: int, estimate: Estimate = memory_bytes
) -> AsyncIterator[OnDemand]:
    """An engine over `engine` whose models together take at most `budget_bytes`."""
    async with trio.open_nursery() as nursery:
        try:
            yield OnDemand(engine, budget_bytes, estimate, nursery)
        finally:
            nursery.cancel_scope.cancel()
