"""An ONNX model as the worker keeps it: a graph for each bucket of rows, and answers to calls.

Buckets whose rows would not be the same to the bit as those of the largest are not used. A model
that is not a function of rows, or whose shapes are open in other ways, is run call by call, with a
graph for each shape that comes.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from tinygrad import Tensor
from tinygrad.helpers import DEV

from node.engines.formats.onnx_file import describe
from node.engines.formats.onnx_graph import OnnxModel, Value
from node.engines.formats.onnx_protobuf import Array
from node.engines.formats.onnx_shapes import RUN_BYTES_MAX, bucket_rows, fits, footprint
from node.engines.formats.onnx_wire import CALL_BYTES_MAX, Signature, is_batch
from node.engines.worker.device import WorkerDevice, memory_bytes
from node.engines.worker.graph_cache import GraphCache, watching
from node.engines.worker.load_progress import LoadProgress
from node.engines.worker.onnx_graph import CompiledGraph, Shapes
from node.engines.worker.onnx_reference import check_agrees, reference
from wire.codec import Value as Plain
from wire.errors import ModelRefused
from wire.latest import Latest
from wire.model import Manifest

FILE = "model.onnx"
# Changes whenever a graph is built in another way: old files are then not found.
LAYOUT = 3
# Graphs for shapes and deciding integers that come with calls; each took time to compile and takes
# memory.
SHAPES_MAX = 16
SEED = 1
_GIVE_WHOLE_NUMBERS = frozenset(
    ("ArgMax", "ArgMin", "Cast", "CastLike", "EyeLike", "Shape", "Size", "TopK")
)
REPEATS = 4
# What is said of a model's speed before the first call: little, so that nobody waits in vain.
UNKNOWN_PER_S = 1.0
# One message brings at most so many full runs, which take about so long: between two messages the
# worker waits for its peer, and others' rows wait for the whole message.
RUNS_MAX = 16
MESSAGE_S = 0.01
# What open sizes are tried with until a graph can be run: many are written for sizes of a kind.
FILLS = (1, 32, 64, 256, 512)
# Shapes, and the bytes of the inputs that decide what is computed.
Wanted = tuple[Shapes, tuple[bytes, ...]]


@dataclass(slots=True)
class Ready:
    """A captured graph and its own inputs."""

    jit: Any
    sources: list[Tensor]
    work_bytes: int = 0


@dataclass(slots=True)
class LoadedOnnx:
    """See `node.engines.worker.main.LoadedOnnx`. `buckets` is empty where calls run one by one.

    `sample` has inputs of one row, or of the shapes, that it was seen to run with; it is empty
    where integers that come in decide so much that no made-up ones will do.
    """

    graph: CompiledGraph
    buckets: dict[int, Ready]
    sample: list[Array]
    progress: LoadProgress
    # How many full runs one message may bring, as far as is known.
    runs: int = 1
    shapes: Latest[Wanted, Ready] = field(default_factory=lambda: Latest(SHAPES_MAX))

    @property
    def memory_bytes(self) -> int:
        return memory_bytes()

    @property
    def signature(self) -> Signature:
        outputs = tuple((it.name, it.kind) for it in self.graph.model.outputs)
        return Signature(self.graph.model.inputs, outputs, max(self.buckets, default=0), self.runs)

    def warm_up(self) -> tuple[float, float]:
        """Rows in a second, of full runs; how long one row takes is no matter."""
        if not self.buckets and not self.sample:
            return UNKNOWN_PER_S, UNKNOWN_PER_S
        if self.buckets:
            rows = max(self.buckets)
            ready, arrays = self.buckets[rows], _sample(self.graph.model.inputs, rows)
        else:
            rows, arrays = 1, self.sample
            ready = self._ready_for(arrays)
        self.graph.run(ready.jit, ready.sources, arrays)
        began_at_s = time.perf_counter()
        for _ in range(REPEATS):
            self.graph.run(ready.jit, ready.sources, arrays)
        speed = rows * REPEATS / max(time.perf_counter() - began_at_s, 1e-6)
        if self.buckets:
            self.runs = self._runs_in(speed * MESSAGE_S / rows)
        return speed, speed

    def _runs_in(self, runs: float) -> int:
        """At most so many full runs, as many as fit a message and its answer."""
        ready = self.buckets[max(self.buckets)]
        run_bytes = max(sum(int(it.nbytes()) for it in ready.sources), _answer_bytes(ready))
        return max(1, int(min(runs, RUNS_MAX, CALL_BYTES_MAX // run_bytes)))

    def answer(self, message: dict[str, Any]) -> dict[str, Plain]:
        match message["do"]:
            case "signature":
                return self.signature.to_plain()
            case "rows":
                return self._rows(message["rows"], message["inputs"])
            case "call":
                return self._call(message["shapes"], message["inputs"])
            case other:
                raise AssertionError(f"the engine asked for {other!r}")

    def _rows(self, rows: int, inputs: list[bytes]) -> dict[str, Plain]:
        arrays = [
            np.frombuffer(data, value.kind).reshape(rows, *_sizes(value)[1:])
            for value, data in zip(self.graph.model.inputs, inputs, strict=True)
        ]
        most = max(self.buckets)
        runs = [self._run([it[at : at + most] for it in arrays]) for at in range(0, rows, most)]
        return {
            "shapes": [list(it.shape[1:]) for it in runs[0]],
            "outputs": [
                b"".join(it.tobytes() for it in parts) for parts in zip(*runs, strict=True)
            ],
        }

    def _run(self, arrays: Sequence[Array]) -> list[Array]:
        """What the graph gives for rows of which one run takes all."""
        rows = len(arrays[0])
        bucket = min(it for it in self.buckets if it >= rows)
        ready = self.buckets[bucket]
        if rows < bucket:
            empty = bucket - rows
            arrays = [
                np.concatenate([it, np.zeros((empty, *it.shape[1:]), it.dtype)]) for it in arrays
            ]
        found = self.graph.run(ready.jit, ready.sources, arrays)
        return [it[:rows] for it in found] if rows < bucket else found

    def _call(self, shapes: list[list[int]], inputs: list[bytes]) -> dict[str, Plain]:
        values = self.graph.model.inputs
        arrays = [
            np.frombuffer(data, value.kind).reshape(shape)
            for value, data, shape in zip(values, inputs, shapes, strict=True)
        ]
        try:
            ready = self._ready_for(arrays)
        except ModelRefused as error:
            # It runs with others, or it would not be loaded: the call is at fault.
            return {"refused": error.message}
        found = self.graph.run(ready.jit, ready.sources, arrays)
        if sum(it.nbytes for it in found) > CALL_BYTES_MAX:
            return {"refused": f"the answer has more than {CALL_BYTES_MAX} bytes"}
        return {
            "shapes": [list(it.shape) for it in found],
            "outputs": [it.tobytes() for it in found],
        }

    def keep(self, ready: Ready) -> None:
        """Have a graph for the sample's shapes."""
        self.shapes[self._wanted(self.sample)] = ready

    def _ready_for(self, arrays: Sequence[Array]) -> Ready:
        shapes = _shapes(arrays)
        if (ready := self.shapes.pop(self._wanted(arrays), None)) is None:
            numbers = self.graph.numbers(arrays)
            work_bytes = footprint(self.graph.model, shapes, numbers).work_bytes
            if work_bytes > RUN_BYTES_MAX:
                raise ModelRefused(
                    f"it would take {work_bytes >> 20} MiB, at most {RUN_BYTES_MAX >> 20} MiB"
                )
            self._let_go(work_bytes)
            # Compiling takes longer than a call may: whoever waits is told that it goes on.
            with watching(self.progress):
                jit = self.graph.capture(shapes, arrays, by_value=True)
            ready = Ready(jit, self.graph.sources(shapes), work_bytes)
        # Set again, it is the newest. A capture may have found more inputs that decide.
        self.shapes[self._wanted(arrays)] = ready
        return ready

    def _wanted(self, arrays: Sequence[Array]) -> Wanted:
        numbers = self.graph.numbers(arrays)
        return _shapes(arrays), tuple(numbers[it].tobytes() for it in self.graph.deciding)

    def _let_go(self, work_bytes: int) -> None:
        """Forget graphs of shapes that were used longest ago, as far as another has need."""
        while self.shapes and (
            len(self.shapes) >= SHAPES_MAX
            or work_bytes + sum(it.work_bytes for it in self.shapes.values()) > RUN_BYTES_MAX
        ):
            self.shapes.forget_oldest()


