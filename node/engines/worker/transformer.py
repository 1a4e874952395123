"""A transformer of the llama and qwen families in tinygrad. Runs in the worker only.

A pass takes rows, each one token at one place of one slot (see `tinygrad_attention`), so reading a
prompt and going on with many answers are the same graph. There are two graphs for each number of
rows: one layer, which is run for all of them with each one's weights, and what comes after the last
layer. Passes of few rows give the logits of every row; those of many only keep keys and values,
and end with the layers: a prompt's last token goes through one of the former.
"""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from tinygrad import Tensor, TinyJit
from tinygrad.uop.ops import KernelInfo, UOp

from node.engines.formats.gguf import GgufModel
from node.engines.formats.safetensors import Array
from node.engines.worker.attention import BLOCKS, LANES, PAGE, Attention, RowPlaces, squares
from node.engines.worker.buffers import placed, reserved, write, zeros
from node.engines.worker.gguf import read_array, read_rows
from node.engines.worker.graph_replay import replay
from node.engines.worker.load_progress import LoadProgress
from node.engines.worker.matmul import Matmul
from node.engines.worker.slots import SlotRow
from node.engines.worker.weight_blocks import PanelForm

# Rows of passes that answer, and of passes that only read.
ANSWERING = (1, 4, 8)
READING = (32, 128)


# The forms of the weights of each product of a layer, which may be of several types.
Forms = tuple[tuple[PanelForm, ...], ...]


