"""The engine that runs models in tinygrad: the peer's side, which never imports tinygrad.

Models run in one worker process. A crash, a hang or a model that wants too much memory kills that
process and nothing else; it is started again with growing pauses, gets its models back, and a
batch that was under way is tried once more. A model that fails again and again is put aside for a
while (`node.engines.host.quarantine`). What a model does with jobs, and what its worker is asked,
differs by format: that is its `FormatScheduler` (`node.engines.host.format_queue`). Schedulers take
turns.

A job that is cancelled leaves its queue at once. A batch already in the worker is waited out: it
takes a fraction of a second, killing it would take the others' work with it and seconds to start
again.
"""

from collections import deque
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import trio
from trio import TaskStatus  # type: ignore[attr-defined]

from node.engines.host import calls as onnx_calls
from node.engines.host import embedding, generating
from node.engines.host.format_queue import FormatScheduler, WorkerRequest
from node.engines.host.launch import EngineConfig, prepare, tinygrad_version
from node.engines.host.quarantine import FAILURES_MAX, Kept, Quarantine
from node.engines.host.worker_process import Launch, WorkerProcess, open_worker
from node.engines.interface import Emit, EngineStatistics, Job, Loaded, Output, ready_model
from wire.codec import Value
from wire.content import ContentId
from wire.errors import (
    EngineError,
    EngineFailed,
    EngineMissing,
    ModelNotLoaded,
    ModelQuarantined,
    ModelRefused,
    Refused,
)
from wire.model import Manifest

RESTART_DELAY_S_MAX = 60.0
# The measured speed follows the last seconds of full batches.
SPEED_MEMORY_S = 3.0


@dataclass(slots=True)
class _State:
    """What changes while the engine is open."""

    loaded: dict[ContentId, Loaded] = field(default_factory=dict)
    files: dict[ContentId, Mapping[str, Path]] = field(default_factory=dict)
    quarantine: Quarantine = field(default_factory=Quarantine)
    failures_in_row: int = 0
    starts: int = 0
    units_done: int = 0
    last_failure: str = ""


