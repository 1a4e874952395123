"""Calls of models: the work of the formats `onnx` and `exact`. Rows of many calls share a run.

Calls take turns, so that a short one is not stuck behind a long one; a long one is done in several
runs. What a model reads, its worker is asked once; what does not fit is refused in words before it
goes anywhere. The queue is bounded by the engine.
"""

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from node.engines.exact import model as exact
from node.engines.formats.onnx_wire import Signature, answer
from node.engines.host.format_queue import all_over, check_files, within
from node.engines.host.pending import PendingJob, fail_all
from node.engines.interface import Emit, Found, Job, Loaded, Output
from wire.codec import Value
from wire.content import ContentId
from wire.errors import BatonError, EngineError, EngineFailed, Malformed, WireError
from wire.model import Manifest
from wire.operations import CALL
from wire.tensors import Tensor

FORMAT = "onnx"
FILES = ("model.onnx",)
# The formats whose models are called: the files each comes in, and the precision it is defined in.
CALLED = {FORMAT: (FILES, "f32"), exact.FORMAT: ((exact.FILE,), exact.FORMAT)}
ROWS_MAX = 64


@dataclass(slots=True, eq=False, kw_only=True)
class CallJob(PendingJob):
    """One call: its inputs once they were read, and the rows done so far."""

    data: bytes
    signature: Signature | None = None
    tensors: tuple[Tensor, ...] = ()
    rows: int = 1
    rows_left: int = 1
    waiting: deque[tuple[int, int]] = field(default_factory=deque)
    # By first row: the bytes of each output. `shapes` are those of one row, or of the whole call.
    parts: dict[int, list[bytes]] = field(default_factory=dict)
    shapes: list[list[int]] = field(default_factory=list)

    def read(self, signature: Signature) -> None:
        """Look at what came; a call that does not fit ends here."""
        try:
            self.tensors, self.rows = signature.read(self.data)
        except WireError as error:
            self.fail(error)
        else:
            self.signature, self.rows_left = signature, self.rows
            self.waiting.append((0, self.rows))

    def take(self, rows: int) -> tuple[int, int]:
        """The next rows of it, at most so many: first and last but one."""
        begin, end = self.waiting.popleft()
        if end - begin > rows:
            self.waiting.appendleft((begin + rows, end))
            end = begin + rows
        return begin, end

    def fail(self, error: BatonError) -> None:
        """End the job with this error; its rows are not offered any more."""
        self.waiting.clear()
        PendingJob.fail(self, error)

    def answer(self) -> bytes:
        """All parts in order, as they go back to who asked."""
        assert self.signature is not None
        parts = [self.parts[begin] for begin in sorted(self.parts)]
        data = [b"".join(row) for row in zip(*parts, strict=True)]
        shapes = [[self.rows, *it] for it in self.shapes] if self.signature.rows else self.shapes
        return answer(self.signature, shapes, data)


@dataclass(frozen=True, slots=True)
class CallRun:
    """One message to the worker: which rows of which calls are in it, in order."""

    model: ContentId
    message: dict[str, Value]
    items: tuple[tuple[CallJob, int, int], ...]

    @property
    def rows(self) -> int:
        return sum(end - begin for _, begin, end in self.items)


