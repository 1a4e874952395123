"""Matrix products for tinygrad, blocked by hand where its own choice is slow.

On a CPU tinygrad's heuristics reach a third of what these blocks do (measured: 12 and 48 GF/s on
one core), and they choose by shape, so the order of a sum may change with the size of a batch.
Here every sum runs over its terms one after the other, whatever lies beside it: a text's numbers
are the same to the bit alone and among others. Where clang compiles the kernels, weights stay in
their files' own types, with the bits of the same weights in floats (`panel_kernels`). On other
devices quantised weights are words (`word_kernels`), and for all else tinygrad chooses for itself.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from tinygrad import Tensor
from tinygrad.codegen.opt import Opt, OptOps
from tinygrad.uop.ops import AxisType, KernelInfo, Ops, UOp

from node.engines.formats.bert import BLOCK
from node.engines.formats.safetensors import Array
from node.engines.worker.buffers import flat, placed, reserved
from node.engines.worker.expert_kernels import ExpertForm, expert_product
from node.engines.worker.panel_kernels import native, product_kernel
from node.engines.worker.weight_blocks import BF16, F16, F32, BlockRows, PanelForm, joined
from node.engines.worker.word_kernels import WordForm, packed_words, words_product

WeightForm = PanelForm | WordForm | ExpertForm
# Rows that share one load of a block of the other matrix: four accumulators of eight floats.
ROWS = 4


class Matmul:
    """`linear` for weights, `product` for two computed matrices.

    `blocked` says whether the blocks above are used: on a CPU.
    """

    def __init__(self, *, blocked: bool) -> None:
        self.blocked = blocked
        self._native = blocked and native()

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
        if self._native:
            form = PanelForm(F32, int(bias.shape[0]), int(rows.shape[1]))
            return _run(product_kernel(form), out, rows.contiguous(), bias, weight)
        return _run(_linear_kernel, out, rows.contiguous(), weight, bias)

    def packed(
        self, parts: Sequence[BlockRows], bias: Array
    ) -> tuple[tuple[WeightForm, ...], list[Tensor]]:
        """Weights that have the same input, as they are kept, and the tensors that `linear_of`
        takes; ModelRefused for numbers that are not finite.
        """
        if not self.blocked:
            return self._packed_for_gpu(joined(parts), bias)
        if not self._native:
            matrix = np.concatenate([part.floats() for part in parts])
            form = PanelForm(F32, *matrix.shape)
            return (form,), [placed(bias), self.weight(matrix)]
        forms: list[PanelForm] = []
        tensors: list[Tensor] = []
        begin = 0
        for rows in joined(parts):
            form = rows.form
            fields = [reserved(count, kind=kind) for kind, count in form.fields.values()]
            rows.write_panels([flat(field) for field in fields])
            forms.append(form)
            tensors += [placed(bias[begin : begin + form.rows]), *fields]
            begin += form.rows
        return tuple(forms), tensors

    def packed_experts(self, rows: BlockRows, experts: int) -> tuple[ExpertForm, list[Tensor]]:
        """As `packed`, of the weights of many experts, one after the other; ModelRefused."""
        if not self.blocked and rows.kind not in (F32, F16, BF16):
            whole, words = packed_words(rows)
            return ExpertForm(replace(whole, rows=whole.rows // experts), experts, False), words
        kind = rows.kind if self._native else F32
        each = PanelForm(kind, len(rows.raw) // experts, rows.columns)
        if self._native:
            fields = [reserved(count, kind=kind) for kind, count in rows.form.fields.values()]
            rows.write_panels([flat(field) for field in fields])
            return ExpertForm(each, experts, True), fields
        panels = rows.floats().reshape(experts, each.rows // BLOCK, BLOCK, each.columns)
        return ExpertForm(each, experts, False), [placed(panels.swapaxes(2, 3))]

    def _packed_for_gpu(
        self, parts: Sequence[BlockRows], bias: Array
    ) -> tuple[tuple[WeightForm, ...], list[Tensor]]:
        """Words of quantised weights; others are floats."""
        forms: list[WeightForm] = []
        tensors: list[Tensor] = []
        begin = 0
        for part in parts:
            own = placed(bias[begin : begin + len(part.raw)])
            begin += len(part.raw)
            if part.kind in (F32, F16, BF16):
                forms.append(PanelForm(F32, len(part.raw), part.columns))
                tensors += [own, self.weight(part.floats())]
            else:
                form, words = packed_words(part)
                forms.append(form)
                tensors += [own, *words]
        return tuple(forms), tensors

    def linear_of(
        self, rows: Tensor, forms: Sequence[WeightForm], tensors: Iterator[Tensor]
    ) -> Tensor:
        """[rows, in] -> [rows, out], with what `packed` gave; its tensors are taken one by one."""
        found = []
        for form in forms:
            assert not isinstance(form, ExpertForm), "the product is of one matrix"
            bias = next(tensors)
            if isinstance(form, WordForm):
                weights = [next(tensors) for _ in range(form.tensors)]
                found.append(words_product(form, rows, bias, weights))
            elif self._native:
                fields = [next(tensors) for _ in form.fields]
                out = Tensor.empty(rows.shape[0], form.rows)
                found.append(_run(product_kernel(form), out, rows.contiguous(), bias, *fields))
            else:
                found.append(self.linear(rows, next(tensors), bias))
        return found[0] if len(found) == 1 else found[0].cat(*found[1:], dim=1)

    def experts_of(
        self, rows: Tensor, chosen: Tensor, form: WeightForm, tensors: Iterator[Tensor]
    ) -> Tensor:
        """`expert_product` with what `packed_experts` gave; its tensors are taken one by one."""
        assert isinstance(form, ExpertForm), "the product is of experts"
        return expert_product(form, rows, chosen, [next(tensors) for _ in range(form.tensors)])

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