@dataclass(frozen=True, slots=True)
class KeptWeights:
    """The weights of a layer in the order in which it takes them, and the forms of its products."""

    forms: list[tuple[PanelForm, ...]]
    tensors: list[Tensor]

    def add_vector(self, vector: Tensor) -> None:
        self.tensors.append(vector)

    def add(self, forms: tuple[PanelForm, ...], tensors: list[Tensor]) -> None:
        self.forms.append(forms)
        self.tensors.extend(tensors)


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
        self._attention = Attention(self._reach, blocked=products.blocked)
        # Unpacked row by row, as it is used.
        self._table = read_rows(model, "token_embd.weight").checked()
        self._angles = _angles(model, self.context)
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
            zeros(rows, kind="int32"),
            zeros(rows, self._reach // PAGE, kind="int32"),
        )

    def _vector(self, name: str) -> Tensor:
        return placed(read_array(self.model, name))

    def _layer_weights(self, number: int) -> KeptWeights:
        self._progress.at(number / self.model.layers)
        model, at = self.model, f"blk.{number}."
        found = KeptWeights([], [])
        found.add_vector(self._vector(f"{at}attn_norm.weight"))
        self._add(found, at, "attn_q attn_k attn_v", biases=model.biases)
        if model.norms:
            found.add_vector(self._vector(f"{at}attn_q_norm.weight"))
            found.add_vector(self._vector(f"{at}attn_k_norm.weight"))
        self._add(found, at, "attn_output")
        found.add_vector(self._vector(f"{at}ffn_norm.weight"))
        self._add(found, at, "ffn_gate ffn_up")
        self._add(found, at, "ffn_down")
        return found

    def _last_weights(self) -> KeptWeights:
        found = KeptWeights([], [])
        found.add_vector(self._vector("output_norm.weight"))
        last = self._table if self.model.tied else read_rows(self.model, "output.weight")
        # Words that are no multiple of a block have rows of nothing after them.
        last = last.padded(LANES)
        found.add(*self._products.packed([last], np.zeros(len(last.raw), np.float32)))
        return found

    def _add(self, found: KeptWeights, at: str, names: str, *, biases: bool = False) -> None:
        """One product's weights, of several tensors that have the same input, and its bias."""
        parts = [read_rows(self.model, f"{at}{name}.weight") for name in names.split()]
        bias = np.zeros(sum(len(part.raw) for part in parts), np.float32)
        if biases:
            each = [read_array(self.model, f"{at}{name}.bias") for name in names.split()]
            bias = np.concatenate(each)
        found.add(*self._products.packed(parts, bias))

    def capture(self, rows: int) -> tuple[Any, ...]:
        """Compile the graphs of a pass of so many rows: a second or two."""
        blocks = UOp.variable(BLOCKS, 1, self._reach // LANES).bind(1)
        captured = {}
        for forms, inputs in self._runs_of(rows):
            if forms in captured:
                continue
            ending = len(forms) == 1
            jit = TinyJit(functools.partial(self._ending if ending else self._layer, forms))
            # The first call would run everything eagerly and throw it away.
            jit.cnt = 1
            jit(blocks, *inputs)
            captured[forms] = jit
        return tuple(captured.values())

    def _runs_of(self, rows: int) -> list[tuple[Forms, tuple[Sequence[Tensor], ...]]]:
        """What a pass runs, one after the other: the forms of weights, and what the graph takes.

        Layers whose weights have the same forms share a graph.
        """
        one, other, *where = self._inputs[rows]
        found: list[tuple[Forms, tuple[Sequence[Tensor], ...]]] = []
        for own, kept in zip(self._layers, self._kept, strict=True):
            found.append((tuple(own.forms), ((one, other, *where), own.tensors, kept)))
            one, other = other, one
        if rows in ANSWERING:
            found.append((tuple(self._last.forms), ([one], self._last.tensors)))
        return found

    def ready(self, graphs: dict[int, Any]) -> None:
        """Take the graphs that `run` uses: all of them linked, and run once."""
        self._graphs = {rows: self._linked(rows, found) for rows, found in sorted(graphs.items())}

    def _linked(self, rows: int, graphs: tuple[Any, ...]) -> Callable[[int], Any]:
        runs = self._runs_of(rows)
        captured = dict(zip(dict.fromkeys(forms for forms, _ in runs), graphs, strict=True))
        return replay(
            [
                (captured[forms].captured, [it.uop.base for some in inputs for it in some])
                for forms, inputs in runs
            ],
            BLOCKS,
        )

    def run(self, rows: Sequence[SlotRow]) -> Array | None:
        """One pass; the logits of every row, [rows, words], if they are few enough to answer."""
        size = next(size for size in self._graphs if size >= len(rows))
        # A row that is there twice writes the same numbers to the same place twice.
        filled = [*rows, *[rows[0]] * (size - len(rows))]
        positions = [row.position for row in filled]
        arrays = (
            self._table.taken([row.token for row in filled]).floats(),
            self._angles[0][positions],
            self._angles[1][positions],
            *self._places(filled),
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
        self, forms: Forms, _blocks: Any, inputs: Sequence[Tensor], weights: list[Tensor]
    ) -> Tensor:
        """The logits of every row."""
        left = iter(weights)
        last = self._norm(inputs[0], next(left)).contiguous()
        return self._products.linear_of(last, forms[0], left).realize()

    def _layer(
        self,
        forms: Forms,
        _blocks: Any,
        inputs: Sequence[Tensor],
        weights: list[Tensor],
        kept: list[Tensor],
    ) -> Tensor:
        """One layer, from the first of its inputs into the second."""
        rows, after, cosines, sines, *others = inputs
        places = RowPlaces(*others)
        left, each = iter(weights), iter(forms)

        def linear(rows: Tensor) -> Tensor:
            return self._products.linear_of(rows, next(each), left)

        model = self.model
        count, size = int(rows.shape[0]), model.head_size
        all_three = linear(self._norm(rows, next(left)))
        parts = all_three.reshape(count, -1, size)
        query = parts[:, : model.heads]
        key = parts[:, model.heads : model.heads + model.kv_heads]
        value = parts[:, model.heads + model.kv_heads :]
        if model.norms:
            query, key = self._norm_heads(query, next(left)), self._norm_heads(key, next(left))
        query, key = _turned(query, cosines, sines), _turned(key, cosines, sines)
        keys, values = self._attention.keep(kept[0], kept[1], (key, value), places.at)
        mixed = self._attention.mixed(query, keys, values, places).reshape(count, -1)
        rows = (linear(mixed) + rows).contiguous()
        both = linear(self._norm(rows, next(left)))
        gate, up = both[:, : model.inner], both[:, model.inner :]
        more = linear(gate.silu() * up)
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
