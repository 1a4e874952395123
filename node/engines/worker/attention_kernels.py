"""Attention over pages of keys and values, as C for the CPU's own vectors. Worker only.

A row is done for itself: its scores, their greatest, the shares, and the mix of values. Nothing is
kept of it but the result, so what a pass needs does not grow with rows times tokens. Every sum has
the order that `attention` gives it and the exponential is tinygrad's, so the bits are the same.
"""

from collections.abc import Callable
from typing import Any

from node.engines.worker.panel_kernels import HEAD, part_of, program

# Blocks of eight tokens whose scores are summed at the same time, and terms of the mix.
BLOCKS_AT_ONCE = 4
# The factors of 2^r for r between -0.5 and 0.5, greatest power first.
EXPONENTIAL = (
    "0.00015359208919107914f",
    "0.0013392627006396651f",
    "0.009618384763598442f",
    "0.055503472685813904f",
    "0.24022644758224487f",
    "0.6931471824645996f",
    "1.0f",
)

_SHARES = """
static inline floats share_of(floats score, float top) {
  const floats x = (score - top) * 1.4426950216293335f;
  const floats nothing = 0, half = 0.5f;
  const floats seen = x < -150.0f ? nothing : x;
  const ints whole = INTS(seen + (seen < 0.0f ? -half : half));
  const floats rest = seen - FLOATS(whole);
  floats power = EXPONENTIAL_0;
POWERS
  const ints low = whole >> 1, bias = 127;
  power = power * __builtin_bit_cast(floats, (low + bias) << 23)
    * __builtin_bit_cast(floats, (whole - low + bias) << 23);
  return x < -150.0f ? nothing : power;
}
"""


def share_source() -> str:
    """`share_of` as C: e to the power of what scores are below the top one, of eight at once."""
    first, *others = EXPONENTIAL
    powers = "\n".join(f"  power = power * rest + {factor};" for factor in others)
    return _SHARES.replace("EXPONENTIAL_0", first).replace("POWERS", powers)


def keep_kernel(page: int) -> Callable[..., Any]:
    """A kernel of (keys, values, the new keys and values, their places): written in place."""

    def kernel(keys: Any, values: Any, key: Any, value: Any, at: Any) -> Any:
        rows, heads, size = key.shape
        name = f"attention_keep_{rows}_{heads}_{size}"
        body = f"""
void {name}(float* restrict keys, float* restrict values, const float* restrict key,
            const float* restrict value, const int* restrict at, long part) {{
  for (long row = 0; row < {rows}; row++) {{
    const long page = at[row] / {page}, token = at[row] % {page};
    for (long head = 0; head < {heads}; head++) {{
      const long from = (row * {heads} + head) * {size};
      const long to = (page * {heads} + head) * {size} * {page};
      for (long term = 0; term < {size}; term++) {{
        keys[to + term * {page} + token] = key[from + term];
        values[to + token * {size} + term] = value[from + term];
      }}
    }}
  }}
}}
"""
        return program(name, body, (keys, values, key, value, at), outs=(0, 1), parts=1)

    return kernel


def mix_kernel(page: int, context: int, scale: float, window: int) -> Callable[..., Any]:
    """A kernel of (out, query, keys, values, each row's place in its slot, and its pages).

    Scores are multiplied by `scale`; a row sees the last `window` tokens, 0: all.
    """

    def kernel(out: Any, query: Any, keys: Any, values: Any, seen: Any, table: Any) -> Any:
        rows, shared, group, size = query.shape
        name = f"attention_mix_{rows}_{shared}_{group}_{size}_{context}_{window}"
        body = _source(name, (rows, shared, group, size), (page, context, window), scale)
        parts = _divided((rows, shared, group, size), context)[1]
        return program(name, body, (out, query, keys, values, seen, table), outs=(0,), parts=parts)

    return kernel


def _divided(shape: tuple[int, ...], context: int) -> tuple[int, int]:
    """How many heads of rows a part has, and how many parts there are."""
    rows, shared, group, size = shape
    return part_of(rows * shared * group, rows * shared * group * size * context)


