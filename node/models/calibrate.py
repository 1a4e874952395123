"""Measures how far honest engines of several profiles are apart, for one language model.

One engine answers, eight at a time, and another judges what the first one answered before. What was
measured is written to a file after each batch, so that a measurement that ended goes on.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import trio

from node.engines.calibrating import CALIBRATING_ONE_IN, SLACK_LEAST, HonestAnswer
from node.engines.interface import REPLAY, Engine, Job
from node.engines.replay import JudgedAnswer, request, sketch_distances, told_otherwise
from wire.content import ContentId
from wire.errors import BatonError, InputError
from wire.generation import Generation, Token, read_frames
from wire.model import Manifest
from wire.operations import GENERATE

AT_ONCE = 8
TOKENS_EACH = 256
WORDS_MIN, WORDS_MAX = 8, 80
CONTEXT_UNKNOWN = 4096
# A batch takes half a minute of one core; a machine that is loaded takes far longer.
DEADLINE_S = 3600.0
TEMPERATURES = (1.0, 1.0, 0.7, 0.0)
# Of so many answers, one has the logarithms of its probabilities told.
DRIFT_ONE_IN = 4
FILE_BYTES_MAX = 64 << 20
# How far a sketch is off is measured, not judged.
SKETCH_ANY = float("inf")


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """Who answers, and who judges: both have the model ready.

    `name` is whom the answers are said to be of; empty: the provider's profile.
    """

    provider: Engine
    verifier: Engine
    manifest: Manifest
    name: str = ""

    def profile_of(self, engine: Engine) -> str:
        """What the engine says it runs the model as."""
        loaded = engine.ready(self.manifest.id)
        assert loaded is not None, "the model is loaded"
        return loaded.profile


def job_of(manifest: Manifest, texts: Sequence[str], number: int) -> Job:
    """The question number so and so: a piece of a text, as it is or as a chat, and how to draw."""
    turn = number // CALIBRATING_ONE_IN
    words = texts[turn % len(texts)].split()
    first = turn * 37 % max(1, len(words) - WORDS_MAX)
    text = " ".join(words[first : first + WORDS_MIN + turn * 13 % (WORDS_MAX - WORDS_MIN)])
    chats = bool(manifest.parameters.get("chat")) and turn % 2
    asked = Generation(
        prompt="" if chats else text,
        messages=json.dumps([{"role": "user", "content": f"Go on: {text}"}]) if chats else "",
        tools="",
        schema="",
        stop=(),
    )
    parameters: dict[str, int | float] = {
        "tokens": tokens_each(manifest),
        "ignore_eos": 1,
        "temperature": TEMPERATURES[turn // 2 % len(TEMPERATURES)],
        "seed": number,
        "sketch": 1,
    }
    if turn % DRIFT_ONE_IN == 0:
        parameters |= {"logprobs": 0, "top_p": 0.95}
    return Job(
        model=manifest.id,
        operation=GENERATE,
        input=asked.to_bytes(),
        parameters=dict(parameters),
        deadline_s=DEADLINE_S,
    )


def tokens_each(manifest: Manifest) -> int:
    """How many tokens an answer has: as many as are judged together, or what the context holds."""
    context = manifest.parameters.get("context")
    room = context if type(context) is int and context > 0 else CONTEXT_UNKNOWN
    return max(1, min(TOKENS_EACH, room // 2))


async def measure(
    pair: Pair,
    texts: Sequence[str],
    numbers: Sequence[int],
    heard: Callable[[list[HonestAnswer]], None],
) -> None:
    """Have these questions answered and judged; `heard` is told of each batch. EngineError."""
    send, receive = trio.open_memory_channel[tuple[list[Job], list[bytes]]](1)

    async def answer() -> None:
        async with send:
            for first in range(0, len(numbers), AT_ONCE):
                batch = numbers[first : first + AT_ONCE]
                jobs = [job_of(pair.manifest, texts, it) for it in batch]
                await send.send((jobs, await answered(pair.provider, jobs)))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(answer)
        async with receive:
            async for jobs, outputs in receive:
                heard(await judged(pair, jobs, outputs))


async def judged(pair: Pair, jobs: list[Job], outputs: list[bytes]) -> list[HonestAnswer]:
    """What the verifier of a pair finds of what somebody says are the outputs. EngineError."""
    asked = [
        replace(it, operation=REPLAY, input=request(it.input, output, SLACK_LEAST).to_bytes())
        for it, output in zip(jobs, outputs, strict=True)
    ]
    told = await answered(pair.verifier, asked)
    return [
        _compared(pair, int(job.parameters["seed"]), output, JudgedAnswer.from_bytes(data))
        for job, output, data in zip(jobs, outputs, told, strict=True)
    ]


def _compared(pair: Pair, number: int, output: bytes, told: JudgedAnswer) -> HonestAnswer:
    pairs = zip(_logprobs(output), _logprobs(told.output), strict=False)
    return HonestAnswer(
        number=number,
        provider=pair.name or pair.profile_of(pair.provider),
        verifier=pair.profile_of(pair.verifier),
        tokens=told.positions,
        margins={at: it for at, it in enumerate(told.each) if it > 0},
        sketch=max(sketch_distances(output, told), default=0.0),
        drift=max((abs(one - other) for one, other in pairs), default=0.0),
        otherwise=told_otherwise(output, told, SKETCH_ANY),
    )


def _logprobs(output: bytes) -> list[float]:
    """The logarithms of the probabilities of an answer's tokens, where they are told."""
    return [
        it.logprob_millionths / 1e6
        for it in read_frames(output)
        if isinstance(it, Token) and it.logprob_millionths is not None
    ]


async def answered(engine: Engine, jobs: list[Job]) -> list[bytes]:
    """The outputs of jobs that are done together, in order; EngineError if one fails."""
    found = []
    for done in await engine.infer_many(jobs):
        if isinstance(done, BatonError):
            raise done
        found.append(done.data)
    return found


def write_measured(path: Path, model: ContentId, answers: Sequence[HonestAnswer]) -> None:
    """Add answers to a file of what was measured of a model; InputError if it cannot be written."""
    lines = [json.dumps({"model": str(model)} | asdict(it)) + "\n" for it in answers]
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as file:
            file.writelines(lines)
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror}") from error


def read_measured(path: Path, model: ContentId) -> list[HonestAnswer]:
    """What a file says was measured of a model; a last line that is not whole does not count.

    InputError for a file that is no such one.
    """
    if not path.exists():
        return []
    found = []
    try:
        with path.open(encoding="utf-8") as file:
            lines = file.read(FILE_BYTES_MAX).splitlines(keepends=True)
        for line in lines:
            if not line.endswith("\n"):
                break
            said = json.loads(line)
            if said.pop("model") == str(model):
                margins = {int(at): float(it) for at, it in said.pop("margins").items()}
                found.append(HonestAnswer(margins=margins, **said))
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise InputError(
            f"{path} is no file of measured answers: {error}",
            todo="move it away: the measurement begins anew",
        ) from error
    return found
