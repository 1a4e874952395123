"""An engine whose models are hash functions: for tests and simulations.

It needs no weights, no process and no thread, so it works under a mock clock; what it answers
differs for every model and input and is the same on every machine. It computes nothing of use.
"""

import hashlib
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import trio

from node.engines.hash_model import hash_manifest as hash_manifest
from node.engines.hash_vector import hash_vector, hash_vectors
from node.engines.interface import (
    REPLAY,
    TOKEN_COUNTS,
    Emit,
    EngineStatistics,
    Found,
    Job,
    Loaded,
    Output,
    Part,
    ready_model,
)
from node.engines.replay import ReplayRequest, beside_own
from wire.content import ContentId
from wire.errors import BatonError, ModelNotLoaded, ModelRefused, Refused, TooSlow
from wire.generation import Ending, Generation, PromptToken, Token, to_frame
from wire.model import Manifest
from wire.operations import COMPLETE, EMBED, GENERATE, RERANK, streams
from wire.payload import QueryText, Texts, Vectors
from wire.schema import Parameters

ABLE = frozenset({EMBED, RERANK, COMPLETE, GENERATE, REPLAY})
TOKENS_MAX = 4096
DIMENSIONS_MAX = 4096
# What an engine without service time says of itself: a number, so that routing can divide by it.
UNITS_PER_S_FREE = 10_000.0
# Units that take no time are made so many at a time, before others have their turn.
FREE_UNITS_AT_ONCE = 16
# A claimed token is judged in so much of the time that making one takes: as language models do it.
JUDGING_SHARE = 0.3


def hash_score(text: str) -> bytes:
    """The score of a pair: how many words of the query its text has, less three."""
    pair = QueryText.from_text(text)
    shared = set(pair.query.split()) & set(pair.text.split())
    return struct.pack("<2f", len(shared) - 3.0, 1.0)


def hash_piece(model: ContentId, data: bytes, position: int) -> bytes:
    """The token at `position` of what a hash model answers to `data`."""
    digest = hashlib.sha256(model + struct.pack("<I", position) + data).hexdigest()
    return digest.encode()


def hash_token(
    model: ContentId, data: bytes, position: int, count: int, asked: Generation | None = None
) -> bytes:
    """The frame of the token at `position` of `count`; the ending comes with the last.

    `asked` is what `data` says, if it was read before.
    """
    number = int.from_bytes(hashlib.sha256(model + struct.pack("<I", position) + data).digest()[:4])
    token = Token(id=number, text=f"{number:08x} ".encode(), logprob_millionths=None, top=())
    if position < count - 1:
        return to_frame(token)
    asked = asked or Generation.from_bytes(data)
    return to_frame(token) + to_frame(_ending(asked, count, count * len(token.text)))


def hash_nothing(data: bytes, parameters: Parameters) -> bytes:
    """An answer without tokens: words stand for the prompt's tokens where those are asked for."""
    asked = Generation.from_bytes(data)
    told = b""
    if parameters.get("echo"):
        pieces = [(it, str(it).encode()) for it in asked.prompt_tokens] or [
            (number, word.encode()[:256])
            for number, word in enumerate((asked.prompt or asked.messages).split())
        ]
        told = b"".join(
            to_frame(PromptToken(id=number, text=text, logprob_millionths=None, top=()))
            for number, text in pieces
        )
    return told + to_frame(_ending(asked, 0, 0))


def _ending(asked: Generation, tokens: int, text_bytes: int) -> Ending:
    words = (asked.prompt or asked.messages).split()
    return Ending(
        reason="length",
        prompt_tokens=len(asked.prompt_tokens or words),
        tokens=tokens,
        text_bytes=text_bytes,
    )


# The texts of an embedding, or a generation, as far as that was read.
_Asked = tuple[str, ...] | Generation | None


@dataclass(slots=True)
class _Counts:
    jobs: int = 0
    units_queued: int = 0
    units_done: int = 0


