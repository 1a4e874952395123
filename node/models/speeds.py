"""Measures how fast one engine runs one model, alone on this machine."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import trio

from node.engines.exact import model as exact
from node.engines.exact.file import read_file
from node.engines.formats import onnx_file
from node.engines.interface import Engine, Job, Part
from wire.content import ContentId
from wire.errors import ModelRefused
from wire.generation import Ending, Generation, read_frames
from wire.model import Manifest
from wire.operations import CALL, EMBED, GENERATE, RERANK
from wire.payload import QueryText, Texts
from wire.tensors import Tensor, Tensors

STREAMS = (1, 4, 16)
CALLERS = (1, 16)
SEEDS_APART = 1 << 16
PROMPT_WORDS = 12
TOKENS_MAX = 128
PREFILL_TOKENS_MAX = 512
CONTEXT_UNKNOWN = 4096
TEXTS_PER_JOB = 32
WORDS_PER_TEXT = 40
JOB_DEADLINE_S = 600.0
FIRST_TOKENS = 3
Make = Callable[[int], Job]
Figures = dict[str, Any]


async def measure(
    engine: Engine, manifest: Manifest, files: Mapping[str, Path], seconds: float
) -> Figures:
    """Load a model and measure each of its operations; each rate is taken over `seconds`."""
    began_at_s = trio.current_time()
    loaded = await engine.load(manifest, files)
    found: Figures = {
        "name": manifest.name,
        "model": str(manifest.id),
        "format": manifest.format,
        "profile": loaded.profile,
        "memory_bytes": loaded.memory_bytes,
        "load_s": trio.current_time() - began_at_s,
    }
    if GENERATE in manifest.operations:
        found["generate"] = await _Generating(engine, manifest).measure(seconds)
    if EMBED in manifest.operations:
        found["embed"] = await _embedding(engine, manifest, seconds)
    if RERANK in manifest.operations:
        found["rerank"] = await _reranking(engine, manifest, seconds)
    if CALL in manifest.operations:
        found["call"] = await _calling(engine, manifest, files, seconds)
    # Routing divides by this speed: it is now that of the work above, and no longer of the warm-up.
    found["units_per_s_at_start"] = loaded.units_per_s
    found["units_per_s"] = engine.loaded()[manifest.id].units_per_s
    return found


@dataclass(slots=True)
class _Window:
    """Units made by several streams while all of them are running."""

    streams: int
    seconds: float
    begun: set[int] = field(default_factory=set)
    units: int = 0
    since_at_s: float = 0.0

    def note(self, stream: int, units: int, scope: trio.CancelScope) -> None:
        now_at_s = trio.current_time()
        if len(self.begun) == self.streams:
            self.units += units
            if now_at_s - self.since_at_s >= self.seconds:
                scope.cancel()
            return
        self.begun.add(stream)
        self.since_at_s = now_at_s

    @property
    def per_s(self) -> float:
        return self.units / max(trio.current_time() - self.since_at_s, 1e-9)


async def _rate(engine: Engine, make: Make, streams: int, seconds: float) -> float:
    """Units a second of so many streams; each sends its next job as soon as it has an answer."""
    window = _Window(streams, seconds)

    async def one(stream: int, scope: trio.CancelScope) -> None:
        turn = stream * SEEDS_APART
        while True:
            emitted = 0

            async def emit(part: Part) -> None:
                nonlocal emitted
                emitted += part.units
                window.note(stream, part.units, scope)

            output = await engine.infer(make(turn), emit)
            if output.units > emitted:
                window.note(stream, output.units - emitted, scope)
            turn += 1

    async with trio.open_nursery() as nursery:
        for stream in range(streams):
            nursery.start_soon(one, stream, nursery.cancel_scope)
    return window.per_s


@dataclass(slots=True)
class _Generating:
    """Measures a language model: the time to the first token, and the rate of many streams."""

    engine: Engine
    manifest: Manifest

    async def measure(self, seconds: float) -> Figures:
        prompt_tokens, _ = await self._first_token(0, PROMPT_WORDS)
        turns = range(1, 1 + FIRST_TOKENS)
        firsts = [await self._first_token(turn, PROMPT_WORDS) for turn in turns]
        words = self._prefill_tokens * PROMPT_WORDS // max(prompt_tokens, 1)
        long_tokens, _ = await self._first_token(SEEDS_APART - 1, words)
        prefill = [await self._first_token(SEEDS_APART + turn, words) for turn in turns]
        return {
            "prompt_tokens": prompt_tokens,
            "first_token_s": median(took_s for _, took_s in firsts),
            "prefill_prompt_tokens": long_tokens,
            "prefill_tokens_per_s": median(tokens / took_s for tokens, took_s in prefill),
            "tokens_each": self._tokens,
            "tokens_per_s": {
                str(streams): await _rate(self.engine, self._job, streams, seconds)
                for streams in STREAMS
            },
        }

    @property
    def _context(self) -> int:
        told = self.manifest.parameters.get("context")
        return told if isinstance(told, int) else CONTEXT_UNKNOWN

    @property
    def _tokens(self) -> int:
        return max(1, min(TOKENS_MAX, self._context // 4))

    @property
    def _prefill_tokens(self) -> int:
        return min(PREFILL_TOKENS_MAX, self._context // 2)

    def _job(self, turn: int, words: int = PROMPT_WORDS, tokens: int | None = None) -> Job:
        prompt = _words(turn, words)
        asked = Generation(prompt=prompt, messages="", tools="", schema="", stop=())
        parameters = {"tokens": tokens or self._tokens, "temperature": 1.0, "seed": turn}
        return _job(self.manifest.id, GENERATE, asked.to_bytes(), parameters)

    async def _first_token(self, turn: int, words: int) -> tuple[int, float]:
        """How many tokens the prompt has, and how long its first token takes."""
        began_at_s = trio.current_time()
        output = await self.engine.infer(self._job(turn, words, tokens=1))
        took_s = max(trio.current_time() - began_at_s, 1e-9)
        *_, ending = read_frames(output.data)
        assert isinstance(ending, Ending)
        return ending.prompt_tokens, took_s


async def _embedding(engine: Engine, manifest: Manifest, seconds: float) -> Figures:
    def make(turn: int) -> Job:
        texts = tuple(_words(turn + at, WORDS_PER_TEXT) for at in range(TEXTS_PER_JOB))
        return _job(manifest.id, EMBED, Texts(texts=texts).to_bytes(), {})

    def single(turn: int) -> Job:
        texts = Texts(texts=(_words(turn, WORDS_PER_TEXT),))
        return _job(manifest.id, EMBED, texts.to_bytes(), {})

    return {
        "words_per_text": WORDS_PER_TEXT,
        "texts_per_job": TEXTS_PER_JOB,
        "embeddings_per_s": await _rate(engine, make, 2, seconds),
        "one_by_one_per_s": await _rate(engine, single, 1, seconds),
    }


async def _reranking(engine: Engine, manifest: Manifest, seconds: float) -> Figures:
    def make(turn: int) -> Job:
        query = _words(turn, PROMPT_WORDS)
        texts = (_words(turn + at, WORDS_PER_TEXT) for at in range(TEXTS_PER_JOB))
        pairs = tuple(QueryText(query, it).to_text() for it in texts)
        return _job(manifest.id, RERANK, Texts(texts=pairs).to_bytes(), {})

    return {
        "words_per_text": WORDS_PER_TEXT,
        "texts_per_job": TEXTS_PER_JOB,
        "scores_per_s": await _rate(engine, make, 2, seconds),
    }


async def _calling(
    engine: Engine, manifest: Manifest, files: Mapping[str, Path], seconds: float
) -> Figures:
    """Measure calls of one row of zeros, with the inputs that the model's file names."""
    data = await trio.to_thread.run_sync(_row_of_zeros, manifest, files)

    def make(_: int) -> Job:
        return _job(manifest.id, CALL, data, {})

    return {
        "calls_per_s": {
            str(callers): await _rate(engine, make, callers, seconds) for callers in CALLERS
        }
    }