class TinygradEngine:
    """Made by `open_tinygrad_engine`; see `node.engines.interface.Engine` for what it promises."""

    def __init__(
        self, cache_folder: Path, profile: str, config: EngineConfig, nursery: trio.Nursery
    ) -> None:
        self.profile = profile
        self._cache_folder = cache_folder
        self._config = config
        self._nursery = nursery
        self._works: dict[str, FormatScheduler] = {
            embedding.FORMAT: embedding.EmbeddingScheduler(config.jobs_max, self._wake),
            generating.FORMAT: generating.GenerationScheduler(config.jobs_max, self._wake),
            onnx_calls.FORMAT: onnx_calls.CallScheduler(self._wake),
        }
        self._turns = deque(self._works.values())
        self._turn = trio.Lock()
        self._arrived = trio.Event()
        self._worker: WorkerProcess | None = None
        self._state = _State()

    @property
    def free_slots(self) -> int:
        return max(0, self._config.jobs_max - sum(map(len, self._works.values())))

    @property
    def units_at_once(self) -> int:
        used = {ready.manifest.format for ready in self._state.loaded.values()} or self._works
        return max(self._works[name].units_at_once for name in used)

    @property
    def queue_s(self) -> float:
        speeds: dict[str, float] = {}
        for ready in self._state.loaded.values():
            name = ready.manifest.format
            speeds[name] = min(ready.units_per_s, speeds.get(name, ready.units_per_s))
        return sum(self._works[name].units / speed for name, speed in speeds.items())

    @property
    def worker_id(self) -> int | None:
        """The worker's process number; None while there is none."""
        return self._worker.id if self._worker is not None and self._worker.running else None

    def loaded(self) -> Mapping[ContentId, Loaded]:
        return dict(self._state.loaded)

    def statistics(self) -> EngineStatistics:
        return EngineStatistics(
            jobs_queued=sum(map(len, self._works.values())),
            units_queued=sum(work.units for work in self._works.values()),
            units_done=self._state.units_done,
            restarts=max(0, self._state.starts - 1),
            running=self.worker_id is not None,
            last_failure=self._state.last_failure,
            quarantined=self._state.quarantine.told(trio.current_time()),
        )

    async def load(self, manifest: Manifest, files: Mapping[str, Path]) -> Loaded:
        """Seconds where the model was compiled before, some ten where not; jobs wait meanwhile.

        A model that is put aside is refused, and loaded when it is tried again.
        """
        model = manifest.id
        work = self._works.get(manifest.format)
        if work is None:
            formats = ", ".join(sorted(self._works))
            raise ModelRefused(f"{manifest.name} is {manifest.format[:40]}; run here: {formats}")
        work.check(manifest, files)
        async with self._turn:
            if self._state.quarantine.refusal(model, trio.current_time()):
                self._state.quarantine.want(model, (manifest, dict(files)))
                self._wake()
            self._refuse_aside(model)
            if model in self._state.loaded:
                return self._state.loaded[model]
            return await self._taken_in(manifest, dict(files))

    async def unload(self, model: ContentId) -> None:
        async with self._turn:
            self._state.quarantine.want(model, None)
            self._forget(model, ModelNotLoaded, "the model was unloaded")
            if self._worker is None or not self._worker.running:
                return
            message: dict[str, Value] = {"do": "unload", "model": model}
            try:
                await self._worker.ask(message, timeout_s=self._config.batch_timeout_s)
            except EngineFailed as error:
                # Then it is dead, and the next one has never heard of this model.
                self._state.last_failure = str(error)

    async def infer(self, job: Job, emit: Emit | None = None) -> Output:
        self._refuse_aside(job.model)
        ready = self._state.loaded.get(job.model)
        able = frozenset[str]() if ready is None else self._works[ready.manifest.format].operations
        ready = ready_model(self._state.loaded, job, able)
        if not self.free_slots:
            raise Refused(
                f"the engine's queue is full ({self._config.jobs_max} jobs)",
                retry_after_s=self.queue_s,
            )
        return await self._works[ready.manifest.format].infer(job, ready, emit)

    async def serve(self) -> None:
        """Give the worker one batch after the other, for ever; restart it when it dies idle."""
        quarantine = self._state.quarantine
        while True:
            self._arrived = trio.Event()
            if quarantine.due(trio.current_time()) is not None:
                async with self._turn:
                    await self._try_again()
            elif any(work.ready for work in self._works.values()):
                async with self._turn:
                    await self._next()
            elif self._state.loaded and self.worker_id is None:
                async with self._turn:
                    await self._revive()
            else:
                with trio.move_on_at(quarantine.next_s()):
                    await self._arrived.wait()

    def _wake(self) -> None:
        self._arrived.set()

    async def _next(self) -> None:
        """One offer of the work whose turn it is.

        The worker is there before an offer is taken: a new one makes works begin again with
        whatever the old one held, and an offer from before that would begin it twice.
        """
        worker = await self._revive()
        if worker is None:
            return
        for work in list(self._turns):
            self._turns.rotate(-1)
            if (offer := work.offer()) is not None:
                await self._do(worker, work, offer)
                return

    async def _do(self, worker: WorkerProcess, work: FormatScheduler, offer: WorkerRequest) -> None:
        began_s = trio.current_time()
        try:
            reply = await worker.ask(offer.message, timeout_s=self._config.batch_timeout_s)
            took_s = trio.current_time() - began_s
            units = work.settle(offer, reply)
        except EngineFailed as error:
            # One that answered what it was not asked still lives.
            worker.kill()
            self._failed(error)
            ended = work.give_back(offer, error)
            if ended and self._state.quarantine.job_failed(offer.model, trio.current_time()):
                self._put_aside(offer.model, ModelQuarantined, _in_a_row(error))
        except EngineError as error:
            self._state.last_failure = str(error)
            work.give_back(offer, error)
        else:
            self._state.units_done += units
            if units:
                self._state.quarantine.job_went_well(offer.model, trio.current_time())
            if work.tells_speed(offer, units):
                self._measured(offer.model, units, took_s / self._config.share)
            if self._config.share < 1:
                # Still in its turn: nobody else has the worker meanwhile.
                await trio.sleep(took_s * (1 / self._config.share - 1))

    async def _revive(self) -> WorkerProcess | None:
        """Have the worker ready; None if there can be none now.

        What was there at the first start is gone then, a compiler perhaps: those who wait are
        told, and it is tried again later.
        """
        try:
            return await self._running()
        except EngineMissing as error:
            self._state.last_failure = str(error)
            for model in list(self._state.loaded):
                self._put_aside(model, EngineMissing, str(error))
        return None

    async def _try_again(self) -> None:
        """Load a model whose pause is over; whoever offers it to others probes it after that."""
        found = self._state.quarantine.due(trio.current_time())
        if found is None:
            return
        model, (manifest, files) = found
        try:
            await self._taken_in(manifest, files)
        except EngineError as error:
            # Put aside for it already, if the worker died of it.
            if self._state.quarantine.due(trio.current_time()) == found:
                self._state.last_failure = str(error)
                self._state.quarantine.put(model, error.message, found[1], trio.current_time())

    async def _running(self) -> WorkerProcess:
        """The worker, started if need be and with all models loaded.

        A model that kills the worker when it is loaded again is put aside at the third time; so
        this ends.
        """
        while self._worker is None or not self._worker.running:
            if self._state.failures_in_row:
                pause_s = self._config.restart_delay_s * 2 ** (self._state.failures_in_row - 1)
                await trio.sleep(min(pause_s, RESTART_DELAY_S_MAX))
            launch = await prepare(self._cache_folder, self._config)
            worker: WorkerProcess = await self._nursery.start(self._keep, launch)
            self._worker = worker
            if self._config.niceness:
                worker.stand_back(self._config.niceness)
            self._state.starts += 1
            for work in self._works.values():
                work.restarted()
            for model, ready in list(self._state.loaded.items()):
                try:
                    await self._load(worker, ready.manifest, self._state.files[model])
                except ModelRefused as error:
                    # Its files changed since; the others must not suffer for it.
                    self._put_aside(model, ModelQuarantined, error.message)
                except EngineFailed as error:
                    self._load_failed(worker, ready.manifest, self._state.files[model], error)
                    break
            else:
                self._state.failures_in_row = 0
        return self._worker

    async def _keep(self, launch: Launch, *, task_status: TaskStatus[WorkerProcess]) -> None:
        async with open_worker(launch) as worker:
            task_status.started(worker)
            await worker.wait()
        self._arrived.set()

    async def _taken_in(self, manifest: Manifest, files: Mapping[str, Path]) -> Loaded:
        """Load a model for the first time, or after it was put aside."""
        worker = await self._running()
        try:
            ready = await self._load(worker, manifest, files)
        except EngineFailed as error:
            self._load_failed(worker, manifest, files, error)
            self._refuse_aside(manifest.id)
            raise
        self._state.files[manifest.id] = files
        self._state.loaded[manifest.id] = ready
        self._state.quarantine.loaded(manifest.id)
        return ready

    async def _load(
        self, worker: WorkerProcess, manifest: Manifest, files: Mapping[str, Path]
    ) -> Loaded:
        message: dict[str, Value] = {
            "do": "load",
            "manifest": manifest.to_bytes(),
            "files": {name: str(path.absolute()) for name, path in files.items()},
        }
        reply = await worker.ask(message, timeout_s=self._config.load_timeout_s)
        return Loaded(
            model=manifest.id,
            manifest=manifest,
            profile=self.profile,
            units_per_s=reply["units_per_s"] * self._config.share,
            job_units_per_s=reply["job_units_per_s"] * self._config.share,
            memory_bytes=reply["memory_bytes"],
        )

    def _measured(self, model: ContentId, units: int, took_s: float) -> None:
        """Let the speed follow the work."""
        ready = self._state.loaded.get(model)
        if ready is not None:
            share = took_s / (SPEED_MEMORY_S + took_s)
            speed = ready.units_per_s * (1 - share) + units / took_s * share
            self._state.loaded[model] = replace(ready, units_per_s=speed)

    def _failed(self, error: EngineFailed) -> None:
        self._state.last_failure = str(error)
        self._state.failures_in_row += 1

    def _load_failed(
        self,
        worker: WorkerProcess,
        manifest: Manifest,
        files: Mapping[str, Path],
        error: EngineFailed,
    ) -> None:
        # One that answered with an error that nobody knows still lives.
        worker.kill()
        self._failed(error)
        if self._state.quarantine.load_failed(manifest.id):
            self._put_aside(manifest.id, ModelQuarantined, _in_a_row(error), (manifest, files))

    def _put_aside(
        self, model: ContentId, kind: type[EngineError], reason: str, kept: Kept | None = None
    ) -> None:
        if kept is None:
            kept = self._state.loaded[model].manifest, self._state.files[model]
        now_s = trio.current_time()
        self._state.quarantine.put(model, reason, kept, now_s)
        self._forget(model, kind, self._state.quarantine.refusal(model, now_s))
        # Whoever serves waits until then.
        self._wake()

    def _forget(self, model: ContentId, kind: type[EngineError], reason: str) -> None:
        self._state.loaded.pop(model, None)
        self._state.files.pop(model, None)
        for work in self._works.values():
            work.fail(model, kind, reason)

    def _refuse_aside(self, model: ContentId) -> None:
        if why := self._state.quarantine.refusal(model, trio.current_time()):
            raise ModelQuarantined(f"model {model.short} is put aside: {why}")


def _in_a_row(error: EngineFailed) -> str:
    return f"it failed {FAILURES_MAX} times in a row here: {error.message}"


@asynccontextmanager
async def open_tinygrad_engine(
    cache_folder: Path, *, config: EngineConfig
) -> AsyncIterator[TinygradEngine]:
    """An engine without models; its worker is started with the first one.

    `cache_folder` keeps compiled models and must belong to this user alone.
    """
    profile = f"tinygrad-{tinygrad_version()} f32 {config.device}"
    async with trio.open_nursery() as nursery:
        engine = TinygradEngine(cache_folder, profile, config, nursery)
        nursery.start_soon(engine.serve)
        try:
            yield engine
        finally:
            nursery.cancel_scope.cancel()
