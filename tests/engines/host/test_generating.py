"""A language model behind the engine: the same tokens alone and in any batch, resumed and cut."""

import json
import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import trio

from node.engines.formats.gguf import describe
from node.engines.host.engine import TinygradEngine
from node.engines.host.generation_job import AHEAD_MAX
from node.engines.interface import Job, Part
from tests.engines.tiny_gguf import TINY, gguf_manifest, write_gguf
from wire.errors import Malformed, ModelRefused, Refused, TooSlow
from wire.generation import Ending, Generation, Token, read_frames
from wire.message import Progress

END = TINY[-1] - 2
SCHEMA = {
    "type": "object",
    "properties": {"a": {"type": "integer", "minimum": 0, "maximum": 99}},
    "required": ["a"],
    "additionalProperties": False,
}
MESSAGES = [{"role": "user", "content": "hi"}]


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_gguf(tmp_path_factory.mktemp("lm") / "model.gguf", "qwen3", "q8_0", seed=7)


def asking(file: Path, prompt: str = "Once", **changes: object) -> Job:
    """A job; what is no parameter of sampling is part of the question."""
    asked = {"messages": "", "tools": "", "schema": "", "stop": ()}
    asked |= {name: changes.pop(name) for name in list(changes) if name in asked}
    if asked["messages"]:
        prompt = ""
    data = Generation(prompt=prompt, **asked).to_bytes()
    model = gguf_manifest(file)[0].id
    return Job(model=model, operation="generate", input=data, parameters=changes, deadline_s=60)


def read(data: bytes) -> tuple[list[Token], Ending]:
    *tokens, ending = read_frames(data)
    assert isinstance(ending, Ending)
    return tokens, ending


def many(file: Path) -> list[Job]:
    """Jobs of all lengths and kinds; more of them than there are slots."""
    return [
        asking(
            file,
            f"Story number {at} " * (1 + 7 * at % 5),
            tokens=9 + at,
            temperature=0.7 * (at % 3),
            seed=at,
            top_k=40 * (at % 2),
            logprobs=at % 3 - 1,
            presence_penalty=0.5 * (at % 2),
        )
        for at in range(12)
    ]


async def all_at_once(engine: TinygradEngine, jobs: list[Job]) -> list:
    found: dict[int, object] = {}

    async def ask(at: int) -> None:
        found[at] = await engine.infer(jobs[at])

    async with trio.open_nursery() as nursery:
        for at in range(len(jobs)):
            nursery.start_soon(ask, at)
    return [found[at] for at in range(len(jobs))]


@pytest.mark.own_device
async def test_each_answer_is_the_same_alone_in_a_batch_and_after_a_crash(
    open_engine, file: Path
) -> None:
    jobs = many(file)
    async with open_engine() as engine:
        await engine.load(*gguf_manifest(file))
        alone = [await engine.infer(job) for job in jobs]
        assert await all_at_once(engine, jobs) == alone
        assert sum(output.units for output in alone) > 100

        async def kill() -> None:
            done = engine.statistics().units_done
            while engine.statistics().units_done < done + 40:
                await trio.sleep(0.001)
            os.kill(engine.worker_ids[jobs[0].model], signal.SIGKILL)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(kill)
            assert await all_at_once(engine, jobs) == alone
        assert engine.statistics().restarts == 1
        assert engine.statistics().units_queued == 0


async def test_tokens_come_one_by_one_with_their_numbers(open_engine, file: Path) -> None:
    parts: list[Part] = []

    async def emit(part: Part) -> None:
        parts.append(part)

    async with open_engine() as engine:
        loaded = await engine.load(*gguf_manifest(file))
        assert loaded.units_per_s > loaded.job_units_per_s > 0
        output = await engine.infer(asking(file, tokens=8, logprobs=3), emit)
    assert [(part.position, part.units) for part in parts] == [(at, 1) for at in range(8)]
    assert b"".join(part.data for part in parts) == output.data
    tokens, ending = read(output.data)
    assert (ending.reason, ending.tokens, ending.prompt_tokens) == ("length", 8, 4)
    assert ending.text_bytes == sum(len(token.text) for token in tokens)
    for token in tokens:
        # Greedy: the first alternative is the token itself.
        assert token.top[0].logprob_millionths == token.logprob_millionths
        assert len(token.top) == 3
        assert token.logprob_millionths < 0


