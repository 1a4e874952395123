"""A text's vector is the mean of its rows or its first token's, as the model's format says."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from node.engines.formats.bert import BertShape, BertWeights
from node.engines.formats.safetensors import read_table
from node.engines.interface import Job
from node.engines.worker.tokenizer import read_tokens
from tests.engines.formats.test_minilm import reference_rows
from tests.engines.tiny import TOKENS_MAX, WORDS, texts, write_tiny
from wire.payload import Vectors

LINES = ("a b c", "b", "c b a x y z q", "", "a b c d")


# The mean is what the tests of MiniLM have, too.
@pytest.mark.parametrize("first", [pytest.param(False, marks=pytest.mark.soak), True])
async def test_a_vector_is_made_of_the_rows_that_the_format_says(
    first: bool, open_engine, tmp_path: Path
) -> None:
    manifest, files = write_tiny(tmp_path)
    manifest = replace(manifest, format="bert-first-safetensors") if first else manifest
    shape = BertShape.of(manifest)
    weights = BertWeights.read(read_table(files["model.safetensors"]), shape)
    tokens = read_tokens(files["tokenizer.json"], tokens_max=TOKENS_MAX, vocabulary=len(WORDS))
    rows = [reference_rows(weights, shape, line) for line in tokens.of(LINES)]
    expected = np.array([it[0] if first else it.mean(0) for it in rows])
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    async with open_engine() as engine:
        await engine.load(manifest, files)
        job = Job(
            model=manifest.id,
            operation="embed",
            input=texts(*LINES),
            parameters={},
            deadline_s=60,
        )
        vectors = Vectors.from_bytes((await engine.infer(job)).data)
    found = np.frombuffer(vectors.data, "<f4").reshape(vectors.rows, -1)
    assert np.abs(found - expected).max() < 1e-5