def load(manifest: Manifest, files: dict[str, Path], place: WorkerDevice) -> LoadedOnnx:
    """Check, read and compile (or find compiled) one model; ModelRefused, EngineMissing."""
    model = describe(files[FILE])
    if not model.inputs:
        raise ModelRefused(f"{manifest.name} has no inputs: it always gives the same")
    for value in model.inputs:
        if value.shape is None or 0 in value.shape:
            raise ModelRefused(f"the input {value.name} has no shape that can be filled")
    graph = CompiledGraph(model)
    key = " ".join(("onnx", str(LAYOUT), str(manifest.id), place.versions, str(DEV.value)))
    cache = GraphCache(place, key)
    buckets = _buckets(graph, cache) if is_batch(model.inputs) else {}
    made = LoadedOnnx(graph, buckets, _sample(model.inputs, 1), place.progress)
    if not buckets:
        shapes, graph.deciding, jit = cache.collect((0,), lambda _: _first_that_runs(graph))[0]
        made.sample = [] if jit is None else _sample_of(model.inputs, shapes)
        if jit is not None:
            made.keep(Ready(jit, graph.sources(shapes)))
    _compare(made, files[FILE])
    return made


def _first_that_runs(graph: CompiledGraph) -> tuple[Shapes, tuple[str, ...], Any]:
    """Shapes that the graph can be run with, what decides, and the graph captured for them.

    ModelRefused says why it does not run with sizes of one, if it runs with no others either. Where
    integers that come in decide, made-up ones may not fit: then there are no shapes and no graph.
    """
    inputs, refused = graph.model.inputs, []
    for fill in FILLS:
        sample = _filled(inputs, fill)
        shapes = _shapes(sample)
        if fill > 1 and (shapes == _shapes(_filled(inputs, 1)) or not fits(graph.model, shapes)):
            continue
        try:
            jit = graph.capture(shapes, sample, by_value=True)
        except ModelRefused as error:
            refused.append(error)
        else:
            return shapes, graph.deciding, jit
    if graph.deciding:
        return (), graph.deciding, None
    raise refused[0]


