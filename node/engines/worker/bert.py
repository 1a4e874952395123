"""A BERT encoder in tinygrad: texts as tokens in, unit vectors out. Runs in the worker only.

Texts lie side by side in one pass of fixed length (a bucket): each token sees the tokens of its
own text only, so no text is padded to the length of another, and what is alone in its pass gives
the same bits as among others. The graph of each bucket is captured once.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from tinygrad import Tensor, TinyJit

from node.engines.formats.bert import BLOCK, BertShape, BertWeights, slots
from node.engines.formats.gguf_rope import Rope
from node.engines.formats.rope_angles import angles
from node.engines.formats.safetensors import Array
from node.engines.worker.buffers import placed, write, zeros
from node.engines.worker.matmul import Matmul
from node.engines.worker.panel_kernels import native
from node.engines.worker.rope import turned
from node.engines.worker.text_attention import text_attention_kernel

NO_TEXT = -1


class Encoder:
    """The weights on the device, and the graph over them."""

    def __init__(self, shape: BertShape, weights: BertWeights, products: Matmul) -> None:
        self._shape = shape
        self._host = weights
        self._products = products
        self._native = products.blocked and native()
        # Of each place of a text, where places turn queries and keys: [tokens, 1, half].
        self._angles: tuple[Array, ...] = ()
        if shape.rope_base:
            rope = Rope(turned=shape.hidden // shape.heads, base=shape.rope_base)
            self._angles = angles(rope, shape.tokens_max, None)
        # In the order `_graph` takes them: they are inputs of the captured graph, so that the
        # captures of all buckets, in memory and on disk, share one copy.
        self._weights = [placed(part) for part in weights.norm]
        for layer in weights.layers:
            for weight, bias in (layer.attention, layer.attention_out, layer.inner, layer.outer):
                self._weights += [products.weight(weight), placed(bias)]
            for norm in (layer.attention_norm, layer.norm):
                self._weights += [placed(part) for part in norm]
        # What one pass reads, of the largest bucket; smaller ones have their own.
        self._inputs = {
            bucket: (
                zeros(bucket, shape.hidden),
                zeros(bucket, kind="int32"),
                *(zeros(bucket, 1, part.shape[-1]) for part in self._angles),
            )
            for bucket in shape.buckets
        }

    def capture(self, bucket: int) -> Any:
        """Compile the graph of one bucket: seconds."""
        captured = TinyJit(lambda inputs, weights: self._graph(inputs, weights).realize())
        # The first call would run everything eagerly and throw it away. All inputs are realized
        # already, so the capture can begin at once: half the time.
        captured.cnt = 1
        captured(self._inputs[bucket], self._weights)
        return captured

    def run(
        self,
        captured: Any,
        bucket: int,
        texts: Sequence[Sequence[int]],
        kinds: Sequence[Sequence[int]] = (),
    ) -> Array:
        """The vectors of `texts` (each its tokens, all of them at most `bucket`): [texts, hidden].

        `kinds` says of each token in which part of a pair it is. Where pairs are scored, rows are
        as the last layer gives them.

        Writes into the buffers the graph was captured with: making tensors anew costs more than
        a small graph itself.
        """
        assert sum(map(len, texts)) <= bucket
        assert len(texts) <= slots(bucket)
        rows = np.empty((bucket, self._shape.hidden), np.float32)
        owner = np.full(bucket, NO_TEXT, np.int32)
        host, at = self._host, 0
        for number, tokens in enumerate(texts):
            end = at + len(tokens)
            kind = host.kinds[list(kinds[number])] if kinds else host.kind
            rows[at:end] = host.words[list(tokens)] + host.positions[: len(tokens)] + kind
            owner[at:end] = number
            at = end
        # What is left over sees itself only; any finite numbers will do.
        rows[at:] = host.words[0]
        places = np.zeros(bucket, np.int64)
        places[:at] = np.concatenate([np.arange(len(tokens)) for tokens in texts])
        sources = self._inputs[bucket]
        arrays = (rows, owner, *(part[places] for part in self._angles))
        for source, array in zip(sources, arrays, strict=True):
            write(source.uop.base.realized, array)
        inputs = [tensor.uop.base for tensor in (*sources, *self._weights)]
        result = captured.captured(inputs, {}).uop.base.realized.as_memoryview()
        vectors = np.frombuffer(result, np.float32).reshape(-1, self._shape.hidden)
        # The next pass writes over the graph's own buffer.
        return vectors[: len(texts)].copy()

    def _graph(self, inputs: Sequence[Tensor], weights: list[Tensor]) -> Tensor:
        rows, owner, *turning = inputs
        bucket = rows.shape[0]
        left = iter(weights)
        rows = self._norm(rows, next(left), next(left)).contiguous()
        for _ in range(self._shape.layers):
            rows = self._layer(rows, owner, turning, left)
        texts = Tensor.arange(slots(bucket)).reshape(-1, 1)
        mine = texts == owner.reshape(1, bucket)
        if self._shape.first:
            # Texts lie one after the other: a text begins where another one was before.
            before = Tensor.full((1,), NO_TEXT, dtype=owner.dtype).cat(owner[:-1])
            mine = mine & (owner != before).reshape(1, bucket)
        # A mean over a text's tokens: only its direction is asked for, so the sum will do.
        sums = self._products.product(mine.float().unsqueeze(0), rows.unsqueeze(0))[0]
        if self._shape.scores:
            return sums
        return sums / sums.square().sum(-1, keepdim=True).sqrt().maximum(1e-12)

    def _layer(self, rows: Tensor, owner: Tensor, turning: list[Tensor], left: Any) -> Tensor:
        linear = self._products.linear
        both = linear(rows, next(left), next(left))
        seen = linear(self._attention(both, owner, turning), next(left), next(left))
        inner, outer = (next(left), next(left)), (next(left), next(left))
        rows = self._norm(seen + rows, next(left), next(left)).contiguous()
        grown = linear(self._opened(linear(rows, *inner)), *outer)
        return self._norm(grown + rows, next(left), next(left)).contiguous()

    def _opened(self, rows: Tensor) -> Tensor:
        if not self._shape.rope_base:
            return _gelu(rows)
        gate, up = rows.chunk(2, dim=-1)
        return gate.silu() * up

    def _attention(self, both: Tensor, owner: Tensor, turning: list[Tensor]) -> Tensor:
        """[tokens, query + key + value] -> [tokens, hidden]."""
        bucket, hidden = both.shape[0], self._shape.hidden
        heads = self._shape.heads
        size = hidden // heads
        parts = both.reshape(bucket, 3, heads, size)
        query, key = parts[:, 0], parts[:, 1]
        if turning:
            cosines, sines = turning
            query, key = turned(query, cosines, sines), turned(key, cosines, sines)
        if self._native:
            if turning:
                both = query.stack(key, parts[:, 2], dim=1).reshape(bucket, 3 * hidden)
            out = Tensor.empty(bucket, hidden)
            kernel = text_attention_kernel(heads)
            return Tensor.custom_kernel(out, both.contiguous(), owner, fxn=kernel)[0]
        same = owner.reshape(1, bucket, 1) == owner.reshape(1, 1, bucket)
        query, key = query.transpose(0, 1), key.permute(1, 2, 0)
        scores = self._products.product(query, key)
        top = same.where(scores, -math.inf).max(-1, keepdim=True)
        shares = same.where(((scores - top) * (1 / math.sqrt(size))).exp(), 0)
        # A block of ones beside the values: the same product also sums the shares, in the same
        # order for every bucket.
        ones = Tensor.ones(heads, bucket, BLOCK)
        value = parts[:, 2].transpose(0, 1).cat(ones, dim=-1)
        mixed = self._products.product(shares, value)
        mixed = mixed[:, :, :size] / mixed[:, :, size : size + 1]
        return mixed.transpose(0, 1).reshape(bucket, hidden)

    def _norm(self, rows: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return rows.layernorm(eps=self._shape.layer_norm_eps) * weight + bias


def _gelu(rows: Tensor) -> Tensor:
    return 0.5 * rows * (1 + (rows * (1 / math.sqrt(2))).erf())
