"""Texts to vectors: the work of encoders, and of language models that embed. Jobs share passes."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from node.engines.formats.bert import FIRST_FORMAT, MEAN_FORMAT, NOMIC_FORMAT, RERANK_FORMAT
from node.engines.formats.gguf import EMBED_FORMAT, FILE
from node.engines.formats.gguf import RERANK_FORMAT as GGUF_RERANK_FORMAT
from node.engines.host import batching
from node.engines.host.batching import EmbeddingJob, Queue
from node.engines.host.format_queue import all_over, check_files, within
from node.engines.interface import (
    OFFER_TEXTS_MAX,
    TOKEN_COUNTS,
    TOKEN_IDS,
    Emit,
    Found,
    Job,
    Loaded,
    Output,
)
from wire.codec import Value
from wire.content import ContentId
from wire.errors import (
    BatonError,
    EngineError,
    EngineFailed,
    ModelRefused,
    Refused,
    WireError,
)
from wire.model import Manifest
from wire.operations import EMBED, RERANK
from wire.payload import QueryText, Texts, Vectors

ENCODERS = (MEAN_FORMAT, FIRST_FORMAT, NOMIC_FORMAT, RERANK_FORMAT)
GGUF_FORMATS = (EMBED_FORMAT, GGUF_RERANK_FORMAT)
FORMATS = (*ENCODERS, *GGUF_FORMATS)
FILES = ("model.safetensors", "tokenizer.json")


@dataclass(frozen=True, slots=True)
class Batch:
    """Texts for one pass, as the worker is asked for them."""

    offer: batching.BatchOffer

    @property
    def model(self) -> ContentId:
        return self.offer.model

    @property
    def message(self) -> dict[str, Value]:
        texts: list[Value] = list(self.offer.texts)
        return {"do": "embed", "model": self.offer.model, "texts": texts}


class EmbeddingScheduler:
    """See `node.engines.host.format_queue.FormatScheduler`; `batching` is its queue."""

    operations = frozenset({EMBED, RERANK})
    # One batch at work, and the next one ready when it is done.
    units_at_once = 2 * OFFER_TEXTS_MAX

    def __init__(self, jobs_max: int, wake: Callable[[], None]) -> None:
        self._queue = Queue(jobs_max)
        self._wake = wake
        self._pass_tokens = 1

    @property
    def units(self) -> int:
        return self._queue.units

    @property
    def ready(self) -> bool:
        return self._queue.ready

    def __len__(self) -> int:
        return len(self._queue)

    def check(self, manifest: Manifest, files: Mapping[str, Path]) -> None:
        """ModelRefused unless the manifest's files are those that an embedder has."""
        check_files(manifest, files, (FILE,) if manifest.format in GGUF_FORMATS else FILES)

    def offer(self) -> Batch | None:
        """The texts for the worker's next pass, a little more than fit; None if nothing waits."""
        found = self._queue.offer(self._pass_tokens)
        return None if found is None else Batch(found)

    def settle(self, offer: Batch, reply: dict[str, Any]) -> int:
        done, data, counts = reply["done"], reply["data"], reply["tokens"]
        asked = range(len(offer.offer.items))
        self._refuse(offer, reply["refused"])
        if reply["refused"] and not done:
            return self._queue.settle(offer.offer, (), ())
        if not done or len(set(done)) != len(done) or not set(done) <= set(asked):
            raise EngineFailed("the worker answered what it was not asked")
        size = len(data) // len(done)
        for place, count in zip(done, counts, strict=True):
            pending, number = offer.offer.items[place]
            pending.tokens[number] = count
        rows = [data[at : at + size] for at in range(0, len(data), size)]
        return self._queue.settle(offer.offer, done, rows)

    def _refuse(self, offer: Batch, places: Sequence[int]) -> None:
        for place in places:
            if not 0 <= place < len(offer.offer.items):
                raise EngineFailed("the worker refused what it was not asked")
            job, _ = offer.offer.items[place]
            job.fail(ModelRefused("a text has a token that the model lacks"))

    def tells_speed(self, offer: Batch, units: int) -> bool:
        # A pass that was not full says nothing about it.
        return units < len(offer.offer.items)

    def give_back(self, offer: Batch, error: EngineError) -> int:
        """Queue an offer that failed once more; how many of its jobs ended with the error."""
        return self._queue.give_back(offer.offer, error)

    def fail(self, model: ContentId, kind: type[BatonError], message: str) -> None:
        """End every job of a model with an error of this kind."""
        self._queue.fail(model, kind, message)

    def restarted(self) -> None:
        """Nothing of a job stays in the worker between two offers."""

    async def infer(self, job: Job, ready: Loaded, emit: Emit | None) -> Output:
        """Embed `Texts` into `Vectors`, each of length one, or score pairs.

        Nothing is emitted before the end.
        """
        pending = self._begin(job, ready)
        try:
            with within(job.deadline_s):
                await pending.ended.wait()
        finally:
            self._queue.drop(pending)
        if pending.failure is not None:
            raise pending.failure
        return _output(job, pending)

    async def infer_many(self, jobs: Sequence[Job], ready: Loaded) -> list[Found]:
        """As `infer` does each, without pieces; what came of each, in order."""
        begun = [self._begun(it, ready) for it in jobs]
        both = list(zip(jobs, begun, strict=True))
        try:
            await all_over([(job, it) for job, it in both if isinstance(it, EmbeddingJob)])
        finally:
            for one in begun:
                if isinstance(one, EmbeddingJob):
                    self._queue.drop(one)
        return [
            it if isinstance(it, BatonError) else it.failure or _output(job, it) for job, it in both
        ]

    def _begun(self, job: Job, ready: Loaded) -> EmbeddingJob | BatonError:
        try:
            return self._begin(job, ready)
        except (WireError, EngineError, Refused) as error:
            return error

    def _begin(self, job: Job, ready: Loaded) -> EmbeddingJob:
        texts = Texts.from_bytes(job.input).texts
        tokens = ready.manifest.parameters["tokens_max"]
        assert isinstance(tokens, int), "the worker checked it"
        self._pass_tokens = max(self._pass_tokens, tokens)
        parts: tuple[list[int] | list[str], ...] = ()
        if job.operation == RERANK:
            pairs = map(QueryText.from_text, texts)
            parts = tuple([it.query, it.text] for it in pairs)
        elif job.parameters.get(TOKEN_IDS):
            parts = _token_ids(texts)
        pending = self._queue.put(job.model, texts, self.units / ready.units_per_s, parts)
        self._wake()
        return pending


def _output(job: Job, pending: EmbeddingJob) -> Output:
    data = b"".join(row for row in pending.rows if row is not None)
    counted = bool(job.parameters.get(TOKEN_COUNTS))
    vectors = Vectors(
        dimensions=len(data) // (4 * len(pending.texts)),
        rows=len(pending.texts),
        data=data,
        tokens=tuple(pending.tokens) if counted else (),
    )
    return Output(data=vectors.to_bytes(), units=len(pending.texts))


def _token_ids(texts: Sequence[str]) -> tuple[list[int], ...]:
    """Texts that are JSON arrays of tokens, as those; ModelRefused for what is none."""
    found = []
    for text in texts:
        try:
            ids = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise ModelRefused("tokens are given as JSON arrays of numbers") from error
        if not isinstance(ids, list) or not all(
            type(it) is int and 0 <= it < 1 << 31 for it in ids
        ):
            raise ModelRefused("tokens are given as JSON arrays of numbers")
        found.append(ids)
    return tuple(found)
