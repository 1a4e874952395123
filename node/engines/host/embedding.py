"""Texts to vectors: the work of the format `bert-safetensors`. Texts of all jobs share passes."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from node.engines.host import batching
from node.engines.host.batching import Queue
from node.engines.host.format_queue import check_files, within
from node.engines.interface import OFFER_TEXTS_MAX, Emit, Job, Loaded, Output
from wire.codec import Value
from wire.content import ContentId
from wire.errors import BatonError, EngineError, EngineFailed
from wire.model import Manifest
from wire.operations import EMBED
from wire.payload import Texts, Vectors

FORMAT = "bert-safetensors"
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
        return {"do": "embed", "model": self.offer.model, "texts": self.offer.texts}


class EmbeddingScheduler:
    """See `node.engines.host.format_queue.FormatScheduler`; `batching` is its queue."""

    operations = frozenset({EMBED})
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
        check_files(manifest, files, FILES)

    def offer(self) -> Batch | None:
        """The texts for the worker's next pass, a little more than fit; None if nothing waits."""
        found = self._queue.offer(self._pass_tokens)
        return None if found is None else Batch(found)

    def settle(self, offer: Batch, reply: dict[str, Any]) -> int:
        done, data = reply["done"], reply["data"]
        asked = range(len(offer.offer.items))
        if not done or len(set(done)) != len(done) or not set(done) <= set(asked):
            raise EngineFailed("the worker answered what it was not asked")
        size = len(data) // len(done)
        rows = [data[at : at + size] for at in range(0, len(data), size)]
        return self._queue.settle(offer.offer, done, rows)

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
        """Embed `Texts` into `Vectors`, each of length one; nothing is emitted before the end."""
        texts = Texts.from_bytes(job.input).texts
        tokens = ready.manifest.parameters["tokens_max"]
        assert isinstance(tokens, int), "the worker checked it"
        self._pass_tokens = max(self._pass_tokens, tokens)
        pending = self._queue.put(job.model, texts, self.units / ready.units_per_s)
        self._wake()
        try:
            with within(job.deadline_s):
                await pending.ended.wait()
        finally:
            self._queue.drop(pending)
        if pending.failure is not None:
            raise pending.failure
        data = b"".join(row for row in pending.rows if row is not None)
        vectors = Vectors(dimensions=len(data) // (4 * len(texts)), rows=len(texts), data=data)
        return Output(data=vectors.to_bytes(), units=len(texts))
