"""A few integers that come in may decide what is computed: a rate, a size, how often."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import helper
from onnx.reference import ReferenceEvaluator

from tests.engines.conftest import OpenEngine
from tests.engines.onnx_models import (
    FLOAT,
    INT64,
    call,
    kept_at,
    made,
    manifest_of,
    to_arrays,
    value,
)
from wire.errors import Malformed


def deciding() -> Any:
    """By the rate one of two branches of other widths; by a shape and a count what is given."""
    halves = [
        helper.make_graph(
            [helper.make_node("Slice", ["x", "zero", end], [f"part {end}"])],
            end,
            [],
            [value(f"part {end}", FLOAT, None)],
        )
        for end in ("two", "five")
    ]
    nodes = [
        helper.make_node("Equal", ["rate", "sixteen"], ["fast"]),
        helper.make_node("If", ["fast"], ["cut"], then_branch=halves[0], else_branch=halves[1]),
        helper.make_node("Neg", ["cut"], ["turned"]),
        helper.make_node("Reshape", ["x", "shape"], ["shaped"]),
        helper.make_node("Tile", ["x", "count"], ["repeated"]),
    ]
    inputs = [
        value("x", FLOAT, 6),
        value("rate", INT64),
        value("shape", INT64, 2),
        value("count", INT64, 1),
    ]
    outputs = [
        value("turned", FLOAT, None),
        value("shaped", FLOAT, None, None),
        value("repeated", FLOAT, None),
    ]
    constants = {name: np.array([it]) for name, it in {"zero": 0, "two": 2, "five": 5}.items()}
    return made(nodes, inputs, outputs, constants | {"sixteen": np.array(16)})


async def test_a_graph_is_right_for_the_integers_that_came_with_it(
    tmp_path: Path, open_engine: OpenEngine
) -> None:
    model = deciding()
    manifest, files = manifest_of(kept_at(tmp_path, model))
    chance = np.random.default_rng(2)
    for _ in range(2):
        # The second time the first graph comes from the disk.
        async with open_engine() as engine:
            await engine.load(manifest, files)
            for rate, shape, count in ((16, (2, 3), 1), (8, (3, 2), 4), (16, (2, 3), 1)):
                given = {
                    "x": chance.standard_normal(6).astype(np.float32),
                    "rate": np.array(rate),
                    "shape": np.array(shape),
                    "count": np.array([count]),
                }
                wanted = ReferenceEvaluator(model).run(None, given)
                found = to_arrays((await engine.infer(call(manifest.id, given))).data)
                for name, array in zip(found, wanted, strict=True):
                    assert found[name].shape == array.shape, (name, rate)
                    np.testing.assert_allclose(found[name], array, rtol=1e-6)
            # What cannot be is the call's own fault, and nothing ends.
            wrong = {**given, "shape": np.array((5, 5))}
            with pytest.raises(Malformed, match="Reshape"):
                await engine.infer(call(manifest.id, wrong))
            huge = {**given, "shape": np.array((1 << 40, 1 << 40))}
            with pytest.raises(Malformed):
                await engine.infer(call(manifest.id, huge))
            await engine.infer(call(manifest.id, given))
            assert engine.statistics().restarts == 0


def windows() -> Any:
    """A window takes sixteen numbers; of how many there are the file says nothing."""
    node = helper.make_node("Conv", ["x", "weights"], ["y"])
    weights = np.ones((1, 1, 16), np.float32)
    outputs = [value("y", FLOAT, None, 1, None)]
    return made([node], [value("x", FLOAT, None, 1, None)], outputs, {"weights": weights})


async def test_a_model_is_tried_with_sizes_that_it_can_take(
    tmp_path: Path, open_engine: OpenEngine
) -> None:
    manifest, files = manifest_of(kept_at(tmp_path, windows()))
    x = np.arange(20, dtype=np.float32).reshape(1, 1, 20)
    async with open_engine() as engine:
        await engine.load(manifest, files)
        found = to_arrays((await engine.infer(call(manifest.id, {"x": x}))).data)
        assert found["y"].reshape(-1).tolist() == [sum(range(at, at + 16)) for at in range(5)]
        with pytest.raises(Malformed, match="Conv"):
            await engine.infer(call(manifest.id, {"x": x[..., :3]}))


async def test_a_picture_of_the_usual_size_is_taken_whole(
    tmp_path: Path, open_engine: OpenEngine
) -> None:
    node = helper.make_node("Neg", ["x"], ["y"])
    sides = (1, 3, 640, 640)
    model = made([node], [value("x", FLOAT, *sides)], [value("y", FLOAT, *sides)])
    manifest, files = manifest_of(kept_at(tmp_path, model))
    x = np.ones(sides, np.float32)
    async with open_engine() as engine:
        await engine.load(manifest, files)
        found = to_arrays((await engine.infer(call(manifest.id, {"x": x}))).data)
    assert (found["y"] == -1).all()
