"""The engine that runs models in tinygrad: the peer's side, which never imports tinygrad.

Each model has a worker process of its own (`node.engines.host.model_worker`): whatever becomes of
one model, the others go on. What a model does with jobs, and what its worker is asked, differs by
format: that is its `FormatScheduler`
(`node.engines.host.format_queue`).
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import trio

from node.engines.formats.gguf import FILE, describe
from node.engines.host import calls as onnx_calls
from node.engines.host import embedding, generating
from node.engines.host.format_queue import FormatScheduler, check_files
from node.engines.host.launch import EngineConfig, tinygrad_version
from node.engines.host.model_worker import MakeScheduler, ModelWorker, SharedState
from node.engines.host.stage import StageScheduler
from node.engines.interface import (
    Emit,
    EngineStatistics,
    Found,
    Job,
    Loaded,
    Output,
    ready_model,
)
from node.engines.other_layers import OtherLayers
from wire.content import ContentId
from wire.errors import EngineError, ModelRefused, Refused
from wire.layers import LayerRange
from wire.model import Manifest

SCHEDULERS: Mapping[str, MakeScheduler] = {
    **dict.fromkeys(embedding.FORMATS, embedding.EmbeddingScheduler),
    **dict.fromkeys(generating.GENERATING, generating.GenerationScheduler),
    **dict.fromkeys(onnx_calls.CALLED, lambda _jobs_max, wake: onnx_calls.CallScheduler(wake)),
}
# Of any model, while none is loaded.
UNITS_AT_ONCE = max(
    embedding.EmbeddingScheduler.units_at_once,
    generating.GenerationScheduler.units_at_once,
    onnx_calls.CallScheduler.units_at_once,
)


class TinygradEngine:
    """Made by `open_tinygrad_engine`; see `node.engines.interface.Engine` for what it promises."""

    def __init__(self, shared: SharedState, nursery: trio.Nursery) -> None:
        self.profile = shared.profile
        self._shared = shared
        self._nursery = nursery
        self._workers: dict[ContentId, ModelWorker] = {}
        # Of each model one load at a time.
        self._turns: dict[ContentId, trio.Lock] = {}

    @property
    def free_slots(self) -> int:
        return max(0, self._shared.config.jobs_max - self._jobs)

    @property
    def units_at_once(self) -> int:
        used = [it.scheduler for it in self._workers.values() if it.ready is not None]
        return max((it.units_at_once for it in used), default=UNITS_AT_ONCE)

    @property
    def queue_s(self) -> float:
        """Models work side by side, as far as there are cores for them."""
        queues = [it.queue_s for it in self._workers.values()]
        return max(max(queues, default=0.0), sum(queues) / self._shared.config.cores)

    @property
    def worker_ids(self) -> Mapping[ContentId, int]:
        """The process number of each model's worker, where there is one."""
        found = {model: it.worker_id for model, it in self._workers.items()}
        return {model: number for model, number in found.items() if number is not None}

    @property
    def _jobs(self) -> int:
        return sum(len(it.scheduler) for it in self._workers.values())

    def loaded(self) -> Mapping[ContentId, Loaded]:
        return {model: it.ready for model, it in self._workers.items() if it.ready is not None}

    def ready(self, model: ContentId) -> Loaded | None:
        worker = self._workers.get(model)
        return None if worker is None else worker.ready

    def statistics(self) -> EngineStatistics:
        workers = self._workers
        return EngineStatistics(
            jobs_queued=self._jobs,
            units_queued=sum(it.scheduler.units for it in workers.values()),
            units_done=self._shared.units_done,
            restarts=self._shared.restarts,
            running=bool(self.worker_ids),
            last_failure=self._shared.last_failure,
            quarantined=self._shared.quarantine.told(trio.current_time()),
            loading={
                model: it.load_share for model, it in workers.items() if it.load_share is not None
            },
            pages={
                model: it.scheduler.pages(model)
                for model, it in workers.items()
                if isinstance(it.scheduler, generating.GenerationScheduler | StageScheduler)
            },
        )

    async def load(self, manifest: Manifest, files: Mapping[str, Path]) -> Loaded:
        """Seconds where the model was compiled before, some ten where not; others go on meanwhile.

        A model that is set aside is refused, and loaded when it is tried again.
        """
        scheduler = SCHEDULERS.get(manifest.format)
        if scheduler is None:
            formats = ", ".join(sorted(SCHEDULERS))
            raise ModelRefused(f"{manifest.name} is {manifest.format[:40]}; run here: {formats}")
        async with self._turns.setdefault(manifest.id, trio.Lock()):
            worker = self._workers.get(manifest.id)
            if worker is None:
                layers = await self._layers_of(manifest, files)
                if layers is not None and not layers.begins:
                    scheduler = StageScheduler
                worker = ModelWorker(manifest, dict(files), self._shared, scheduler, layers)
            worker.scheduler.check(manifest, files)
            if manifest.id not in self._workers:
                self._workers[manifest.id] = worker
                await self._nursery.start(worker.run)
            try:
                return await worker.load()
            finally:
                if worker.ready is None and not worker.refusal:
                    # Nothing of it is kept but how often it failed.
                    with trio.CancelScope(shield=True):
                        await self._end(manifest.id, worker)

    async def _layers_of(self, manifest: Manifest, files: Mapping[str, Path]) -> LayerRange | None:
        """The layers of a language model that are loaded; None: all. ModelRefused."""
        wanted = self._shared.config.layers
        if wanted is None or manifest.format != generating.FORMAT:
            return None
        check_files(manifest, files, (FILE,))
        model = await trio.to_thread.run_sync(describe, files[FILE])
        layers = model.holding(*wanted).held
        if layers is not None and layers.begins and self._shared.others is None:
            raise ModelRefused(f"{layers} are not a whole model, and nobody has the rest")
        return layers

    async def unload(self, model: ContentId) -> None:
        self._shared.quarantine.want(model, again=False)
        if (worker := self._workers.get(model)) is not None:
            await self._end(model, worker)

    async def infer(self, job: Job, emit: Emit | None = None) -> Output:
        scheduler, ready = self._able(job)
        if not self.free_slots:
            raise self._full()
        return await scheduler.infer(job, ready, emit)

    async def infer_many(self, jobs: Sequence[Job]) -> list[Found]:
        try:
            scheduler, ready = self._able(jobs[0])
        except EngineError as error:
            return [type(error)(error.message, todo=error.todo, code=error.code) for _ in jobs]
        room = self.free_slots
        done = await scheduler.infer_many(jobs[:room], ready) if room else []
        return [*done, *(self._full() for _ in jobs[room:])]

    def _able(self, job: Job) -> tuple[FormatScheduler, Loaded]:
        """Who does such a job, and the model it has; ModelRefused if nobody does."""
        worker = self._workers.get(job.model)
        if worker is not None:
            worker.refuse_aside()
        able = worker.scheduler.operations if worker is not None else frozenset[str]()
        ready = ready_model(self.ready(job.model), job, able)
        assert worker is not None, "it is loaded"
        return worker.scheduler, ready

    def _full(self) -> Refused:
        return Refused(
            f"the engine's queue is full ({self._shared.config.jobs_max} jobs)",
            retry_after_s=self.queue_s,
        )

    async def _end(self, model: ContentId, worker: ModelWorker) -> None:
        if self._workers.get(model) is worker:
            del self._workers[model]
        await worker.close()


@asynccontextmanager
async def open_tinygrad_engine(
    cache_folder: Path, *, config: EngineConfig, others: OtherLayers | None = None
) -> AsyncIterator[TinygradEngine]:
    """An engine without models; each model's worker is started when it is loaded.

    `cache_folder` keeps compiled models and must belong to this user alone; `others` have the
    layers that `config` does not have loaded.
    """
    shared = SharedState(
        cache_folder=cache_folder,
        profile=f"tinygrad-{tinygrad_version()} f32 {config.device}",
        config=config,
        others=others,
    )
    async with trio.open_nursery() as nursery:
        try:
            yield TinygradEngine(shared, nursery)
        finally:
            nursery.cancel_scope.cancel()
