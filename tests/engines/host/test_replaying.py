"""A claimed answer judged by a language model behind the engine: at once, and token by token."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import trio

from node.engines.host.engine import TinygradEngine
from node.engines.interface import REPLAY, Job
from node.engines.margins import limits_of, statistics_of, too_far
from node.engines.replay import JudgedAnswer, request, sketch_distances, told_otherwise
from node.engines.sampler import MARGIN_MAX, Sampling
from tests.engines.host.test_generating import END, MESSAGES, SCHEMA, asking, many, read
from tests.engines.opencl import CL, need_opencl
from tests.engines.tiny_gguf import gguf_manifest, write_gguf
from wire.calibration import BUILT_IN
from wire.errors import Malformed, ModelRefused
from wire.generation import Generation, Sketch, Token, TokenBias, read_frames, to_frame
from wire.message import Progress

pytestmark = pytest.mark.own_device


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_gguf(tmp_path_factory.mktemp("lm") / "model.gguf", "qwen3", "q8_0", seed=7)


def judging(job: Job, output: bytes, slack: float = 0.0) -> Job:
    """A job that judges this output of another one."""
    return replace(job, operation=REPLAY, input=request(job.input, output, slack).to_bytes())


async def judged(engine: TinygradEngine, job: Job, output: bytes) -> tuple[list[float], str]:
    """The margins of an output's tokens, and what it tells otherwise than the model."""
    found = JudgedAnswer.from_bytes((await engine.infer(judging(job, output))).data)
    return found.each, told_otherwise(output, found)


def odd(file: Path) -> list[Job]:
    """Jobs whose next token is not only a matter of logits."""
    biased = asking(file, tokens=12, temperature=1.0, seed=4)
    asked = replace(
        Generation.from_bytes(biased.input), bias=(TokenBias(token=40, millionths=3_000_000),)
    )
    return [
        asking(file, messages=json.dumps(MESSAGES), schema=json.dumps(SCHEMA), tokens=40),
        asking(file, tokens=20, temperature=0.9, top_p=0.8, seed=8),
        asking(file, tokens=20, temperature=0.9, min_p=0.02, seed=9),
        asking(file, tokens=30, temperature=1.0, repetition_penalty=1.3, frequency_penalty=0.4),
        asking(file, tokens=9, ignore_eos=1, min_tokens=4, temperature=3.0, seed=5),
        asking(file, "Once upon a time", tokens=6, echo=1, logprobs=2),
        asking(file, "Once upon a time", tokens=6, echo=1),
        asking(file, "Once upon a time", tokens=0, echo=1, logprobs=1),
        asking(file, tokens=0),
        asking(file, tokens=60, temperature=1.0, seed=3, stop=("e", "a")),
        asking(file, "word " * 30, tokens=60, temperature=1.0, seed=6, logprobs=0),
        replace(biased, input=asked.to_bytes()),
    ]


async def test_what_the_model_answered_has_no_margins_alone_and_among_others(
    open_engine, file: Path
) -> None:
    jobs = [*many(file)[:5], *odd(file)]
    async with open_engine() as engine:
        await engine.load(*gguf_manifest(file))
        outputs = [(await engine.infer(job)).data for job in jobs]
        for job, output in zip(jobs, outputs, strict=True):
            margins, otherwise = await judged(engine, job, output)
            tokens = [it for it in read_frames(output) if isinstance(it, Token)]
            assert (margins, otherwise) == ([0.0] * len(tokens), "")
        assert sum(len(output) for output in outputs) > 1000

        async def once_more(job: Job, output: bytes) -> None:
            assert (await engine.infer(job)).data == output

        async def judge(job: Job, output: bytes) -> None:
            margins, otherwise = await judged(engine, job, output)
            assert not any(margins)
            assert not otherwise

        async with trio.open_nursery() as nursery:
            for job, output in zip(jobs, outputs, strict=True):
                nursery.start_soon(once_more, job, output)
                nursery.start_soon(judge, job, output)
        assert engine.statistics().units_queued == 0


