"""One layer of a language model, built as its family's row of the table says. Worker only."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from tinygrad import Tensor

from node.engines.formats.architectures import GELU, HEADS, WIDTH, LayerKind
from node.engines.formats.gguf_model import GgufModel
from node.engines.worker.attention import Attention, RowPlaces, squares
from node.engines.worker.buffers import placed
from node.engines.worker.expert_kernels import chosen_experts
from node.engines.worker.gguf import read_array, read_rows
from node.engines.worker.matmul import Matmul, WeightForm
from node.engines.worker.rope import turned

# The forms of the weights of each product of a layer, which may be of several types.
Forms = tuple[tuple[WeightForm, ...], ...]


@dataclass(frozen=True, slots=True)
class KeptWeights:
    """The weights of a layer in the order in which it takes them, and the forms of its products."""

    forms: list[tuple[WeightForm, ...]]
    tensors: list[Tensor]

    def add(self, forms: tuple[WeightForm, ...], tensors: list[Tensor]) -> None:
        """One product's."""
        self.forms.append(forms)
        self.tensors.extend(tensors)


class WeightsLeft:
    """The weights of one layer as its graph takes them, one after the other."""

    def __init__(self, products: Matmul, forms: Forms, tensors: Sequence[Tensor]) -> None:
        self._products = products
        self._forms, self._tensors = iter(forms), iter(tensors)

    def vector(self) -> Tensor:
        return next(self._tensors)

    def product(self, rows: Tensor) -> Tensor:
        """[rows, in] -> [rows, out], with the next product's weights."""
        return self._products.linear_of(rows, next(self._forms), self._tensors)

    def expert_product(self, rows: Tensor, chosen: Tensor) -> Tensor:
        """[rows, in] -> [rows of `chosen`, out], each with the weights of the expert it names."""
        (form,) = next(self._forms)
        return self._products.experts_of(rows, chosen, form, self._tensors)


class DecoderLayer:
    """Reads the weights of any layer of one model, and builds the graph over them."""

    def __init__(self, model: GgufModel, products: Matmul, attention: Attention) -> None:
        self._model = model
        self._products = products
        self._attention = attention

    def weights(self, number: int) -> KeptWeights:
        """The layer's weights on the device, in the order in which the graph takes them."""
        family, at = self._model.family, f"blk.{number}."
        found = KeptWeights([], [])
        if family.norms_before:
            self._add_vector(found, f"{at}attn_norm.weight")
        if family.fused:
            self._add_product(found, at, "attn_qkv")
        else:
            self._add_product(found, at, "attn_q attn_k attn_v", biases=self._model.biases)
        if family.query_norms:
            self._add_vector(found, f"{at}attn_q_norm.weight")
            self._add_vector(found, f"{at}attn_k_norm.weight")
        self._add_product(found, at, "attn_output")
        if family.norms_after:
            self._add_vector(found, f"{at}post_attention_norm.weight")
        if family.norms_before:
            self._add_vector(found, f"{at}ffn_norm.weight")
        if self._model.experts:
            self._add_product(found, at, "ffn_gate_inp")
            for name in ("ffn_gate_exps", "ffn_up_exps", "ffn_down_exps"):
                rows = read_rows(self._model, f"{at}{name}.weight")
                form, tensors = self._products.packed_experts(rows, self._model.experts)
                found.add((form,), tensors)
        else:
            # In a fused one the gate lies before what it opens, too.
            self._add_product(found, at, "ffn_up" if family.fused else "ffn_gate ffn_up")
            self._add_product(found, at, "ffn_down")
        if family.norms_after:
            self._add_vector(found, f"{at}post_ffw_norm.weight")
        return found

    def _add_vector(self, found: KeptWeights, name: str) -> None:
        found.tensors.append(placed(read_array(self._model, name)))

    def _add_product(
        self, found: KeptWeights, at: str, names: str, *, biases: bool = False
    ) -> None:
        """One product's weights, of several tensors that have the same input, and its bias."""
        parts = [read_rows(self._model, f"{at}{name}.weight") for name in names.split()]
        bias = np.zeros(sum(len(part.raw) for part in parts), np.float32)
        if biases:
            each = [read_array(self._model, f"{at}{name}.bias") for name in names.split()]
            bias = np.concatenate(each)
        found.add(*self._products.packed(parts, bias))

    def graph(
        self,
        kind: LayerKind,
        rows: Tensor,
        where: tuple[Sequence[Tensor], RowPlaces],
        kept: Sequence[Tensor],
        left: WeightsLeft,
    ) -> tuple[Tensor, Tensor, list[Tensor]]:
        """What the layer adds, to which rows, and its keys and values as they are afterwards.

        `where` has the cosines and sines of the rows' places, [rows, 1, half], none if nothing
        turns, and the places; `left` gives the weights.
        """
        family = self._model.family
        inner = self._norm(rows, left.vector()) if family.norms_before else rows
        found, written = self._attended(kind, inner, where, kept, left)
        if family.norms_after:
            found = self._norm(found, left.vector())
        rows = (self._branch(found) + rows).contiguous()
        inner = self._norm(rows, left.vector()) if family.norms_before else rows
        found = self._fed_forward(inner, left)
        if family.norms_after:
            found = self._norm(found, left.vector())
        return self._branch(found), rows, written

    def _attended(
        self,
        kind: LayerKind,
        rows: Tensor,
        where: tuple[Sequence[Tensor], RowPlaces],
        kept: Sequence[Tensor],
        left: WeightsLeft,
    ) -> tuple[Tensor, list[Tensor]]:
        model = self._model
        count, size = int(rows.shape[0]), model.head_size
        turning, places = where
        all_three = left.product(rows)
        parts = all_three.reshape(count, -1, size)
        query = parts[:, : model.heads]
        key = parts[:, model.heads : model.heads + model.kv_heads]
        value = parts[:, model.heads + model.kv_heads :]
        if model.family.query_norms:
            query, key = (
                self._norm_parts(query, left.vector()),
                self._norm_parts(key, left.vector()),
            )
        if kind.rope is not None:
            cosines, sines = turning
            query, key = turned(query, cosines, sines), turned(key, cosines, sines)
        keys, values = kept
        keys, values = self._attention.keep(keys, values, (key, value), places.at)
        mixed = self._attention.mixed(
            query, (keys, values), places, scale=model.attention_scale, window=kind.window
        )
        return left.product(mixed.reshape(count, -1)), [keys, values]

    def _fed_forward(self, rows: Tensor, left: WeightsLeft) -> Tensor:
        model = self._model
        if model.experts:
            return self._through_experts(rows, left)
        both = left.product(rows)
        gate, up = both[:, : model.inner], both[:, model.inner :]
        opened = gate.gelu() if model.family.gate == GELU else gate.silu()
        return left.product(opened * up)

    def _through_experts(self, rows: Tensor, left: WeightsLeft) -> Tensor:
        """Each row through the experts that score highest for it, and what they say by shares."""
        count, used = int(rows.shape[0]), self._model.experts_used
        rows = rows.contiguous()
        chosen, shares = chosen_experts(left.product(rows), used)
        chosen = chosen.reshape(count * used)
        gate, up = left.expert_product(rows, chosen), left.expert_product(rows, chosen)
        opened = (gate.silu() * up).contiguous()
        said = left.expert_product(opened, chosen).reshape(count, used, -1)
        total = said[:, 0] * shares[:, :1]
        for at in range(1, used):
            total = total + said[:, at] * shares[:, at : at + 1]
        return total

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
