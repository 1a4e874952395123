"""all-MiniLM-L6-v2: the right files, the right numbers, the same bits however it is batched."""

import functools
import hashlib
import importlib.util
import math

import numpy as np
import pytest
import trio

from node.engines.formats.bert import BertShape, BertWeights
from node.engines.formats.minilm import INSTALL, MINILM_ID, minilm_files, minilm_manifest
from node.engines.formats.safetensors import read_table
from node.engines.interface import Job
from node.engines.worker.tokenizer import read_tokens
from tests.engines.tiny import texts
from wire.errors import EngineMissing
from wire.payload import Vectors
from wire.tree import split

LINES = (
    "A man is eating food.",
    "A man is eating a piece of bread.",
    "The girl is carrying a baby.",
    "Someone in a gorilla costume is playing a set of drums.",
    "Die Katze sitzt auf der Matte.",
    "",
    "日本語のテキストも、 emoji 🦀 too.",
    "Peers distribute work between them without a coordinator, and each may check another. " * 4,
    "word " * 400,
)


def test_the_pinned_ids_are_those_of_the_files() -> None:
    manifest, files = minilm_manifest(), minilm_files()
    assert manifest.id == MINILM_ID
    for file in manifest.files:
        data = files[file.name].read_bytes()
        *_, root = (block.id for block in split(data))
        assert (len(data), root) == (file.size_bytes, file.content)
    weights = hashlib.sha256(files["model.safetensors"].read_bytes()).hexdigest()
    assert weights.startswith("53aa5117")


def test_without_the_package_the_command_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(EngineMissing) as caught:
        minilm_files()
    assert INSTALL in str(caught.value)


async def embed(engine, *lines: str) -> np.ndarray:
    job = Job(model=MINILM_ID, operation="embed", input=texts(*lines), parameters={}, deadline_s=60)
    vectors = Vectors.from_bytes((await engine.infer(job)).data)
    return np.frombuffer(vectors.data, "<f4").reshape(vectors.rows, -1)


@pytest.mark.own_device
async def test_the_numbers_are_right_and_the_same_bits_however_texts_are_batched(
    open_engine,
) -> None:
    """One engine for all of it: loading is most of the time."""
    async with open_engine() as engine:
        await engine.load(minilm_manifest(), minilm_files())
        found = await embed(engine, *LINES)
        expected = reference(LINES)
        assert np.abs(found - expected).max() < 1e-6

        cosines = found @ found.T
        assert cosines[0, 1] == pytest.approx(0.7553, abs=2e-4)
        assert cosines[0, 1] > 0.7 > 0.1 > cosines[0, 2]

        for line, row in zip(LINES, found, strict=True):
            assert (await embed(engine, line))[0].tobytes() == row.tobytes()
        backwards = await embed(engine, *LINES[::-1])
        assert backwards[::-1].tobytes() == found.tobytes()

        long, short = [], []

        async def ask_long() -> None:
            await embed(engine, *(LINES[7],) * 12)
            long.append(trio.current_time())

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask_long)
            await trio.testing.wait_all_tasks_blocked()
            await embed(engine, LINES[0])
            short.append(trio.current_time())
        assert short < long

        statistics = engine.statistics()
        assert statistics.restarts == 0
        assert engine.loaded()[MINILM_ID].memory_bytes > 1 << 26


@functools.cache
def reference(lines: tuple[str, ...]) -> np.ndarray:
    """BERT as its paper has it, in plain numpy with 64 bits, one text at a time."""
    files = minilm_files()
    shape = BertShape.of(minilm_manifest())
    weights = BertWeights.read(read_table(files["model.safetensors"]), shape)
    tokens = read_tokens(files["tokenizer.json"], tokens_max=256, vocabulary=len(weights.words))
    return np.array([reference_row(weights, shape, line) for line in tokens.of(lines)])


def reference_row(weights: BertWeights, shape: BertShape, tokens: list[int]) -> np.ndarray:
    mean = reference_rows(weights, shape, tokens).mean(0)
    return mean / np.linalg.norm(mean)


def reference_rows(weights: BertWeights, shape: BertShape, tokens: list[int]) -> np.ndarray:
    x = weights.words[tokens] + weights.positions[: len(tokens)] + weights.kind
    x = norm(x.astype(np.float64), weights.norm)
    erf = np.vectorize(math.erf)
    for layer in weights.layers:
        both = x @ layer.attention[0].T + layer.attention[1]
        parts = both.reshape(len(tokens), 3, shape.heads, -1).transpose(1, 2, 0, 3)
        query, key, value = parts
        scores = query @ key.transpose(0, 2, 1) / math.sqrt(query.shape[-1])
        shares = np.exp(scores - scores.max(-1, keepdims=True))
        mixed = (shares / shares.sum(-1, keepdims=True)) @ value
        seen = mixed.transpose(1, 0, 2).reshape(x.shape)
        x = norm(x + seen @ layer.attention_out[0].T + layer.attention_out[1], layer.attention_norm)
        inner = x @ layer.inner[0].T + layer.inner[1]
        grown = inner * 0.5 * (1 + erf(inner / math.sqrt(2)))
        x = norm(x + grown @ layer.outer[0].T + layer.outer[1], layer.norm)
    return x


def norm(x: np.ndarray, weights: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt(centred.var(-1, keepdims=True) + 1e-12) * weights[0] + weights[1]
