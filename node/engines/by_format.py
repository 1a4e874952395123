"""Several engines as one: each model goes to the engine of its manifest's format."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, runtime_checkable

from node.engines.interface import (
    Emit,
    Engine,
    EngineStatistics,
    Found,
    Job,
    Loaded,
    Output,
    together,
)
from wire.content import ContentId
from wire.errors import ModelNotLoaded, ModelRefused
from wire.model import Manifest


@runtime_checkable
class KnowsFormats(Protocol):
    """An engine that can say before it loads a model whether it runs its format."""

    @property
    def formats(self) -> frozenset[str] | None:
        """The formats it runs; None where only loading shows it."""


def formats_of(engine: Engine) -> frozenset[str] | None:
    """The formats that an engine says it runs; None where it does not say."""
    return engine.formats if isinstance(engine, KnowsFormats) else None


@dataclass(frozen=True, slots=True)
class EnginesByFormat:
    """`engines` maps a manifest's format to the engine that runs it; at least one is there."""

    engines: Mapping[str, Engine]
    # Every engine once: one may run several formats.
    each: Sequence[Engine] = field(init=False)

    def __post_init__(self) -> None:
        each = tuple({id(it): it for it in self.engines.values()}.values())
        object.__setattr__(self, "each", each)

    @property
    def formats(self) -> frozenset[str]:
        return frozenset(self.engines)

    @property
    def free_slots(self) -> int:
        # It is asked for with every job, and mostly there is one engine.
        if len(self.each) == 1:
            return self.each[0].free_slots
        return min(engine.free_slots for engine in self.each)

    @property
    def units_at_once(self) -> int:
        return max(engine.units_at_once for engine in self.each)

    @property
    def queue_s(self) -> float:
        if len(self.each) == 1:
            return self.each[0].queue_s
        return max(engine.queue_s for engine in self.each)

    async def load(self, manifest: Manifest, files: Mapping[str, Path]) -> Loaded:
        engine = self.engines.get(manifest.format)
        if engine is None:
            raise ModelRefused(
                f"{manifest.name} is of the format {manifest.format!r}, and no engine here runs it",
                todo=f"formats here: {', '.join(sorted(self.engines))}",
            )
        return await engine.load(manifest, files)

    async def unload(self, model: ContentId) -> None:
        for engine in self.each:
            await engine.unload(model)

    def loaded(self) -> Mapping[ContentId, Loaded]:
        return {key: it for engine in self.each for key, it in engine.loaded().items()}

    def ready(self, model: ContentId) -> Loaded | None:
        for engine in self.each:
            if (found := engine.ready(model)) is not None:
                return found
        return None

    async def infer(self, job: Job, emit: Emit | None = None) -> Output:
        return await self._with(job.model).infer(job, emit)

    async def infer_many(self, jobs: Sequence[Job]) -> list[Found]:
        try:
            engine = self._with(jobs[0].model)
        except ModelNotLoaded as error:
            return [type(error)(error.message, todo=error.todo) for _ in jobs]
        return await engine.infer_many(jobs)

    def _with(self, model: ContentId) -> Engine:
        for engine in self.each:
            if engine.ready(model) is not None:
                return engine
        raise ModelNotLoaded(f"model {model.short} is not loaded here", todo="load it first")

    def statistics(self) -> EngineStatistics:
        parts = [engine.statistics() for engine in self.each]
        return together(parts, {key: why for it in parts for key, why in it.quarantined.items()})
