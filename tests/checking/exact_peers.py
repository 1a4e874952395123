"""Peers that run integer models in numpy, and some that run another model than they say."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from random import Random

import numpy as np
import trio

from node.engines.exact.file import read_file
from node.engines.exact.model import FILE, ExactModel
from node.engines.exact.reference import run
from node.engines.exact.states import inputs_of, states_of
from node.engines.hash_engine import HashEngine
from node.engines.interface import Emit, Found, Job, Loaded, Output, ready_model
from node.peer import Node
from wire.content import ContentId
from wire.model import Manifest
from wire.operations import CALL
from wire.tensors import Tensor, Tensors

Alter = Callable[[ExactModel], ExactModel]


class NumpyEngine(HashEngine):
    """Runs integer models by the reference itself, in this process; `alter` says which instead."""

    def __init__(self, alter: Alter = lambda model: model, unit_s: float = 0.05) -> None:
        super().__init__(unit_s)
        self.alter = alter
        self.models: dict[ContentId, ExactModel] = {}

    async def load(self, manifest: Manifest, files: Mapping[str, Path]) -> Loaded:
        if manifest.format != "exact":
            return await super().load(manifest, files)
        await trio.lowlevel.checkpoint()
        self.models[manifest.id] = self.alter(read_file(files[FILE]))
        ready = Loaded(
            model=manifest.id,
            manifest=manifest,
            profile="numpy exact",
            units_per_s=1 / self.unit_s,
            memory_bytes=0,
        )
        return self._loaded.setdefault(ready.model, ready)

    async def infer(self, job: Job, emit: Emit | None = None) -> Output:
        if job.model not in self.models:
            return await super().infer(job, emit)
        ready_model(self.ready(job.model), job, frozenset({CALL}))
        await trio.lowlevel.checkpoint()
        model = self.models[job.model]
        return Output(data=answer_of(model, inputs_of(model, job.input)), units=1)

    async def infer_many(self, jobs: Sequence[Job]) -> list[Found]:
        return [await self.infer(it) for it in jobs]


def answer_of(model: ExactModel, inputs: Sequence[np.ndarray]) -> bytes:
    """What an honest peer answers to a call."""
    pairs = zip(model.outputs, run(model, inputs), strict=True)
    return Tensors(
        tensors=tuple(
            Tensor(name=output.name, kind=output.kind, shape=it.shape, data=it.tobytes())
            for output, it in pairs
        )
    ).to_bytes()


def asked_of(model: ExactModel, arrays: Sequence[np.ndarray]) -> bytes:
    pairs = zip(model.inputs, arrays, strict=True)
    return Tensors(
        tensors=tuple(
            Tensor(name=given.name, kind="float32", shape=it.shape, data=it.tobytes())
            for given, it in pairs
        )
    ).to_bytes()


def one_step_off(model: ExactModel, chance: Random) -> tuple[ExactModel, int]:
    """The model with one weight of one layer changed by one step, and which layer that is."""
    layers = [at for at, it in enumerate(model.layers) if it.weights]
    at = chance.choice(layers)
    weights = bytearray(model.layers[at].weights)
    place = chance.randrange(len(weights))
    value = int.from_bytes(weights[place : place + 1], "little", signed=True)
    step = 1 if value < 127 else -1
    weights[place : place + 1] = (value + step).to_bytes(1, "little", signed=True)
    altered = list(model.layers)
    altered[at] = replace(altered[at], weights=bytes(weights))
    return replace(model, layers=tuple(altered)), at


def traces(node: Node, alter: Alter) -> None:
    """Have a peer show, in disputes, the states of the model that it really runs."""
    node.contest_role.trace = lambda model, inputs, row: states_of(alter(model), inputs, row)
