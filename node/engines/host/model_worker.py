"""One model and the worker process it has for itself: loaded, asked, started again, given up.

A crash, a hang, a slow load or a hunger for memory ends this process and concerns this model only.
It is started again with growing pauses, and a batch that was under way is tried once more. A model
that fails again and again is set aside for a while (`node.engines.host.quarantine`).

A job that is cancelled leaves its queue at once. A batch already in the worker is waited out: it
takes a fraction of a second, killing it would take the other jobs with it and seconds to start
again.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import trio
from trio import TaskStatus  # type: ignore[attr-defined]

from node.engines.host.format_queue import FormatScheduler, WorkerRequest
from node.engines.host.launch import EngineConfig, prepare
from node.engines.host.quarantine import FAILURES_MAX, Quarantine
from node.engines.host.worker_process import Launch, WorkerProcess, open_worker
from node.engines.interface import EXACT_PROFILE, Loaded
from node.engines.other_layers import EndedRows, LayerPass, LayersLied, LayersLost, OtherLayers
from wire.codec import Value
from wire.errors import (
    EngineError,
    EngineFailed,
    EngineMissing,
    ModelNotLoaded,
    ModelQuarantined,
    ModelRefused,
)
from wire.layers import LayerRange
from wire.model import Manifest

# Jobs at most, and what to call when there is something to do.
MakeScheduler = Callable[[int, Callable[[], None]], FormatScheduler]
RESTART_DELAY_S_MAX = 60.0
# The measured speed follows the last seconds of full batches.
SPEED_MEMORY_S = 3.0
MILLION = 1_000_000


@dataclass(slots=True, kw_only=True)
class SharedState:
    """What the workers of one engine have in common. `at_work`: models that are asked now."""

    cache_folder: Path
    profile: str
    config: EngineConfig
    # Who has the layers that are not loaded here; None: nobody.
    others: OtherLayers | None = None
    quarantine: Quarantine = field(default_factory=Quarantine)
    at_work: int = 0
    units_done: int = 0
    restarts: int = 0
    last_failure: str = ""

    @property
    def threads(self) -> int:
        """How many threads a model may use now: the cores are shared by those at work."""
        if self.config.on_gpu or self.config.share < 1:
            return 1
        return max(1, self.config.cores // max(1, self.at_work))


class ModelWorker:
    """`run` keeps it; `load` comes first, `close` last. Not used again after that."""

    def __init__(
        self,
        manifest: Manifest,
        files: Mapping[str, Path],
        shared: SharedState,
        make_scheduler: MakeScheduler,
        layers: LayerRange | None = None,
    ) -> None:
        """`layers` are those that are loaded of a language model; None: all."""
        self.manifest = manifest
        self.layers = layers
        # It is worked out from all of the manifest, and asked for with each batch.
        self._model = manifest.id
        self.files = files
        self.scheduler: FormatScheduler = make_scheduler(shared.config.jobs_max, self.wake)
        self.ready: Loaded | None = None
        # How much of the load under way is done, from 0 to 1; None where none is.
        self.load_share: float | None = None
        self._shared = shared
        self._turn = trio.Lock()
        self._arrived = trio.Event()
        self._ended = trio.Event()
        self._closed = False
        self._nursery: trio.Nursery | None = None
        self._worker: WorkerProcess | None = None
        self._starts = 0
        self._failures_in_row = 0

    @property
    def worker_id(self) -> int | None:
        """The worker's process number; None while there is none."""
        return self._worker.id if self._worker is not None and self._worker.running else None

    @property
    def queue_s(self) -> float:
        return 0.0 if self.ready is None else self.scheduler.units / self.ready.units_per_s

    @property
    def refusal(self) -> str:
        """Why the model is set aside; empty if it is not."""
        return self._shared.quarantine.refusal(self._model, trio.current_time())

    def refuse_aside(self) -> None:
        if why := self.refusal:
            raise ModelQuarantined(f"model {self._model.short} is put aside: {why}")

    def wake(self) -> None:
        """Have `run` look for work now: a job came, or may be tried again."""
        self._arrived.set()

    async def run(self, *, task_status: TaskStatus[None]) -> None:
        """Give the worker one batch after the other until `close`; restart it when it dies idle."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            task_status.started()
            await self._serve()
            # Its worker ends with it.
            nursery.cancel_scope.cancel()

    async def _serve(self) -> None:
        model, quarantine = self._model, self._shared.quarantine
        while not self._closed:
            self._arrived = trio.Event()
            if self._ended.is_set():
                await self._arrived.wait()
            elif quarantine.due(model, trio.current_time()):
                async with self._turn:
                    await self._try_again()
            elif self.ready is not None and (self.scheduler.ready or self.worker_id is None):
                async with self._turn:
                    await self._next()
            else:
                with trio.move_on_at(quarantine.next_at_s(model)):
                    await self._arrived.wait()

    async def load(self) -> Loaded:
        """Have the model in the worker. ModelRefused, EngineFailed, EngineMissing."""
        async with self._turn:
            if self._ended.is_set():
                raise ModelNotLoaded("the model was unloaded")
            if self.refusal:
                # It is loaded when it is tried again.
                self._shared.quarantine.want(self._model, again=True)
                self.wake()
            self.refuse_aside()
            return await self._loaded()

    async def close(self) -> None:
        """End the worker whatever it does; jobs of the model end in ModelRefused."""
        self._ended.set()
        self._forget(ModelNotLoaded, "the model was unloaded")
        async with self._turn:
            self._closed = True
            self.wake()

    async def _next(self) -> None:
        """One offer of the scheduler.

        The worker is there before an offer is taken: a new one makes the scheduler begin again
        with whatever the old one held, and an offer from before that would begin it twice.
        """
        worker = await self._revived()
        if worker is not None and (offer := self.scheduler.offer()) is not None:
            self._shared.at_work += 1
            try:
                await self._do(worker, offer)
            finally:
                self._shared.at_work -= 1

    async def _do(self, worker: WorkerProcess, offer: WorkerRequest) -> None:
        shared, scheduler = self._shared, self.scheduler
        began_at_s = trio.current_time()
        try:
            reply = await worker.ask(
                offer.message | {"threads": shared.threads},
                timeout_s=shared.config.batch_timeout_s,
                on_progress=_compiles,
                on_question=self._asked,
            )
            if self._ended.is_set():
                return
            took_s = trio.current_time() - began_at_s
            units = scheduler.settle(offer, reply)
        except EngineFailed as error:
            self._failed(error)
            ended = scheduler.give_back(offer, error)
            now_at_s = trio.current_time()
            if ended and self.ready and shared.quarantine.job_failed(self._model, now_at_s):
                self._put_aside(ModelQuarantined, _in_a_row(error))
        except EngineError as error:
            shared.last_failure = str(error)
            if not self._ended.is_set():
                scheduler.give_back(offer, error)
        else:
            shared.units_done += units
            if units:
                shared.quarantine.job_went_well(self._model, trio.current_time())
            if scheduler.tells_speed(offer, units):
                self._measured(units, took_s / shared.config.share)
            if shared.config.share < 1:
                # All models that are at work have that share together.
                await self._pause(took_s * (shared.at_work / shared.config.share - 1))

    async def _asked(self, question: dict[str, Any]) -> dict[str, Value]:
        """Have rows go through the layers that others have, or be signed; the worker waits."""
        others = self._shared.others
        assert others is not None, "layers are missing here only where others may have them"
        assert self.layers is not None, "only of a part of the layers a pass goes on"
        if "signs" in question:
            ended = EndedRows(self._model, question["table"], question["signs"])
            try:
                return {"legs": list(await others.sign(ended))}
            except LayersLied as lied:
                return {"lied": str(lied)}
        some = LayerPass(model=self._model, here=self.layers, **question)
        try:
            return {"data": await others.run(some)}
        except LayersLost as lost:
            return {"lost": str(lost), "final": lost.final, "pages": lost.pages}

    async def _pause(self, pause_s: float) -> None:
        with trio.move_on_after(pause_s):
            await self._ended.wait()

    async def _revived(self) -> WorkerProcess | None:
        """The worker with its model in it; None if there can be none now.

        A model that kills the worker when it is loaded again is set aside at the third time; so
        this ends. What was there at the first start may be gone, a compiler perhaps: those who
        wait are told, and it is tried again later.
        """
        while self.ready is not None:
            if self._worker is not None and self._worker.running:
                return self._worker
            try:
                await self._load(await self._started())
            except EngineMissing as error:
                self._shared.last_failure = str(error)
                self._put_aside(EngineMissing, str(error))
            except ModelRefused as error:
                # Its files changed since.
                self._put_aside(ModelQuarantined, error.message)
            except EngineFailed as error:
                if self._ended.is_set():
                    break
                self._load_failed(error)
            else:
                self._failures_in_row = 0
        return None

    async def _try_again(self) -> None:
        """Load a model whose pause is over; whoever offers it to others probes it after that."""
        model, quarantine = self._model, self._shared.quarantine
        try:
            await self._loaded()
        except EngineError as error:
            # Set aside for it already, if the worker died of it.
            if quarantine.due(model, trio.current_time()):
                self._shared.last_failure = str(error)
                quarantine.put(model, error.message, now_at_s=trio.current_time(), again=True)

    async def _loaded(self) -> Loaded:
        """Load it for the first time, or after it was set aside; whoever calls has the turn."""
        if self.ready is not None:
            return self.ready
        try:
            ready = await self._load(await self._started())
        except EngineFailed as error:
            if self._ended.is_set():
                raise ModelNotLoaded("the model was unloaded") from error
            self._load_failed(error)
            self.refuse_aside()
            raise
        except EngineError:
            self._kill()
            raise
        if self._ended.is_set():
            raise ModelNotLoaded("the model was unloaded")
        self._failures_in_row = 0
        self.ready = ready
        self._shared.quarantine.loaded(self._model)
        self.wake()
        return ready

    async def _started(self) -> WorkerProcess:
        """A new worker, without its model."""
        shared = self._shared
        if self._failures_in_row:
            pause_s = shared.config.restart_delay_s * 2 ** (self._failures_in_row - 1)
            await self._pause(min(pause_s, RESTART_DELAY_S_MAX))
        launch = await prepare(shared.cache_folder, shared.config)
        assert self._nursery is not None, "`run` comes first"
        worker: WorkerProcess = await self._nursery.start(self._keep, launch)
        self._worker = worker
        if shared.config.niceness:
            worker.stand_back(shared.config.niceness)
        shared.restarts += self._starts > 0
        self._starts += 1
        self.scheduler.restarted()
        return worker

    async def _keep(self, launch: Launch, *, task_status: TaskStatus[WorkerProcess]) -> None:
        async with open_worker(launch) as worker:
            task_status.started(worker)
            await worker.wait()
            if not worker.killed:
                # It may have had nothing to do: then nobody else hears why it ended.
                self._shared.last_failure = str(await worker.failure())
        self.wake()

    async def _load(self, worker: WorkerProcess) -> Loaded:
        config = self._shared.config
        if self._ended.is_set():
            worker.kill()
        message: dict[str, Value] = {
            "do": "load",
            "manifest": self.manifest.to_bytes(),
            "files": {name: str(path.absolute()) for name, path in self.files.items()},
            "threads": self._shared.threads,
        }
        if self.layers is not None:
            message["layers"] = [self.layers.first, self.layers.last]
        self.load_share = 0.0
        try:
            reply = await worker.ask(
                message, timeout_s=config.load_stall_s, on_progress=self._progressed
            )
        finally:
            self.load_share = None
        return Loaded(
            model=self._model,
            manifest=self.manifest,
            profile=", ".join(map(str, filter(None, (self._shared.profile, self.layers)))),
            units_per_s=reply["units_per_s"] * config.share,
            job_units_per_s=reply["job_units_per_s"] * config.share,
            memory_bytes=reply["memory_bytes"],
            exact=not config.on_gpu or self.manifest.profile == EXACT_PROFILE,
            layers=self.layers,
        )

    def _progressed(self, millionths: int) -> None:
        self.load_share = min(1.0, max(0.0, millionths / MILLION))

    def _measured(self, units: int, took_s: float) -> None:
        """Let the speed follow the work."""
        if self.ready is not None:
            share = took_s / (SPEED_MEMORY_S + took_s)
            speed = self.ready.units_per_s * (1 - share) + units / took_s * share
            self.ready = replace(self.ready, units_per_s=speed)

    def _failed(self, error: EngineFailed) -> None:
        # One that answered what it was not asked, or with an error nobody knows, still lives.
        self._kill()
        self._shared.last_failure = str(error)
        self._failures_in_row += 1

    def _load_failed(self, error: EngineFailed) -> None:
        self._failed(error)
        if self._shared.quarantine.load_failed(self._model):
            self._put_aside(ModelQuarantined, _in_a_row(error))

    def _put_aside(self, kind: type[EngineError], reason: str) -> None:
        self._shared.quarantine.put(self._model, reason, again=True, now_at_s=trio.current_time())
        self._forget(kind, self.refusal)
        # The pause before its next try is the quarantine's.
        self._failures_in_row = 0
        # Whoever serves waits until then.
        self.wake()

    def _forget(self, kind: type[EngineError], reason: str) -> None:
        self._kill()
        self.ready = None
        self.scheduler.fail(self._model, kind, reason)

    def _kill(self) -> None:
        if self._worker is not None:
            self._worker.kill()


def _compiles(_millionths: int) -> None:
    """A call may need a graph that is not there yet; each step of making it is a sign of life."""


def _in_a_row(error: EngineFailed) -> str:
    return f"it failed {FAILURES_MAX} times in a row here: {error.message}"
