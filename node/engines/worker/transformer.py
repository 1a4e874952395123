"""A transformer of any family in the table of architectures. Runs in the worker only.

A pass takes rows, each one token at one place of one slot (see `tinygrad_attention`), so reading a
prompt and going on with many answers are the same graph. There are a few graphs for each number of
rows: one layer of each kind, which is run for all of that kind with each one's weights, and what
comes after the last layer. Passes of few rows give the logits of every row; those of many only keep
keys and values, and end with the layers: a prompt's last token goes through one of the former.

Of a model whose layers lie at several peers one has the first of them, and what comes before and
after all: it hands rows to the rest, and they come back. The others take rows and give rows.
"""

import functools
import hashlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import numpy as np
from tinygrad import Tensor, TinyJit
from tinygrad.uop.ops import KernelInfo, UOp

from node.engines.formats.architectures import LayerKind
from node.engines.formats.gguf_model import READING_ROWS, GgufModel
from node.engines.formats.rope_angles import angles
from node.engines.formats.safetensors import Array
from node.engines.worker.attention import BLOCKS, LANES, PAGE, Attention, RowPlaces
from node.engines.worker.buffers import flat, placed, reserved, write, zeros
from node.engines.worker.decoder_layer import DecoderLayer, Forms, KeptWeights, WeightsLeft, norm
from node.engines.worker.gguf import read_array, read_rows
from node.engines.worker.graph_replay import replay
from node.engines.worker.load_progress import LoadProgress
from node.engines.worker.matmul import Matmul
from node.engines.worker.panel_kernels import native
from node.engines.worker.passes import SlotRow
from node.engines.worker.thread_team import ThreadTeam

# Rows of passes that answer, and of passes that only read.
ANSWERING = (1, 4, 8)
READING = READING_ROWS
# Logits of longer passes are made so many rows at a time.
HEAD_ROWS = ANSWERING[-1]


# What makes a graph another one; what comes after the last layer has no kind.
GraphName = tuple[LayerKind | None, Forms]
Runs = list[tuple[GraphName, tuple[Sequence[Tensor], ...]]]


class Rest(Protocol):
    """The layers after those that are here, at other peers."""

    def __call__(self, rows: Sequence[SlotRow], states: Array, *, wait: bool) -> Array | None:
        """The rows' numbers after all layers, [rows, hidden]; None if nobody waits for them.

        RestLost if what was kept of earlier rows is gone.
        """


