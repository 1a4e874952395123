"""An engine for the gateway's tests: the hash engine, with what it writes decided by the prompt.

`SAY:text` has it say that text, a few bytes a token, so that characters are cut in the middle;
`WAIT:n` has it take its time; "call" gives every tensor back, doubled.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import trio

from node.engines.each_alone import each_alone
from node.engines.hash_engine import HashEngine, hash_manifest
from node.engines.interface import REPLAY, Emit, Found, Job, Loaded, Output, Part
from node.engines.replay import ReplayRequest
from tests.engines.judging import judged
from wire.content import ContentId
from wire.errors import EngineFailed, ModelRefused
from wire.generation import (
    Alternative,
    Ending,
    Generation,
    PromptToken,
    Token,
    to_frame,
)
from wire.model import Manifest
from wire.tensors import Tensors

# Small and odd, so that no character of several bytes fits in one token.
TOKEN_BYTES = 2
# What it says where it `follows_schemas` and there is none.
FINE = "It is a fine day in Köln ☀, and the Rhine is high."
SAID, SLOW, TOO_LONG, BROKEN = "SAY:", "WAIT", "TOO LONG", "BROKEN"
# Failures in words that mislead: what follows is in the code, and nobody reads the words.
CRASHED = "CRASHED:"
UNFIT = "UNFIT:"


def instance_of(schema: Any, whole: Any = None) -> Any:
    """The plainest value that a schema allows, as far as clients' schemas go."""
    whole = whole or schema
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return instance_of(whole["$defs"][name], whole)
    if "const" in schema:
        return schema["const"]
    if schema.get("enum"):
        return schema["enum"][0]
    for name in ("anyOf", "oneOf"):
        if schema.get(name):
            return instance_of(schema[name][0], whole)
    match schema.get("type"):
        case "object":
            properties = schema.get("properties", {})
            return {name: instance_of(it, whole) for name, it in properties.items()}
        case "array":
            return [instance_of(schema["items"], whole)] if "items" in schema else []
        case "integer" | "number":
            return 36
        case "boolean":
            return True
        case "null":
            return None
        case _:
            return "Ada"


def calling_manifest() -> Manifest:
    return replace(hash_manifest("doubling"), operations=("call",))


def reranking_manifest() -> Manifest:
    return replace(hash_manifest("reranker"), operations=("rerank",))


