"""Matrix products for tinygrad, blocked by hand where its own choice is slow.

On a CPU tinygrad's heuristics reach a third of what these blocks do (measured: 12 and 48 GF/s on
one core), and they choose by shape, so the order of a sum may change with the size of a batch.
Here every sum runs over its terms one after the other, whatever lies beside it: a text's numbers
are the same to the bit alone and among others. On other devices tinygrad chooses for itself.
"""

from collections.abc import Callable
from typing import Any

from tinygrad import Tensor
from tinygrad.codegen.opt import Opt, OptOps
from tinygrad.uop.ops import AxisType, KernelInfo, Ops, UOp

from node.engines.formats.bert import BLOCK
from node.engines.formats.safetensors import Array
from node.engines.worker.buffers import placed

# Rows that share one load of a block of the other matrix: four accumulators of eight floats.
ROWS = 4


class Matmul:
    """`linear` for weights, `product` for two computed matrices.

    `blocked` says whether the blocks above are used: on a CPU.
    """

    def __init__(self, *, blocked: bool) -> None:
        self.blocked = blocked

    def weight(self, matrix: Array) -> Tensor:
        """A weight of shape [out, in] on the device, laid out for `linear`."""
        if not self.blocked:
            return placed(matrix.T)
        out, inner = matrix.shape
        panels = matrix.reshape(out // BLOCK, BLOCK, inner).transpose(0, 2, 1)
        return placed(panels)

    def linear(self, rows: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """[rows, in] -> [rows, out]."""
        if not self.blocked:
            return rows @ weight + bias
        out = Tensor.empty(rows.shape[0], bias.shape[0])
        return _run(_linear_kernel, out, rows.contiguous(), weight, bias)

    def product(self, left: Tensor, right: Tensor) -> Tensor:
        """[stack, rows, in] times [stack, in, columns]."""
        if not self.blocked:
            return left @ right
        out = Tensor.empty(left.shape[0], left.shape[1], right.shape[2])
        return _run(_product_kernel, out, left.contiguous(), right.contiguous())


def _run(kernel: Callable[..., Any], out: Tensor, *sources: Tensor) -> Tensor:
    return Tensor.custom_kernel(out, *sources, fxn=kernel)[0]


def _linear_kernel(out: Any, rows: Any, weight: Any, bias: Any) -> Any:
    """One panel of eight columns stays in the cache while all rows pass it."""
    count, inner = rows.shape
    # A range of one is folded away, and the axes after it move up by one.
    row = UOp.range(count, 1) if count > 1 else UOp.const(0)
    panel, lane = UOp.range(weight.shape[0], 0), UOp.range(BLOCK, 2)
    term = UOp.range(inner, 3, AxisType.REDUCE)
    column = panel * BLOCK + lane
    total = (rows[row, term] * weight[panel, term, lane]).reduce(term, arg=Ops.ADD)
    stored = out[row, column].store(total + bias[column])
    info = KernelInfo(
        name=f"baton_linear_{count}_{inner}_{weight.shape[0] * BLOCK}",
        opts_to_apply=_side_by_side(count, weight.shape[0]),
    )
    ranges = (panel, row, lane) if count > 1 else (panel, lane)
    return stored.end(*ranges).sink(arg=info)


def _side_by_side(rows: int, panels: int) -> tuple[Opt, ...]:
    """Enough sums at once that none waits for its own last term: of rows, or of panels."""
    if rows > 1:
        at_once = next(size for size in (ROWS, 2, 1) if rows % size == 0)
        return (Opt(OptOps.UPCAST, 2, BLOCK), Opt(OptOps.UPCAST, 1, at_once))
    at_once = next(size for size in (ROWS, 2, 1) if panels % size == 0)
    lanes = Opt(OptOps.UPCAST, 1, BLOCK)
    return (lanes, Opt(OptOps.UPCAST, 0, at_once)) if at_once > 1 else (lanes,)


def _product_kernel(out: Any, left: Any, right: Any) -> Any:
    stack, count, inner = left.shape
    columns = right.shape[2]
    # A range of one is folded away, and the axes after it move up by one.
    first = 1 if stack > 1 else 0
    one = UOp.range(stack, 0) if stack > 1 else UOp.const(0)
    row, column = UOp.range(count, 1), UOp.range(columns, 2)
    term = UOp.range(inner, 3, AxisType.REDUCE)
    total = (left[one, row, term] * right[one, term, column]).reduce(term, arg=Ops.ADD)
    stored = out[one, row, column].store(total)
    info = KernelInfo(
        name=f"baton_product_{stack}_{count}_{inner}_{columns}",
        opts_to_apply=(
            Opt(OptOps.UPCAST, first + 1, BLOCK),
            Opt(OptOps.UPCAST, first, ROWS),
        ),
    )
    return stored.end(*(one, row, column)[1 - first :]).sink(arg=info)
