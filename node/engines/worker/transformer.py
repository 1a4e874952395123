"""A transformer of the llama and qwen families in tinygrad. Runs in the worker only.

A pass takes rows, each one token at one place of one slot (see `tinygrad_attention`), so reading a
prompt and going on with many answers are the same graph. There are two graphs for each number of
rows: one layer, which is run for all of them with each one's weights, and what comes after the last
layer. Passes of few rows give the logits of every row; those of many only keep keys and values,
and end with the layers: a prompt's last token goes through one of the former.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from tinygrad import Tensor, TinyJit
from tinygrad.uop.ops import KernelInfo, UOp

from node.engines.formats.gguf import GgufModel
from node.engines.formats.safetensors import Array
from node.engines.worker.attention import BLOCKS, LANES, Attention, squares
from node.engines.worker.buffers import placed, write, zeros
from node.engines.worker.gguf import read_array
from node.engines.worker.graph_replay import replay
from node.engines.worker.load_progress import LoadProgress
from node.engines.worker.matmul import Matmul
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
        self._attention = Attention(self.context, blocked=products.blocked)
        self._table = read_array(model, "token_embd.weight")
        self._angles = _angles(model, self.context)
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
        half = self.model.head_size // 2
        return (
            # Each layer reads one of these and writes the other.
            zeros(rows, self.model.hidden),
            zeros(rows, self.model.hidden),
            zeros(rows, 1, half),
            zeros(rows, 1, half),
            zeros(rows, kind="int32"),
        )

    def _vector(self, name: str) -> Tensor:
        return placed(read_array(self.model, name))

    def _matrices(self, at: str, names: str, *, biases: bool = False) -> list[Tensor]:
        """One weight of several that have the same input, and its bias."""
        model = self.model
        parts = [read_array(model, f"{at}{name}.weight") for name in names.split()]
        matrix = np.concatenate(parts) if len(parts) > 1 else parts[0]
        bias = np.zeros(len(matrix), np.float32)
        if biases:
            bias = np.concatenate([read_array(model, f"{at}{it}.bias") for it in names.split()])
        return [self._products.weight(matrix), placed(bias)]

    def _layer_weights(self, number: int) -> Iterator[Tensor]:
        # Keys and values, which are written after them, take about as long.
        self._progress.at(0.6 * number / self.model.layers)
        at = f"blk.{number}."
        yield self._vector(f"{at}attn_norm.weight")
        yield from self._matrices(at, "attn_q attn_k attn_v", biases=self.model.biases)
        if self.model.norms:
            yield self._vector(f"{at}attn_q_norm.weight")
            yield self._vector(f"{at}attn_k_norm.weight")
        yield from self._matrices(at, "attn_output")
        yield self._vector(f"{at}ffn_norm.weight")
        yield from self._matrices(at, "ffn_gate ffn_up")
        yield from self._matrices(at, "ffn_down")

    def _last_weights(self) -> Iterator[Tensor]:
        yield self._vector("output_norm.weight")
        last = self._table if self.model.tied else read_array(self.model, "output.weight")
        # Words that are no multiple of a block have rows of nothing after them.
        spare = np.zeros((-len(last) % LANES, self.model.hidden), np.float32)
        yield self._products.weight(np.concatenate([last, spare]) if len(spare) else last)
        yield zeros(len(last) + len(spare))

    def capture(self, rows: int) -> tuple[Any, ...]:
        """Compile the graphs of a pass of so many rows: a second or two."""
        graphs: list[Callable[..., Tensor]] = [self._layer]
        if rows in ANSWERING:
            graphs.append(self._ending)
        blocks = UOp.variable(BLOCKS, 1, self.context // LANES).bind(1)
        captured = []
        for graph, inputs in zip(graphs, self._inputs_of(rows), strict=True):
            jit = TinyJit(graph)
            # The first call would run everything eagerly and throw it away.
            jit.cnt = 1
            jit(blocks, *inputs[0])
            captured.append(jit)
        return tuple(captured)

    def _inputs_of(self, rows: int) -> list[list[tuple[Sequence[Tensor], ...]]]:
        """What each graph of a pass takes, for each time that it is run in the pass."""
        one, other, *where = self._inputs[rows]
        layers: list[tuple[Sequence[Tensor], ...]] = []
        for own in zip(self._layers, self._kept, strict=True):
            layers.append(((one, other, *where), *own))
            one, other = other, one
        return [layers, [([one], self._last)]] if rows in ANSWERING else [layers]

    def ready(self, graphs: dict[int, Any]) -> None:
        """Take the graphs that `run` uses: all of them linked, and run once."""
        self._graphs = {rows: self._linked(rows, found) for rows, found in sorted(graphs.items())}

    def _linked(self, rows: int, graphs: tuple[Any, ...]) -> Callable[[int], Any]:
        parts = [
            replay(
                graph.captured,
                [[it.uop.base for some in inputs for it in some] for inputs in each],
                BLOCKS,
            )
            for graph, each in zip(graphs, self._inputs_of(rows), strict=True)
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
            self._table[[row.token for row in filled]],
            self._angles[0][positions],
            self._angles[1][positions],
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
        norm, head, bias = weights
        last = self._norm(inputs[0], norm).contiguous()
        return self._products.linear(last, head, bias).realize()

    def _layer(
        self, _blocks: Any, inputs: Sequence[Tensor], weights: list[Tensor], kept: list[Tensor]
    ) -> Tensor:
        """One layer, from the first of its inputs into the second."""
        rows, after, cosines, sines, at = inputs
        left = iter(weights)
        model, linear = self.model, self._products.linear
        count, size = int(rows.shape[0]), model.head_size
        all_three = linear(self._norm(rows, next(left)), next(left), next(left))
        parts = all_three.reshape(count, -1, size)
        query = parts[:, : model.heads]
        key = parts[:, model.heads : model.heads + model.kv_heads]
        value = parts[:, model.heads + model.kv_heads :]
        if model.norms:
            query, key = self._norm_heads(query, next(left)), self._norm_heads(key, next(left))
        query, key = _turned(query, cosines, sines), _turned(key, cosines, sines)
        keys, values = self._attention.keep(kept[0], kept[1], (key, value), at)
        mixed = self._attention.mixed(query, keys, values, at).reshape(count, -1)
        rows = (linear(mixed, next(left), next(left)) + rows).contiguous()
        both = linear(self._norm(rows, next(left)), next(left), next(left))
        gate, up = both[:, : model.inner], both[:, model.inner :]
        more = linear(gate.silu() * up, next(left), next(left))
        return Tensor.custom_kernel(after, more, rows, fxn=_sum_kernel)[0].realize(keys, values)

    def _norm(self, rows: Tensor, weight: Tensor) -> Tensor:
        mean = squares(rows, blocked=self._products.blocked) * (1 / int(rows.shape[1]))
        return rows * (mean + self.model.norm_eps).rsqrt() * weight

    def _norm_heads(self, parts: Tensor, weight: Tensor) -> Tensor:
        count, heads, size = (int(n) for n in parts.shape)
        rows = parts.reshape(count * heads, size).contiguous()
        return self._norm(rows, weight).reshape(count, heads, size)


def _sum_kernel(out: Any, one: Any, other: Any) -> Any:
    row, column = ranges = UOp.range(out.shape[0], 0), UOp.range(out.shape[1], 1)
    stored = out[row, column].store(one[row, column] + other[row, column])
    return stored.end(*ranges).sink(arg=KernelInfo(name="add_rows"))


def _turned(parts: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
    """Turn the pairs (i, i + half) of each head by the place's angles."""
    half = int(parts.shape[-1]) // 2
    one, other = parts[..., :half], parts[..., half:]
    turned = one * cosines - other * sines, other * cosines + one * sines
    return turned[0].cat(turned[1], dim=-1)


def _angles(model: GgufModel, context: int) -> tuple[Array, Array]:
    """Cosine and sine of each place's angles: [context, 1, half]."""
    half = model.head_size // 2
    speeds = model.rope_base ** (-np.arange(half, dtype=np.float64) / half) / model.rope_factor
    if "rope_freqs.weight" in model.tensors:
        speeds = speeds / read_array(model, "rope_freqs.weight").astype(np.float64)
    angles = (np.arange(context, dtype=np.float64)[:, None] * speeds)[:, None, :]
    return np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)