def _row_of_zeros(manifest: Manifest, files: Mapping[str, Path]) -> bytes:
    """A call of a model, as its file says what goes into it; ModelRefused."""
    if (path := files.get(exact.FILE)) is not None:
        inputs = [_zeros(it.name, "float32", (1, *it.shape)) for it in read_file(path).inputs]
    elif (path := files.get("model.onnx")) is not None:
        described = onnx_file.describe(path)
        inputs = [_zeros(it.name, it.kind, it.shape or ()) for it in described.inputs]
    else:
        raise ModelRefused(f"the inputs of {manifest.name} are not known here")
    return Tensors(tensors=tuple(inputs)).to_bytes()


def _zeros(name: str, kind: str, shape: tuple[object, ...]) -> Tensor:
    """One row of zeros; sizes that are not given are one."""
    sizes = tuple(it if isinstance(it, int) else 1 for it in shape)
    data = np.zeros(sizes, kind).tobytes()
    return Tensor(name=name, kind=kind, shape=sizes, data=data)


def _job(
    model: ContentId, operation: str, data: bytes, parameters: Mapping[str, int | float]
) -> Job:
    return Job(
        model=model,
        operation=operation,
        input=data,
        parameters=dict(parameters),
        deadline_s=JOB_DEADLINE_S,
    )


def _words(turn: int, count: int) -> str:
    """A text with a unique beginning, so that no earlier text's cache helps."""
    said = ("the", "runner", "hands", "a", "baton", "to", "the", "next", "in", "time")
    return " ".join([f"{turn}:", *(said[(turn + at) % len(said)] for at in range(count - 1))])
