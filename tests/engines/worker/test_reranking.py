"""A cross-encoder scores pairs as the reference does, each the same alone and among others."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer, processors

from node.engines.formats.bert import BertShape, BertWeights
from node.engines.formats.safetensors import read_table
from node.engines.interface import Job
from node.engines.worker.tokenizer import read_tokens
from tests.engines.formats.test_minilm import reference_rows
from tests.engines.tiny import (
    HIDDEN,
    TOKENS_MAX,
    WORDS,
    texts,
    tiny_tensors,
    tiny_tokenizer,
    to_safetensors,
    write_tiny,
)
from wire.errors import Malformed, ModelRefused
from wire.model import Manifest
from wire.payload import QueryText, Vectors

PAIRS = [QueryText("a b c", it) for it in ("a b", "x", "", "q r s t u v w x y z " * 4, "c b a")]
# Of RoBERTa, which also tells no kinds of tokens apart.
FIRST_PLACE = 2


def written(folder: Path, *, roberta: bool) -> tuple[Manifest, dict[str, Path]]:
    """A tiny model as BERT's cross-encoders are kept, or as RoBERTa's."""
    chance = np.random.default_rng(3)

    def numbers(*shape: int) -> np.ndarray:
        return chance.standard_normal(shape).astype(np.float32)

    at = "roberta." if roberta else "bert."
    tensors = {f"{at}{name}": it for name, it in tiny_tensors().items()}
    dense, out = (
        ("classifier.dense", "classifier.out_proj")
        if roberta
        else (
            "bert.pooler.dense",
            "classifier",
        )
    )
    if roberta:
        tensors[f"{at}embeddings.position_embeddings.weight"] = numbers(
            TOKENS_MAX + FIRST_PLACE, HIDDEN
        )
        tensors[f"{at}embeddings.token_type_embeddings.weight"] = numbers(1, HIDDEN)
    tensors |= {f"{dense}.weight": numbers(HIDDEN, HIDDEN), f"{dense}.bias": numbers(HIDDEN)}
    tensors |= {f"{out}.weight": numbers(1, HIDDEN), f"{out}.bias": numbers(1)}
    more = {"first_place": FIRST_PLACE} if roberta else {}
    tokenizer = Tokenizer.from_str(tiny_tokenizer().decode())
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 1), ("[SEP]", 2)],
    )
    manifest, files = write_tiny(
        folder,
        weights=to_safetensors(tensors),
        tokenizer=tokenizer.to_str().encode(),
        **more,
    )
    return replace(manifest, format="bert-rerank-safetensors", operations=("rerank",)), files


def reference(manifest: Manifest, files: dict[str, Path], *, roberta: bool) -> np.ndarray:
    """In doubles, from the file itself."""
    shape = BertShape.of(manifest)
    weights = BertWeights.read(read_table(files["model.safetensors"]), shape)
    tokens = read_tokens(files["tokenizer.json"], tokens_max=TOKENS_MAX, vocabulary=len(WORDS))
    lines, kinds = tokens.of_pairs([(it.query, it.text) for it in PAIRS])
    assert max(map(len, lines)) == TOKENS_MAX, "the longest is cut"
    assert all({0, 1} <= {*it} for it in kinds), "both texts are told apart"
    assert weights.head is not None
    found = []
    for line, kind in zip(lines, kinds, strict=True):
        # The reference adds the kind of a text that stands alone: the words stand for the rest.
        apart = weights.kinds[[min(it, len(weights.kinds) - 1) for it in kind]] - weights.kind
        words = (weights.words[line] + apart).astype(np.float64)
        row = reference_rows(replace(weights, words=words), shape, list(range(len(line))))[0]
        inner = np.tanh(weights.head.dense[0].astype(float) @ row + weights.head.dense[1])
        found.append(weights.head.out[0][0] @ inner + weights.head.out[1][0])
    return np.array(found)


@pytest.mark.parametrize("roberta", [False, pytest.param(True, marks=pytest.mark.soak)])
async def test_scores_are_those_of_the_reference_alone_and_among_others(
    roberta: bool, open_engine, tmp_path: Path
) -> None:
    manifest, files = written(tmp_path, roberta=roberta)
    wanted = reference(manifest, files, roberta=roberta)
    async with open_engine() as engine:
        await engine.load(manifest, files)

        async def scored(*pairs: QueryText) -> np.ndarray:
            data = texts(*(it.to_text() for it in pairs))
            job = Job(
                model=manifest.id, operation="rerank", input=data, parameters={}, deadline_s=60
            )
            found = Vectors.from_bytes((await engine.infer(job)).data)
            return np.frombuffer(found.data, "<f4").reshape(found.rows, QueryText.COLUMNS)

        found = await scored(*PAIRS)
        assert np.abs(found[:, 0] - wanted).max() < 1e-4
        assert (found[:, 1] == 1).all()
        for at, pair in enumerate(PAIRS[:3]):
            assert (await scored(pair)).tobytes() == found[at].tobytes()
        with pytest.raises(Malformed, match="JSON array"):
            await engine.infer(
                Job(
                    model=manifest.id,
                    operation="rerank",
                    input=texts("no pair"),
                    parameters={},
                    deadline_s=60,
                )
            )


def test_robertas_places_begin_later_and_its_head_has_other_names(tmp_path: Path) -> None:
    manifest, files = written(tmp_path, roberta=True)
    shape = BertShape.of(manifest)
    table = read_table(files["model.safetensors"])
    weights = BertWeights.read(table, shape)
    whole = table.floats(
        {"roberta.embeddings.position_embeddings.weight": (TOKENS_MAX + FIRST_PLACE, HIDDEN)}
    )["roberta.embeddings.position_embeddings.weight"]
    np.testing.assert_array_equal(weights.positions, whole[FIRST_PLACE:])
    assert weights.kinds.shape == (1, HIDDEN)
    assert weights.head is not None
    too_far = replace(manifest, parameters={**manifest.parameters, "first_place": 3})
    with pytest.raises(ModelRefused, match="do not reach"):
        BertWeights.read(table, BertShape.of(too_far))
    with pytest.raises(ModelRefused, match="first_place"):
        BertShape.of(replace(manifest, parameters={**manifest.parameters, "first_place": -1}))


def test_a_pair_is_read_as_it_was_written() -> None:
    for pair in (QueryText("a", "b"), QueryText('"', "\n"), QueryText("", "ü\0")):
        assert QueryText.from_text(pair.to_text()) == pair
    for bad in ("", "[]", '["a"]', '["a", 1]', '["a","b","c"]', '{"a": "b"}', "[" * 5000):
        with pytest.raises(Malformed):
            QueryText.from_text(bad)