class LanguageModel:
    """The weights and the kept keys and values on the device, and the graphs over them."""

    def __init__(
        self,
        model: GgufModel,
        pages: int,
        products: Matmul,
        progress: LoadProgress,
        team: ThreadTeam | None = None,
    ) -> None:
        """`pages` of `PAGE` tokens are there for all that is kept; `team` runs kernels of a CPU."""
        self.model = model
        self.team = team or ThreadTeam()
        self._here = model.here
        self._progress = progress
        self.pages = pages
        self.context = model.context // LANES * LANES
        # What a slot may have pages for.
        self._reach = -(-self.context // PAGE) * PAGE
        self._products = products
        attention = Attention(self._reach, blocked=products.blocked)
        self._layer = DecoderLayer(model, products, attention)
        # Unpacked row by row, as it is used. Without the first layer nobody asks for tokens.
        self._table = read_rows(model, "token_embd.weight").checked() if self._here.begins else None
        # Cosines and sines of one turning after the other.
        self._angles = list(self._read_angles())
        # In the order `_layer` and `_ending` take them: inputs of all graphs, which so share them.
        numbers = range(self._here.first, self._here.last + 1)
        self._layers = [self._layer_weights(number) for number in numbers]
        ends = self._here.begins and model.speaks
        self._last = self._last_weights() if ends else None
        shape = (pages, model.kv_heads)
        size = model.head_size
        self._kept = [
            [reserved(*shape, *form) for form in ((size, PAGE), (PAGE, size))] for _ in numbers
        ]
        # What runs the layers here, and what comes after all layers where those are not all.
        self._graphs: dict[int, Callable[[int], Any]] = {}
        # What comes after the last layer, in passes of the most rows that answer.
        self._head: Callable[[int], Any] | None = None
        self._endings: dict[int, Callable[[int], Any]] = {}
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
        self._progress.at((number - self._here.first) / self._here.size)
        return self._layer.weights(number)

    def _last_weights(self) -> KeptWeights:
        # What logits are multiplied by, the rows that they are made of may be as well.
        weight = read_array(self.model, "output_norm.weight") * np.float32(self.model.logit_scale)
        found = KeptWeights([], [placed(weight)])
        tied = self._table if self.model.tied else None
        last = read_rows(self.model, "output.weight") if tied is None else tied
        # Words that are no multiple of a block have rows of nothing after them.
        last = last.padded(LANES)
        found.add(*self._products.packed([last], np.zeros(len(last.raw), np.float32)))
        return found

    def capture(self, rows: int) -> tuple[Any, ...]:
        """Compile the graphs of a pass of so many rows: a second or two."""
        return *self.capture_layers(rows), *self.capture_ending(rows)

    def capture_layers(self, rows: int) -> tuple[Any, ...]:
        """The graphs of the layers here, one for each kind: the same wherever the kinds are."""
        return self._captured(self._runs_of(rows)[: self._here.size])

    def capture_ending(self, rows: int) -> tuple[Any, ...]:
        """The graph of what comes after all layers; none where that is not run."""
        return self._captured(self._runs_of(rows)[self._here.size :])

    @property
    def kinds_key(self) -> str:
        """What the graphs of the layers here depend on besides the model."""
        names = dict.fromkeys(name for name, _ in self._runs_of(READING[-1]))
        return hashlib.sha256(repr(tuple(names)).encode()).hexdigest()

    def _captured(self, runs: Runs) -> tuple[Any, ...]:
        blocks = UOp.variable(BLOCKS, 1, self._reach // LANES).bind(1)
        captured = {}
        for graph, inputs in runs:
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

    def _runs_of(self, rows: int) -> Runs:
        """What a pass runs, one after the other: the graph, and what it takes.

        Layers of one kind whose weights have the same forms share a graph.
        """
        one, other, *parts = self._inputs[rows]
        angles, places = parts[:-3], parts[-3:]
        found: Runs = []
        kinds = self.model.kinds[self._here.first : self._here.last + 1]
        for kind, own, kept in zip(kinds, self._layers, self._kept, strict=True):
            turning = [] if kind.rope is None else angles[2 * kind.rope : 2 * kind.rope + 2]
            inputs = (one, other, *turning, *places)
            found.append(((kind, tuple(own.forms)), (inputs, own.tensors, kept)))
            one, other = other, one
        if rows in ANSWERING and self._last is not None:
            found.append(((None, tuple(self._last.forms)), ([one], self._last.tensors)))
        return found

    def ready(self, graphs: dict[int, Any]) -> None:
        """Take the graphs that `run` and `through` use: all of them linked, and run once."""
        for rows, found in sorted(graphs.items()):
            runs = self._runs_of(rows)
            captured = dict(zip(dict.fromkeys(name for name, _ in runs), found, strict=True))
            # Between the last layer here and what comes after all, others have their turn.
            layers = self._here.size if not self._here.whole else len(runs)
            self._graphs[rows] = self._linked(runs[:layers], captured)
            if runs[layers:]:
                self._endings[rows] = self._linked(runs[layers:], captured)
            if rows == HEAD_ROWS and self._last is not None:
                self._head = self._linked(runs[-1:], captured)

    def _linked(self, runs: Runs, captured: dict[GraphName, Any]) -> Callable[[int], Any]:
        return replay(
            [
                (captured[name].captured, [it.uop.base for some in inputs for it in some])
                for name, inputs in runs
            ],
            BLOCKS,
            self.team,
        )

    def run(
        self, rows: Sequence[SlotRow], rest: Rest | None = None, *, sketched: bool = False
    ) -> Array | None:
        """One pass; the logits of every row, [rows, words], if they are few enough to answer.

        `rest` runs the layers that are not here, which are left out without it; RestLost. Where it
        is `sketched`, what comes out of the last layer stands after them: [rows, words + hidden].
        """
        size, result = self._passed(rows, rest, told=False)
        if size not in ANSWERING:
            return None
        states = self._states(size, len(rows)) if sketched else None
        return self._logits(result, size, len(rows), states)

    def lines(
        self,
        rows: Sequence[SlotRow],
        first: int,
        rest: Rest | None = None,
        *,
        sketched: bool = False,
    ) -> Iterator[Array]:
        """One pass of any size, and then the logits of its rows from `first` on, one by one.

        They are made a few rows at a time, while they are taken. RestLost.
        """
        size, result = self._passed(rows, rest, told=True)
        states = self._states(size, len(rows))
        if size not in ANSWERING:
            return self._blocks(states[first:], sketched=sketched)
        return iter(self._logits(result, size, len(rows), states if sketched else None)[first:])

    def _blocks(self, states: Array, *, sketched: bool) -> Iterator[Array]:
        assert self._head is not None, "what comes after all layers is here"
        for at in range(0, len(states), HEAD_ROWS):
            block = states[at : at + HEAD_ROWS]
            write(self._last_rows(HEAD_ROWS), _filled(block, HEAD_ROWS))
            beside = block if sketched else None
            yield from self._logits(self._head(1), HEAD_ROWS, len(block), beside)

    def _passed(self, rows: Sequence[SlotRow], rest: Rest | None, *, told: bool) -> tuple[int, Any]:
        """All layers, and in a pass that answers what comes after them; its size, and the logits.

        `told`: whether what the rows become is asked for, whatever the size is.
        """
        size, result = self._layers_of(rows, self._embedded([row.token for row in rows]))
        if rest is not None:
            states = rest(rows, self._states(size, len(rows)), wait=told or size in ANSWERING)
            if states is not None:
                write(self._last_rows(size), _filled(states, size))
        if size in ANSWERING and size in self._endings:
            result = self._endings[size](1)
        return size, result

    def _logits(self, result: Any, size: int, rows: int, beside: Array | None = None) -> Array:
        logits = np.frombuffer(result.uop.base.realized.as_memoryview(), np.float32)
        found = logits.reshape(size, -1)[:rows, : self.model.vocabulary]
        # The next pass writes over the graph's own buffer: these are copies.
        return found.copy() if beside is None else np.concatenate((found, beside), axis=1)

    def through(self, rows: Sequence[SlotRow], states: Array) -> Array:
        """The rows' numbers, [rows, hidden], after the layers here; tokens are not looked at."""
        size, _ = self._layers_of(rows, states)
        return self._states(size, len(rows))

    def read(self, rows: Sequence[SlotRow]) -> Array:
        """The numbers that tokens become after all layers, [rows, hidden], without the last norm.

        There may be as many as `reading` has at most.
        """
        return self.through(rows, self._embedded([row.token for row in rows]))

    def _layers_of(self, rows: Sequence[SlotRow], states: Array) -> tuple[int, Any]:
        """Run the layers here: which pass it was, and what its last graph gave."""
        size = next(size for size in self._graphs if size >= len(rows))
        # A row that is there twice writes the same numbers to the same place twice.
        filled = [*rows, *[rows[0]] * (size - len(rows))]
        positions = [row.position for row in filled]
        arrays = (
            _filled(states, size),
            *(part[positions] for part in self._angles),
            *self._places(filled),
        )
        first, _, *others = self._inputs[size]
        sources = (first, *others)
        for source, array in zip(sources, arrays, strict=True):
            write(source.uop.base.realized, array)
        return size, self._graphs[size](max(positions) // LANES + 1)

    def wipe(self, pages: Sequence[int]) -> bool:
        """Put zeros where keys and values were no numbers; False where the device has no way."""
        if not self.exact:
            return False
        for tensor in (it for kept in self._kept for it in kept):
            flat(tensor).reshape(tensor.shape)[list(pages)] = 0
        return True

    def _last_rows(self, size: int) -> Any:
        """The buffer that the last layer here writes its rows to."""
        return self._inputs[size][self._here.size % 2].uop.base.realized

    def _states(self, size: int, count: int) -> Array:
        found = np.frombuffer(self._last_rows(size).as_memoryview(), np.float32)
        return found.reshape(size, -1)[:count].copy()

    def _embedded(self, tokens: list[int]) -> Array:
        assert self._table is not None, "the first layer is here"
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


def _filled(states: Array, size: int) -> Array:
    """As many rows as a pass has, the first one once more for each that is missing."""
    return np.concatenate((states, np.repeat(states[:1], size - len(states), 0)))


def _sum_kernel(out: Any, one: Any, other: Any) -> Any:
    row, column = ranges = UOp.range(out.shape[0], 0), UOp.range(out.shape[1], 1)
    stored = out[row, column].store(one[row, column] + other[row, column])
    return stored.end(*ranges).sink(arg=KernelInfo(name="add_rows"))
