"""A language model that makes vectors or scores of texts; answers to `embed`. Worker only.

As Qwen3 embedding does it: a text ends with the end of all texts, and its vector is what that token
becomes after all layers, normed as before the words, and then of length one. As its rerankers do
it: a query and a text are put into the file's template, and how likely the last token makes a "yes"
rather than a "no" is their score. Texts are packed one after the other into passes of the sizes in
which prompts are read. A token's numbers are the same to the bit in every pass on a CPU, and so is
what is made of a text whatever lies beside it.
"""

import re
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from tinygrad import Device
from tinygrad.helpers import DEV

from node.engines.formats.gguf import (
    FILE,
    PAIR_TEMPLATE,
    SCORE_HEAD,
    check_format,
    describe,
)
from node.engines.formats.gguf_model import SCORES, SLOT_TOKENS
from node.engines.formats.safetensors import Array
from node.engines.worker.attention import PAGE
from node.engines.worker.device import WorkerDevice
from node.engines.worker.gguf import read_array, read_rows
from node.engines.worker.gguf_tokens import TokenTable, read_table
from node.engines.worker.graph_cache import GraphCache
from node.engines.worker.language_model import pages_of
from node.engines.worker.matmul import Matmul
from node.engines.worker.passes import SlotRow
from node.engines.worker.thread_team import ThreadTeam
from node.engines.worker.transformer import LanguageModel
from wire.codec import Value
from wire.errors import ModelRefused
from wire.model import Manifest
from wire.payload import QueryText

WARM_UP = ["A sentence of about the length that people ask about."] * 8
WARM_UP_PAIRS = [[it, it] for it in WARM_UP]