@pytest.mark.parametrize("wrong", [None, 0, 3, 6])
async def test_a_run_begun_elsewhere_goes_on_and_what_was_wrong_is_said_anew(
    open_engine, file: Path, wrong: int | None
) -> None:
    job = asking(file, "Anew", tokens=24, temperature=1.0, seed=2)
    async with open_engine() as engine:
        await engine.load(*gguf_manifest(file))
        whole = await engine.infer(job)
    tokens, _ = read(whole.data)
    frames = [
        whole.data[at : at + 3 + int.from_bytes(whole.data[at + 1 : at + 3], "big")]
        for at in starts(whole.data)
    ]
    shown = list(frames[:7])
    if wrong is not None:
        shown[wrong] = frames[wrong + 1]
        assert tokens[wrong].id != tokens[wrong + 1].id
    parts: list[Part] = []

    async def emit(part: Part) -> None:
        parts.append(part)

    # Another process, with nothing of the first but its files.
    async with open_engine() as engine:
        await engine.load(*gguf_manifest(file))
        resumed = replace(job, resume=Progress(units=7, data=b"".join(shown)))
        assert await engine.infer(resumed, emit) == whole
    first = 7 if wrong is None else wrong
    assert [part.position for part in parts] == list(range(first, 24))
    assert b"".join(part.data for part in parts) == b"".join(frames[first:])


def starts(data: bytes) -> list[int]:
    found, at = [], 0
    while at < len(data):
        found.append(at)
        at += 3 + int.from_bytes(data[at + 1 : at + 3], "big")
    return found


async def test_an_answer_ends_at_a_stop_sequence_over_tokens_and_at_the_models_own_end(
    open_engine, tmp_path: Path, file: Path
) -> None:
    async with open_engine() as engine:
        await engine.load(*gguf_manifest(file))
        tokens, _ = read((await engine.infer(asking(file, tokens=40, temperature=1.5))).data)
        text = b"".join(token.text for token in tokens)
        readable = [at for at in range(len(text) - 2) if text[at : at + 3].isascii()]
        wanted = text[readable[4] : readable[4] + 3]
        stopped = await engine.infer(
            asking(file, tokens=40, temperature=1.5, stop=(wanted.decode(), "no such thing"))
        )
        short, ending = read(stopped.data)
        assert ending.reason == "stop"
        assert ending.text_bytes == text.index(wanted)
        assert short == tokens[: len(short)]
        assert sum(len(token.text) for token in short[:-1]) < ending.text_bytes + 3
        ended = await engine.infer(asking(file, tokens=256, temperature=4.0, seed=1))
        tokens, ending = read(ended.data)
        assert ending.reason == "stop"
        assert tokens[-1].id in (END, END + 1)
        assert tokens[-1].text == b""


async def test_a_schema_is_kept_to_and_one_that_nothing_fits_is_refused(
    open_engine, file: Path
) -> None:
    async with open_engine() as engine:
        await engine.load(*gguf_manifest(file))
        for seed in range(3):
            output = await engine.infer(
                asking(file, tokens=120, temperature=1.0, seed=seed, schema=json.dumps(SCHEMA))
            )
            tokens, ending = read(output.data)
            answer = json.loads(b"".join(token.text for token in tokens))
            assert set(answer) == {"a"}
            assert 0 <= answer["a"] <= 99
            assert ending.reason == "stop"
        for schema in ('{"type":"integer","minimum":5,"maximum":3}', '{"type":"nonsense"}', "["):
            with pytest.raises(ModelRefused, match="schema"):
                await engine.infer(asking(file, schema=schema, tokens=9))


async def test_messages_go_through_the_models_template_with_tools(open_engine, file: Path) -> None:
    tools = [{"type": "function", "function": {"name": "look"}}]
    async with open_engine() as engine:
        await engine.load(*gguf_manifest(file))
        told = asking(file, messages=json.dumps(MESSAGES), tokens=4)
        plain = asking(file, "[user] hi\n[assistant] ", tokens=4)
        assert await engine.infer(told) == await engine.infer(plain)
        told = asking(file, messages=json.dumps(MESSAGES), tools=json.dumps(tools), tokens=4)
        plain = asking(file, f"[user] hi\n{json.dumps(tools)}\n[assistant] ", tokens=4)
        assert await engine.infer(told) == await engine.infer(plain)


async def test_what_cannot_be_answered_is_refused_and_nobody_else_suffers(
    open_engine, file: Path
) -> None:
    bad = {
        "has 300 tokens; the context has 256": asking(file, "\n\t" * 150, tokens=4),
        "'tokens'": asking(file, tokens=-1),
        "'temperature'": asking(file, temperature=-0.5),
        "not JSON": asking(file, messages="[{"),
        "not a JSON array": asking(file, messages="{}"),
    }
    outcomes = {}
    async with open_engine() as engine:
        await engine.load(*gguf_manifest(file))
        good = await engine.infer(asking(file, tokens=30))

        async def ask(words: str) -> None:
            with pytest.raises(ModelRefused, match=words) as caught:
                await engine.infer(bad[words])
            outcomes[words] = caught

        async with trio.open_nursery() as nursery:
            for words in bad:
                nursery.start_soon(ask, words)
            assert await engine.infer(asking(file, tokens=30)) == good
        assert set(outcomes) == set(bad)
        with pytest.raises(Malformed):
            await engine.infer(replace(asking(file), input=b"\x00"))
        with pytest.raises(TooSlow):
            await engine.infer(replace(asking(file, tokens=200), deadline_s=0.0))
        statistics = engine.statistics()
        assert (statistics.restarts, statistics.jobs_queued) == (0, 0)