def _source(name: str, shape: tuple[int, ...], reach: tuple[int, int, int], scale: float) -> str:
    rows, shared, group, size = shape
    page, context, window = reach
    factor, (step, _) = scale.hex(), _divided(shape, context)
    return f"""{HEAD}
{share_source()}
enum {{ ROWS = {rows}, SHARED = {shared}, GROUP = {group}, SIZE = {size}, PAGE = {page},
  WINDOW = {window or context}, PAGES = {context // page}, PAGE_BLOCKS = PAGE / 8 }};
static inline void scored(float* restrict to, const float* restrict query,
                          const float* restrict keys, long block, long blocks) {{
{_scores(BLOCKS_AT_ONCE, factor)}{_scores(1, factor)}}}
static inline void mixed(float* restrict out, const float* restrict shares, float total,
                         const float* restrict values, const int* restrict pages, long head,
                         long begin, long tokens) {{
  long term = 0;
{_mixes(8)}{_mixes(1)}}}
void {name}(float* restrict out, const float* restrict query, const float* restrict keys,
            const float* restrict values, const int* restrict seen, const int* restrict table,
            long part) {{
  float scores[{context}] __attribute__((aligned(32)));
  const long all = ROWS * SHARED * GROUP, step = {step};
  for (long place = part ? (part - 1) * step : 0;
       place < (part && part * step < all ? part * step : all); place++) {{
    const long row = place / (SHARED * GROUP), head = place / GROUP % SHARED;
    const long tokens = seen[row] + 1;
    const int* pages = table + row * PAGES;
    const long begin = tokens > WINDOW ? tokens - WINDOW : 0, begin_page = begin / PAGE * PAGE;
    for (long first = begin_page; first < tokens; first += PAGE) {{
      const long left = (tokens - first + 7) / 8;
      scored(scores + first, query + place * SIZE,
             keys + (pages[first / PAGE] * (long)SHARED + head) * SIZE * PAGE,
             first < begin ? (begin - first) / 8 : 0,
             left < PAGE_BLOCKS ? left : PAGE_BLOCKS);
    }}
    const long blocks = (tokens + 7) / 8;
    for (long token = tokens; token < blocks * 8; token++) scores[token] = -__builtin_inff();
    for (long token = begin / 8 * 8; token < begin; token++) scores[token] = -__builtin_inff();
    floats tops = -__builtin_inff();
    for (long block = begin / 8; block < blocks; block++) {{
      const floats score = AT(floats, scores, block);
      tops = score > tops ? score : tops;
    }}
    float top = tops[0];
    for (long lane = 1; lane < 8; lane++) top = tops[lane] > top ? tops[lane] : top;
    floats sums = 0;
    for (long block = begin / 8; block < blocks; block++) {{
      const floats share = share_of(AT(floats, scores, block), top);
      PUT(scores, block) = share;
      sums = sums + share;
    }}
    float total = sums[0];
    for (long lane = 1; lane < 8; lane++) total = total + sums[lane];
    mixed(out + place * SIZE, scores, total, values, pages, head, begin, tokens);
  }}
}}
"""


def _scores(at_once: int, scale: str) -> str:
    """Scores of so many blocks of eight tokens together, as often as there are so many left."""
    each = range(at_once)
    sums = ", ".join(f"sum{it} = 0" for it in each)
    added = "\n".join(
        f"      sum{it} += query[term] * AT(floats, keys + term * PAGE, block + {it});"
        for it in each
    )
    put = "\n".join(f"    PUT(to, block + {it}) = sum{it} * {scale}f;" for it in each)
    return f"""  for (; block + {at_once} <= blocks; block += {at_once}) {{
    floats {sums};
    for (long term = 0; term < SIZE; term++) {{
{added}
    }}
{put}
  }}
"""


def _mixes(at_once: int) -> str:
    """The mix of so many times eight terms of all values, as often as there are so many left."""
    each = range(at_once)
    sums = ", ".join(f"sum{it} = 0" for it in each)
    added = "\n".join(
        f"        sum{it} += shares[first + token] * AT(floats, from, {it});" for it in each
    )
    put = "\n".join(f"    PUT(out + term, {it}) = sum{it} / total;" for it in each)
    return f"""  for (; term + {8 * at_once} <= SIZE; term += {8 * at_once}) {{
    floats {sums};
    for (long first = begin / PAGE * PAGE; first < tokens; first += PAGE) {{
      const long last = tokens - first < PAGE ? tokens - first : PAGE;
      const float* page = values + (pages[first / PAGE] * (long)SHARED + head) * PAGE * SIZE + term;
      for (long token = first < begin ? begin - first : 0; token < last; token++) {{
        const float* from = page + token * SIZE;
{added}
      }}
    }}
{put}
  }}
"""
