"""A BERT encoder as the worker keeps it: its tokens, its graphs, and answers to `embed`.

A cross-encoder answers with a score for each query and text that come together.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tinygrad import Device
from tinygrad.helpers import DEV

from node.engines.formats.bert import BertShape, BertWeights, ScoreHead, fill
from node.engines.formats.safetensors import read_table
from node.engines.interface import OFFER_TEXTS_MAX
from node.engines.worker.bert import Encoder
from node.engines.worker.device import WorkerDevice, memory_bytes
from node.engines.worker.graph_cache import GraphCache
from node.engines.worker.matmul import Matmul
from node.engines.worker.tokenizer import Tokens, read_tokens
from wire.codec import Value
from wire.errors import ModelRefused
from wire.model import Manifest
from wire.payload import QueryText

WARM_UP = ["A sentence of about the length that people ask about."] * OFFER_TEXTS_MAX


@dataclass(frozen=True, slots=True)
class LoadedEmbedder:
    """One model, ready to run."""

    shape: BertShape
    tokens: Tokens
    encoder: Encoder
    graphs: dict[int, Any]
    memory_bytes: int
    # What makes scores of rows; None: rows are vectors.
    head: ScoreHead | None = None
    # How many kinds of tokens the model tells apart.
    kinds: int = 1

    def warm_up(self) -> tuple[float, float]:
        # The first replay of a graph links its kernels; no job should wait for that.
        for bucket, graph in self.graphs.items():
            self.encoder.run(graph, bucket, self.tokens.of(["ready?"]))
        began_at_s = time.perf_counter()
        _, done = self._embed(WARM_UP if self.head is None else [[it, it] for it in WARM_UP])
        # A job is many texts: one alone fills a pass as well as several do.
        speed = done / max(time.perf_counter() - began_at_s, 1e-6)
        return speed, speed

    def answer(self, message: dict[str, Any]) -> dict[str, Value]:
        """The vectors of those texts that fit one pass; `done` says which."""
        reply, _ = self._embed(message["texts"])
        return reply

    def _embed(self, texts: Sequence[Any]) -> tuple[dict[str, Value], int]:
        """Texts, texts as their tokens, or where pairs are scored a query and a text each."""
        if self.head is not None:
            return self._scored(texts)
        able = [at for at, it in enumerate(texts) if self.tokens.has(it)]
        refused = [at for at, it in enumerate(texts) if not self.tokens.has(it)]
        if not able:
            return {"done": [], "data": b"", "tokens": [], "refused": refused}, 0
        lines = self.tokens.of([texts[at] for at in able])
        now = fill([len(line) for line in lines], self.shape.buckets)
        chosen = [lines[number] for number in now.texts]
        vectors = self.encoder.run(self.graphs[now.bucket], now.bucket, chosen)
        if not np.isfinite(vectors).all():
            raise ModelRefused("the model answered with numbers that are not finite")
        counts = [len(line) for line in chosen]
        data = vectors.astype("<f4").tobytes()
        done = [able[number] for number in now.texts]
        return {"done": done, "data": data, "tokens": counts, "refused": refused}, len(chosen)

    def _scored(self, pairs: Sequence[Sequence[str]]) -> tuple[dict[str, Value], int]:
        assert self.head is not None, "it was looked at"
        lines, kinds = self.tokens.of_pairs(pairs)
        now = fill([len(line) for line in lines], self.shape.buckets)
        chosen = [lines[it] for it in now.texts]
        parts = [[min(part, self.kinds - 1) for part in kinds[it]] for it in now.texts]
        rows = self.encoder.run(self.graphs[now.bucket], now.bucket, chosen, parts)
        scores = np.ones((len(chosen), QueryText.COLUMNS), "<f4")
        scores[:, 0] = [self.head.score(row) for row in rows]
        if not np.isfinite(scores).all():
            raise ModelRefused("the model answered with numbers that are not finite")
        counts: list[Value] = [len(line) for line in chosen]
        done: list[Value] = list(now.texts)
        data = scores.tobytes()
        return {"done": done, "data": data, "tokens": counts, "refused": []}, len(chosen)


def load(manifest: Manifest, files: dict[str, Path], place: WorkerDevice) -> LoadedEmbedder:
    """Check, read and compile (or find compiled) one model; ModelRefused, EngineMissing."""
    shape = BertShape.of(manifest)
    weights = BertWeights.read(read_table(files["model.safetensors"]), shape)
    tokens = read_tokens(
        files["tokenizer.json"], tokens_max=shape.tokens_max, vocabulary=len(weights.words)
    )
    place.progress.at(0.1)
    encoder = Encoder(shape, weights, Matmul(blocked=Device.DEFAULT == "CPU"))
    key = " ".join((str(manifest.id), place.versions, str(DEV.value)))
    with place.progress.part(0.2, 1.0):
        graphs = GraphCache(place, key).collect(shape.buckets, encoder.capture)
    kinds = len(weights.kinds)
    return LoadedEmbedder(shape, tokens, encoder, graphs, memory_bytes(), weights.head, kinds)
