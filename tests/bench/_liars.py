"""The cheats: engines that take the honest question, and answer it as a peer does that lies."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from node.engines.interface import Job
from tests.bench._altered_models import (
    F16,
    Q4_0,
    Q8_0,
    bf16,
    int8_by_channel,
    off_by,
    write_altered,
)
from wire.generation import (
    SKETCH_CHUNK_BYTES,
    SKETCH_CHUNK_TOKENS,
    Ending,
    Frame,
    Generation,
    Sketch,
    Token,
    read_frames,
    to_frame,
)

Write = Callable[[Path, Path], Path]
# Of a question: what a liar has its own engine answer instead.
Question = Callable[[Job], Job]
# Of all the outputs that a liar has: what it says that each is.
Answers = Callable[[Sequence[bytes]], list[bytes]]


def as_asked(job: Job) -> Job:
    return job


def as_made(outputs: Sequence[bytes]) -> list[bytes]:
    return list(outputs)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cheat:
    """`write` makes the file that is run instead; None: the model's own."""

    name: str
    write: Write | None = None
    question: Question = as_asked
    answers: Answers = as_made
    # What the notes say hides in the noise of a more lenient class of devices.
    hides: str = ""

    @property
    def forms(self) -> str:
        """What its graphs are compiled for."""
        said = self.write.keywords if isinstance(self.write, partial) else {}
        return f"{said.get('kind', '')} {'head' in said}"


def with_parameters(**changes: float) -> Question:
    def ask(job: Job) -> Job:
        return replace(job, parameters=dict(job.parameters) | changes)

    return ask


def with_seed(by: int) -> Question:
    def ask(job: Job) -> Job:
        seed = job.parameters["seed"]
        assert isinstance(seed, int)
        return replace(job, parameters=dict(job.parameters) | {"seed": seed + by})

    return ask


def truncated(job: Job, words: int | None) -> Job:
    """The question without its first words, or without half of them."""
    asked = Generation.from_bytes(job.input)
    if asked.messages:
        (said,) = json.loads(asked.messages)
        short = json.dumps([{**said, "content": _without(said["content"], words)}])
        return replace(job, input=replace(asked, messages=short).to_bytes())
    return replace(job, input=replace(asked, prompt=_without(asked.prompt, words)).to_bytes())


def _without(text: str, words: int | None) -> str:
    said = text.split()
    return " ".join(said[len(said) // 2 if words is None else words :])


def one_token_altered(outputs: Sequence[bytes]) -> list[bytes]:
    """In the middle of each answer another of its own tokens."""
    return [_altered(list(read_frames(it))) for it in outputs]


def _altered(frames: list[Frame]) -> bytes:
    tokens, sketches, ending = _parts(frames)
    at = len(tokens) // 2
    other = next(it for it in tokens if it.id != tokens[at].id)
    lie = replace(tokens[at], id=other.id, text=other.text)
    more = len(other.text) - len(tokens[at].text)
    told = [*tokens[:at], lie, *tokens[at + 1 :], *sketches]
    ended = replace(ending, text_bytes=ending.text_bytes + more)
    return b"".join(to_frame(it) for it in [*told, ended])


def _parts(frames: list[Frame]) -> tuple[list[Token], list[Sketch], Ending]:
    tokens = [it for it in frames if isinstance(it, Token)]
    sketches = [it for it in frames if isinstance(it, Sketch)]
    (ending,) = [it for it in frames if isinstance(it, Ending)]
    return tokens, sketches, ending


def ended_early(outputs: Sequence[bytes]) -> list[bytes]:
    """The last eighth of each answer is left out."""
    return [_cut(list(read_frames(it))) for it in outputs]


def _cut(frames: list[Frame]) -> bytes:
    tokens, sketches, ending = _parts(frames)
    kept = tokens[: len(tokens) * 7 // 8]
    size_bytes = sum(len(it.text) for it in kept)
    chunks = -(-len(kept) // SKETCH_CHUNK_TOKENS) * SKETCH_CHUNK_BYTES
    sketched = [replace(it, chunks=it.chunks[:chunks]) for it in sketches]
    short = replace(ending, tokens=len(kept), text_bytes=size_bytes)
    return b"".join(to_frame(it) for it in [*kept, *sketched, short])


def copied(outputs: Sequence[bytes]) -> list[bytes]:
    """Each question has the answer of another one."""
    return [*outputs[1:], outputs[0]]


CHEATS = (
    Cheat(name="prompt less 8 words", question=partial(truncated, words=8)),
    Cheat(name="prompt halved", question=partial(truncated, words=None)),
    Cheat(name="temperature 0.8 for 1", question=with_parameters(temperature=0.8)),
    Cheat(name="greedy for sampled", question=with_parameters(temperature=0.0)),
    Cheat(name="another sampler (top_p 0.9)", question=with_parameters(top_p=0.9)),
    Cheat(name="wrong seed", question=with_seed(1)),
    Cheat(name="stale answer of an earlier seed", question=with_seed(-1)),
    Cheat(name="copied answer", answers=copied),
    Cheat(name="one token altered", answers=one_token_altered),
    Cheat(name="answer cut short", answers=ended_early),
    Cheat(name="a layer skipped", write=partial(write_altered, left_out=range(15, 16))),
    Cheat(name="smaller model (20 layers)", write=partial(write_altered, left_out=range(10, 20))),
    Cheat(name="int8 weights, per 32", write=partial(write_altered, kind=Q8_0)),
    Cheat(name="int4 weights", write=partial(write_altered, kind=Q4_0)),
    Cheat(name="weights 1 % off", write=partial(write_altered, kind=F16, alter=off_by(0.01))),
    Cheat(name="int8 output head", write=partial(write_altered, head=int8_by_channel)),
    Cheat(
        name="int8 weights, per channel",
        write=partial(write_altered, kind=F16, alter=int8_by_channel),
    ),
    Cheat(
        name="weights 3 % off (other checkpoint)",
        write=partial(write_altered, kind=F16, alter=off_by(0.03)),
    ),
    Cheat(
        name="bf16 weights",
        write=partial(write_altered, kind=F16, alter=bf16),
        hides="few tokens differ, and by little; its sketch is 0.008 to 0.011 off",
    ),
    Cheat(
        name="f16 weights",
        write=partial(write_altered, kind=F16),
        hides="nearly every token is right; its sketch is 0.003 to 0.006 off",
    ),
)
