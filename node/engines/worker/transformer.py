"""A transformer of any family in the table of architectures. Runs in the worker only.

A pass takes rows, each one token at one place of one slot (see `tinygrad_attention`), so reading a
prompt and going on with many answers are the same graph. There are a few graphs for each number of
rows: one layer of each kind, which is run for all of that kind with each one's weights, and what
comes after the last layer. Passes of few rows give the logits of every row; those of many only keep
keys and values, and end with the layers: a prompt's last token goes through one of the former.
"""

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from tinygrad import Tensor, TinyJit
from tinygrad.uop.ops import KernelInfo, UOp

from node.engines.formats.architectures import LayerKind
from node.engines.formats.gguf import READING_ROWS, GgufModel
from node.engines.formats.safetensors import Array
from node.engines.worker.attention import BLOCKS, LANES, PAGE, Attention, RowPlaces
from node.engines.worker.buffers import placed, reserved, write, zeros
from node.engines.worker.decoder_layer import DecoderLayer, Forms, KeptWeights, WeightsLeft, norm
from node.engines.worker.gguf import read_array, read_rows
from node.engines.worker.graph_replay import replay
from node.engines.worker.load_progress import LoadProgress
from node.engines.worker.matmul import Matmul
from node.engines.worker.panel_kernels import native
from node.engines.worker.rope import angles
from node.engines.worker.slots import SlotRow

# Rows of passes that answer, and of passes that only read.
ANSWERING = (1, 4, 8)
READING = READING_ROWS
# Logits of longer passes are made so many rows at a time.
HEAD_ROWS = ANSWERING[-1]


# What makes a graph another one; what comes after the last layer has no kind.
GraphName = tuple[LayerKind | None, Forms]


