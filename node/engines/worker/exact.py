"""An integer model as the worker keeps it: a graph for each bucket of rows. Worker only.

Every answer is the reference's to the bit, or the model is not loaded here: made-up rows, at the
edges of what integers can be, are computed both ways first.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tinygrad.device import CompileError
from tinygrad.helpers import DEV

from node.engines.exact.file import read_file
from node.engines.exact.model import FILE, ExactModel
from node.engines.exact.overflow import memory_elements
from node.engines.exact.reference import outputs_of, quantised, run
from node.engines.formats.onnx_graph import Value
from node.engines.formats.onnx_protobuf import Array
from node.engines.formats.onnx_wire import Signature
from node.engines.worker.device import WorkerDevice, memory_bytes
from node.engines.worker.exact_layers import ExactGraph
from node.engines.worker.graph_cache import GraphCache
from wire.codec import Value as Plain
from wire.errors import ModelRefused
from wire.model import Manifest

# Changes whenever a graph is built in another way: old files are then not found.
LAYOUT = 1
# Rows in one run of the graph. Fewer are computed by the reference where that is faster.
ROWS = 64
# What one run may have in memory, in numbers.
RUN_ELEMENTS_MAX = 1 << 24
REPEATS = 4
SEED = 1


@dataclass(slots=True)
class LoadedExact:
    """See `node.engines.worker.main.LoadedModel`."""

    model: ExactModel
    graph: ExactGraph
    captured: Any
    sources: list[Any]
    # Up to so many rows the reference is faster: it gives the same, so it may answer.
    few: int = 0

    @property
    def memory_bytes(self) -> int:
        return memory_bytes()

    @property
    def signature(self) -> Signature:
        inputs = tuple(Value(it.name, "float32", ("rows", *it.shape)) for it in self.model.inputs)
        outputs = tuple((it.name, it.kind) for it in self.model.outputs)
        return Signature(inputs, outputs, self.rows)

    @property
    def rows(self) -> int:
        """How many rows one run takes."""
        return int(self.sources[0].shape[0])

    def warm_up(self) -> tuple[float, float]:
        """Rows in a second, of full runs and of one row; ModelRefused if they are not exact."""
        arrays = _sample(self.model, self.rows)
        self._check(arrays)
        graph_s = _seconds(lambda: self.compiled(arrays))
        few = (self.rows, self.rows // 2, self.rows // 8, 1)
        faster = (it for it in few if it and self._reference_s(arrays, it) < graph_s)
        self.few = next(faster, 0)
        whole_s = _seconds(lambda: self.compute(arrays))
        return self.rows / whole_s, 1 / _seconds(lambda: self.compute([it[:1] for it in arrays]))

    def answer(self, message: dict[str, Any]) -> dict[str, Plain]:
        match message["do"]:
            case "signature":
                return self.signature.to_plain()
            case "rows":
                rows = message["rows"]
                arrays = [
                    np.frombuffer(data, "<f4").reshape(rows, *it.shape)
                    for it, data in zip(self.model.inputs, message["inputs"], strict=True)
                ]
                found = self.compute(arrays)
                return {
                    "shapes": [list(it.shape[1:]) for it in found],
                    "outputs": [it.tobytes() for it in found],
                }
            case other:
                raise AssertionError(f"the engine asked for {other!r}")

    def compute(self, arrays: Sequence[Array]) -> list[Array]:
        """The model's outputs for at most as many rows as one run takes."""
        return run(self.model, arrays) if len(arrays[0]) <= self.few else self.compiled(arrays)

    def compiled(self, arrays: Sequence[Array]) -> list[Array]:
        """The same, on the device whatever the number of rows."""
        rows = len(arrays[0])
        given = []
        for layer in self.model.layers:
            if layer.operator == "input":
                whole = np.zeros((self.rows, *layer.shape), np.int8)
                whole[:rows] = quantised(layer, arrays[layer.sources[0]])
                given.append(whole)
        found = self.graph.run(self.captured, self.sources, given)
        states = dict(zip((it.layer for it in self.model.outputs), found, strict=True))
        by_layer = [states.get(at, _NOTHING) for at in range(len(self.model.layers))]
        return [it[:rows] for it in outputs_of(self.model, by_layer)]

    def _reference_s(self, arrays: Sequence[Array], rows: int) -> float:
        return _seconds(lambda: run(self.model, [it[:rows] for it in arrays]))

    def _check(self, arrays: Sequence[Array]) -> None:
        """ModelRefused unless this device gives what the reference gives."""
        ours, theirs = self.compiled(arrays), run(self.model, arrays)
        for output, one, other in zip(self.model.outputs, ours, theirs, strict=True):
            if one.tobytes() != other.tobytes():
                raise ModelRefused(
                    f"the output {output.name} is not exact on this device ({DEV.value}):"
                    f" {int((one != other).sum())} of {one.size} numbers differ",
                    todo="run it on another device: --device cpu",
                )


def _seconds(compute: Callable[[], object]) -> float:
    began_at_s = time.perf_counter()
    for _ in range(REPEATS):
        compute()
    return max(time.perf_counter() - began_at_s, 1e-6) / REPEATS


_NOTHING: Array = np.zeros(0, np.int32)


def load(manifest: Manifest, files: dict[str, Path], place: WorkerDevice) -> LoadedExact:
    """Check, read and compile (or find compiled) one model; ModelRefused, EngineMissing."""
    model = read_file(files[FILE])
    graph = ExactGraph(model)
    rows = max(1, min(ROWS, RUN_ELEMENTS_MAX // memory_elements(model)))
    key = " ".join(("exact", str(LAYOUT), str(manifest.id), place.versions, str(DEV.value)))
    try:
        captured = GraphCache(place, key).collect((rows,), graph.capture)[rows]
    except CompileError as error:
        raise ModelRefused(f"it cannot be compiled here: {str(error)[:200]}") from error
    return LoadedExact(model, graph, captured, graph.sources(rows))


def _sample(model: ExactModel, rows: int) -> list[Array]:
    """Made-up inputs, the same each time: numbers of every size, and the largest both ways."""
    chance = np.random.default_rng(SEED)
    found = []
    for given in model.inputs:
        shape = (rows, *given.shape)
        sizes = 10.0 ** chance.uniform(-3, 4, (rows, *(1,) * len(given.shape)))
        array = chance.standard_normal(shape) * sizes
        array[: rows // 4] = np.where(chance.integers(0, 2, array[: rows // 4].shape), 1e9, -1e9)
        found.append(array.astype(np.float32))
    return found
