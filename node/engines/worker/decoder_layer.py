"""One layer of a language model, built as its family's row of the table says. Worker only."""

from collections.abc import Iterator, Sequence

import numpy as np
from tinygrad import Tensor

from node.engines.formats.architectures import GELU, HEADS, WIDTH, LayerKind
from node.engines.formats.gguf import GgufModel
from node.engines.worker.attention import Attention, squares
from node.engines.worker.buffers import placed
from node.engines.worker.gguf import read_array
from node.engines.worker.matmul import Matmul
from node.engines.worker.rope import turned


class DecoderLayer:
    """Reads the weights of any layer of one model, and builds the graph over them."""

    def __init__(self, model: GgufModel, products: Matmul, attention: Attention) -> None:
        self._model = model
        self._products = products
        self._attention = attention

    def weights(self, number: int) -> Iterator[Tensor]:
        """The layer's weights on the device, in the order in which the graph takes them."""
        family, at = self._model.family, f"blk.{number}."
        if family.norms_before:
            yield self._vector(f"{at}attn_norm.weight")
        if family.fused:
            yield from self._matrices(at, "attn_qkv")
        else:
            yield from self._matrices(at, "attn_q attn_k attn_v", biases=self._model.biases)
        if family.query_norms:
            yield self._vector(f"{at}attn_q_norm.weight")
            yield self._vector(f"{at}attn_k_norm.weight")
        yield from self._matrices(at, "attn_output")
        if family.norms_after:
            yield self._vector(f"{at}post_attention_norm.weight")
        if family.norms_before:
            yield self._vector(f"{at}ffn_norm.weight")
        # In a fused one the gate lies before what it opens, too.
        yield from self._matrices(at, "ffn_up" if family.fused else "ffn_gate ffn_up")
        yield from self._matrices(at, "ffn_down")
        if family.norms_after:
            yield self._vector(f"{at}post_ffw_norm.weight")

    def _vector(self, name: str) -> Tensor:
        return placed(read_array(self._model, name))

    def _matrices(self, at: str, names: str, *, biases: bool = False) -> list[Tensor]:
        """One weight of several that have the same input, and its bias."""
        parts = [read_array(self._model, f"{at}{name}.weight") for name in names.split()]
        matrix = np.concatenate(parts) if len(parts) > 1 else parts[0]
        bias = np.zeros(len(matrix), np.float32)
        if biases:
            found = [read_array(self._model, f"{at}{it}.bias") for it in names.split()]
            bias = np.concatenate(found)
        return [self._products.weight(matrix), placed(bias)]

    def graph(
        self,
        kind: LayerKind,
        rows: Tensor,
        where: tuple[Sequence[Tensor], Tensor],
        kept: Sequence[Tensor],
        left: Iterator[Tensor],
    ) -> tuple[Tensor, Tensor, list[Tensor]]:
        """What the layer adds, to which rows, and its keys and values as they are afterwards.

        `where` has the cosines and sines of the rows' places, [rows, 1, half], none if nothing
        turns, and the places; `left` gives the weights.
        """
        family = self._model.family
        inner = self._norm(rows, next(left)) if family.norms_before else rows
        found, written = self._attended(kind, inner, where, kept, left)
        if family.norms_after:
            found = self._norm(found, next(left))
        rows = (self._branch(found) + rows).contiguous()
        inner = self._norm(rows, next(left)) if family.norms_before else rows
        found = self._fed_forward(inner, left)
        if family.norms_after:
            found = self._norm(found, next(left))
        return self._branch(found), rows, written

    def _attended(
        self,
        kind: LayerKind,
        rows: Tensor,
        where: tuple[Sequence[Tensor], Tensor],
        kept: Sequence[Tensor],
        left: Iterator[Tensor],
    ) -> tuple[Tensor, list[Tensor]]:
        model, linear = self._model, self._products.linear
        count, size = int(rows.shape[0]), model.head_size
        turning, at = where
        all_three = linear(rows, next(left), next(left))
        parts = all_three.reshape(count, -1, size)
        query = parts[:, : model.heads]
        key = parts[:, model.heads : model.heads + model.kv_heads]
        value = parts[:, model.heads + model.kv_heads :]
        if model.family.query_norms:
            query, key = self._norm_parts(query, next(left)), self._norm_parts(key, next(left))
        if kind.rope is not None:
            cosines, sines = turning
            query, key = turned(query, cosines, sines), turned(key, cosines, sines)
        keys, values = kept
        keys, values = self._attention.keep(keys, values, (key, value), at)
        mixed = self._attention.mixed(
            query, (keys, values), at, scale=model.attention_scale, window=kind.window
        )
        return linear(mixed.reshape(count, -1), next(left), next(left)), [keys, values]

    def _fed_forward(self, rows: Tensor, left: Iterator[Tensor]) -> Tensor:
        model, linear = self._model, self._products.linear
        both = linear(rows, next(left), next(left))
        gate, up = both[:, : model.inner], both[:, model.inner :]
        opened = gate.gelu() if model.family.gate == GELU else gate.silu()
        return linear(opened * up, next(left), next(left))

    def _branch(self, found: Tensor) -> Tensor:
        scale = self._model.residual_scale
        return found if scale == 1.0 else found * scale

    def _norm(self, rows: Tensor, weight: Tensor) -> Tensor:
        return norm(rows, weight, self._model.norm_eps, blocked=self._products.blocked)

    def _norm_parts(self, parts: Tensor, weight: Tensor) -> Tensor:
        """Norm queries or keys: [rows, heads, size]."""
        count, heads, size = (int(n) for n in parts.shape)
        width = {HEADS: size, WIDTH: heads * size}[self._model.family.query_norms]
        rows = parts.reshape(-1, width).contiguous()
        return self._norm(rows, weight).reshape(count, heads, size)


def norm(rows: Tensor, weight: Tensor, eps: float, *, blocked: bool) -> Tensor:
    """Rows over the root of their mean square, times `weight`: [rows, width]."""
    mean = squares(rows, blocked=blocked) * (1 / int(rows.shape[1]))
    return rows * (mean + eps).rsqrt() * weight
