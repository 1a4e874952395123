"""A transformer of any family in the table of architectures. Runs in the worker only.

A pass takes rows, each one token at one place of one slot (see `tinygrad_attention`), so reading a
prompt and going on with many answers are the same graph. There are a few graphs for each number of
rows: one layer of each kind, which is run for all of that kind with each one's weights, and what
comes after the last layer. Passes of few rows give the logits of every row; those of many only keep
keys and values, and end with the layers: a prompt's last token goes through one of the former.
"""

import functools
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from tinygrad import Tensor, TinyJit
from tinygrad.uop.ops import KernelInfo, UOp

from node.engines.formats.architectures import LayerKind
from node.engines.formats.gguf import GgufModel
from node.engines.formats.safetensors import Array
from node.engines.worker.attention import BLOCKS, LANES, Attention
from node.engines.worker.buffers import placed, write, zeros
from node.engines.worker.decoder_layer import DecoderLayer, norm
from node.engines.worker.gguf import read_array
from node.engines.worker.graph_replay import replay
from node.engines.worker.load_progress import LoadProgress
from node.engines.worker.matmul import Matmul
from node.engines.worker.rope import angles
from node.engines.worker.slots import SlotRow

# Rows of passes that answer, and of passes that only read.
ANSWERING = (1, 4, 8)
READING = (32, 128)


