"""The engine that runs models in tinygrad: the peer's side, which never imports tinygrad.

Models run in one worker process. A crash, a hang or a model that wants too much memory kills that
process and nothing else; it is started again with growing pauses, gets its models back, and a
batch that was under way is tried once more. Texts of all jobs share batches.

A job that is cancelled loses its queued texts at once. A batch already in the worker is waited
out: it takes a fraction of a second, killing it would take the others' work with it and seconds to
start again.
"""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import trio
from trio import TaskStatus  # type: ignore[attr-defined]

from node.engines.batching import OFFER_TEXTS_MAX, Offer, Queue
from node.engines.launch import EngineConfig, prepare, tinygrad_version
from node.engines.seam import Emit, EngineStatistics, Job, Loaded, Output, ready_model
from node.engines.worker_process import Launch, WorkerProcess, open_worker
from wire.codec import Value
from wire.content import ContentId
from wire.errors import EngineError, EngineFailed, EngineMissing, ModelRefused, TooSlow
from wire.model import Manifest
from wire.payload import Texts, Vectors

OPERATIONS = frozenset({"embed"})
FORMAT = "bert-safetensors"
FILES = ("model.safetensors", "tokenizer.json")
# One crash may be anybody's; three in a row on one model are the model's.
CRASHES_MAX = 3
RESTART_DELAY_S_MAX = 60.0
WARM_UP = ("A sentence of about the length that people ask about.",) * OFFER_TEXTS_MAX
# The measured speed follows the last seconds of full batches.
SPEED_MEMORY_S = 3.0


@dataclass(slots=True)
class _State:
    """What changes while the engine is open."""

    loaded: dict[ContentId, Loaded] = field(default_factory=dict)
    files: dict[ContentId, dict[str, Path]] = field(default_factory=dict)
    aside: dict[ContentId, str] = field(default_factory=dict)
    crashes: dict[ContentId, int] = field(default_factory=dict)
    failures_in_row: int = 0
    starts: int = 0
    units_done: int = 0
    last_failure: str = ""


