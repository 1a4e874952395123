"""Attention over kept keys and values, as kernels of our own. Worker only.

A pass has rows; each row is one token at one place of one slot, whichever slots they are of. What a
slot keeps lies in pages of `PAGE` tokens, and a row says which pages are its slot's. Its key and
value are written where they belong first, then it sees what its slot keeps up to itself.
Every sum runs over its terms in one fixed order, whatever lies beside the row, so a token's numbers
are the same to the bit alone, in a batch and in a longer pass. How far the longest row sees is the
variable `BLOCKS` of the graph: nothing beyond is read.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

from tinygrad import Tensor, dtypes
from tinygrad.uop.ops import AxisType, KernelInfo, Ops, UOp

from node.engines.formats.gguf_model import PAGE_TOKENS
from node.engines.worker.attention_kernels import keep_kernel, mix_kernel
from node.engines.worker.panel_kernels import native

LANES = 8
BLOCKS = "blocks"
PAGE = PAGE_TOKENS


class RowPlaces(NamedTuple):
    """Where each row is: its place among all pages, its place in its slot, its slot's pages."""

    at: Tensor
    seen: Tensor
    table: Tensor


class Attention:
    """A slot keeps `context` tokens at most, a multiple of `PAGE`.

    Keys lie [page, head, size, PAGE], values [page, head, PAGE, size].
    """

    def __init__(self, context: int, *, blocked: bool) -> None:
        self._context = context
        self._blocked = blocked
        self._native = blocked and native()

    def keep(self, keys: Tensor, values: Tensor, new: tuple[Tensor, Tensor], at: Tensor) -> Any:
        """Write rows of keys and values in place; both stores as they are afterwards."""
        key, value = (part.contiguous() for part in new)
        if self._native:
            kept = Tensor.custom_kernel(keys, values, key, value, at, fxn=keep_kernel(PAGE))
            return kept[0], kept[1]
        return (
            self._run(self._keep_keys, keys, key, at),
            self._run(self._keep_values, values, value, at),
        )

    def mixed(
        self,
        query: Tensor,
        kept: tuple[Tensor, Tensor],
        places: RowPlaces,
        *,
        scale: float,
        window: int = 0,
    ) -> Tensor:
        """[rows, heads, size] and what is kept -> [rows, heads, size].

        Scores are multiplied by `scale`; a row sees the last `window` tokens, 0: all.
        """
        keys, values = kept
        rows, heads, size = (int(n) for n in query.shape)
        shared = int(keys.shape[1])
        shape = (rows, shared, heads // shared)
        query = query.reshape(*shape, size).contiguous()
        where = places.seen, places.table
        if self._native:
            kernel = mix_kernel(PAGE, self._context, scale, window)
            found = self._run(kernel, Tensor.empty(*shape, size), query, keys, values, *where)
            return found.reshape(rows, heads, size)
        kernel = self._scores(scale, window)
        scores = self._run(kernel, Tensor.empty(*shape, self._context), query, keys, *where)
        top = self._run(self._tops, Tensor.empty(*shape, LANES), scores).max(-1).contiguous()
        shares = self._run(self._shares, Tensor.empty(*shape, self._context), scores, top)
        sums = self._run(self._sums, Tensor.empty(*shape, LANES), shares)
        total = sums[..., 0]
        for lane in range(1, LANES):
            total = total + sums[..., lane]
        found = self._run(self._mix, Tensor.empty(*shape, size), shares, values, places.table)
        return (found / total.unsqueeze(-1)).reshape(rows, heads, size)

    def _run(self, kernel: Callable[..., Any], out: Tensor, *sources: Tensor) -> Tensor:
        return Tensor.custom_kernel(out, *sources, fxn=kernel)[0]

    def _info(self, name: str) -> KernelInfo:
        return _info(name, blocked=self._blocked)

    def _ranges(self, unrolled: int, *shape: Any) -> tuple[Any, ...]:
        return _ranges(unrolled if self._blocked else 0, *shape)

    def _blocks(self) -> Any:
        return UOp.variable(BLOCKS, 1, self._context // LANES, param=True)

    def _keep_keys(self, keys: Any, new: Any, at: Any) -> Any:
        ranges = row, head, term = _ranges(0, *new.shape)
        place = at[row]
        target = keys[place // PAGE, head, term, place % PAGE]
        return (
            target.store(new[row, head, term]).end(*_real(ranges)).sink(arg=self._info("keep_keys"))
        )

    def _keep_values(self, values: Any, new: Any, at: Any) -> Any:
        ranges = row, head, term = _ranges(0, *new.shape)
        place = at[row]
        target = values[place // PAGE, head, place % PAGE, term]
        return (
            target.store(new[row, head, term])
            .end(*_real(ranges))
            .sink(arg=self._info("keep_values"))
        )

    def _scores(self, scale: float, window: int) -> Callable[..., Any]:
        def kernel(out: Any, query: Any, keys: Any, places: Any, table: Any) -> Any:
            rows, shared, group, size = query.shape
            ranges = row, head, block, one, lane = self._ranges(
                2, rows, shared, self._blocks(), group, LANES
            )
            term = UOp.range(size, len(ranges), AxisType.REDUCE)
            seen = block * LANES + lane
            key = keys[table[row, seen // PAGE], head, term, seen % PAGE]
            total = (query[row, head, one, term] * key).reduce(term, arg=Ops.ADD)
            scaled = total * UOp.const(scale, dtypes.float)
            nothing = UOp.const(-math.inf, dtypes.float)
            last = places[row]
            sees = seen <= last
            if window and window < self._context:
                sees = sees & (last - seen < window)
            info = self._info("scores")
            stored = out[row, head, one, seen].store(sees.where(scaled, nothing))
            return stored.end(*_real(ranges)).sink(arg=info)

        return kernel

    def _tops(self, out: Any, scores: Any) -> Any:
        return self._over_blocks("tops", Ops.MAX, out, scores)

    def _sums(self, out: Any, shares: Any) -> Any:
        return self._over_blocks("sums", Ops.ADD, out, shares)

    def _over_blocks(self, name: str, kind: Ops, out: Any, source: Any) -> Any:
        ranges = row, head, one, lane = self._ranges(1, *out.shape)
        block = UOp.range(self._blocks(), len(ranges), AxisType.REDUCE)
        total = source[row, head, one, block * LANES + lane].reduce(block, arg=kind)
        info = self._info(name)
        return out[row, head, one, lane].store(total).end(*_real(ranges)).sink(arg=info)

    def _shares(self, out: Any, scores: Any, top: Any) -> Any:
        rows, shared, group, _ = out.shape
        ranges = row, head, one, block, lane = self._ranges(
            1, rows, shared, group, self._blocks(), LANES
        )
        seen = block * LANES + lane
        share = (scores[row, head, one, seen] - top[row, head, one]).exp()
        info = self._info("shares")
        return out[row, head, one, seen].store(share).end(*_real(ranges)).sink(arg=info)

    def _mix(self, out: Any, shares: Any, values: Any, table: Any) -> Any:
        rows, shared, group, size = out.shape
        ranges = row, head, panel, one, lane = self._ranges(
            2, rows, shared, size // LANES, group, LANES
        )
        seen = UOp.range(self._blocks() * LANES, len(ranges), AxisType.REDUCE)
        term = panel * LANES + lane
        value = values[table[row, seen // PAGE], head, seen % PAGE, term]
        total = (shares[row, head, one, seen] * value).reduce(seen, arg=Ops.ADD)
        info = self._info("mix")
        return out[row, head, one, term].store(total).end(*_real(ranges)).sink(arg=info)


def squares(rows: Tensor, *, blocked: bool) -> Tensor:
    """The sum of squares of each row, in one fixed order: [rows, width] -> [rows, 1]."""
    out = Tensor.empty(int(rows.shape[0]), LANES)

    def kernel(out: Any, rows: Any) -> Any:
        ranges = row, lane = _ranges(1 if blocked else 0, *out.shape)
        block = UOp.range(rows.shape[1] // LANES, 2, AxisType.REDUCE)
        number = rows[row, block * LANES + lane]
        total = (number * number).reduce(block, arg=Ops.ADD)
        info = _info("squares", blocked=blocked)
        return out[row, lane].store(total).end(*_real(ranges)).sink(arg=info)

    parts = Tensor.custom_kernel(out, rows.contiguous(), fxn=kernel)[0]
    total = parts[:, 0]
    for lane in range(1, LANES):
        total = total + parts[:, lane]
    return total.unsqueeze(-1)


def _ranges(unrolled: int, *shape: Any) -> tuple[Any, ...]:
    """A range for each axis, the last `unrolled` of them side by side in registers.

    A range of one is folded away, so it is a zero from the beginning.
    """
    first = len(shape) - unrolled
    return tuple(
        UOp.const(0)
        if isinstance(size, int) and size == 1
        else UOp.range(size, axis, AxisType.WEAK if axis < first else AxisType.UPCAST)
        for axis, size in enumerate(shape)
    )


def _info(name: str, *, blocked: bool) -> KernelInfo:
    """A kernel's name begins with ours: languages of GPUs have functions called `mix` and `max`."""
    return KernelInfo(name=f"baton_{name}", opts_to_apply=() if blocked else None)


def _real(ranges: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(it for it in ranges if it.op is Ops.RANGE)