def _filled(inputs: Sequence[Value], fill: int) -> list[Array]:
    """Made-up inputs with `fill` for what is open; of several open sizes the first is a batch."""
    shapes = []
    for value in inputs:
        sizes = list(value.shape or ())
        places = [at for at, it in enumerate(sizes) if not isinstance(it, int)]
        for place in places:
            sizes[place] = 1 if place == 0 or (place == places[0] and len(places) > 1) else fill
        shapes.append(tuple(int(str(it)) for it in sizes))
    return _sample_of(inputs, shapes)


def _compare(made: LoadedOnnx, path: Path) -> None:
    """ModelRefused if onnxruntime is there and gives something else for made-up inputs."""
    inputs, outputs = made.graph.model.inputs, made.graph.model.outputs
    rows, ready = max(made.buckets.items(), default=(1, next(iter(made.shapes.values()), None)))
    if ready is None or _divides_whole_numbers(made.graph.model):
        # Such a division may end the other engine, and with it this process.
        return
    arrays = _sample(inputs, rows) if made.buckets else made.sample
    theirs = reference(path, [it.name for it in inputs], arrays)
    if theirs is not None:
        ours = made.graph.run(ready.jit, ready.sources, arrays)
        check_agrees([it.name for it in outputs], ours, theirs)


