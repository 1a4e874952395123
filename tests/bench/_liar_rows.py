"""Liars about rows: MiniLM with other weights or other texts, and integer models of the digits."""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from pydoc_data.topics import topics
from random import Random
from typing import Any
from unittest import mock

import numpy as np
import trio

from node.engines.compare import worst_differences
from node.engines.exact.model import ExactModel
from node.engines.formats.minilm import MINILM
from node.engines.host import embedding
from node.engines.host.engine import TinygradEngine, open_tinygrad_engine
from node.engines.host.launch import EngineConfig
from node.engines.interface import Job
from tests.bench._altered_models import Array, int8_by_channel, off_by
from tests.checking.exact_peers import answer_of, one_step_off
from tests.engines.exact.samples import made
from tests.engines.onnx_models import golden
from wire.operations import EMBED
from wire.payload import Texts, Vectors

WEIGHTS = "model.safetensors"
ROWS = 32
WORDS = 40
PPB = 1e9
MODELS = ("sklearn_mlp", "torch_mlp", "torch_cnn", "sklearn_logistic")
SEEDS = 25


def texts(first: int) -> list[str]:
    """Pieces of the documentation, others for another `first`."""
    words = " ".join(topics[name] for name in sorted(topics)).split()
    begins = range(first * WORDS * ROWS, (first + 1) * WORDS * ROWS, WORDS)
    return [" ".join(words[at : at + WORDS]) for at in begins]


async def embedded(engine: TinygradEngine, said: Sequence[str]) -> Vectors:
    job = Job(
        model=MINILM.manifest().id,
        operation=EMBED,
        input=Texts(texts=tuple(said)).to_bytes(),
        parameters={},
        deadline_s=1200.0,
    )
    return Vectors.from_bytes((await engine.infer(job)).data)


def wrong_rows(claimed: Vectors, honest: Vectors) -> list[bool]:
    """Of each row, whether it is further off than the manifest allows."""
    found = worst_differences(claimed, honest, range(claimed.rows))
    return [it > MINILM.manifest().tolerance * PPB for it in found]


def altered_file(target: Path, alter: Callable[[Array], Array]) -> Path:
    """The weights with all matrices of floats altered."""
    data = bytearray(MINILM.files()[WEIGHTS].read_bytes())
    size = int.from_bytes(data[:8], "little")
    for name, it in json.loads(data[8 : 8 + size]).items():
        if name == "__metadata__" or it["dtype"] != "F32" or len(it["shape"]) != 2:
            continue
        begin, end = (8 + size + at for at in it["data_offsets"])
        matrix = np.frombuffer(bytes(data[begin:end]), np.float32).reshape(it["shape"])
        data[begin:end] = alter(matrix).astype(np.float32).tobytes()
    target.write_bytes(data)
    return target


def f16(weights: Array) -> Array:
    return weights.astype(np.float16).astype(np.float32)


def reversed_rows(rows: Vectors) -> Vectors:
    matrix = np.frombuffer(rows.data, np.float32).reshape(rows.rows, -1)
    return replace(rows, data=matrix[::-1].tobytes())


def shifted(rows: Vectors) -> Vectors:
    """Each text has the row of another one."""
    matrix = np.frombuffer(rows.data, np.float32).reshape(rows.rows, -1)
    return replace(rows, data=np.roll(matrix, 1, 0).tobytes())


async def _minilm(folder: Path) -> dict[str, Any]:
    chance, said = np.random.default_rng(1), texts(0)
    weights: dict[str, Callable[[Array], Array]] = {
        "f16 weights": f16,
        "int8 weights, per channel": lambda it: int8_by_channel(it, chance),
        "weights 1 % off": lambda it: off_by(0.01)(it, chance),
    }
    found: dict[str, list[bool]] = {}
    manifest, files = MINILM.manifest(), MINILM.files()
    async with open_tinygrad_engine(folder / "graphs", config=EngineConfig()) as engine:
        await engine.load(manifest, files)
        honest = await embedded(engine, said)
        others = await embedded(engine, texts(1))
        # In other batches than those that are judged.
        alarms = wrong_rows(await embedded(engine, said[::-1]), reversed_rows(honest))
        found["texts cut to half"] = wrong_rows(
            await embedded(engine, [it[: len(it) // 2] for it in said]), honest
        )
        found["one word less"] = wrong_rows(
            await embedded(engine, [it.rsplit(maxsplit=1)[0] for it in said]), honest
        )
    found["stale rows of other texts"] = wrong_rows(others, honest)
    found["copied rows of other texts"] = wrong_rows(shifted(honest), honest)
    for name, alter in weights.items():
        file = altered_file(folder / "altered.safetensors", alter)
        async with open_tinygrad_engine(folder / "graphs", config=EngineConfig()) as engine:
            with mock.patch.object(embedding, "check_files"):
                await engine.load(manifest, {**files, WEIGHTS: file})
            found[name] = wrong_rows(await embedded(engine, said), honest)
    return {
        "rows": ROWS,
        "caught_percent": {
            name: round(100 * sum(it) / len(it), 1) for name, it in sorted(found.items())
        },
        "honest_rows": len(alarms),
        "false_alarms": sum(alarms),
    }


def minilm_rows(folder: Path) -> dict[str, Any]:
    """Which rows of liars are found wrong where they are recomputed, at `replayed`."""
    return {"minilm": trio.run(_minilm, folder)}


def exact_rows() -> dict[str, Any]:
    """Which answers of liars differ in their bytes, at `exact`, of those that are wrong at all."""
    liars: dict[str, Callable[[ExactModel, list[Any], Random], bytes]] = {
        "one weight off by one step": lambda model, rows, chance: answer_of(
            one_step_off(model, chance)[0], rows
        ),
        "stale answer of other rows": lambda model, rows, _: answer_of(
            model, [np.roll(it, 1, 0) for it in rows]
        ),
        "another model": _another,
        "one bit of the output": lambda model, rows, chance: _flipped(
            answer_of(model, rows), chance
        ),
    }
    found: dict[str, dict[str, int]] = {}
    alarms = 0
    for name, lie in liars.items():
        tried = differ = 0
        for seed in range(SEEDS):
            chance = Random(seed)
            which = MODELS[seed % len(MODELS)]
            model = made(which)
            rows = [it[seed % 8 : seed % 8 + 16] for it in golden(which)[0].values()]
            right = answer_of(model, rows)
            alarms += answer_of(model, rows) != right
            tried += 1
            differ += lie(model, rows, chance) != right
        found[name] = {"tried": tried, "answers_that_differ": differ, "caught": differ}
    return {"digits_exact": found, "digits_false_alarms": alarms}


def _another(model: ExactModel, rows: list[Any], chance: Random) -> bytes:
    for _ in range(200):
        model, _ = one_step_off(model, chance)
    return answer_of(model, rows)


def _flipped(output: bytes, chance: Random) -> bytes:
    lie = bytearray(output)
    lie[chance.randrange(len(lie))] ^= 1 << chance.randrange(8)
    return bytes(lie)