class TinygradEngine:
    """Made by `open_tinygrad_engine`; see `node.engines.seam.Engine` for what it promises."""

    def __init__(
        self, cache_folder: Path, profile: str, config: EngineConfig, nursery: trio.Nursery
    ) -> None:
        self.profile = profile
        self._cache_folder = cache_folder
        self._config = config
        self._nursery = nursery
        self._queue = Queue(config.jobs_max)
        self._turn = trio.Lock()
        self._arrived = trio.Event()
        self._worker: WorkerProcess | None = None
        self._state = _State()

    @property
    def free_slots(self) -> int:
        return max(0, self._config.jobs_max - len(self._queue))

    @property
    def units_at_once(self) -> int:
        # One batch at work, and the next one ready when it is done.
        return 2 * OFFER_TEXTS_MAX

    @property
    def queue_s(self) -> float:
        speeds = [ready.units_per_s for ready in self._state.loaded.values()]
        return self._queue.units / min(speeds) if speeds else 0.0

    @property
    def worker_id(self) -> int | None:
        """The worker's process number; None while there is none."""
        return self._worker.id if self._worker is not None and self._worker.running else None

    def loaded(self) -> Mapping[ContentId, Loaded]:
        return dict(self._state.loaded)

    def statistics(self) -> EngineStatistics:
        return EngineStatistics(
            jobs_queued=len(self._queue),
            units_queued=self._queue.units,
            units_done=self._state.units_done,
            restarts=max(0, self._state.starts - 1),
            running=self.worker_id is not None,
            last_failure=self._state.last_failure,
        )

    async def load(self, manifest: Manifest, files: Mapping[str, Path]) -> Loaded:
        """Seconds where the model was compiled before, some ten where not; jobs wait meanwhile."""
        model = manifest.id
        _check_files(manifest, files)
        async with self._turn:
            self._refuse_aside(model)
            if model in self._state.loaded:
                return self._state.loaded[model]
            try:
                worker = await self._running()
                ready = await self._load(worker, manifest, dict(files))
            except EngineFailed as error:
                self._crashed(model, error)
                self._refuse_aside(model)
                raise
            self._state.files[model] = dict(files)
            self._state.loaded[model] = ready
            self._went_well(model)
            return ready

    async def unload(self, model: ContentId) -> None:
        async with self._turn:
            self._forget(model, "the model was unloaded")
            if self.worker_id is not None and self._worker is not None:
                message: dict[str, Value] = {"do": "unload", "model": model}
                await self._worker.ask(message, timeout_s=self._config.batch_timeout_s)

    async def infer(self, job: Job, emit: Emit | None = None) -> Output:
        """Embed `Texts` into `Vectors`, each of length one; nothing is emitted before the end."""
        self._refuse_aside(job.model)
        ready_model(self._state.loaded, job, OPERATIONS)
        texts = Texts.from_bytes(job.input).texts
        ticket = self._queue.put(job.model, texts, self.queue_s)
        self._arrived.set()
        try:
            with trio.fail_after(job.deadline_s):
                await ticket.ended.wait()
        except trio.TooSlowError as error:
            raise TooSlow(f"not done within {job.deadline_s:g} s") from error
        finally:
            self._queue.drop(ticket)
        if ticket.failure is not None:
            raise ticket.failure
        data = b"".join(row for row in ticket.rows if row is not None)
        vectors = Vectors(dimensions=len(data) // (4 * len(texts)), rows=len(texts), data=data)
        return Output(data=vectors.to_bytes(), units=len(texts))

    async def serve(self) -> None:
        """Give the worker one batch after the other, for ever; restart it when it dies idle."""
        while True:
            self._arrived = trio.Event()
            if self._queue.ready:
                async with self._turn:
                    offer = self._queue.offer(self._pass_tokens())
                    if offer is not None:
                        await self._do(offer)
            elif self._state.loaded and self.worker_id is None:
                async with self._turn:
                    await self._revive()
            else:
                await self._arrived.wait()

    def _pass_tokens(self) -> int:
        tokens = [ready.manifest.parameters["tokens_max"] for ready in self._state.loaded.values()]
        return max((count for count in tokens if isinstance(count, int)), default=1)

    async def _do(self, offer: Offer) -> None:
        try:
            worker = await self._running()
            began_s = trio.current_time()
            done, rows = await self._embed(worker, offer.model, offer.texts)
            took_s = trio.current_time() - began_s
        except EngineFailed as error:
            self._queue.give_back(offer, error)
            self._crashed(offer.model, error)
        except EngineError as error:
            self._state.last_failure = str(error)
            self._queue.give_back(offer, error)
        else:
            self._state.units_done += self._queue.settle(offer, done, rows)
            self._went_well(offer.model)
            self._measured(offer, len(done), took_s)

    async def _embed(
        self, worker: WorkerProcess, model: ContentId, texts: list[str]
    ) -> tuple[list[int], list[bytes]]:
        """Which of the texts were done, and their rows; EngineFailed for an odd answer."""
        message: dict[str, Value] = {"do": "embed", "model": model, "texts": texts}
        reply = await worker.ask(message, timeout_s=self._config.batch_timeout_s)
        done, data = reply["done"], reply["data"]
        if not done or len(set(done)) != len(done) or not set(done) <= set(range(len(texts))):
            worker.kill()
            raise EngineFailed("the worker answered what it was not asked")
        size = len(data) // len(done)
        return done, [data[at : at + size] for at in range(0, len(data), size)]

    async def _revive(self) -> None:
        """Have the worker ready before the next job comes."""
        try:
            await self._running()
        except EngineMissing as error:
            # What was there at the first start is gone, a compiler perhaps: nothing to wait for.
            for model in list(self._state.loaded):
                self._forget(model, error.message)

    async def _running(self) -> WorkerProcess:
        """The worker, started if need be and with all models loaded.

        A model that kills the worker when it is loaded again is put aside, as ever, at the third
        time; so this ends.
        """
        while self._worker is None or not self._worker.running:
            if self._state.failures_in_row:
                pause_s = self._config.restart_delay_s * 2 ** (self._state.failures_in_row - 1)
                await trio.sleep(min(pause_s, RESTART_DELAY_S_MAX))
            launch = await prepare(self._cache_folder, self._config)
            worker: WorkerProcess = await self._nursery.start(self._keep, launch)
            self._worker = worker
            self._state.starts += 1
            for model, ready in list(self._state.loaded.items()):
                try:
                    await self._load(worker, ready.manifest, self._state.files[model])
                except ModelRefused as error:
                    # Its files changed since; the others must not suffer for it.
                    self._forget(model, error.message)
                except EngineFailed as error:
                    self._crashed(model, error)
                    break
        return self._worker

    async def _keep(self, launch: Launch, *, task_status: TaskStatus[WorkerProcess]) -> None:
        async with open_worker(launch) as worker:
            task_status.started(worker)
            await worker.wait()
        self._arrived.set()

    async def _load(
        self, worker: WorkerProcess, manifest: Manifest, files: dict[str, Path]
    ) -> Loaded:
        message: dict[str, Value] = {
            "do": "load",
            "manifest": manifest.to_bytes(),
            "files": {name: str(path.absolute()) for name, path in files.items()},
        }
        reply = await worker.ask(message, timeout_s=self._config.load_timeout_s)
        began_s = trio.current_time()
        done, _ = await self._embed(worker, manifest.id, list(WARM_UP))
        took_s = trio.current_time() - began_s
        return Loaded(
            model=manifest.id,
            manifest=manifest,
            profile=self.profile,
            units_per_s=len(done) / max(took_s, 1e-6),
            memory_bytes=reply["memory_bytes"],
        )

    def _measured(self, offer: Offer, units: int, took_s: float) -> None:
        """Let the speed follow the work. A pass that was not full says nothing about it."""
        ready = self._state.loaded.get(offer.model)
        if ready is not None and units < len(offer.items):
            share = took_s / (SPEED_MEMORY_S + took_s)
            speed = ready.units_per_s * (1 - share) + units / took_s * share
            self._state.loaded[offer.model] = replace(ready, units_per_s=speed)

    def _crashed(self, model: ContentId, error: EngineFailed) -> None:
        state = self._state
        state.last_failure = str(error)
        state.failures_in_row += 1
        state.crashes[model] = state.crashes.get(model, 0) + 1
        if state.crashes[model] >= CRASHES_MAX:
            reason = f"it failed {CRASHES_MAX} times in a row here: {error.message}"
            state.aside[model] = reason
            self._forget(model, reason)

    def _went_well(self, model: ContentId) -> None:
        self._state.failures_in_row = 0
        self._state.crashes.pop(model, None)

    def _forget(self, model: ContentId, reason: str) -> None:
        self._state.loaded.pop(model, None)
        self._state.files.pop(model, None)
        self._queue.fail(model, ModelRefused, reason)

    def _refuse_aside(self, model: ContentId) -> None:
        if model in self._state.aside:
            raise ModelRefused(f"model {model.short} is put aside: {self._state.aside[model]}")


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


def _check_files(manifest: Manifest, files: Mapping[str, Path]) -> None:
    """What can be seen without reading the files; ModelRefused."""
    if manifest.format != FORMAT:
        raise ModelRefused(f"{manifest.name} is {manifest.format[:40]}; {FORMAT} is run here")
    if manifest.profile != "f32":
        raise ModelRefused(f"{manifest.name} is defined in {manifest.profile[:40]}, not in f32")
    sizes = {file.name: file.size_bytes for file in manifest.files}
    for name in FILES:
        if name not in sizes or name not in files:
            raise ModelRefused(f"{manifest.name} comes without {name}")
        try:
            size = files[name].stat().st_size
        except OSError as error:
            raise ModelRefused(f"{name} cannot be read: {error.strerror}") from error
        if size != sizes[name]:
            raise ModelRefused(f"{name} has {size} bytes, its manifest says {sizes[name]}")
