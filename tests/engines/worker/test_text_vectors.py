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
from wire.payload import Vectors

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