async def test_who_takes_no_tokens_holds_up_nobody_and_who_goes_leaves_the_slot(
    open_engine, file: Path
) -> None:
    jobs = [asking(file, f"Once {at}", tokens=160) for at in range(24)]
    async with open_engine(jobs_max=8) as engine:
        await engine.load(*gguf_manifest(file))
        good = await engine.infer(asking(file, tokens=100))
        # Such as do not end by themselves, one for each slot.
        long = [job for job in jobs if (await engine.infer(job)).units == 160][:8]
        assert len(long) == 8
        done = engine.statistics().units_done

        async def never(part: Part) -> None:
            await trio.sleep_forever()

        async with trio.open_nursery() as nursery:
            for job in long:
                nursery.start_soon(engine.infer, job, never)
            # So many wait to be taken, and no more are made.
            while engine.statistics().units_done < done + 8 * AHEAD_MAX:
                await trio.sleep(0.001)
            with pytest.raises(Refused, match="full"):
                await engine.infer(asking(file, tokens=1))
            nursery.cancel_scope.cancel()
        assert await engine.infer(asking(file, tokens=100)) == good
        assert engine.statistics().jobs_queued == 0


@pytest.mark.own_device
async def test_a_model_beyond_the_memory_is_refused_before_it_is_read(
    open_engine, file: Path
) -> None:
    async with open_engine(memory_bytes_max=300 << 20) as engine:
        with pytest.raises(ModelRefused, match="MiB of memory"):
            await engine.load(*gguf_manifest(file))


async def test_a_template_that_never_ends_is_refused_and_no_worker_ends(
    open_engine, tmp_path: Path, file: Path
) -> None:
    endless = "{% for a in range(9999) %}{% for b in range(9999) %}{% endfor %}{% endfor %}"
    bad = write_gguf(tmp_path / "bad.gguf", seed=7, chat=endless)
    messages = json.dumps(MESSAGES)
    async with open_engine() as engine:
        await engine.load(*gguf_manifest(file))
        await engine.load(*gguf_manifest(bad, "bad"))
        model = gguf_manifest(bad, "bad")[0].id
        asked = replace(asking(file, messages=messages, tokens=4), model=model)
        with pytest.raises(ModelRefused, match="does too much"):
            await engine.infer(asked)
        assert (await engine.infer(asking(file, tokens=4))).units == 4
        plain = replace(asking(file, tokens=4), model=model)
        assert (await engine.infer(plain)).units == 4
        assert engine.statistics().restarts == 0


# It compiles a model of its own.
@pytest.mark.soak
async def test_a_conversation_beyond_the_memory_is_refused_with_both_numbers(
    open_engine, tmp_path: Path
) -> None:
    long = write_gguf(tmp_path / "long.gguf", seed=7, context=9000, sizes=(32, 1, 32, 2, 1, 300))
    manifest, files = gguf_manifest(long, "long")
    manifest = replace(manifest, parameters={"context": 9000})
    model = describe(long)
    # As old manifests say nothing, their context is 4,096.
    assert replace(model, context_max=4096).context == 4096
    # Of the pages that fit, those of two conversations.
    fewer = model.memory_bytes - (model.pages - 70) * model.page_bytes
    asked = replace(asking(long, "Once", tokens=20), model=manifest.id)
    async with open_engine(memory_bytes_max=fewer) as engine:
        await engine.load(manifest, files)
        with pytest.raises(ModelRefused, match=r"answer may have 8500; .* memory for 8192 of both"):
            await engine.infer(replace(asked, parameters={"tokens": 8500}))
        assert (await engine.infer(asked)).units == 20
        assert engine.statistics().pages[manifest.id] == (0, 64)
        tokens = tuple(3 + at % 200 for at in range(4500))
        prompt = Generation(
            prompt="", messages="", tools="", schema="", stop=(), prompt_tokens=tokens
        )
        _, ending = read((await engine.infer(replace(asked, input=prompt.to_bytes()))).data)
        assert (ending.prompt_tokens, ending.tokens) == (4500, 20)


@pytest.mark.parametrize(("length", "made"), [(255, 1), (254, 2)])
async def test_a_prompt_as_long_as_the_context_leaves_room_for_what_is_left(
    open_engine, file: Path, length: int, made: int
) -> None:
    tokens = tuple(3 + at % 200 for at in range(length))
    asked = Generation(prompt="", messages="", tools="", schema="", stop=(), prompt_tokens=tokens)
    job = replace(asking(file, tokens=9, ignore_eos=1), input=asked.to_bytes())
    async with open_engine() as engine:
        await engine.load(*gguf_manifest(file))
        _, ending = read((await engine.infer(job)).data)
        assert (ending.prompt_tokens, ending.tokens) == (length, made)
        full = replace(asked, prompt_tokens=(*tokens, 3, 3)[:256])
        if len(full.prompt_tokens) == 256:
            with pytest.raises(ModelRefused, match="has 256 tokens; the context has 256"):
                await engine.infer(replace(job, input=full.to_bytes()))