@dataclass(slots=True, eq=False)
class HashEngine:
    """`unit_s` is how long a text or a token takes; jobs are done one after the other.

    The queue takes `jobs_max` jobs, the one under way included; a further one is refused.
    """

    unit_s: float = 0.0
    jobs_max: int = 64
    _loaded: dict[ContentId, Loaded] = field(default_factory=dict, init=False)
    _turn: trio.Lock = field(default_factory=trio.Lock, init=False)
    _counts: _Counts = field(default_factory=_Counts, init=False)

    @property
    def free_slots(self) -> int:
        return max(0, self.jobs_max - self._counts.jobs)

    @property
    def units_at_once(self) -> int:
        return 1

    @property
    def queue_s(self) -> float:
        return self._counts.units_queued * self.unit_s

    async def load(self, manifest: Manifest, files: Mapping[str, Path]) -> Loaded:
        """Ready at once; ModelRefused for a manifest of another format."""
        await trio.lowlevel.checkpoint()
        dimensions = manifest.parameters.get("dimensions")
        if manifest.format != "hash" or files:
            raise ModelRefused(f"{manifest.name} is {manifest.format}, not a hash model")
        if type(dimensions) is not int or not 1 <= dimensions <= DIMENSIONS_MAX:
            raise ModelRefused(f"a hash model has 1 to {DIMENSIONS_MAX} dimensions")
        ready = Loaded(
            model=manifest.id,
            manifest=manifest,
            profile="hash-1 exact",
            units_per_s=1 / self.unit_s if self.unit_s else UNITS_PER_S_FREE,
            memory_bytes=0,
            exact=True,
        )
        return self._loaded.setdefault(ready.model, ready)

    async def unload(self, model: ContentId) -> None:
        await trio.lowlevel.checkpoint()
        self._loaded.pop(model, None)

    def loaded(self) -> Mapping[ContentId, Loaded]:
        return dict(self._loaded)

    def ready(self, model: ContentId) -> Loaded | None:
        return self._loaded.get(model)

    async def infer(self, job: Job, emit: Emit | None = None) -> Output:
        ready = ready_model(self.ready(job.model), job, ABLE)
        if job.operation == REPLAY:
            return await self._replay(ready, job)
        asked, units = _read(job)
        if not self.free_slots:
            raise Refused("the engine's queue is full", retry_after_s=self.queue_s)
        if self._is_free(job, units) and emit is None:
            return await self._at_once(ready, asked, job, units)
        self._counts.jobs += 1
        self._counts.units_queued += units
        left = units
        try:
            with trio.fail_after(job.deadline_s):
                async with self._turn:
                    if job.model not in self._loaded:
                        raise ModelNotLoaded(f"{ready.manifest.name} was unloaded")
                    pieces = _agreed(ready, job, units)
                    # What another did already takes no service time: it is only checked.
                    left -= len(pieces)
                    self._counts.units_queued -= len(pieces)
                    for position in range(len(pieces), units):
                        if self.unit_s or position % FREE_UNITS_AT_ONCE == FREE_UNITS_AT_ONCE - 1:
                            await trio.sleep(self.unit_s)
                        piece = _answer(ready, asked, job, position, units)
                        if emit is not None and streams(job.operation):
                            await emit(Part(position, 1, piece))
                        pieces.append(piece)
                        left -= 1
                        self._counts.units_queued -= 1
                        self._counts.units_done += 1
        except trio.TooSlowError as error:
            raise TooSlow(f"not done within {job.deadline_s:g} s") from error
        finally:
            self._counts.jobs -= 1
            self._counts.units_queued -= left
        return Output(data=_written(job, pieces), units=units)

    async def _replay(self, ready: Loaded, job: Job) -> Output:
        claim = ReplayRequest.from_bytes(job.input)
        asked = replace(job, operation=GENERATE, input=claim.asked, resume=None)
        question, units = _read(asked)
        told = b"".join(_answer(ready, question, asked, at, units) for at in range(units))
        judged = beside_own(claim.tokens, told)
        if not self.free_slots:
            raise Refused("the engine's queue is full", retry_after_s=self.queue_s)
        self._counts.jobs += 1
        try:
            with trio.fail_after(job.deadline_s):
                async with self._turn:
                    await trio.sleep(self.unit_s * JUDGING_SHARE * judged.positions)
        except trio.TooSlowError as error:
            raise TooSlow(f"not done within {job.deadline_s:g} s") from error
        finally:
            self._counts.jobs -= 1
        self._counts.units_done += judged.positions
        return Output(data=judged.to_bytes(), units=judged.positions)

    def _is_free(self, job: Job, units: int) -> bool:
        """Whether a job takes no time, so that it needs no turn and no deadline."""
        free = not self.unit_s and (units < FREE_UNITS_AT_ONCE or job.operation == EMBED)
        return free and job.resume is None and job.deadline_s > 0 and not self._turn.locked()

    async def _at_once(self, ready: Loaded, asked: _Asked, job: Job, units: int) -> Output:
        self._counts.jobs += 1
        try:
            await trio.lowlevel.checkpoint()
        finally:
            self._counts.jobs -= 1
        self._counts.units_done += units
        if job.operation == EMBED and isinstance(asked, tuple):
            # All at once: of many texts this takes half the time.
            vectors = hash_vectors(ready.model, asked, _dimensions(ready))
            return Output(data=_vectors(job, vectors, units), units=units)
        pieces = [_answer(ready, asked, job, at, units) for at in range(units)]
        return Output(data=_written(job, pieces), units=units)

    async def infer_many(self, jobs: Sequence[Job]) -> list[Found]:
        """One after the other, as they are done anyway."""
        await trio.lowlevel.checkpoint()
        began_at_s = trio.current_time()
        found: list[Found] = []
        for job in jobs:
            # Where units take no time, none of the others made a job late.
            late_s = trio.current_time() - began_at_s if self.unit_s else 0.0
            left_s = max(0.0, job.deadline_s - late_s)
            try:
                found.append(await self.infer(replace(job, deadline_s=left_s) if late_s else job))
            except BatonError as error:
                found.append(error)
        return found

    def statistics(self) -> EngineStatistics:
        return EngineStatistics(
            jobs_queued=self._counts.jobs,
            units_queued=self._counts.units_queued,
            units_done=self._counts.units_done,
            restarts=0,
            running=True,
            last_failure="",
        )