class LoadedTextVectors:
    """One model, ready to run."""

    def __init__(self, language: LanguageModel, table: TokenTable, tokens_max: int) -> None:
        self._language = language
        self._table = table
        self._tokens_max = tokens_max
        self._norm = read_array(language.model, "output_norm.weight").astype(np.float32)
        self._end = _end_of(language.model.metadata, table)
        model = language.model
        scores = model.makes == SCORES
        self._pairs = PairTemplate(model.metadata[PAIR_TEMPLATE], table) if scores else None
        self._head = read_rows(model, SCORE_HEAD).floats() if scores else None

    @property
    def memory_bytes(self) -> int:
        model = self._language.model
        return model.weights_bytes + self._language.pages * model.page_bytes

    def warm_up(self) -> tuple[float, float]:
        # Each pass once: what links its kernels should make no job wait.
        for size in self._language.reading:
            self._language.read([SlotRow(0, 0, 0, (0,))] * size)
        began_at_s = time.perf_counter()
        done = len(self._embedded(WARM_UP if self._pairs is None else WARM_UP_PAIRS)["done"])
        speed = done / max(time.perf_counter() - began_at_s, 1e-6)
        return speed, speed

    def answer(self, message: dict[str, Any]) -> dict[str, Value]:
        """The vectors of the first texts, as many as fill a pass; `done` says which."""
        self._language.team.allow(message["threads"])
        return self._embedded(message["texts"])

    def _embedded(self, texts: Sequence[Any]) -> dict[str, Any]:
        refused = [at for at, it in enumerate(texts) if not self._has(it)]
        chosen: list[tuple[int, list[int]]] = []
        tokens = pages = 0
        for at, text in enumerate(texts):
            if at in refused:
                continue
            line = self._tokens_of(text)
            tokens, pages = tokens + len(line), pages + -(-len(line) // PAGE)
            # The first is done whatever its length is.
            if chosen and (tokens > self._language.reading[-1] or pages > self._language.pages):
                break
            chosen.append((at, line))
        if not chosen:
            return {"done": [], "data": b"", "tokens": [], "refused": refused}
        vectors = self._vectors([line for _, line in chosen])
        if not np.isfinite(vectors).all():
            raise ModelRefused("the model answered with numbers that are not finite")
        return {
            "done": [at for at, _ in chosen],
            "data": vectors.astype("<f4").tobytes(),
            "tokens": [len(line) for _, line in chosen],
            "refused": refused,
        }

    def _has(self, text: Any) -> bool:
        if self._pairs is not None or isinstance(text, str):
            return True
        return bool(text) and max(text) < len(self._table.names) and len(text) <= self._tokens_max

    def _tokens_of(self, text: Any) -> list[int]:
        """Tokens that are given as such stay as they are; a text that is too long is cut."""
        if self._pairs is not None:
            query, other = text
            return self._pairs.tokens(query, other, self._tokens_max)
        if not isinstance(text, str):
            return list(text)
        found = self._table.of(text)
        if self._end is None:
            return found[: self._tokens_max] or [self._table.begin or 0]
        if found[-1:] == [self._end]:
            found.pop()
        return [*found[: self._tokens_max - 1], self._end]

    def _vectors(self, lines: Sequence[Sequence[int]]) -> Array:
        """[texts, hidden], each of length one."""
        rows: list[SlotRow] = []
        ends: list[int] = []
        page = 0
        for number, line in enumerate(lines):
            own = tuple(range(page, page - (-len(line) // PAGE)))
            page = own[-1] + 1
            rows += [SlotRow(token, number, at, own) for at, token in enumerate(line)]
            ends.append(len(rows) - 1)
        size = self._language.reading[-1]
        parts = [self._language.read(rows[at : at + size]) for at in range(0, len(rows), size)]
        last = np.concatenate(parts)[ends]
        mean = np.square(last).mean(axis=1, keepdims=True, dtype=np.float32)
        normed = last / np.sqrt(mean + np.float32(self._language.model.norm_eps)) * self._norm
        if self._head is not None:
            return self._scores(normed, self._head)
        found: Array = normed / np.linalg.norm(normed, axis=1, keepdims=True)
        return found

    def _scores(self, rows: Array, head: Array) -> Array:
        """By how much "yes" is likelier than "no", as log-odds, with the 1 beside a score.

        The logistic function of it is the share that the model's makers call its score.
        """
        found = np.ones((len(rows), QueryText.COLUMNS), np.float32)
        for at, row in enumerate(rows):
            # One by one: the same bits whatever is beside it.
            yes, no = head @ row
            found[at, 0] = yes - no
        return found


_PLACES = re.compile(r"\{query\}|\{document\}")


class PairTemplate:
    """What a query and a text are put into."""

    def __init__(self, template: str, table: TokenTable) -> None:
        self._table = table
        # By the names of control tokens, the longest first: texts of people never become such.
        names = sorted(filter(None, table.controls), key=len, reverse=True)
        cuts = re.split("(" + "|".join(map(re.escape, names)) + ")", template)
        self._parts = [(it, number % 2 == 1) for number, it in enumerate(cuts) if it]

    def tokens(self, query: str, text: str, most: int) -> list[int]:
        """At most so many: the end of a longer text is left out; ModelRefused by its query."""
        while True:
            found = self._table.of_parts([(_put(it, query, text), own) for it, own in self._parts])
            if len(found) <= most:
                return found
            if not text:
                raise ModelRefused(f"a query is too long: {most} tokens are read of it and a text")
            text = text[: int(len(text) * most / len(found) * 0.95)]


def _put(part: str, query: str, text: str) -> str:
    """Both in their places, whatever words they have themselves."""
    return _PLACES.sub(lambda it: query if it[0] == "{query}" else text, part)


def _end_of(metadata: Any, table: TokenTable) -> int | None:
    """The token that a text ends with, unless the file says that there is none."""
    end = metadata.get("tokenizer.ggml.eos_token_id")
    said = metadata.get("tokenizer.ggml.add_eos_token", True)
    return end if said is not False and end in table.ends else None


def load(manifest: Manifest, files: dict[str, Path], place: WorkerDevice) -> LoadedTextVectors:
    """Check, read and compile (or find compiled) one model; ModelRefused, EngineMissing."""
    model = replace(describe(files[FILE]), context_max=SLOT_TOKENS)
    check_format(model, manifest.format)
    told = manifest.parameters.get("tokens_max"), manifest.parameters.get("dimensions")
    if told != (model.context, model.hidden):
        raise ModelRefused(
            f"{manifest.name} is published with other texts or vectors than its file has",
            todo="publish it again from its file: python -m node models add FILE",
        )
    table = read_table(model)
    pages = pages_of(model, place)
    with place.progress.part(0.0, 0.3):
        products = Matmul(blocked=Device.DEFAULT == "CPU")
        language = LanguageModel(model, pages, products, place.progress, ThreadTeam(place.threads))
    key = " ".join((str(manifest.id), place.versions, str(DEV.value), f"{pages} pages"))
    with place.progress.part(0.3, 1.0):
        cache = GraphCache(place, f"{key} {language.kinds_key}")
        graphs = cache.collect(sorted(language.reading), language.capture_layers)
    language.ready(graphs)
    return LoadedTextVectors(language, table, model.context)
