"""Peers that run an exact transformer in numpy, and some that run another than they say."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import trio

from node.engines.exact.text_file import FILE
from node.engines.exact.text_layers import TextPast, as_floats
from node.engines.hash_engine import HashEngine
from node.engines.interface import REPLAY, Emit, Found, Job, Loaded, Output, Part, ready_model
from node.engines.replay import JudgedAnswer, ReplayRequest
from node.engines.worker.claimed_sequence import ClaimedSequence
from node.engines.worker.exact_claims import ExactClaims
from node.models.exact_files import ExactFile, ExactFiles
from wire.content import ContentId
from wire.generation import Generation
from wire.model import Manifest
from wire.operations import GENERATE

Alter = Callable[[ExactClaims], None]


def honest(_claims: ExactClaims) -> None:
    """Runs what it says."""


def some_weights_off(claims: ExactClaims) -> None:
    """Some weights of the last layer are others, as many as it takes to be seen in words."""
    matrix = claims.text.matrix("blk.1.ffn_down.weight")
    altered = matrix.blocks.copy()
    altered["numbers"][:4, 0, :] = 127
    object.__setattr__(matrix, "blocks", altered)


@dataclass(frozen=True, slots=True)
class OtherModels:
    """What a peer shows in disputes that runs another model than it says."""

    files: ExactFiles
    alter: Alter

    async def here(self, model: ContentId) -> ExactFile | None:
        return await self.files.here(model)

    async def claims(self, model: ContentId) -> ExactClaims | None:
        found = await self.files.claims(model)
        if found is not None:
            self.alter(found)
        return found


def one_step_off(claims: ExactClaims, chance: Random) -> tuple[str, int | None]:
    """One weight of one matrix is changed by one step; which matrix, and of which layer it is."""
    shape = claims.text.shape
    layers = range(shape.layers)
    steps = ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")
    names = [(f"blk.{it}.{step}.weight", it) for it in layers for step in steps]
    name, layer = chance.choice(names)
    matrix = claims.text.matrix(name)
    altered = matrix.blocks.copy()
    # A field of a record is no whole array, so it is changed in place.
    numbers = altered["numbers"]
    at = tuple(chance.randrange(it) for it in numbers.shape)
    numbers[at] += 1 if numbers[at] < 127 else -1
    object.__setattr__(matrix, "blocks", altered)
    return name, layer


def generated(claims: ExactClaims, question: bytes, parameters: Mapping[str, Any]) -> bytes:
    """What a peer with this model answers."""
    answer = claims.asked.begun(Generation.from_bytes(question), parameters)
    past, output = TextPast(claims.layers), b""
    rows = past.read(answer.prompt)
    while not answer.reason:
        output += answer.take(as_floats(claims.layers.logits(rows[-1:]))[0])
        rows = past.read(answer.made[-1:])
    return output


@dataclass
class TextEngine(HashEngine):
    """Generates and judges by the reference itself, in this process."""

    alter: Alter = honest
    claims: dict[ContentId, ExactClaims] = field(default_factory=dict)

    async def load(self, manifest: Manifest, files: Mapping[str, Path]) -> Loaded:
        if manifest.format != "exact-text":
            return await super().load(manifest, files)
        await trio.lowlevel.checkpoint()
        self.claims[manifest.id] = ExactClaims.of(files[FILE], manifest.id)
        self.alter(self.claims[manifest.id])
        ready = Loaded(
            model=manifest.id,
            manifest=manifest,
            profile=f"numpy {id(self)}",
            units_per_s=1 / self.unit_s,
            memory_bytes=0,
        )
        return self._loaded.setdefault(ready.model, ready)

    async def infer(self, job: Job, emit: Emit | None = None) -> Output:
        if job.model not in self.claims:
            return await super().infer(job, emit)
        ready_model(self.ready(job.model), job, frozenset({GENERATE, REPLAY}))
        await trio.lowlevel.checkpoint()
        claims = self.claims[job.model]
        if job.operation == REPLAY:
            return judged(claims, job)
        answer = claims.asked.begun(Generation.from_bytes(job.input), job.parameters)
        past, output = TextPast(claims.layers), b""
        rows = past.read(answer.prompt)
        while not answer.reason:
            frame = answer.take(as_floats(claims.layers.logits(rows[-1:]))[0])
            if emit is not None:
                await emit(Part(position=len(answer.made) - 1, units=1, data=frame))
            output += frame
            rows = past.read(answer.made[-1:])
        return Output(data=output, units=len(answer.made))

    async def infer_many(self, jobs: Sequence[Job]) -> list[Found]:
        return [await self.infer(it) for it in jobs]


def judged(claims: ExactClaims, job: Job) -> Output:
    """What this model makes of a claimed answer."""
    request = ReplayRequest.from_bytes(job.input)
    answer = claims.asked.begun(Generation.from_bytes(request.asked), job.parameters)
    tokens = claims.asked.claimed(answer, request.claimed)
    sequence, past = ClaimedSequence.of(answer, tokens, 0.0), TextPast(claims.layers)
    lines = as_floats(claims.layers.logits(past.read(sequence.prompt)))
    told = sequence.read(answer.unheard, lines[answer.unheard : -1])
    margins = sequence.take_margins()
    found = JudgedAnswer(
        margins=np.array(margins, "<f4").tobytes(),
        output=told + sequence.nothing(),
        positions=len(margins),
    )
    return Output(data=found.to_bytes(), units=len(margins))