async def test_each_altered_token_has_a_margin_and_those_before_it_have_none(
    open_engine, file: Path
) -> None:
    async with open_engine() as engine:
        await engine.load(*gguf_manifest(file))
        for job in (asking(file, tokens=20), asking(file, tokens=20, temperature=1.0, seed=2)):
            output = (await engine.infer(job)).data
            tokens, ending = read(output)
            for at in (0, 7, len(tokens) - 1):
                other = 40 if tokens[at].id != 40 else 41
                lie = [*tokens[:at], replace(tokens[at], id=other), *tokens[at + 1 :]]
                false = b"".join(map(to_frame, [*lie, ending]))
                margins, otherwise = await judged(engine, job, false)
                assert margins[:at] == [0.0] * at
                assert margins[at] > 0.01
                assert otherwise.startswith(f"token {at}: its text")


async def test_another_seed_temperature_or_prompt_is_far_off(open_engine, file: Path) -> None:
    honest = asking(file, "Once upon a time", tokens=30, temperature=1.0, seed=1, ignore_eos=1)
    async with open_engine() as engine:
        await engine.load(*gguf_manifest(file))
        for lie in (
            asking(file, "Once upon a time", tokens=30, temperature=1.0, seed=2, ignore_eos=1),
            asking(file, "Once upon a time", tokens=30, ignore_eos=1),
            asking(file, "upon a time", tokens=30, temperature=1.0, seed=1, ignore_eos=1),
        ):
            margins, _ = await judged(engine, honest, (await engine.infer(lie)).data)
            assert sum(min(it, 0.25) for it in margins) > 1


async def test_an_answer_that_ends_early_late_or_otherwise_is_told(open_engine, file: Path) -> None:
    job = asking(file, tokens=20, temperature=1.0, seed=2, logprobs=1)
    async with open_engine() as engine:
        await engine.load(*gguf_manifest(file))
        output = (await engine.infer(job)).data
        tokens, ending = read(output)

        async def otherwise(*pieces: object) -> str:
            return (await judged(engine, job, b"".join(map(to_frame, pieces))))[1]

        early = replace(ending, tokens=9, text_bytes=sum(len(it.text) for it in tokens[:9]))
        assert "does not end there" in await otherwise(*tokens[:9], early)
        late = replace(ending, tokens=21)
        assert "cannot go on" in await otherwise(*tokens, tokens[-1], late)
        assert "does not end" in await otherwise(*tokens, replace(ending, reason="stop"))
        assert "does not end" in await otherwise(*tokens, replace(ending, text_bytes=3))
        assert "no ending" in await otherwise(*tokens)
        assert "no ending" in (await judged(engine, job, b""))[1]
        strange = replace(tokens[4], id=1 << 20)
        assert "token 4" in await otherwise(*tokens[:4], strange, *tokens[5:], ending)
        likely = replace(tokens[3], logprob_millionths=0)
        assert "token 3: its probability" in await otherwise(
            *tokens[:3], likely, *tokens[4:], ending
        )
        bare = replace(tokens[3], top=())
        assert "token 3: its alternatives" in await otherwise(
            *tokens[:3], bare, *tokens[4:], ending
        )
        assert not await otherwise(*tokens, ending)


async def test_a_token_that_the_schema_forbids_cannot_be(open_engine, file: Path) -> None:
    job = asking(file, messages=json.dumps(MESSAGES), schema=json.dumps(SCHEMA), tokens=30)
    async with open_engine() as engine:
        await engine.load(*gguf_manifest(file))
        tokens, ending = read((await engine.infer(job)).data)
        lie = [tokens[0], replace(tokens[1], id=END), *tokens[2:], ending]
        margins, _ = await judged(engine, job, b"".join(map(to_frame, lie)))
        assert margins[1] >= MARGIN_MAX


async def test_what_is_no_claim_is_refused_and_the_engine_goes_on(open_engine, file: Path) -> None:
    job = asking(file, tokens=4)
    async with open_engine() as engine:
        await engine.load(*gguf_manifest(file))
        output = (await engine.infer(job)).data
        with pytest.raises(Malformed):
            await engine.infer(replace(job, operation=REPLAY, input=b"\x00"))
        with pytest.raises(Malformed):
            request(job.input, output[:-2], 0.0)
        with pytest.raises(ModelRefused, match="top_p"):
            await engine.infer(replace(judging(job, output), parameters={"top_p": 7}))
        assert (await judged(engine, job, output))[1] == ""