class CallScheduler:
    """See `node.engines.host.format_queue.FormatScheduler`."""

    operations = frozenset({CALL})
    # One run at work, and the next one ready when it is done.
    units_at_once = 2 * ROWS_MAX

    def __init__(self, wake: Callable[[], None]) -> None:
        self._wake = wake
        self._pending_jobs: deque[CallJob] = deque()
        self._signatures: dict[ContentId, Signature] = {}

    @property
    def units(self) -> int:
        return sum(it.rows_left for it in self._pending_jobs if not it.ended.is_set())

    @property
    def ready(self) -> bool:
        return any(self._waits(it) for it in self._pending_jobs)

    def __len__(self) -> int:
        return len(self._pending_jobs)

    def check(self, manifest: Manifest, files: Mapping[str, Path]) -> None:
        """ModelRefused unless the manifest's files are those that a model of its format has."""
        names, profile = CALLED[manifest.format]
        check_files(manifest, files, names, profile)

    def offer(self) -> CallRun | None:
        """The next run; None when nothing waits. The next one begins with somebody else."""
        first = next((it for it in self._pending_jobs if self._waits(it)), None)
        if first is None:
            return None
        self._pending_jobs.remove(first)
        self._pending_jobs.append(first)
        signature = self._signatures.get(first.model)
        if signature is None:
            return CallRun(first.model, {"do": "signature", "model": first.model}, ())
        if not signature.rows:
            first.waiting.clear()
            message: dict[str, Value] = {
                "do": "call",
                "model": first.model,
                "shapes": [list(it.shape) for it in first.tensors],
                "inputs": [it.data for it in first.tensors],
            }
            return CallRun(first.model, message, ((first, 0, 1),))
        return _shared(first.model, self._sharing(first), signature.rows * signature.runs)

    def settle(self, offer: CallRun, reply: dict[str, Any]) -> int:
        """Take in what a run gave; how many rows were wanted. EngineFailed for an odd answer."""
        if offer.message["do"] == "signature":
            self._signatures[offer.model] = Signature.of(reply)
            for pending in self._pending_jobs:
                if pending.model == offer.model and not pending.ended.is_set():
                    pending.read(self._signatures[offer.model])
            return 0
        if "refused" in reply:
            for pending, _, _ in offer.items:
                pending.fail(Malformed(f"the model cannot be called so: {reply['refused']}"))
            return 0
        shapes, outputs = reply["shapes"], reply["outputs"]
        sizes = [len(it) // offer.rows for it in outputs]
        if any(len(it) != size * offer.rows for it, size in zip(outputs, sizes, strict=True)):
            raise EngineFailed("the worker answered what it was not asked")
        at, wanted = 0, 0
        for pending, begin, end in offer.items:
            to = at + end - begin
            pending.tries = 0
            pending.shapes = shapes
            pending.parts[begin] = [
                data[at * size : to * size] for data, size in zip(outputs, sizes, strict=True)
            ]
            at = to
            if not pending.ended.is_set():
                wanted += end - begin
                pending.rows_left -= end - begin
                if not pending.rows_left:
                    pending.ended.set()
        return wanted

    def tells_speed(self, offer: CallRun, units: int) -> bool:
        # A run that was not full says nothing about it.
        signature = self._signatures.get(offer.model)
        if signature is None or not offer.items or not units:
            return False
        return not signature.rows or units % signature.rows == 0

    def give_back(self, offer: CallRun, error: EngineError) -> int:
        """A run came to nothing: its calls are tried once more, then they fail with the reason."""
        if not offer.items:
            self.fail(offer.model, type(error), error.message)
            # Whoever called: the model was asked what it reads, and nothing of a call.
            return 1
        pending_jobs = {pending for pending, _, _ in offer.items}
        for pending in pending_jobs:
            pending.came_to_nothing(error)
        for pending, begin, end in reversed(offer.items):
            if not pending.ended.is_set():
                pending.waiting.appendleft((begin, end))
        return sum(pending.ended.is_set() for pending in pending_jobs)

    def fail(self, model: ContentId, kind: type[BatonError], message: str) -> None:
        """End every job of a model with an error of this kind, and forget its signature."""
        self._signatures.pop(model, None)
        fail_all(self._pending_jobs, model, kind, message)

    def restarted(self) -> None:
        """Nothing of a call stays in the worker between two runs."""

    async def infer(self, job: Job, ready: Loaded, emit: Emit | None) -> Output:
        """Give `Tensors` to the model and have its answer as `Tensors`; nothing before the end."""
        pending = self._begin(job)
        try:
            with within(job.deadline_s):
                await pending.ended.wait()
        finally:
            self._drop(pending)
        if pending.failure is not None:
            raise pending.failure
        return Output(data=pending.answer(), units=1)

    async def infer_many(self, jobs: Sequence[Job], ready: Loaded) -> list[Found]:
        """As `infer` does each, without pieces; what came of each, in order."""
        pending = [self._begin(it) for it in jobs]
        try:
            await all_over(list(zip(jobs, pending, strict=True)))
        finally:
            for one in pending:
                self._drop(one)
        return [it.failure or Output(data=it.answer(), units=1) for it in pending]

    def _begin(self, job: Job) -> CallJob:
        pending = CallJob(model=job.model, data=job.input)
        if job.model in self._signatures:
            pending.read(self._signatures[job.model])
        self._pending_jobs.append(pending)
        self._wake()
        return pending

    def _drop(self, pending: CallJob) -> None:
        # Nobody waits for it any more: what is under way of it counts for nothing.
        pending.waiting.clear()
        pending.ended.set()
        self._pending_jobs.remove(pending)

    def _waits(self, pending: CallJob) -> bool:
        return bool(pending.waiting) or (not pending.tensors and not pending.ended.is_set())

    def _sharing(self, first: CallJob) -> list[CallJob]:
        """Who takes part in a run: one that was there when a worker died goes by itself."""
        if first.tries:
            return [first]
        others = (it for it in self._pending_jobs if it.waiting and not it.tries)
        return [first, *(it for it in others if it is not first and it.model == first.model)]


def _shared(model: ContentId, pending_jobs: list[CallJob], rows_max: int) -> CallRun:
    """Rows of these calls, as many as one run takes; each has a fair share, in turns."""
    items: list[tuple[CallJob, int, int]] = []
    left, sharing = rows_max, deque(pending_jobs)
    while sharing and left:
        pending = sharing.popleft()
        begin, end = pending.take(max(1, left // (len(sharing) + 1)))
        left -= end - begin
        if items and items[-1][0] is pending and items[-1][2] == begin:
            items[-1] = (pending, items[-1][1], end)
        else:
            items.append((pending, begin, end))
        if pending.waiting:
            sharing.append(pending)
    inputs = [
        b"".join(_rows_of(pending.tensors[number], begin, end) for pending, begin, end in items)
        for number in range(len(pending_jobs[0].tensors))
    ]
    message: dict[str, Value] = {
        "do": "rows",
        "model": model,
        "rows": rows_max - left,
        "inputs": inputs,
    }
    return CallRun(model, message, tuple(items))


def _rows_of(tensor: Tensor, begin: int, end: int) -> bytes:
    rows = tensor.shape[0]
    if end - begin == rows:
        return tensor.data
    size = len(tensor.data) // rows
    return tensor.data[begin * size : end * size]