class LanguageModel:
    """The weights and the kept keys and values on the device, and the graphs over them."""

    def __init__(
        self, model: GgufModel, slots: int, products: Matmul, progress: LoadProgress
    ) -> None:
        self.model = model
        self._progress = progress
        self.slots = slots
        self.context = model.context // LANES * LANES
        self._products = products
        attention = Attention(self.context, blocked=products.blocked)
        self._layer = DecoderLayer(model, products, attention)
        self._table = read_array(model, "token_embd.weight")
        # Cosines and sines of one turning after the other.
        self._angles = list(self._read_angles())
        # In the order `_layer` and `_ending` take them: inputs of all graphs, which so share them.
        self._layers = [list(self._layer_weights(number)) for number in range(model.layers)]
        self._last = list(self._last_weights())
        shape = (slots, model.kv_heads)
        size = model.head_size
        self._kept = [
            [zeros(*shape, *form) for form in ((size, self.context), (self.context, size))]
            for _ in range(model.layers)
        ]
        self._graphs: dict[int, Callable[[int], Any]] = {}
        self._inputs = {rows: self._input(rows) for rows in (*ANSWERING, *READING)}

    @property
    def exact(self) -> bool:
        """Whether a token's numbers are the same to the bit in every pass."""
        return self._products.blocked

    def _input(self, rows: int) -> tuple[Tensor, ...]:
        return (
            # Each layer reads one of these and writes the other.
            zeros(rows, self.model.hidden),
            zeros(rows, self.model.hidden),
            *(zeros(rows, *part.shape[1:]) for part in self._angles),
            zeros(rows, kind="int32"),
        )

    def _read_angles(self) -> Iterator[Array]:
        for rope in self.model.ropes:
            divisors = read_array(self.model, rope.divisors) if rope.divisors else None
            yield from angles(rope, self.context, divisors)

    def _layer_weights(self, number: int) -> Iterator[Tensor]:
        # Keys and values, which are written after them, take about as long.
        self._progress.at(0.6 * number / self.model.layers)
        return self._layer.weights(number)

    def _last_weights(self) -> Iterator[Tensor]:
        # What logits are multiplied by, the rows that they are made of may be as well.
        weight = read_array(self.model, "output_norm.weight") * np.float32(self.model.logit_scale)
        yield placed(weight)
        last = self._table if self.model.tied else read_array(self.model, "output.weight")
        # Words that are no multiple of a block have rows of nothing after them.
        spare = np.zeros((-len(last) % LANES, self.model.hidden), np.float32)
        yield self._products.weight(np.concatenate([last, spare]) if len(spare) else last)
        yield zeros(len(last) + len(spare))

    def capture(self, rows: int) -> tuple[Any, ...]:
        """Compile the graphs of a pass of so many rows: a second or two."""
        graphs: list[Callable[..., Tensor]] = [
            functools.partial(self._layer_graph, kind) for kind in self._kinds
        ]
        if rows in ANSWERING:
            graphs.append(self._ending)
        blocks = UOp.variable(BLOCKS, 1, self.context // LANES).bind(1)
        captured = []
        for graph, inputs in zip(graphs, self._first_inputs(rows), strict=True):
            jit = TinyJit(graph)
            # The first call would run everything eagerly and throw it away.
            jit.cnt = 1
            jit(blocks, *inputs)
            captured.append(jit)
        return tuple(captured)

    @property
    def _kinds(self) -> tuple[LayerKind, ...]:
        return tuple(dict.fromkeys(self.model.kinds))

    def _layer_inputs(self, rows: int) -> list[tuple[Sequence[Tensor], ...]]:
        """What each layer's graph takes."""
        one, other, *parts, at = self._inputs[rows]
        layers: list[tuple[Sequence[Tensor], ...]] = []
        for kind, *own in zip(self.model.kinds, self._layers, self._kept, strict=True):
            turning = [] if kind.rope is None else parts[2 * kind.rope : 2 * kind.rope + 2]
            layers.append(((one, other, *turning, at), *own))
            one, other = other, one
        return layers

    def _ending_inputs(self, rows: int) -> tuple[Sequence[Tensor], ...]:
        return [self._inputs[rows][self.model.layers % 2]], self._last

    def _first_inputs(self, rows: int) -> list[tuple[Sequence[Tensor], ...]]:
        """What each graph of a pass takes when it is run for the first time in it."""
        layers = self._layer_inputs(rows)
        found = [layers[self.model.kinds.index(kind)] for kind in self._kinds]
        return [*found, self._ending_inputs(rows)] if rows in ANSWERING else found

    def ready(self, graphs: dict[int, Any]) -> None:
        """Take the graphs that `run` uses: all of them linked, and run once."""
        self._graphs = {rows: self._linked(rows, found) for rows, found in sorted(graphs.items())}

    def _linked(self, rows: int, graphs: tuple[Any, ...]) -> Callable[[int], Any]:
        of_kind = dict(zip(self._kinds, graphs, strict=False))
        layers = zip(self.model.kinds, self._layer_inputs(rows), strict=True)
        # Layers of one kind that follow each other are one graph run again and again.
        runs = [
            (of_kind[kind], [inputs for _, inputs in some])
            for kind, some in itertools.groupby(layers, key=lambda it: it[0])
        ]
        if rows in ANSWERING:
            runs.append((graphs[-1], [self._ending_inputs(rows)]))
        parts = [
            replay(
                graph.captured,
                [[it.uop.base for some in inputs for it in some] for inputs in each],
                BLOCKS,
            )
            for graph, each in runs
        ]

        def run(blocks: int) -> Any:
            return [part(blocks) for part in parts][-1]

        return run

    def run(self, rows: Sequence[SlotRow]) -> Array | None:
        """One pass; the logits of every row, [rows, words], if they are few enough to answer."""
        size = next(size for size in self._graphs if size >= len(rows))
        # A row that is there twice writes the same numbers to the same place twice.
        filled = [*rows, *[rows[0]] * (size - len(rows))]
        positions = [row.position for row in filled]
        arrays = (
            self._table[[row.token for row in filled]] * np.float32(self.model.embedding_scale),
            *(part[positions] for part in self._angles),
            np.array([row.slot * self.context + row.position for row in filled], np.int32),
        )
        first, _, *others = self._inputs[size]
        sources = (first, *others)
        for source, array in zip(sources, arrays, strict=True):
            write(source.uop.base.realized, array)
        result = self._graphs[size](max(positions) // LANES + 1)
        if size not in ANSWERING:
            return None
        logits = np.frombuffer(result.uop.base.realized.as_memoryview(), np.float32)
        # The next pass writes over the graph's own buffer.
        return logits.reshape(size, -1)[: len(rows), : self.model.vocabulary].copy()

    def _ending(self, _blocks: Any, inputs: Sequence[Tensor], weights: list[Tensor]) -> Tensor:
        """The logits of every row."""
        weight, head, bias = weights
        last = norm(inputs[0], weight, self.model.norm_eps, blocked=self._products.blocked)
        return self._products.linear(last.contiguous(), head, bias).realize()

    def _layer_graph(
        self,
        kind: LayerKind,
        _blocks: Any,
        inputs: Sequence[Tensor],
        weights: Sequence[Tensor],
        kept: Sequence[Tensor],
    ) -> Tensor:
        """One layer, from the first of its inputs into the second."""
        rows, after, *turning, at = inputs
        more, rows, written = self._layer.graph(kind, rows, (turning, at), kept, iter(weights))
        return Tensor.custom_kernel(after, more, rows, fxn=_sum_kernel)[0].realize(*written)


def _sum_kernel(out: Any, one: Any, other: Any) -> Any:
    row, column = ranges = UOp.range(out.shape[0], 0), UOp.range(out.shape[1], 1)
    stored = out[row, column].store(one[row, column] + other[row, column])
    return stored.end(*ranges).sink(arg=KernelInfo(name="add_rows"))
