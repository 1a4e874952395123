"""What each layer of an exact transformer computes, in plain numpy. Every engine has to equal this.

Rows are whole numbers, 16 bits after the point. A row goes into a matrix in 8-bit numbers, 32 to a
scale; what comes out is summed without any rounding, and then rounded once. `text_file` says which
numbers there are and why nothing overflows. The steps of one token:

1. its row of the embedding matrix;
2. in each layer: norm; queries, keys and values; both former turned by the place; keys and values
   kept in 8 bits; scores of all places so far, their powers by table, values by their shares; added
   to the row; norm; gate and what is behind it; added to the row;
3. norm, and the logits, 14 bits after the point, which 32-bit floats hold exactly.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from node.engines.exact.text_file import (
    GATE,
    GATES_COUNT,
    KEPT,
    KEPT_MOST,
    LOGIT,
    LOGIT_MOST,
    OUTPUT,
    POWERS_COUNT,
    ROW,
    STEP,
    TURN,
    TextModel,
)
from node.engines.exact.whole_numbers import (
    MOST,
    Blocks,
    divided,
    in_blocks,
    narrowed,
    shifted,
    sums,
)
from node.engines.formats.onnx_protobuf import Array

# Outputs of a matrix that are unpacked together.
SLAB_ROWS = 4096


@dataclass(frozen=True, slots=True)
class KeptRows:
    """Keys, or values, of some tokens in 8 bits, 12 bits after the point.

    `numbers` is [tokens, heads, size], `scales` [tokens, heads, blocks].
    """

    numbers: Array
    scales: Array

    @property
    def values(self) -> Array:
        """What they stand for: [tokens, heads, size], whole numbers that 32-bit floats hold."""
        block = self.numbers.shape[-1] // self.scales.shape[-1]
        return np.asarray(self.numbers * np.repeat(self.scales, block, axis=-1))


# Sums of the products of rows with matrices of the same rows, each [rows, outputs].
Multiply = Callable[[Blocks, Sequence[str]], list[Array]]


@dataclass(slots=True)
class TextLayers:
    """The steps of one model. `multiply` is how rows and matrices are multiplied: `Unpacking`."""

    model: TextModel
    multiply: Multiply

    def embedded(self, tokens: Sequence[int]) -> Array:
        """The rows that tokens begin as: [tokens, hidden]."""
        table = self.model.matrix("token_embd.weight")
        rows = table.rows(np.asarray(tokens, np.int64))
        return shifted(rows.products.astype(np.int64), table.bits - ROW)

    def asked(self, layer: int, rows: Array, places: Array) -> tuple[Blocks, KeptRows, KeptRows]:
        """What rows at these places ask for, [rows, heads, size], and their keys and values."""
        blocks = in_blocks(self.model.norm(f"blk.{layer}.attn_norm.weight").of(rows))
        names = [f"blk.{layer}.attn_{name}.weight" for name in "qkv"]
        size = self.model.shape.head_size
        query, key, value = (
            it.reshape(len(rows), -1, size) for it in self._products(blocks, names)
        )
        turning = self.model.turns[places][:, None, :]
        asked = in_blocks(_turned(query, turning), self.model.kept_block)
        return asked, self._narrowed(_turned(key, turning)), self._narrowed(value)

    def mixed(self, asked: Blocks, places: Array, keys: Array, values: Array) -> Array:
        """Values by their shares, [rows, heads * size]; a row sees the places up to its own.

        Keys and values are those of all places: [heads, place, size].
        """
        model, shape = self.model, self.model.shape
        rows, share = len(places), shape.heads // shape.kv_heads
        # [heads of keys, rows, share, ...]
        asking, exponents = (
            it.reshape(rows, shape.kv_heads, share, -1).swapaxes(0, 1)
            for it in (asked.products, asked.exponents)
        )
        flat = asking.reshape(shape.kv_heads, rows * share, -1)
        scores = np.asarray(flat @ keys.astype(np.float64).swapaxes(1, 2)).astype(np.int64)
        scores = scores.reshape(shape.kv_heads, rows, share, -1) * model.factor
        scores = shifted(scores, ROW + KEPT + model.factor_bits - STEP - exponents)
        seen = np.arange(scores.shape[-1]) <= places[:, None, None]
        scores = np.where(seen, scores, -MOST)
        below = scores.max(axis=-1, keepdims=True) - scores
        powers = np.where(seen, model.powers[np.minimum(below, POWERS_COUNT - 1)], 0)
        shares = powers.reshape(shape.kv_heads, rows * share, -1).astype(np.float64)
        found = np.asarray(shares @ values.astype(np.float64)).astype(np.int64)
        found = found.reshape(shape.kv_heads, rows, share, -1)
        found = divided(found << (ROW - KEPT), powers.sum(axis=-1, keepdims=True))
        return np.asarray(found.swapaxes(0, 1).reshape(rows, -1))

    def attended(self, layer: int, rows: Array, mixed: Array) -> Array:
        """The rows after attention, of what it mixed."""
        (found,) = self._products(in_blocks(mixed), [f"blk.{layer}.attn_output.weight"])
        return _added(rows, found)

    def fed(self, layer: int, rows: Array) -> Array:
        """The rows after what follows attention."""
        blocks = in_blocks(self.model.norm(f"blk.{layer}.ffn_norm.weight").of(rows))
        names = [f"blk.{layer}.ffn_{name}.weight" for name in ("gate", "up")]
        gate, up = self._products(blocks, names)
        at = np.clip((gate >> (ROW - STEP)) + GATES_COUNT // 2, 0, GATES_COUNT - 1)
        inner = shifted(shifted(gate * self.model.gates[at], GATE) * up, ROW)
        (found,) = self._products(in_blocks(inner), [f"blk.{layer}.ffn_down.weight"])
        return _added(rows, found)

    def logits(self, rows: Array) -> Array:
        """What is said of every token: whole numbers, [rows, tokens]; see `as_floats`."""
        blocks = in_blocks(self.model.norm("output_norm.weight").of(rows))
        return self._products(blocks, [OUTPUT], LOGIT, LOGIT_MOST)[0]

    def _narrowed(self, heads: Array) -> KeptRows:
        return KeptRows(*narrowed(shifted(heads, ROW - KEPT, KEPT_MOST), self.model.kept_block))

    def _products(
        self, blocks: Blocks, names: Sequence[str], bits: int = ROW, most: int = MOST
    ) -> list[Array]:
        """Each matrix's outputs, `bits` of them after the point."""
        each = zip(names, self.multiply(blocks, names), strict=True)
        return [
            shifted(found, ROW + self.model.matrix(name).bits - bits - blocks.exponents, most)
            for name, found in each
        ]