@pytest.mark.soak
@pytest.mark.parametrize("device", ["CL", "CPU:X86", "CPU:LLVM"])
async def test_what_another_device_answered_is_no_false_alarm(
    open_engine, file: Path, device: str
) -> None:
    if device == CL:
        need_opencl()
    jobs = [it for it in [*many(file), *odd(file)] if not Sampling.of(it.parameters).echo]
    async with open_engine(device=device) as provider:
        await provider.load(*gguf_manifest(file))
        outputs = [(await provider.infer(job)).data for job in jobs]
        profile = provider.ready(jobs[0].model).profile
    tokens = 0
    async with open_engine() as verifier:
        await verifier.load(*gguf_manifest(file))
        assert verifier.ready(jobs[0].model).profile != profile
        for job, output in zip(jobs, outputs, strict=True):
            slack = BUILT_IN.slack_millionths / 1e6
            done = await verifier.infer(judging(job, output, slack))
            found = JudgedAnswer.from_bytes(done.data)
            tokens += found.positions
            limits = limits_of(BUILT_IN, found.positions)
            assert too_far(statistics_of(found.each, BUILT_IN), limits) == ""
            assert told_otherwise(output, found) == ""
    assert tokens > 200


async def test_a_sketch_is_the_same_from_generation_and_from_replay(
    open_engine, file: Path
) -> None:
    jobs = [
        asking(file, tokens=40, temperature=1.0, sketch=1, ignore_eos=1),
        asking(file, tokens=6, sketch=1, echo=1, logprobs=1, ignore_eos=1),
    ]
    async with open_engine() as engine:
        await engine.load(*gguf_manifest(file))
        alone = [(await engine.infer(job)).data for job in jobs]
        together: dict[int, bytes] = {}

        async def one(at: int) -> None:
            together[at] = (await engine.infer(jobs[at])).data

        async with trio.open_nursery() as nursery:
            for at in range(len(jobs)):
                nursery.start_soon(one, at)
        for at, (job, output) in enumerate(zip(jobs, alone, strict=True)):
            assert together[at] == output
            (sketch,) = [it for it in read_frames(output) if isinstance(it, Sketch)]
            assert len(sketch.chunks) == (68, 34)[at]
            found = JudgedAnswer.from_bytes((await engine.infer(judging(job, output))).data)
            assert not any(found.each)
            assert told_otherwise(output, found, 1e-6) == ""
            assert sketch_distances(output, found) == [0.0] * (2, 1)[at]
        # Whoever asks for none has none, also beside one who asks.
        plain = replace(jobs[0], parameters=dict(jobs[0].parameters) | {"sketch": 0})
        output = (await engine.infer(plain)).data
        assert not [it for it in read_frames(output) if isinstance(it, Sketch)]
        assert (await judged(engine, plain, output))[1] == ""


async def test_a_stream_that_another_went_on_with_is_judged_as_the_unbroken_one(
    open_engine, file: Path
) -> None:
    job = asking(file, tokens=40, temperature=1.0, seed=5, sketch=1, ignore_eos=1)
    async with open_engine() as engine:
        await engine.load(*gguf_manifest(file))
        whole = (await engine.infer(job)).data
        tokens, _ = read(whole)
        shown = b"".join(map(to_frame, tokens[:20]))
        resumed = replace(job, resume=Progress(units=20, data=shown))
        assert (await engine.infer(resumed)).data == whole
        found = JudgedAnswer.from_bytes((await engine.infer(judging(job, whole))).data)
        assert (sum(found.each), told_otherwise(whole, found, 1e-6)) == (0.0, "")
        # What the first one showed falsely is not gone on with, so that nobody signs for it.
        lie = [*tokens[:7], replace(tokens[7], id=tokens[8].id), *tokens[8:20]]
        lied = replace(job, resume=Progress(units=20, data=b"".join(map(to_frame, lie))))
        assert (await engine.infer(lied)).data == whole
