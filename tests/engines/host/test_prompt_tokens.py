"""What a real model tells of a prompt, and what a request's wishes do to its answer."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from node.engines.host.engine import TinygradEngine
from node.engines.interface import TOKEN_COUNTS, TOKEN_IDS, Job
from tests.engines.conftest import OpenEngine
from tests.engines.tiny import texts, write_tiny
from tests.engines.tiny_gguf import gguf_manifest, write_gguf
from wire.content import ContentId
from wire.errors import ModelRefused
from wire.generation import Ending, Generation, PromptToken, Token, TokenBias, read_frames
from wire.payload import Vectors

PROMPT = "😀 of the moon"


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_gguf(tmp_path_factory.mktemp("lm") / "tiny.gguf", seed=7)


@dataclass(frozen=True, slots=True)
class Told:
    prompt: list[PromptToken]
    tokens: list[Token]
    ending: Ending


async def told(
    engine: TinygradEngine, model: ContentId, parameters: dict[str, Any], **asked: Any
) -> Told:
    fields = {"prompt": "", "messages": "", "tools": "", "schema": "", "stop": ()} | asked
    job = Job(
        model=model,
        operation="generate",
        input=Generation(**fields).to_bytes(),
        parameters=parameters,
        deadline_s=60,
    )
    *pieces, ending = read_frames((await engine.infer(job)).data)
    assert isinstance(ending, Ending)
    return Told(
        [it for it in pieces if isinstance(it, PromptToken)],
        [it for it in pieces if isinstance(it, Token)],
        ending,
    )


async def test_a_prompt_is_told_with_its_probabilities(open_engine: OpenEngine, file: Path) -> None:
    async with open_engine() as engine:
        model = (await engine.load(*gguf_manifest(file))).model

        plain = await told(engine, model, {"tokens": 0, "echo": 1}, prompt=PROMPT)
        assert (plain.tokens, plain.ending.tokens) == ([], 0)
        assert b"".join(it.text for it in plain.prompt).decode() == PROMPT
        assert plain.ending.prompt_tokens == len(plain.prompt)

        ids = tuple(it.id for it in plain.prompt)
        scored = await told(
            engine, model, {"tokens": 0, "echo": 1, "logprobs": 5}, prompt_tokens=ids
        )
        assert [it.id for it in scored.prompt] == list(ids)
        assert scored.prompt[0].logprob_millionths is None
        assert all(len(it.top) == 5 and it.logprob_millionths for it in scored.prompt[1:])

        # What a prompt's token had as its chance is what it has as an answer's.
        again = await told(engine, model, {"tokens": 3, "echo": 1, "logprobs": 5}, prompt=PROMPT)
        assert again.prompt == scored.prompt
        longer = (*ids, *(it.id for it in again.tokens))
        asked = {"tokens": 0, "echo": 1, "logprobs": 5}
        whole = await told(engine, model, asked, prompt_tokens=longer)
        pairs = list(zip(whole.prompt[len(ids) :], again.tokens, strict=True))
        assert [it.logprob_millionths for it, _ in pairs] == [
            it.logprob_millionths for _, it in pairs
        ]

        with pytest.raises(ModelRefused, match="512 tokens"):
            await told(engine, model, {"tokens": 1}, prompt_tokens=(99_999,))


async def test_wishes_change_the_answer(open_engine: OpenEngine, file: Path) -> None:
    async with open_engine() as engine:
        model = (await engine.load(*gguf_manifest(file))).model
        greedy = await told(engine, model, {"tokens": 6}, prompt=PROMPT)
        first = greedy.tokens[0].id
        banned = (TokenBias(token=first, millionths=-100_000_000),)
        other = await told(engine, model, {"tokens": 6}, prompt=PROMPT, bias=banned)
        assert first not in [it.id for it in other.tokens]
        ids = [it.id for it in greedy.tokens]
        penalised = await told(
            engine, model, {"tokens": 40, "repetition_penalty": 100.0}, prompt="a a a a"
        )
        assert len({it.id for it in penalised.tokens}) == len(penalised.tokens)
        assert len(ids) == 6
        ended = await told(engine, model, {"tokens": 40, "ignore_eos": 1}, prompt=PROMPT)
        assert (ended.ending.reason, ended.ending.tokens) == ("length", 40)
        names = await told(
            engine, model, {"tokens": 0, "echo": 1}, messages='[{"role":"user","content":"x"}]'
        )
        assert names.prompt


async def test_embeddings_count_tokens_and_take_them(
    open_engine: OpenEngine, tmp_path: Path
) -> None:
    async with open_engine() as engine:
        manifest, files = write_tiny(tmp_path)
        await engine.load(manifest, files)

        async def embedded(data: bytes, **parameters: int) -> Vectors:
            job = Job(
                model=manifest.id,
                operation="embed",
                input=data,
                parameters=parameters,
                deadline_s=60,
            )
            return Vectors.from_bytes((await engine.infer(job)).data)

        plain = await embedded(texts("one two"))
        assert plain.tokens == ()
        counted = await embedded(texts("one two", "one"), **{TOKEN_COUNTS: 1})
        assert len(counted.tokens) == 2
        assert counted.tokens[0] > counted.tokens[1] > 1
        ids = await embedded(texts("[5, 6, 7]"), **{TOKEN_COUNTS: 1, TOKEN_IDS: 1})
        assert ids.tokens == (5,)
        assert np.isfinite(np.frombuffer(ids.data, "<f4")).all()
        for bad in ("[99999999]", "[-1]", "words"):
            with pytest.raises(ModelRefused, match="token"):
                await embedded(texts(bad), **{TOKEN_IDS: 1})
