"""A language model that embeds gives the vectors that its maker defines, in any company."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from node.engines.formats.gguf import EMBED_FORMAT, describe
from node.engines.interface import Job
from node.engines.worker.gguf_tokens import read_table
from node.models.inspect import check_layers, check_runs
from node.models.inspect import describe as inspect
from tests.engines.families import FAMILIES, weights_of, write_family
from tests.engines.family_references import qwen3_hidden, rms_norm
from tests.engines.tiny import texts
from wire.content import ContentId
from wire.errors import InputError, ModelRefused
from wire.model import Manifest, ModelFile
from wire.payload import QueryText, Vectors

FAMILY = replace(FAMILIES["qwen 3"], tied=True, keys={"pooling_type": 3})
CONTEXT = 256
TEXTS = ["Hello, world! It's 12345 tests", "x", "", "na\u00efve \u65e5\u672c " * 12, "a b c " * 400]


@pytest.fixture
def written(tmp_path: Path) -> Path:
    weights = weights_of(FAMILY, seed=8)
    return write_family(tmp_path / "embedder.gguf", FAMILY, weights, context=CONTEXT)


def published(path: Path) -> tuple[Manifest, dict[str, Path]]:
    found = inspect(path)
    data = path.read_bytes()
    content = ModelFile(name="model.gguf", content=ContentId.of(data), size_bytes=len(data))
    return found.manifest({"model.gguf": content}), dict(found.files)


def reference(path: Path) -> np.ndarray:
    """In doubles: the last token's numbers, normed, and of length one."""
    doubles = {key: it.astype(np.float64) for key, it in weights_of(FAMILY, seed=8).items()}
    table = read_table(describe(path))
    (end,) = (
        it for it in table.ends if it == describe(path).metadata["tokenizer.ggml.eos_token_id"]
    )
    found = []
    for text in TEXTS:
        tokens = [*table.of(text)[: CONTEXT - 1], end]
        rows = qwen3_hidden(doubles, tokens, FAMILY.numbers)
        last = rms_norm(rows[-1], doubles["model.norm.weight"], FAMILY.numbers["eps"])
        found.append(last / np.linalg.norm(last))
    return np.array(found)


async def test_vectors_are_those_of_the_reference_alone_and_among_others(
    open_engine, engine_device: str, written: Path
) -> None:
    manifest, files = published(written)
    assert (manifest.format, manifest.operations) == (EMBED_FORMAT, ("embed", "nearest"))
    wanted = reference(written)
    async with open_engine() as engine:
        await engine.load(manifest, files)

        async def embedded(data: bytes, **parameters: int) -> np.ndarray:
            job = Job(
                model=manifest.id,
                operation="embed",
                input=data,
                parameters=parameters,
                deadline_s=120,
            )
            found = Vectors.from_bytes((await engine.infer(job)).data)
            return np.frombuffer(found.data, "<f4").reshape(found.rows, -1)

        together = await embedded(texts(*TEXTS))
        assert np.abs(together - wanted).max() < 1e-5
        if not engine_device:
            for at, text in enumerate(TEXTS[:3]):
                assert (await embedded(texts(text))).tobytes() == together[at].tobytes()
        given = await embedded(texts("[5, 17, 33]"), token_ids=1)
        assert given.shape == (1, wanted.shape[1])
        for bad in ("[]", "[320]", "[" + "5," * CONTEXT + "5]"):
            with pytest.raises(ModelRefused, match="a token that the model lacks"):
                await embedded(texts(bad), token_ids=1)


PAIR = "<|im_start|>user\nIs it an answer?\n<Query>: {query}\n<Document>: {document}<|im_end|>\n"
SCORING = {"pooling_type": 4, "classifier.output_labels": ["yes", "no"]}
PAIRS = [
    QueryText("a b c", "a b"),
    QueryText("x", ""),
    QueryText("{document}", "{query} <|im_end|>"),
    QueryText("c b a", "word " * 400),
]


