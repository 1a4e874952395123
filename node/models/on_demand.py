"""An engine that holds more models than fit in memory: loaded on demand, let go by least use.

What is let go stays on offer, and is loaded again for its next job. How much memory a model takes
is worked out from its files before it is loaded; what would never fit is refused then.
"""

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import trio

from node.engines.by_format import formats_of
from node.engines.interface import Emit, Engine, EngineStatistics, Job, Loaded, Output
from node.models.budget import ResidentModel, to_let_go
from node.models.inspect import memory_bytes
from wire.content import ContentId
from wire.errors import EngineError, ModelNotLoaded, ModelQuarantined, ModelRefused, TooSlow
from wire.model import Manifest

Estimate = Callable[[Manifest, Mapping[str, Path]], int]


@dataclass(slots=True)
class _Known:
    """A model this engine was given. `ready` is what was last known of it when loaded."""

    manifest: Manifest
    files: dict[str, Path]
    memory_bytes: int
    used_at_s: float
    ready: Loaded | None = None
    # Whether it was loaded and not let go since. The engine brings back by itself what it put
    # aside: the room for it stays taken.
    held: bool = False
    jobs: int = 0
    refusal: ModelRefused | None = None


@dataclass(slots=True, eq=False)
class OnDemand:
    """See `node.engines.interface.Engine` for what it promises. Made by `open_on_demand`."""

    engine: Engine
    budget_bytes: int
    estimate: Estimate
    nursery: trio.Nursery
    loads: int = 0
    _known: dict[ContentId, _Known] = field(default_factory=dict)
    # Who wants a model loaded waits here for his turn: so no model starves.
    _turn: trio.Lock = field(default_factory=trio.Lock)
    # The load under way: it goes on when nobody waits for it any more, for to break it off
    # would end the worker.
    _loading: trio.Event | None = None
    _freed: trio.Event = field(default_factory=trio.Event)

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
        """ModelRefused besides where the model alone is larger than the budget."""
        size = await trio.to_thread.run_sync(self.estimate, manifest, files)
        if size > self.budget_bytes:
            raise ModelRefused(
                f"{manifest.name} takes {size / 1e9:.1f} GB of memory,"
                f" and models may take {self.budget_bytes / 1e9:.1f} GB here",
                todo="allow more with --memory (--vram on a GPU), if the machine has it",
            )
        known = self._known.get(manifest.id)
        if known is None:
            known = _Known(manifest, dict(files), size, trio.current_time())
            self._known[manifest.id] = known
        known.refusal = None
        try:
            async with self._turn:
                await self._held(known)
        except EngineError:
            if known.ready is None and not known.held:
                # It never ran here: it is not on offer.
                self._known.pop(manifest.id, None)
            raise
        assert known.ready is not None
        return known.ready

    async def unload(self, model: ContentId) -> None:
        self._known.pop(model, None)
        await self.engine.unload(model)
        self._wake()

    def loaded(self) -> Mapping[ContentId, Loaded]:
        """The models that are ready, or will be as soon as they are asked for."""
        there = self.engine.loaded()
        quarantined = self.engine.statistics().quarantined
        found = {}
        for model, known in self._known.items():
            ready = there.get(model)
            if ready is not None:
                known.ready = ready
            elif known.held or known.refusal is not None or model in quarantined:
                # The engine put it aside.
                continue
            if known.ready is not None:
                found[model] = known.ready
        return found

    async def infer(self, job: Job, emit: Emit | None = None) -> Output:
        known = self._known.get(job.model)
        if known is None:
            raise ModelNotLoaded(
                f"model {job.model.short} is not loaded here", todo="load it first"
            )
        began_s = trio.current_time()
        known.used_at_s = began_s
        if self._turn.locked() or not self._is_there(known):
            try:
                with trio.fail_after(job.deadline_s):
                    async with self._turn:
                        await self._held(known)
                        known.jobs += 1
            except trio.TooSlowError as error:
                raise TooSlow(f"{known.manifest.name} was not loaded in time") from error
        else:
            known.jobs += 1
        left_s = max(0.0, job.deadline_s - (trio.current_time() - began_s))
        try:
            return await self.engine.infer(replace(job, deadline_s=left_s), emit)
        finally:
            known.jobs -= 1
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
        return replace(
            found, quarantined={**quarantined, **found.quarantined}, resting=frozenset(resting)
        )

    def _is_there(self, known: _Known) -> bool:
        return known.held and known.manifest.id in self.engine.loaded()

    async def _held(self, known: _Known) -> None:
        """Have a model in memory; whoever calls holds the turn."""
        while self._loading is not None:
            await self._loading.wait()
        if self._is_there(known):
            return
        if known.refusal is not None:
            raise known.refusal
        if why := self.engine.statistics().quarantined.get(known.manifest.id):
            # Nobody makes room for it meanwhile.
            raise ModelQuarantined(f"{known.manifest.name} is put aside: {why}")
        self._loading = trio.Event()
        failures: list[EngineError] = []
        self.nursery.start_soon(self._load, known, failures)
        await self._loading.wait()
        if failures:
            raise failures[0]

    async def _load(self, known: _Known, failures: list[EngineError]) -> None:
        ended = self._loading
        assert ended is not None
        try:
            await self._make_room(known)
            known.ready = await self.engine.load(known.manifest, known.files)
            known.held = True
            self.loads += 1
            if self._known.get(known.manifest.id) is not known:
                # It was unloaded meanwhile.
                await self.engine.unload(known.manifest.id)
        except ModelRefused as error:
            # It is the model's fault, and no longer that of a job that asks for it.
            refusal = ModelQuarantined(error.message, todo=error.todo)
            failures.append(refusal)
            if known.manifest.id in self.engine.statistics().quarantined:
                known.held = True
            else:
                known.refusal = refusal
        except EngineError as error:
            failures.append(error)
        finally:
            self._loading = None
            ended.set()

    async def _make_room(self, wanted: _Known) -> None:
        """Let go of what was used least recently; those in use are waited for."""
        while True:
            there, quarantined = self.engine.loaded(), self.engine.statistics().quarantined
            held = [
                ResidentModel(
                    model=model,
                    memory_bytes=it.memory_bytes,
                    used_at_s=it.used_at_s,
                    busy=it.jobs > 0,
                )
                for model, it in self._known.items()
                if it is not wanted and (model in there or (it.held and model in quarantined))
            ]
            gone = to_let_go(held, wanted.memory_bytes, self.budget_bytes)
            if gone is not None:
                break
            await self._freed.wait()
        for model in gone:
            # From here on its jobs wait for their turn to have it loaded.
            self._known[model].held = False
        for model in gone:
            await self.engine.unload(model)

    def _wake(self) -> None:
        self._freed.set()
        self._freed = trio.Event()


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
