"""Attention within the texts of one pass, as C for the CPU's own vectors. Worker only.

Texts lie side by side in a pass. A token sees the tokens of its own text and nothing else is looked
at, so a pass of many short texts costs what they cost, not the square of the pass. Every sum has an
order of its own that does not depend on where in the pass a text lies: it has the same bits alone
and among others.
"""

import math
from collections.abc import Callable
from typing import Any

from node.engines.worker.attention_kernels import share_source
from node.engines.worker.panel_kernels import HEAD, program
from node.engines.worker.weight_blocks import LANES


def text_attention_kernel(heads: int) -> Callable[..., Any]:
    """A kernel of (out [tokens, hidden], query, key and value [tokens, 3 * hidden], owners).

    Owners are the numbers of texts, the same for neighbours of one text; below zero: of none. A
    head has a multiple of eight numbers.
    """

    def kernel(out: Any, both: Any, owner: Any) -> Any:
        tokens, hidden = out.shape
        name = f"text_attention_{tokens}_{heads}_{hidden}"
        body = _source(name, tokens, heads, hidden // heads)
        return program(name, body, (out, both, owner), outs=(0,), parts=1)

    return kernel


def _source(name: str, tokens: int, heads: int, size: int) -> str:
    parts = range(size // LANES)
    ones = ", ".join(f"one{it} = AT(floats, query, {it})" for it in parts)
    first, *others = (f"one{it} * AT(floats, key, {it})" for it in parts)
    products = "".join(f"\n          sums += {it};" for it in others)
    mixes = ", ".join(f"mix{it} = 0" for it in parts)
    added = "\n".join(f"          mix{it} += scores[at] * AT(floats, value, {it});" for it in parts)
    put = "\n".join(f"        PUT(to, {it}) = mix{it} / total;" for it in parts)
    scale = (1 / math.sqrt(size)).hex()
    return f"""{HEAD}
{share_source()}
enum {{ TOKENS = {tokens}, HEADS = {heads}, SIZE = {size}, HIDDEN = HEADS * SIZE,
  LINE = 3 * HIDDEN }};
void {name}(float* restrict out, const float* restrict both, const int* restrict owner,
            long part) {{
  float scores[{-(-tokens // LANES) * LANES}] __attribute__((aligned(32)));
  for (long begin = 0, end; begin < TOKENS; begin = end) {{
    for (end = begin + 1; end < TOKENS && owner[end] == owner[begin];) end++;
    if (owner[begin] < 0) {{
      for (long at = begin * HIDDEN; at < end * HIDDEN; at++) out[at] = 0;
      continue;
    }}
    const long count = end - begin, blocks = (count + 7) / 8;
    for (long head = 0; head < HEADS; head++) {{
      for (long row = begin; row < end; row++) {{
        const float* query = both + row * LINE + head * SIZE;
        const floats {ones};
        for (long at = 0; at < count; at++) {{
          const float* key = both + (begin + at) * LINE + HIDDEN + head * SIZE;
          floats sums = {first};{products}
          const float sum = ((sums[0] + sums[4]) + (sums[1] + sums[5]))
            + ((sums[2] + sums[6]) + (sums[3] + sums[7]));
          scores[at] = sum * {scale}f;
        }}
        for (long at = count; at < blocks * 8; at++) scores[at] = -__builtin_inff();
        floats tops = -__builtin_inff();
        for (long block = 0; block < blocks; block++) {{
          const floats score = AT(floats, scores, block);
          tops = score > tops ? score : tops;
        }}
        float top = tops[0];
        for (long lane = 1; lane < 8; lane++) top = tops[lane] > top ? tops[lane] : top;
        floats all = 0;
        for (long block = 0; block < blocks; block++) {{
          const floats share = share_of(AT(floats, scores, block), top);
          PUT(scores, block) = share;
          all = all + share;
        }}
        float total = all[0];
        for (long lane = 1; lane < 8; lane++) total = total + all[lane];
        floats {mixes};
        for (long at = 0; at < count; at++) {{
          const float* value = both + (begin + at) * LINE + 2 * HIDDEN + head * SIZE;
{added}
        }}
        float* to = out + row * HIDDEN + head * SIZE;
{put}
      }}
    }}
  }}
}}
"""
