"""Attention of ONNX, versions 23 and later. Runs in the worker only.

tinygrad's own follows an early draft: a third of the standard's cases come out wrong.
"""

import math
from collections.abc import Mapping
from typing import Any

from tinygrad import Tensor, dtypes

from node.engines.formats.onnx_values import ELEMENTS_MAX
from wire.errors import ModelRefused

# By ONNX's numbers: in what the softmax may be computed.
_PRECISIONS: Mapping[int, Any] = {1: dtypes.float32, 10: dtypes.float16, 11: dtypes.float64}
_NEVER = -math.inf


def attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None = None,
    past_key: Tensor | None = None,
    past_value: Tensor | None = None,
    lengths: Tensor | None = None,
    **given: Any,
) -> tuple[Tensor, ...]:
    """The answer, the keys and values with those of the past, and the scores as they were asked.

    The first three are [batch, heads, places, size], or [batch, places, heads * size] with their
    numbers of heads given. `lengths` says for each of the batch how many keys count.
    """
    if (past_key is None) != (past_value is None) or (past_key is not None and lengths is not None):
        raise ModelRefused("Attention is given one half of a past, or a past and lengths")
    flat = query.ndim == 3
    if flat:
        q_heads, heads = int(given.get("q_num_heads", 0)), int(given.get("kv_num_heads", 0))
        if q_heads < 1 or heads < 1:
            raise ModelRefused("Attention of three dimensions does not say how many heads it has")
        query = _split_heads(query, q_heads)
        key, value = _split_heads(key, heads), _split_heads(value, heads)
    before = 0 if past_key is None else int(past_key.shape[2])
    if past_key is not None and past_value is not None:
        key, value = past_key.cat(key, dim=2), past_value.cat(value, dim=2)
    present = key, value
    batch, q_heads, queries, size = (int(it) for it in query.shape)
    heads, keys = int(key.shape[1]), int(key.shape[2])
    if q_heads % heads:
        raise ModelRefused(f"Attention has {q_heads} heads that ask for {heads} that answer")
    if batch * q_heads * queries * keys > ELEMENTS_MAX:
        raise ModelRefused(f"Attention gives {batch * q_heads * queries * keys} numbers at once")
    key, value = (it.repeat_interleave(q_heads // heads, dim=1) for it in (key, value))

    # Each side by the root: their product stays small in sixteen bits too.
    scale = given.get("scale")
    root = math.sqrt(1 / math.sqrt(size) if scale is None else float(scale))
    scores = (query * root) @ (key * root).transpose(-1, -2)
    raw = scores
    if softcap := float(given.get("softcap", 0.0)):
        scores = (scores / softcap).tanh() * softcap
    bias = _bias(query, keys, mask, before, lengths, given)
    biased = scores if bias is None else scores + bias
    precision = given.get("softmax_precision", 1 if query.dtype != dtypes.float64 else 11)
    if precision not in _PRECISIONS:
        raise ModelRefused(f"Attention with a softmax in the type {precision} is not run here")
    shares = biased.cast(_PRECISIONS[precision]).softmax(-1)
    if bias is not None:
        # Who may look at nothing sees nothing, and not what is no number.
        blind = bias.max(-1, keepdim=True) == _NEVER
        shares = blind.where(0.0, shares)
    shares = shares.cast(query.dtype)
    answer = shares @ value
    if flat:
        answer = answer.transpose(1, 2).reshape(batch, queries, -1)
    # What the fourth output shows: the products, capped, with what was added, or the shares.
    mode = int(given.get("qk_matmul_output_mode", 0))
    if not 0 <= mode < 4:
        raise ModelRefused(f"Attention that shows its scores in the way {mode} is not run here")
    shown = (raw, scores, biased, shares)[mode]
    return answer.cast(query.dtype), *present, shown.cast(query.dtype)


def _split_heads(x: Tensor, heads: int) -> Tensor:
    if x.shape[2] % heads:
        raise ModelRefused(f"Attention cannot share {x.shape[2]} numbers among {heads} heads")
    return x.reshape(x.shape[0], x.shape[1], heads, -1).transpose(1, 2)


def _bias(
    query: Tensor,
    keys: int,
    mask: Tensor | None,
    before: int,
    lengths: Tensor | None,
    given: Mapping[str, Any],
) -> Tensor | None:
    """What is added to the scores: minus infinity where a key may not be looked at."""
    queries, bias, allowed = int(query.shape[2]), None, []
    if mask is not None:
        bias = mask.where(0.0, _NEVER) if mask.dtype == dtypes.bool else mask
        if (short := keys - int(mask.shape[-1])) > 0:
            nothing = Tensor.full((*mask.shape[:-1], short), _NEVER, dtype=bias.dtype)
            bias = bias.cat(nothing, dim=-1)
        bias = bias.cast(query.dtype)
    column = Tensor.arange(keys).reshape(1, 1, 1, -1)
    # How far a query's own place lies behind the key, in each of the batch.
    first = before if lengths is None else lengths.reshape(-1, 1, 1, 1) - queries
    behind = Tensor.arange(queries).reshape(1, 1, -1, 1) + first - column
    if given.get("is_causal", 0):
        allowed.append(behind >= 0)
    left, right = (int(given.get(f"{it}_window_size", -1)) for it in ("left", "right"))
    if left >= 0:
        allowed.append(behind <= left)
    if right >= 0:
        allowed.append(-behind <= right)
    if lengths is not None:
        allowed.append(column < lengths.reshape(-1, 1, 1, 1))
    for one in allowed:
        more = one.where(0.0, _NEVER).cast(query.dtype)
        bias = more if bias is None else bias + more
    return bias
