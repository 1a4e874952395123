"""Answers of language models: the work of the format `gguf`, on the peer's side.

The worker is asked step by step; each step may begin answers, end some, and makes at most a few
tokens for each that is under way. What it made is checked against what was emitted before, by this
peer or by another, and only what is new is emitted. An answer whose tokens nobody takes is paused:
it holds up nobody else.
"""

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from node.engines.answer_lengths import AnswerLengths
from node.engines.each_alone import each_alone
from node.engines.exact import text_file as exact_text
from node.engines.formats.gguf import FILE, FORMAT
from node.engines.formats.gguf_model import SLOTS
from node.engines.host.format_queue import check_files, within
from node.engines.host.generation_job import GenerationJob, shown_by
from node.engines.host.pending import fail_all
from node.engines.interface import EXACT_PROFILE, REPLAY, Emit, Found, Job, Loaded, Output, Part
from node.engines.replay import ReplayRequest
from node.engines.sampler import Sampling
from wire import limits
from wire.codec import Value
from wire.content import ContentId
from wire.errors import BatonError, EngineError, EngineFailed, ModelRefused, WireError
from wire.generation import Generation
from wire.model import Manifest
from wire.operations import GENERATE

__all__ = ["FORMAT", "GenerationScheduler"]

# The formats whose models generate: the file each comes in, and what it is defined in.
GENERATING = {FORMAT: (FILE, "f32"), exact_text.FORMAT: (exact_text.FILE, EXACT_PROFILE)}

# A frame to the worker has to hold a whole job.
INPUT_BYTES_MAX = limits.FRAME_BYTES_MAX // 2
# One that each time gets a little further before the worker dies again is not tried for ever.
DEATHS_MAX = 4
LOSSES_MAX = 8
# Guessed length of an answer: so many of them are let in at once.
ANSWER_TOKENS = 256


@dataclass(frozen=True, slots=True)
class Step:
    """One message to the worker; `paused` of the answers that are `going` take no part in it."""

    model: ContentId
    begun: tuple[GenerationJob, ...]
    going: tuple[GenerationJob, ...]
    paused: tuple[GenerationJob, ...]
    message: dict[str, Value]


@dataclass(slots=True)
class _Place:
    """What is known of one model in the worker."""

    free: int = SLOTS
    slots: int = SLOTS
    # Pages in use, and how many there are; unknown before the first answer.
    pages: tuple[int, int] = (0, 0)
    # How many answers went on in the last step, each by one token or by several.
    went_on: int = 0
    forgotten: list[int] = field(default_factory=list)


