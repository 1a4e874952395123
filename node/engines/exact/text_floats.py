"""A plain transformer of the family `llama` in 32-bit floats: what an exact one is measured by.

Pure, and no engine: it is as short as can be, and reads one text from its beginning.
"""

from collections.abc import Callable, Sequence

import numpy as np

from node.engines.formats.gguf_model import GgufModel
from node.engines.formats.onnx_protobuf import Array

# A tensor by its name, in 32-bit floats.
Weights = Callable[[str], Array]


def logits_of(model: GgufModel, weights: Weights, turns: Array, tokens: Sequence[int]) -> Array:
    """What the model says after each of these tokens: [tokens, words].

    `turns` has the cosines and then the sines of each place's angles, as in an exact file.
    """
    rows = weights("token_embd.weight")[np.asarray(tokens)]
    half = model.head_size // 2
    turning = turns[: len(tokens), None, :half], turns[: len(tokens), None, half:]
    unseen = np.triu(np.full((len(tokens), len(tokens)), -np.inf, np.float32), 1)
    for number in range(model.layers):
        at = f"blk.{number}."
        normed = _normed(rows, weights(f"{at}attn_norm.weight"), model.norm_eps)
        query, key, value = (
            (normed @ weights(f"{at}attn_{name}.weight").T).reshape(
                len(tokens), -1, model.head_size
            )
            for name in "qkv"
        )
        share = model.heads // model.kv_heads
        key = np.repeat(_turned(key, *turning), share, axis=1)
        scores = np.einsum("qhs,khs->hqk", _turned(query, *turning), key) * model.attention_scale
        powers = np.exp(scores + unseen - (scores + unseen).max(axis=-1, keepdims=True))
        powers /= powers.sum(axis=-1, keepdims=True)
        mixed = np.einsum("hqk,khs->qhs", powers, np.repeat(value, share, axis=1))
        rows = rows + mixed.reshape(len(tokens), -1) @ weights(f"{at}attn_output.weight").T
        normed = _normed(rows, weights(f"{at}ffn_norm.weight"), model.norm_eps)
        gate = normed @ weights(f"{at}ffn_gate.weight").T
        gate = gate / (1 + np.exp(-np.clip(gate, -80, 80)))
        inner = gate * (normed @ weights(f"{at}ffn_up.weight").T)
        rows = rows + inner @ weights(f"{at}ffn_down.weight").T
    last = "token_embd.weight" if model.tied else "output.weight"
    normed = _normed(rows, weights("output_norm.weight"), model.norm_eps)
    return np.asarray(normed @ weights(last).T, np.float32)


def _normed(rows: Array, weight: Array, epsilon: float) -> Array:
    mean = np.square(rows).mean(axis=-1, keepdims=True)
    return np.asarray(rows / np.sqrt(mean + epsilon) * weight, np.float32)


def _turned(heads: Array, cosines: Array, sines: Array) -> Array:
    """The pairs (2i, 2i + 1) of each head, turned."""
    found = np.empty_like(heads)
    one, other = heads[..., 0::2], heads[..., 1::2]
    found[..., 0::2] = one * cosines - other * sines
    found[..., 1::2] = other * cosines + one * sines
    return found