class LanguageModel:
    """The weights and the kept keys and values on the device, and the graphs over them."""

    def __init__(
        self, model: GgufModel, pages: int, products: Matmul, progress: LoadProgress
    ) -> None:
        """`pages` of `PAGE` tokens are there for all that is kept."""
        self.model = model
        self._progress = progress
        self.pages = pages
        self.context = model.context // LANES * LANES
        # What a slot may have pages for.
        self._reach = -(-self.context // PAGE) * PAGE
        self._products = products
        attention = Attention(self._reach, blocked=products.blocked)
        self._layer = DecoderLayer(model, products, attention)
        # Unpacked row by row, as it is used.
        self._table = read_rows(model, "token_embd.weight").checked()
        # Cosines and sines of one turning after the other.
        self._angles = list(self._read_angles())
        # In the order `_layer` and `_ending` take them: inputs of all graphs, which so share them.
        self._layers = [self._layer_weights(number) for number in range(model.layers)]
        self._last = self._last_weights()
        shape = (pages, model.kv_heads)
        size = model.head_size
        self._kept = [
            [reserved(*shape, *form) for form in ((size, PAGE), (PAGE, size))]
            for _ in range(model.layers)
        ]
        self._graphs: dict[int, Callable[[int], Any]] = {}
        # What comes after the last layer, in passes of the most rows that answer.
        self._head: Callable[[int], Any] | None = None
        self._inputs = {rows: self._input(rows) for rows in (*ANSWERING, *READING)}

    @property
    def reading(self) -> tuple[int, ...]:
        """The rows of passes that read: none that the context could never fill."""
        found = READING if native() else self.model.gpu_reading
        return tuple(rows for rows in found if rows <= self.context) or found[:1]

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
            zeros(rows, kind="int32"),
            zeros(rows, self._reach // PAGE, kind="int32"),
        )

    def _read_angles(self) -> Iterator[Array]:
        for rope in self.model.ropes:
            divisors = read_array(self.model, rope.divisors) if rope.divisors else None
            yield from angles(rope, self.context, divisors)

    def _layer_weights(self, number: int) -> KeptWeights:
        self._progress.at(number / self.model.layers)
        return self._layer.weights(number)

    def _last_weights(self) -> KeptWeights:
        # What logits are multiplied by, the rows that they are made of may be as well.
        weight = read_array(self.model, "output_norm.weight") * np.float32(self.model.logit_scale)
        found = KeptWeights([], [placed(weight)])
        last = self._table if self.model.tied else read_rows(self.model, "output.weight")
        # Words that are no multiple of a block have rows of nothing after them.
        last = last.padded(LANES)
        found.add(*self._products.packed([last], np.zeros(len(last.raw), np.float32)))
        return found

    def capture(self, rows: int) -> tuple[Any, ...]:
        """Compile the graphs of a pass of so many rows: a second or two."""
        blocks = UOp.variable(BLOCKS, 1, self._reach // LANES).bind(1)
        captured = {}
        for graph, inputs in self._runs_of(rows):
            if graph in captured:
                continue
            kind, forms = graph
            jit = TinyJit(
                functools.partial(self._ending, forms)
                if kind is None
                else functools.partial(self._layer_graph, kind, forms)
            )
            # The first call would run everything eagerly and throw it away.
            jit.cnt = 1
            jit(blocks, *inputs)
            captured[graph] = jit
        return tuple(captured.values())

    def _runs_of(self, rows: int) -> list[tuple[GraphName, tuple[Sequence[Tensor], ...]]]:
        """What a pass runs, one after the other: the graph, and what it takes.

        Layers of one kind whose weights have the same forms share a graph.
        """
        one, other, *parts = self._inputs[rows]
        angles, places = parts[:-3], parts[-3:]
        found: list[tuple[GraphName, tuple[Sequence[Tensor], ...]]] = []
        for kind, own, kept in zip(self.model.kinds, self._layers, self._kept, strict=True):
            turning = [] if kind.rope is None else angles[2 * kind.rope : 2 * kind.rope + 2]
            inputs = (one, other, *turning, *places)
            found.append(((kind, tuple(own.forms)), (inputs, own.tensors, kept)))
            one, other = other, one
        if rows in ANSWERING:
            found.append(((None, tuple(self._last.forms)), ([one], self._last.tensors)))
        return found

    def ready(self, graphs: dict[int, Any]) -> None:
        """Take the graphs that `run` uses: all of them linked, and run once."""
        self._graphs = {rows: self._linked(rows, found) for rows, found in sorted(graphs.items())}
        _, inputs = self._runs_of(HEAD_ROWS)[-1]
        self._head = self._replayed([(graphs[HEAD_ROWS][-1], inputs)])

    def _linked(self, rows: int, graphs: tuple[Any, ...]) -> Callable[[int], Any]:
        runs = self._runs_of(rows)
        captured = dict(zip(dict.fromkeys(name for name, _ in runs), graphs, strict=True))
        return self._replayed([(captured[name], inputs) for name, inputs in runs])

    def _replayed(
        self, runs: Sequence[tuple[Any, tuple[Sequence[Tensor], ...]]]
    ) -> Callable[[int], Any]:
        return replay(
            [
                (graph.captured, [it.uop.base for some in inputs for it in some])
                for graph, inputs in runs
            ],
            BLOCKS,
        )

    def run(self, rows: Sequence[SlotRow]) -> Array | None:
        """One pass; the logits of every row, [rows, words], if they are few enough to answer."""
        size, result = self._passed(rows)
        return self._logits(result, size, len(rows)) if size in ANSWERING else None

    def lines(self, rows: Sequence[SlotRow], first: int) -> Iterator[Array]:
        """One pass of any size, and then the logits of its rows from `first` on, one by one.

        They are made a few rows at a time, while they are taken.
        """
        size, result = self._passed(rows)
        if size in ANSWERING:
            return iter(self._logits(result, size, len(rows))[first:])
        return self._blocks(self._states(size)[first : len(rows)])

    def _blocks(self, states: Array) -> Iterator[Array]:
        assert self._head is not None, "it is ready"
        target = self._last_states(HEAD_ROWS)
        for at in range(0, len(states), HEAD_ROWS):
            block = states[at : at + HEAD_ROWS]
            filled = np.zeros(target.shape, np.float32)
            filled[: len(block)] = block
            write(target.uop.base.realized, filled)
            yield from self._logits(self._head(1), HEAD_ROWS, len(block))

    def _last_states(self, size: int) -> Tensor:
        """What the last layer writes into: each reads what the one before it wrote."""
        return self._inputs[size][len(self._layers) % 2]

    def _states(self, size: int) -> Array:
        """A copy of what the last layer made of every row, [rows, hidden]."""
        memory = self._last_states(size).uop.base.realized.as_memoryview()
        return np.frombuffer(memory, np.float32).reshape(size, -1).copy()

    def _logits(self, result: Any, size: int, rows: int) -> Array:
        logits = np.frombuffer(result.uop.base.realized.as_memoryview(), np.float32)
        # The next pass writes over the graph's own buffer.
        return logits.reshape(size, -1)[:rows, : self.model.vocabulary].copy()

    def _passed(self, rows: Sequence[SlotRow]) -> tuple[int, Any]:
        """Run the graphs of the least size that takes these rows: that size, and their result."""
        size = next(size for size in self._graphs if size >= len(rows))
        # A row that is there twice writes the same numbers to the same place twice.
        filled = [*rows, *[rows[0]] * (size - len(rows))]
        positions = [row.position for row in filled]
        arrays = (
            self._embedded([row.token for row in filled]),
            *(part[positions] for part in self._angles),
            *self._places(filled),
        )
        first, _, *others = self._inputs[size]
        sources = (first, *others)
        for source, array in zip(sources, arrays, strict=True):
            write(source.uop.base.realized, array)
        return size, self._graphs[size](max(positions) // LANES + 1)

    def _embedded(self, tokens: list[int]) -> Any:
        return self._table.taken(tokens).floats() * np.float32(self.model.embedding_scale)

    def _places(self, rows: Sequence[SlotRow]) -> tuple[Any, Any, Any]:
        """The arrays of `RowPlaces`."""
        at = [row.pages[row.position // PAGE] * PAGE + row.position % PAGE for row in rows]
        table = np.zeros((len(rows), self._reach // PAGE), np.int32)
        for line, row in zip(table, rows, strict=True):
            used = row.position // PAGE + 1
            line[:used] = row.pages[:used]
        places = [row.position for row in rows]
        return np.array(at, np.int32), np.array(places, np.int32), table

    def _ending(
        self, forms: Forms, _blocks: Any, inputs: Sequence[Tensor], weights: Sequence[Tensor]
    ) -> Tensor:
        """The logits of every row."""
        left = WeightsLeft(self._products, forms, weights)
        eps, blocked = self.model.norm_eps, self._products.blocked
        last = norm(inputs[0], left.vector(), eps, blocked=blocked)
        return left.product(last.contiguous()).realize()

    def _layer_graph(
        self,
        kind: LayerKind,
        forms: Forms,
        _blocks: Any,
        inputs: Sequence[Tensor],
        weights: Sequence[Tensor],
        kept: Sequence[Tensor],
    ) -> Tensor:
        """One layer, from the first of its inputs into the second."""
        rows, after, *turning = inputs
        places = RowPlaces(*turning[-3:])
        left = WeightsLeft(self._products, forms, weights)
        where = turning[:-3], places
        more, rows, written = self._layer.graph(kind, rows, where, kept, left)
        return Tensor.custom_kernel(after, more, rows, fxn=_sum_kernel)[0].realize(*written)


def _sum_kernel(out: Any, one: Any, other: Any) -> Any:
    row, column = ranges = UOp.range(out.shape[0], 0), UOp.range(out.shape[1], 1)
    stored = out[row, column].store(one[row, column] + other[row, column])
    return stored.end(*ranges).sink(arg=KernelInfo(name="add_rows"))