@dataclass(slots=True, eq=False)
class SpeakingEngine:
    """Everything but what a generation says is the hash engine's."""

    inner: HashEngine = field(default_factory=HashEngine)
    begun: int = 0
    under_way: int = 0
    cancelled: int = 0
    # Whether a schema is answered with an instance of it, unless the prompt says what to say.
    follows_schemas: bool = False
    # The last generation that was asked for.
    asked: Job | None = None

    @property
    def free_slots(self) -> int:
        return self.inner.free_slots

    @property
    def units_at_once(self) -> int:
        return 16

    @property
    def queue_s(self) -> float:
        return self.inner.queue_s

    async def load(self, manifest: Manifest, files: Mapping[str, Path]) -> Loaded:
        return await self.inner.load(manifest, files)

    async def unload(self, model: ContentId) -> None:
        await self.inner.unload(model)

    def loaded(self) -> Mapping[ContentId, Loaded]:
        return self.inner.loaded()

    def ready(self, model: ContentId) -> Loaded | None:
        return self.inner.ready(model)

    def statistics(self):  # type: ignore[no-untyped-def]
        return self.inner.statistics()

    async def infer(self, job: Job, emit: Emit | None = None) -> Output:
        if job.operation == "call":
            return _doubled(job)
        if job.operation == REPLAY:
            return await self._judge(job)
        if job.operation != "generate":
            return await self.inner.infer(job, emit)
        self.begun += 1
        self.asked = job
        self.under_way += 1
        try:
            return await self._speak(job, emit)
        except trio.Cancelled:
            self.cancelled += 1
            raise
        finally:
            self.under_way -= 1

    async def infer_many(self, jobs: Sequence[Job]) -> list[Found]:
        return await each_alone(self.infer, jobs)

    async def _judge(self, job: Job) -> Output:
        claim = ReplayRequest.from_bytes(job.input)
        said = await self._speak(replace(job, operation="generate", input=claim.asked), None)
        return judged(claim, said.data)

    async def _speak(self, job: Job, emit: Emit | None) -> Output:
        asked = Generation.from_bytes(job.input)
        prompt = asked.prompt
        if asked.messages:
            prompt = json.loads(asked.messages)[-1]["content"]
        if prompt.startswith(TOO_LONG):
            raise ModelRefused("a prompt of 9000 tokens, and the context has 4096")
        if prompt.startswith(BROKEN):
            raise EngineFailed("the worker ended (killed by signal 9)")
        if prompt.startswith(CRASHED):
            raise EngineFailed("no memory is left on the card")
        if prompt.startswith(UNFIT):
            raise ModelRefused("the worker finds this prompt too long")
        if prompt.startswith(SLOW):
            for position in range(10_000):
                await trio.sleep(0.01)
                if emit is not None:
                    token = Token(id=1, text=b"zzz ", logprob_millionths=None, top=())
                    await emit(Part(position, 1, to_frame(token)))
        said = len(prompt.split())
        if self.follows_schemas and not prompt.startswith(SAID):
            # The same for any history, in which there are ids.
            whole = asked.messages or asked.prompt
            said = len(asked.prompt_tokens) or len(whole.split())
            form = json.loads(asked.schema) if asked.schema else None
            prompt = SAID + (FINE if form is None else json.dumps(instance_of(form)))
        if not prompt.startswith(SAID) or job.parameters["tokens"] == 0:
            return await self.inner.infer(job, emit)
        frames = spoken(prompt.removeprefix(SAID).encode(), said, job)
        for position, frame in enumerate(frames):
            if emit is not None:
                await emit(Part(position, 1, frame))
        return Output(data=b"".join(frames), units=len(frames))


def spoken(text: bytes, prompt_tokens: int, job: Job) -> list[bytes]:
    """The text as frames, at most as many tokens as are asked for."""
    limit = job.parameters["tokens"]
    assert isinstance(limit, int)
    pieces = [text[at : at + TOKEN_BYTES] for at in range(0, len(text), TOKEN_BYTES)]
    kept = pieces[:limit]
    told = job.parameters.get("logprobs")
    frames = []
    for number, piece in enumerate(kept):
        top = tuple(
            Alternative(text=bytes([65 + at]), logprob_millionths=-1_000_000 * (at + 1))
            for at in range(told if isinstance(told, int) and told > 0 else 0)
        )
        logprob = None if told is None else -500_000
        frames.append(to_frame(Token(id=number, text=piece, logprob_millionths=logprob, top=top)))
    if job.parameters.get("echo"):
        frames[-1] += b"".join(to_frame(it) for it in told_prompt(job, top))
    frames[-1] += to_frame(
        Ending(
            reason="stop" if len(kept) == len(pieces) else "length",
            prompt_tokens=prompt_tokens,
            tokens=len(kept),
            text_bytes=sum(map(len, kept)),
        )
    )
    return frames


def told_prompt(job: Job, top: tuple[Alternative, ...]) -> Iterator[PromptToken]:
    """The prompt in tokens of a few bytes; tokens that are given as such, as bytes of those."""
    asked = Generation.from_bytes(job.input)
    prompt = asked.prompt.encode()
    pieces = [prompt[at : at + TOKEN_BYTES] for at in range(0, len(prompt), TOKEN_BYTES)]
    for number, piece in enumerate(pieces):
        first = not number or "logprobs" not in job.parameters
        yield PromptToken(
            id=number,
            text=piece,
            logprob_millionths=None if first else -250_000,
            top=() if first else top,
        )


def _doubled(job: Job) -> Output:
    found = []
    for tensor in Tensors.from_bytes(job.input).tensors:
        values = np.frombuffer(tensor.data, np.dtype(tensor.kind).newbyteorder("<"))
        found.append(replace(tensor, data=(values * 2).astype(values.dtype).tobytes()))
    return Output(data=Tensors(tensors=tuple(found)).to_bytes(), units=1)