def _read(job: Job) -> tuple[_Asked, int]:
    """What is asked, and the units of work; ModelRefused for a wrong parameter."""
    if job.operation in (EMBED, RERANK):
        texts = Texts.from_bytes(job.input).texts
        return texts, len(texts)
    asked = Generation.from_bytes(job.input) if job.operation == GENERATE else None
    if asked is not None and job.parameters.get("tokens") == 0:
        return asked, 1
    tokens = job.parameters.get("tokens", 16)
    if type(tokens) is not int or not 1 <= tokens <= TOKENS_MAX:
        raise ModelRefused(f"'tokens' is a number from 1 to {TOKENS_MAX}")
    return asked, tokens


def _answer(ready: Loaded, asked: _Asked, job: Job, position: int, count: int) -> bytes:
    if job.operation == GENERATE and job.parameters.get("tokens") == 0:
        return hash_nothing(job.input, job.parameters)
    if job.operation == GENERATE:
        known = asked if isinstance(asked, Generation) else None
        return hash_token(ready.model, job.input, position, count, known)
    if not isinstance(asked, tuple):
        return hash_piece(ready.model, job.input, position)
    if job.operation == RERANK:
        return hash_score(asked[position])
    return hash_vector(ready.model, asked[position], _dimensions(ready))


def _dimensions(ready: Loaded) -> int:
    dimensions = ready.manifest.parameters["dimensions"]
    assert isinstance(dimensions, int), "load() checked it"
    return dimensions


def _agreed(ready: Loaded, job: Job, units: int) -> list[bytes]:
    """The first pieces of the answer, as far as what another peer emitted of it is right."""
    pieces: list[bytes] = []
    if job.resume is None or not streams(job.operation):
        return pieces
    begun, size = job.resume.data, 0
    for position in range(min(units, job.resume.units)):
        piece = _answer(ready, None, job, position, units)
        if begun[size : size + len(piece)] != piece:
            return pieces
        pieces.append(piece)
        size += len(piece)
    # As many pieces, and something else besides: nobody knows which of them is which.
    return pieces if size == len(begun) else []


def _written(job: Job, pieces: list[bytes]) -> bytes:
    if streams(job.operation):
        return b"".join(pieces)
    return _vectors(job, b"".join(pieces), len(pieces))


def _vectors(job: Job, data: bytes, rows: int) -> bytes:
    counts: tuple[int, ...] = ()
    if job.parameters.get(TOKEN_COUNTS):
        counts = tuple(len(it.split()) for it in Texts.from_bytes(job.input).texts)
    dimensions = len(data) // (4 * rows)
    return Vectors(dimensions=dimensions, rows=rows, data=data, tokens=counts).to_bytes()
