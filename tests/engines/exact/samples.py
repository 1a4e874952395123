"""Integer models for tests: made from the kept float models, or of random numbers."""

from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np

from node.engines.exact.model import (
    FILE,
    VERSION,
    ExactInput,
    ExactLayer,
    ExactModel,
    ExactOutput,
    Window,
)
from node.engines.exact.overflow import prove
from node.engines.exact.quantise import quantise
from node.engines.formats.onnx_file import describe
from tests.engines.onnx_models import FOLDER, golden
from wire.content import ContentId
from wire.errors import ModelRefused
from wire.model import Manifest, ModelFile

WINDOW = Window(kernel=(3, 2), strides=(2, 1), pads=(1, 0, 1, 1))
POOL = Window(kernel=(2, 2), strides=(2, 2), pads=(0, 0, 0, 0))


@cache
def made(name: str) -> ExactModel:
    """The integer model of one of the kept float models."""
    inputs, _ = golden(name)
    return quantise(describe(FOLDER / f"{name}.onnx"), list(inputs.values()))


def raw(values: np.ndarray) -> bytes:
    return np.ascontiguousarray(values, "<i4").tobytes()


def fitted(layer: ExactLayer, before: ExactModel) -> ExactModel:
    """The model with one more layer, whose multipliers are as large as its sums allow."""
    while True:
        model = replace(before, layers=(*before.layers, layer))
        try:
            prove(model)
        except ModelRefused:
            halves = np.frombuffer(layer.multipliers, "<i4") // 2
            layer = replace(layer, multipliers=raw(halves))
        else:
            return model


def random_model(seed: int) -> ExactModel:
    """Every operator at least once, with random numbers up to what sums have room for."""
    chance = np.random.default_rng(seed)
    channels, outputs, hidden = (int(it) for it in chance.integers(1, 5, 3))
    high, wide = (int(it) for it in chance.integers(4, 8, 2))
    given = ExactInput(name="x", shape=(channels, high, wide))

    def whole(*shape: int, most: int = 2**31 - 1) -> np.ndarray:
        return chance.integers(1, most, shape)

    def layer(operator: str, source: int, shape: tuple[int, ...], **numbers: object) -> ExactLayer:
        edges = {"low": -127, "high": 127, "kind": "int8"}
        fields = {"operator": operator, "sources": (source,), "shape": shape} | edges | numbers
        return ExactLayer(**fields)

    def weights(terms: int, count: int) -> bytes:
        return chance.integers(-128, 128, (terms, count)).astype(np.int8).tobytes()

    down = (high + WINDOW.pads[0] + WINDOW.pads[2] - 3) // 2 + 1
    across = wide + WINDOW.pads[1] + WINDOW.pads[3] - 2 + 1
    size, terms = outputs * (down // 2) * (across // 2), channels * 6
    under = (outputs, down // 2, across // 2)
    count = 4 + hidden
    shift = int(chance.integers(14, 22))
    model = ExactModel(
        version=VERSION,
        inputs=(given,),
        outputs=(ExactOutput(name="shares", layer=0, kind="float32"),),
        layers=(
            layer("input", 0, given.shape, multipliers=raw(whole(1, most=2**20)), shift=10),
            layer("input", 0, given.shape, multipliers=raw(whole(1, most=2**20)), shift=9),
        ),
        accuracy={},
    )
    conv = layer(
        "conv",
        0,
        (outputs, down, across),
        block=16,
        window=(WINDOW,),
        weights=weights(terms, outputs),
        multipliers=raw(whole(-(-terms // 16), outputs, most=2**16)),
        bias=raw(whole(outputs, most=2**20) - 2**19),
        block_shift=int(chance.integers(0, 8)),
        shift=shift,
        low=int(chance.choice([-127, 0])),
    )
    steps = [
        conv,
        layer("mean_pool", 2, under, window=(POOL,), multipliers=raw(whole(1)), shift=22),
        layer("max_pool", 2, under, window=(POOL,), low=conv.low),
        layer("add", 3, under, sources=(3, 4), multipliers=raw(whole(2)), shift=22),
        layer(
            "affine",
            5,
            under,
            block=under[1] * under[2],
            multipliers=raw(whole(outputs, most=2**20) - 2**19),
            bias=raw(whole(outputs, most=2**24) - 2**23),
            shift=int(chance.integers(17, 20)),
        ),
        layer("reshape", 6, (size,)),
        layer(
            "linear",
            7,
            (count,),
            kind="int32",
            weights=weights(size, count),
            multipliers=raw(whole(1, count, most=2**12)),
            bias=raw(whole(count, most=2**20) - 2**19),
            block_shift=2,
            low=-(2**20),
            high=2**20,
        ),
        layer(
            "softmax",
            8,
            (count,),
            kind="int32",
            multipliers=raw(whole(1, most=8)),
            table=raw(np.sort(whole(257, most=2**15 + 1))[::-1]),
            shift=12,
            low=0,
            high=2**15,
        ),
        layer("arg_max", 9, (), kind="int32", table=raw(np.arange(count)), low=0, high=count),
        layer(
            "table",
            7,
            (size,),
            block=32,
            table=chance.integers(-127, 128, (-(-size // min(32, size)), 256))
            .astype(np.int8)
            .tobytes(),
        ),
    ]
    for step in steps:
        model = fitted(step, model)
    # A model is checked as a whole: its outputs are those of the last layers.
    outputs_last = (
        ExactOutput(name="shares", layer=9, kind="float32", shift=15),
        ExactOutput(name="label", layer=10, kind="int64"),
        ExactOutput(name="scores", layer=8, kind="float32", shift=7),
        ExactOutput(name="looked_up", layer=11, kind="float32"),
    )
    return replace(model, outputs=outputs_last)


def random_rows(model: ExactModel, rows: int, seed: int) -> list[np.ndarray]:
    """Inputs of every size, with what is no number and what is beyond every bound among them."""
    chance = np.random.default_rng(seed)
    found = []
    for given in model.inputs:
        data = chance.standard_normal((rows, *given.shape)) * 10.0 ** chance.uniform(-3, 3)
        odd = chance.random(data.shape)
        data[odd < 0.02] = np.nan
        data[(odd > 0.02) & (odd < 0.05)] = np.inf
        data[odd > 0.97] = -np.inf
        found.append(data.astype(np.float32))
    return found


def kept_at(folder: Path, model: ExactModel, name: str = "made") -> Path:
    path = folder / f"{name}.exact"
    path.write_bytes(model.to_bytes())
    return path


def manifest_of(path: Path) -> tuple[Manifest, dict[str, Path]]:
    """What an engine is given for a file."""
    data = path.read_bytes()
    file = ModelFile(name=FILE, content=ContentId.of(data), size_bytes=len(data))
    manifest = Manifest(
        name=path.stem,
        format="exact",
        profile="exact",
        operations=("call",),
        files=(file,),
        parameters={"exact": True},
        tolerance=0.0,
    )
    return manifest, {FILE: path}