def _divides_whole_numbers(model: OnnxModel) -> bool:
    """Whether a whole number may be divided by 0 or by -1, as far as the file shows."""
    constants = dict(model.graph.constants)
    whole = any(np.dtype(it.kind).kind != "f" for it in model.inputs)
    for node in model.graph.nodes:
        value = node.attributes.get("value")
        if node.operator == "Constant" and isinstance(value, np.ndarray):
            constants[node.outputs[0]] = value
        whole = whole or node.operator in _GIVE_WHOLE_NUMBERS
        if node.operator in ("Div", "Mod"):
            by = constants.get(node.inputs[1])
            if by is None and whole:
                return True
            if by is not None and by.dtype.kind in "iu" and np.isin(by, (0, -1)).any():
                return True
    return False


def _buckets(graph: CompiledGraph, cache: GraphCache) -> dict[int, Ready]:
    """The buckets whose rows agree to the bit; none if the model is no function of rows."""
    inputs = graph.model.inputs
    sizes = bucket_rows(graph.model)

    def shapes(rows: int) -> Shapes:
        return tuple((rows, *_sizes(value)[1:]) for value in inputs)

    try:
        found = cache.collect(
            sizes, lambda rows: graph.capture(shapes(rows), _sample_of(inputs, shapes(rows)))
        )
    except ModelRefused:
        # Some are exported with a batch of one written into them, whatever their inputs say.
        return {}
    ready = {rows: Ready(it, graph.sources(shapes(rows))) for rows, it in found.items()}
    for rows in [it for it in sizes if it > 1 and _answer_bytes(ready[it]) > CALL_BYTES_MAX]:
        del ready[rows]
    most = max(ready)
    if not all(
        it.shape and it.shape[0] == rows for rows in ready for it in ready[rows].jit.captured.ret
    ):
        return {}
    sample = _sample(inputs, 2 * most)
    whole = [_in_runs(graph, ready[most], sample, order) for order in (1, -1)]
    if _as_bytes(whole[0]) != _as_bytes(whole[1]):
        return {}
    for rows in [it for it in ready if it < most]:
        if _as_bytes(_in_runs(graph, ready[rows], sample, 1)) != _as_bytes(whole[0]):
            del ready[rows]
    return ready


def _in_runs(graph: CompiledGraph, ready: Ready, sample: Sequence[Array], step: int) -> list[Array]:
    """The rows of a sample, as many at once as the graph takes; `step` -1: from the last on."""
    rows, count = ready.sources[0].shape[0], sample[0].shape[0]
    order = np.arange(count)[::step]
    if step < 0:
        # Not only in another order: beside other rows too.
        order = np.concatenate([order[::2], order[1::2]])
    runs = [
        graph.run(ready.jit, ready.sources, [it[order[at : at + rows]] for it in sample])
        for at in range(0, count, rows)
    ]
    back = np.argsort(order)
    return [np.concatenate(parts)[back] for parts in zip(*runs, strict=True)]


def _as_bytes(arrays: Sequence[Array]) -> list[bytes]:
    return [it.tobytes() for it in arrays]


def _answer_bytes(ready: Ready) -> int:
    return sum(int(it.nbytes()) for it in ready.jit.captured.ret)


def _sizes(value: Value) -> tuple[int, ...]:
    """A shape with one for what is open."""
    return tuple(it if isinstance(it, int) else 1 for it in value.shape or ())


def _shapes(arrays: Sequence[Array]) -> Shapes:
    return tuple(it.shape for it in arrays)


def _sample(inputs: Sequence[Value], rows: int) -> list[Array]:
    """Made-up inputs, the same each time, of one row or of more where the first dimension is."""
    shapes = (_sizes(it) for it in inputs)
    return _sample_of(inputs, [(rows, *it[1:]) if rows > 1 else it for it in shapes])


def _sample_of(inputs: Sequence[Value], shapes: Sequence[tuple[int, ...]]) -> list[Array]:
    """Small numbers, that are good as indices too."""
    chance = np.random.default_rng(SEED)
    arrays = []
    for value, shape in zip(inputs, shapes, strict=True):
        if np.dtype(value.kind).kind == "f":
            arrays.append(chance.standard_normal(shape).astype(value.kind))
        else:
            arrays.append(chance.integers(0, 2, shape).astype(value.kind))
    return arrays