@dataclass(slots=True)
class Unpacking:
    """Multiplies in numpy. With `keep`, unpacked matrices stay in memory: 8 bytes a weight."""

    model: TextModel
    keep: bool = False
    _kept: dict[str, Array] = field(default_factory=dict)

    def __call__(self, blocks: Blocks, names: Sequence[str]) -> list[Array]:
        """See `Multiply`."""
        return [self._one(blocks.products, name) for name in names]

    def _one(self, rows: Array, name: str) -> Array:
        matrix = self.model.matrix(name)
        if self.keep:
            if name not in self._kept:
                self._kept[name] = matrix.products
            return sums(rows, self._kept[name])
        starts = range(0, len(matrix.blocks), SLAB_ROWS)
        parts = [sums(rows, matrix.rows(slice(at, at + SLAB_ROWS)).products) for at in starts]
        return np.concatenate(parts, axis=-1)


def _turned(heads: Array, turning: Array) -> Array:
    """The pairs (2i, 2i + 1) of each head, turned by the angles of the places."""
    half = heads.shape[-1] // 2
    cosines, sines = turning[..., :half], turning[..., half:]
    one, other = heads[..., 0::2], heads[..., 1::2]
    found = np.empty_like(heads)
    found[..., 0::2] = shifted(one * cosines - other * sines, TURN)
    found[..., 1::2] = shifted(other * cosines + one * sines, TURN)
    return found


def _together(kept: Sequence[KeptRows]) -> Array:
    """All numbers of keys and values, and their scales: [tokens, ...]."""
    parts = [part for it in kept for part in (it.numbers, it.scales)]
    return np.concatenate([it.reshape(len(it), -1) for it in parts], axis=1)


def _added(rows: Array, more: Array) -> Array:
    return np.asarray(np.clip(rows + more, -MOST, MOST))


def as_floats(logits: Array) -> Array:
    """Logits as the 32-bit floats that tokens are drawn by: no bit is lost."""
    return np.asarray(logits.astype(np.float32) / np.float32(1 << LOGIT))


@dataclass(slots=True)
class TextPast:
    """One conversation: the keys and values of its tokens so far, [layers, heads, place, size]."""

    layers: TextLayers
    keys: list[Array] = field(default_factory=list)
    values: list[Array] = field(default_factory=list)
    count: int = 0
    # Shown the rows as they begin, and then what each layer keeps, and both its steps: all of them
    # [tokens, ...].
    watch: Callable[[Array], None] | None = None

    def read(self, tokens: Sequence[int]) -> Array:
        """Go on with these tokens: their rows after the last layer, [tokens, hidden]."""
        layers, rows = self.layers, self.layers.embedded(tokens)
        places = np.arange(self.count, self.count + len(tokens))
        self._show(rows)
        for number in range(layers.model.shape.layers):
            asked, *kept = layers.asked(number, rows, places)
            self._add(number, *kept)
            mixed = layers.mixed(asked, places, self.keys[number], self.values[number])
            attended = layers.attended(number, rows, mixed)
            rows = layers.fed(number, attended)
            if self.watch is not None:
                self._show(_together(kept), attended, rows)
        self.count += len(tokens)
        return rows

    def _show(self, *states: Array) -> None:
        if self.watch is not None:
            for state in states:
                self.watch(state)

    def _add(self, number: int, keys: KeptRows, values: KeptRows) -> None:
        for past, more in ((self.keys, keys), (self.values, values)):
            new = more.values.swapaxes(0, 1).astype(np.float32)
            if number == len(past):
                past.append(new)
            else:
                past[number] = np.concatenate((past[number], new), axis=1)