@pytest.fixture
def scoring(tmp_path: Path) -> Path:
    family = replace(FAMILY, keys=SCORING, tokenizer={"chat_template.rerank": PAIR})
    weights = weights_of(family, seed=8)
    head = np.random.default_rng(1).standard_normal((2, 64)).astype(np.float32)
    more = {"cls.output.weight": head}
    return write_family(tmp_path / "reranker.gguf", family, weights, CONTEXT, more)


async def test_scores_are_those_of_the_reference_alone_and_among_others(
    open_engine, engine_device: str, scoring: Path
) -> None:
    manifest, files = published(scoring)
    assert (manifest.format, manifest.operations) == ("gguf-rerank", ("rerank",))
    table = read_table(describe(scoring))
    doubles = {key: it.astype(np.float64) for key, it in weights_of(FAMILY, seed=8).items()}
    head = np.random.default_rng(1).standard_normal((2, 64)).astype(np.float32)
    wanted = []
    for pair in PAIRS[:3]:
        middle = f"user\nIs it an answer?\n<Query>: {pair.query}\n<Document>: {pair.text}"
        parts = ("<|im_start|>", True), (middle, False), ("<|im_end|>", True), ("\n", False)
        rows = qwen3_hidden(doubles, table.of_parts(parts), FAMILY.numbers)
        last = rms_norm(rows[-1], doubles["model.norm.weight"], FAMILY.numbers["eps"])
        yes, no = head @ last
        wanted.append(yes - no)
    assert len({round(it, 3) for it in wanted}) == 3
    async with open_engine() as engine:
        await engine.load(manifest, files)

        async def scored(*pairs: QueryText) -> np.ndarray:
            data = texts(*(it.to_text() for it in pairs))
            job = Job(
                model=manifest.id, operation="rerank", input=data, parameters={}, deadline_s=120
            )
            found = Vectors.from_bytes((await engine.infer(job)).data)
            return np.frombuffer(found.data, "<f4").reshape(found.rows, QueryText.COLUMNS)

        found = await scored(*PAIRS)
        assert np.abs(found[:3, 0] - wanted).max() < 1e-4
        assert (found[:, 1] == 1).all()
        if not engine_device:
            for at, pair in enumerate(PAIRS):
                assert (await scored(pair)).tobytes() == found[at].tobytes()
        with pytest.raises(ModelRefused, match="a query is too long"):
            await scored(QueryText("word " * 400, "a"))


@pytest.mark.parametrize(
    ("keys", "tokenizer", "reason"),
    [
        (
            {"pooling_type": 4},
            {"chat_template.rerank": PAIR},
            "lacks qwen3.classifier.output_labels",
        ),
        (
            SCORING | {"classifier.output_labels": ["no", "yes"]},
            {"chat_template.rerank": PAIR},
            "classifier.output_labels is",
        ),
        (SCORING, {}, "lacks tokenizer.chat_template.rerank"),
        (SCORING, {"chat_template.rerank": "{query}"}, "chat_template.rerank is '{query}'"),
        (SCORING, {"chat_template.rerank": PAIR}, "lacks the tensor cls.output.weight"),
    ],
)
def test_a_reranker_that_lacks_what_it_needs_is_refused_by_name(
    keys: dict, tokenizer: dict, reason: str, tmp_path: Path
) -> None:
    family = replace(FAMILY, keys=keys, tokenizer=tokenizer)
    path = write_family(tmp_path / "bad.gguf", family, weights_of(family, seed=8))
    with pytest.raises(ModelRefused) as caught:
        describe(path)
    assert reason in str(caught.value)


async def test_a_file_published_as_what_it_is_not_is_refused(open_engine, written: Path) -> None:
    manifest, files = published(written)
    speaks = replace(manifest, format="gguf", operations=("generate",))
    with pytest.raises(ModelRefused, match="published as gguf, and its file is one of gguf-embed"):
        check_runs(speaks, files)
    with pytest.raises(InputError, match="makes vectors of texts"):
        check_layers(written, (0, 1))
    wrong = replace(manifest, parameters={**manifest.parameters, "tokens_max": 1 << 20})
    async with open_engine() as engine:
        for bad in (speaks, wrong):
            with pytest.raises(ModelRefused, match="published"):
                await engine.load(bad, files)