class GenerationScheduler:
    """See `node.engines.host.format_queue.FormatScheduler`."""

    operations = frozenset({GENERATE, REPLAY})
    units_at_once = 2 * SLOTS * ANSWER_TOKENS

    def __init__(self, jobs_max: int, wake: Callable[[], None]) -> None:
        self._jobs_max = jobs_max
        self._wake = wake
        self._pending_jobs: deque[GenerationJob] = deque()
        self._places: dict[ContentId, _Place] = {}
        self._turns: deque[ContentId] = deque()
        self._numbers = 0
        self._lengths = AnswerLengths()

    @property
    def units(self) -> int:
        return sum(self._left(it) for it in self._pending_jobs if not it.over)

    def _left(self, pending: GenerationJob) -> int:
        expected = self._lengths.expected(pending.job.model, pending.most, pending.made)
        return max(0, expected - pending.made)

    @property
    def ready(self) -> bool:
        return any(self._has_work(model) for model in self._turns)

    def __len__(self) -> int:
        return len(self._pending_jobs)

    def pages(self, model: ContentId) -> tuple[int, int]:
        """How many pages of keys and values answers use of how many, at the last step."""
        place = self._places.get(model)
        return (0, 0) if place is None else place.pages

    def check(self, manifest: Manifest, files: Mapping[str, Path]) -> None:
        """ModelRefused unless the manifest's one file is that of its format."""
        name, profile = GENERATING[manifest.format]
        check_files(manifest, files, (name,), profile)

    def offer(self) -> Step | None:
        """The worker's next step, for one model after the other; None if no model has work."""
        for model in list(self._turns):
            self._turns.rotate(-1)
            if self._has_work(model):
                return self._step(model)
        return None

    def settle(self, offer: Step, reply: dict[str, Any]) -> int:
        place = self._places[offer.model]
        place.free, place.slots = reply["free"], reply["slots"]
        used, count = reply["pages"]
        place.pages = used, count
        place.went_on = len(reply["made"])
        known = {it.number: it for it in (*offer.begun, *offer.going)}
        if words := reply.get("lied"):
            self._begun_anew(place, known.values(), words)
            return 0
        for number, legs in reply.get("legs", ()):
            if number in known:
                known[number].layers = tuple(legs)
        new = 0
        for number, data in reply["read"]:
            if number in known:
                known[number].prompt += data
        for number, margins in reply["margins"]:
            if number in known:
                known[number].margins += margins
        for number, frames in reply["made"]:
            if number not in known or not frames:
                raise EngineFailed("the worker answered what it was not asked")
            try:
                taken = known[number].take(frames)
            except WireError as error:
                raise EngineFailed(f"the worker answered what is no token: {error}") from error
            if taken:
                # Beyond where it was when a worker died.
                known[number].tries = 0
            new += taken
        for number, message, todo in reply["refused"]:
            if number in known:
                known[number].fail(ModelRefused(message, todo=todo))
        if reply["lost"]:
            self._lost(place, known.values(), *reply["lost"])
        return new

    def _lost(self, place: _Place, jobs: Iterable[GenerationJob], words: str, final: bool) -> None:
        """Other peers lost what they kept of answers: the worker reads it once more, or ends."""
        for pending in jobs:
            pending.losses += 1
            if not pending.over and (final or pending.losses >= LOSSES_MAX):
                pending.fail(EngineFailed(words))
                place.forgotten.append(pending.number)

    def _begun_anew(self, place: _Place, jobs: Iterable[GenerationJob], words: str) -> None:
        """What was made of these is not to be believed: all of it is made once more."""
        for pending in jobs:
            place.forgotten.append(pending.number)
            self._back(pending)
            pending.losses += 1
            if not pending.over and pending.losses >= LOSSES_MAX:
                pending.fail(EngineFailed(words))

    def tells_speed(self, offer: Step, units: int) -> bool:
        # All slots went on, and nobody's prompt was read meanwhile.
        place = self._places[offer.model]
        return not offer.begun and place.went_on >= place.slots

    def give_back(self, offer: Step, error: EngineError) -> int:
        """Queue a step that failed once more; how many of its jobs ended with the error."""
        died = isinstance(error, EngineFailed)
        ended = 0
        for pending in (*offer.begun, *offer.going):
            self._back(pending)
            if not died:
                # The worker lives and may know of it still.
                self._places[offer.model].forgotten.append(pending.number)
            if pending in offer.paused:
                continue
            pending.deaths += died
            pending.came_to_nothing(error)
            if pending.deaths >= DEATHS_MAX:
                pending.give_up(error)
            ended += pending.over or pending not in self._pending_jobs
        return ended

    def fail(self, model: ContentId, kind: type[BatonError], message: str) -> None:
        """End every job of a model with an error of this kind, and forget where its tokens are."""
        fail_all(self._pending_jobs, model, kind, message)
        self._places.pop(model, None)
        if model in self._turns:
            self._turns.remove(model)

    def restarted(self) -> None:
        for place in self._places.values():
            place.free = place.slots
            place.forgotten.clear()
        for pending in self._pending_jobs:
            self._back(pending)

    async def infer(self, job: Job, ready: Loaded, emit: Emit | None) -> Output:
        """Answer a `Generation`, token by token; or judge an answer that somebody claims."""
        claim = None
        if job.operation == REPLAY:
            claim = ReplayRequest.from_bytes(job.input)
            job = replace(job, operation=GENERATE, input=claim.asked, resume=None)
        Generation.from_bytes(job.input)
        sampling = Sampling.of(job.parameters)
        if len(job.input) > INPUT_BYTES_MAX:
            raise ModelRefused(f"a prompt of {len(job.input)} bytes, at most {INPUT_BYTES_MAX}")
        pending = self._ticket(job, sampling.tokens)
        if claim is not None:
            pending.claim, pending.most = claim, max(1, len(claim.claimed) // 4)
        self._pending_jobs.append(pending)
        if job.model not in self._places:
            self._places[job.model] = _Place()
            self._turns.append(job.model)
        self._wake()
        try:
            with within(job.deadline_s):
                await self._follow(pending, emit)
        finally:
            self._drop(pending)
        if claim is not None:
            return pending.replayed()
        self._lengths.learn(job.model, len(pending.frames))
        return Output(
            data=b"".join(pending.frames), units=len(pending.frames), layers=pending.layers
        )

    async def infer_many(self, jobs: Sequence[Job], ready: Loaded) -> list[Found]:
        """As `infer` does each, without pieces; what came of each, in order."""

        async def infer(job: Job) -> Output:
            return await self.infer(job, ready, None)

        return await each_alone(infer, jobs)

    async def _follow(self, pending: GenerationJob, emit: Emit | None) -> None:
        """Emit what is new until all is there; its failure otherwise."""
        while True:
            moved = pending.moved
            if pending.failure is not None:
                raise pending.failure
            known = min(pending.made, len(pending.frames))
            if pending.emitted < known:
                position = pending.emitted
                was_paused = pending.paused
                # What a long prompt's tokens make too long for a piece is told with the output.
                small = len(pending.frames[position]) <= limits.INLINE_BYTES_MAX
                if emit is not None and small:
                    await emit(Part(position, 1, pending.frames[position]))
                # While this waited the worker may have found an earlier token to be wrong.
                if pending.emitted == position:
                    pending.emitted += 1
                if was_paused and not pending.paused:
                    self._wake()
            elif pending.over:
                return
            else:
                await moved.wait()

    def _ticket(self, job: Job, most: int) -> GenerationJob:
        self._numbers += 1
        frames = list(shown_by(job.resume)) if job.resume is not None else []
        return GenerationJob(
            model=job.model,
            number=self._numbers,
            job=job,
            most=most,
            frames=frames,
            emitted=len(frames),
        )

    def _drop(self, pending: GenerationJob) -> None:
        self._pending_jobs.remove(pending)
        place = self._places.get(pending.model)
        if place is not None and pending.under_way and not pending.over:
            place.forgotten.append(pending.number)
            self._wake()

    def _back(self, pending: GenerationJob) -> None:
        """Begin again with it; what is known of it is checked on the way."""
        pending.under_way = False
        pending.made = 0
        pending.prompt = pending.margins = b""

    def _has_work(self, model: ContentId) -> bool:
        place = self._places[model]
        mine = self._mine(model)
        if place.forgotten or any(it.under_way and not it.paused for it in mine):
            return True
        return place.free > 0 and not all(it.under_way for it in mine)

    def _mine(self, model: ContentId) -> list[GenerationJob]:
        return [it for it in self._pending_jobs if it.model == model and not it.over]

    def _step(self, model: ContentId) -> Step:
        place = self._places[model]
        mine = self._mine(model)
        going = [it for it in mine if it.under_way]
        waiting = [it for it in mine if not it.under_way]
        paused = [it for it in going if it.paused]
        # One that was there when a worker died goes by itself until it is further than it was:
        # so it takes nobody with it.
        doubted = [it for it in (*going, *waiting) if it.tries][:1]
        if doubted:
            waiting = [it for it in doubted if not it.under_way and place.free > 0]
            if waiting or doubted[0].under_way:
                paused = [it for it in going if it is not doubted[0]]
        begun: list[GenerationJob] = []
        room = INPUT_BYTES_MAX
        for pending in waiting[: max(0, place.free)]:
            room -= len(pending.job.input)
            if room < 0 and begun:
                break
            begun.append(pending)
            pending.under_way = True
        forgotten, place.forgotten = place.forgotten, []
        message: dict[str, Value] = {
            "do": "step",
            "model": model,
            "begin": [pending.message() for pending in begun],
            "end": list(forgotten),
            "paused": [it.number for it in paused],
        }
        return Step(model, tuple(begun), tuple(going), tuple(paused), message)
