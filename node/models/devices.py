"""Several devices as one engine: each has every model; a job goes where it waits least."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import trio

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


@dataclass(frozen=True, slots=True)
class Devices:
    """See `node.engines.interface.Engine`. `engines` are alike, one for each device."""

    engines: Sequence[Engine]

    @property
    def free_slots(self) -> int:
        return sum(engine.free_slots for engine in self.engines)

    @property
    def units_at_once(self) -> int:
        return sum(engine.units_at_once for engine in self.engines)

    @property
    def queue_s(self) -> float:
        """The queue, in seconds, of the device to which the next job would go."""
        return min(engine.queue_s for engine in self.engines)

    async def load(self, manifest: Manifest, files: Mapping[str, Path]) -> Loaded:
        """Load on one device after the other: the second reuses what the first one compiled.

        A device that quarantined the model tries it again by itself, and nobody waits for it.
        """
        ready: list[Loaded] = []
        refusals: list[ModelRefused] = []
        for engine in self.engines:
            try:
                ready.append(await engine.load(manifest, files))
            except ModelRefused as error:
                if manifest.id not in engine.statistics().quarantined:
                    raise
                refusals.append(error)
        if not ready:
            raise refusals[0]
        return ready[0]

    async def unload(self, model: ContentId) -> None:
        for engine in self.engines:
            await engine.unload(model)

    def loaded(self) -> Mapping[ContentId, Loaded]:
        """The models that at least one device has. The speed is that of one job on one device."""
        return {key: it for engine in self.engines for key, it in engine.loaded().items()}

    def ready(self, model: ContentId) -> Loaded | None:
        # As in `loaded`, the last device's figures count.
        found = (engine.ready(model) for engine in reversed(self.engines))
        return next(filter(None, found), None)

    async def infer(self, job: Job, emit: Emit | None = None) -> Output:
        able = self._able(job.model)
        if not able:
            raise _not_loaded(job.model)
        return await able[0].infer(job, emit)

    async def infer_many(self, jobs: Sequence[Job]) -> list[Found]:
        """Each device that has the model has an equal share of them."""
        able = self._able(jobs[0].model)
        if not able:
            return [_not_loaded(it.model) for it in jobs]
        found: dict[int, Found] = {}

        async def share(engine: Engine, places: range) -> None:
            done = await engine.infer_many([jobs[at] for at in places])
            found.update(zip(places, done, strict=True))

        async with trio.open_nursery() as nursery:
            for number, engine in enumerate(able):
                if places := range(number, len(jobs), len(able)):
                    nursery.start_soon(share, engine, places)
        return [found[at] for at in range(len(jobs))]

    def _able(self, model: ContentId) -> list[Engine]:
        """The devices that have a model: with room first, then where a job waits least."""
        able = [it for it in self.engines if it.ready(model) is not None]
        return sorted(able, key=lambda it: (not it.free_slots, it.queue_s))

    def statistics(self) -> EngineStatistics:
        parts = [engine.statistics() for engine in self.engines]
        quarantine = [it.quarantined for it in parts]
        # A model that one device quarantined may still run on another.
        quarantined = {
            key: why for key, why in quarantine[0].items() if all(key in it for it in quarantine)
        }
        return together(parts, quarantined)


def _not_loaded(model: ContentId) -> ModelNotLoaded:
    return ModelNotLoaded(f"model {model.short} is not loaded here", todo="load it first")
