"""What every engine that generates promises of claimed answers."""

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from node.engines.hash_engine import HashEngine, hash_manifest
from node.engines.interface import REPLAY, Engine, Job
from node.engines.replay import JudgedAnswer, request, told_otherwise
from node.engines.sampler import MARGIN_MAX
from tests.engines.opencl import CL, need_opencl
from tests.engines.tiny_gguf import gguf_manifest, write_gguf
from wire.errors import Malformed, ModelNotLoaded, TooSlow
from wire.generation import Ending, Generation, Token, read_frames, to_frame

TOKENS = 9
ON_OPENCL = "tinygrad on OpenCL"
pytestmark = pytest.mark.own_device


class Bench:
    """An engine with a model that generates."""

    def __init__(self, engine: Engine, manifest: Any) -> None:
        self.engine = engine
        self.manifest = manifest

    def job(self, **changes: Any) -> Job:
        asked = Generation(prompt="Once", messages="", tools="", schema="", stop=())
        job = Job(
            model=self.manifest.id,
            operation="generate",
            input=asked.to_bytes(),
            parameters={"tokens": TOKENS},
            deadline_s=60,
        )
        return replace(job, **changes)

    def judging(self, output: bytes, **changes: Any) -> Job:
        asked = request(self.job().input, output, 0.0).to_bytes()
        return self.job(operation=REPLAY, input=asked, **changes)

    async def judged(self, output: bytes) -> tuple[list[float], str]:
        done = await self.engine.infer(self.judging(output))
        found = JudgedAnswer.from_bytes(done.data)
        assert done.units == found.positions == len(found.each)
        return found.each, told_otherwise(output, found)


@pytest.fixture(params=["hash", "tinygrad", pytest.param(ON_OPENCL, marks=pytest.mark.soak)])
async def bench(request, tmp_path: Path, open_engine) -> AsyncIterator[Bench]:
    if request.param == "hash":
        engine = HashEngine()
        await engine.load(hash_manifest(), {})
        yield Bench(engine, hash_manifest())
        return
    device = {}
    if request.param == ON_OPENCL:
        need_opencl()
        device = {"device": CL}
    manifest, files = gguf_manifest(write_gguf(tmp_path / "model.gguf", "qwen3", "q8_0", seed=7))
    async with open_engine(**device) as opened:
        await opened.load(manifest, files)
        yield Bench(opened, manifest)


async def test_an_honest_answer_misses_nothing_and_an_altered_one_does(bench: Bench) -> None:
    output = (await bench.engine.infer(bench.job())).data
    *tokens, ending = read_frames(output)
    assert isinstance(ending, Ending)
    margins, otherwise = await bench.judged(output)
    assert len(margins) == len(tokens)
    # A GPU may add in another order in passes of other sizes.
    assert max(margins) < 1e-3
    assert otherwise == ""
    first = tokens[0]
    assert isinstance(first, Token)
    lie = [replace(first, id=(first.id + 1) % 256), *tokens[1:], ending]
    margins, otherwise = await bench.judged(b"".join(map(to_frame, lie)))
    assert margins[0] > 1e-3
    assert "token 0" in otherwise


async def test_what_is_beyond_the_end_or_no_token_is_told_and_not_refused(bench: Bench) -> None:
    output = (await bench.engine.infer(bench.job())).data
    *tokens, ending = read_frames(output)
    longer = b"".join(map(to_frame, [*tokens, *tokens, ending]))
    margins, otherwise = await bench.judged(longer)
    assert len(margins) < 2 * len(tokens)
    assert otherwise
    strange = b"".join(map(to_frame, [replace(it, id=2**32 - 1) for it in tokens]))
    margins, otherwise = await bench.judged(strange + to_frame(ending))
    assert all(it >= MARGIN_MAX for it in margins)
    assert otherwise


async def test_a_claim_that_is_none_is_Malformed_and_deadlines_and_models_count(
    bench: Bench,
) -> None:
    output = (await bench.engine.infer(bench.job())).data
    with pytest.raises(Malformed):
        await bench.engine.infer(bench.job(operation=REPLAY))
    with pytest.raises(TooSlow):
        await bench.engine.infer(bench.judging(output, deadline_s=0.0))
    assert bench.engine.statistics().jobs_queued == 0
    assert (await bench.judged(output))[1] == ""
    await bench.engine.unload(bench.manifest.id)
    with pytest.raises(ModelNotLoaded):
        await bench.engine.infer(bench.judging(output))
