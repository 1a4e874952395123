"""The products of a mixture of experts: each row with the weights that were chosen for it. Worker.

The experts' weights lie one after the other, in the forms of any other weight. As everywhere a sum
runs over its terms one after the other, so a row has the same bits alone and among others. On a CPU
all rows of one expert pass one panel of it after the other, so that a weight is read once for them.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from tinygrad import Tensor, dtypes
from tinygrad.codegen.opt import Opt, OptOps
from tinygrad.uop.ops import AxisType, KernelInfo, Ops, UOp

from node.engines.worker.panel_kernels import parts_of_row, program, row_by_row, typed_fields
from node.engines.worker.weight_blocks import LANES, PanelForm
from node.engines.worker.word_kernels import WordForm, column_threads, word_sum


@dataclass(frozen=True, slots=True)
class ExpertForm:
    """Weights of so many experts; `each` is the form of one expert's.

    With `packed` panels they are C for a CPU, else arrays of floats [experts, panels, in, 8] or
    words [experts * rows, words of a block, blocks].
    """

    each: PanelForm | WordForm
    experts: int
    packed: bool

    @property
    def tensors(self) -> int:
        """How many tensors such weights are kept in."""
        if isinstance(self.each, WordForm):
            return self.each.tensors
        return len(self.each.fields) if self.packed else 1


def chosen_experts(scores: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The `count` experts of the greatest scores, [rows, experts] -> ids and shares [rows, count].

    Of equal scores the first counts as greater. Shares are the softmax over the chosen ones.
    """
    rows, experts = (int(it) for it in scores.shape)
    one, other = scores.reshape(rows, experts, 1), scores.reshape(rows, 1, experts)
    numbers = Tensor.arange(experts, dtype=dtypes.int)
    first = numbers.reshape(1, 1, experts) < numbers.reshape(1, experts, 1)
    before = (other > one) | ((other == one) & first)
    ranks = before.where(1, 0).cast(dtypes.int).sum(2).contiguous()
    places = Tensor.arange(count, dtype=dtypes.int).reshape(1, count, 1)
    here = ranks.reshape(rows, 1, experts) == places
    # Scores that are no numbers have no order: an id stays one of the experts' in any case.
    ids = here.where(numbers.reshape(1, 1, experts), 0).sum(2).minimum(experts - 1)
    # All but one of what is added is nothing.
    tops = here.where(other, 0.0).sum(2).contiguous()
    shares = (tops - tops[:, :1]).exp()
    total = shares[:, :1]
    for at in range(1, count):
        total = total + shares[:, at : at + 1]
    return ids.cast(dtypes.int).contiguous(), shares / total


def expert_product(
    form: ExpertForm, rows: Tensor, chosen: Tensor, weights: Sequence[Tensor]
) -> Tensor:
    """[rows, in] -> [rows of `chosen`, out]: each of them times the weights of its expert.

    `chosen` has the experts' ids, as many for each row: rows go to several experts, or to one.
    """
    pairs, shared = int(chosen.shape[0]), int(chosen.shape[0]) // int(rows.shape[0])
    out = Tensor.empty(pairs, form.each.rows)
    make = _float_kernel if isinstance(form.each, PanelForm) else _word_kernel
    kernel = (_native_kernel if form.packed else make)(form, pairs, shared)
    sources = rows.contiguous(), chosen.contiguous(), *weights
    return Tensor.custom_kernel(out, *sources, fxn=kernel)[0]


def _native_kernel(form: ExpertForm, pairs: int, shared: int) -> Callable[..., Any]:
    each = form.each
    assert isinstance(each, PanelForm), "packed weights are panels"

    def kernel(*buffers: Any) -> Any:
        name = f"experts_{pairs}_{shared}_{form.experts}_{each.columns}_{each.rows}_of_{each.kind}"
        step, parts = parts_of_row(each, pairs * each.rows * each.columns)
        text = _source(name, form, (pairs, shared), step)
        return program(name, text, buffers, outs=(0,), parts=parts)

    return kernel


def _source(name: str, form: ExpertForm, counts: tuple[int, int], step: int) -> str:
    """The C function: of each expert its rows, and for them one group of panels after the other."""
    each = form.each
    assert isinstance(each, PanelForm), "packed weights are panels"
    pairs, shared = counts
    fields = typed_fields(each)
    parameters = "".join(f", const {kind}* restrict all_{field}" for kind, field, _ in fields)
    own = "".join(
        f"const {kind}* restrict {field} = all_{field} + expert * {size}L;\n"
        for kind, field, size in fields
    )
    one_row = (
        "for (long at_pair = 0; at_pair < found; at_pair++) {\n"
        f"const float* restrict rows = all_rows + (mine[at_pair] / {shared}) * (long)COLUMNS;\n"
        "float* restrict out = all_out + mine[at_pair] * (long)OUT;\nBODY}\n"
    )
    head, loops = row_by_row(each, one_row)
    return (
        f"{head}void {name}(float* restrict all_out, const float* restrict all_rows,"
        f" const int* restrict chosen{parameters}, long part) {{\n"
        f"const long begin = part ? (part - 1) * {step} : 0;\n"
        f"const long end = part ? part * {step} : {each.rows // LANES};\n"
        f"for (long expert = 0; expert < {form.experts}; expert++) {{\n"
        f"int mine[{pairs}];\nlong found = 0;\n"
        f"for (int pair = 0; pair < {pairs}; pair++)"
        " if (chosen[pair] == expert) mine[found++] = pair;\n"
        f"if (!found) continue;\n{own}{loops}}}\n}}\n"
    )


def _float_kernel(form: ExpertForm, pairs: int, shared: int) -> Callable[..., Any]:
    """For weights [experts, panels, in, 8] in floats."""
    each = form.each

    def kernel(out: Any, rows: Any, chosen: Any, weight: Any) -> Any:
        # A range of one is folded away, and the axes after it move up by one.
        pair = UOp.range(pairs, 0) if pairs > 1 else UOp.const(0)
        panel, lane = UOp.range(each.rows // LANES, 1), UOp.range(LANES, 2)
        term = UOp.range(each.columns, 3, AxisType.REDUCE)
        number = rows[pair // shared, term] * weight[chosen[pair], panel, term, lane]
        stored = out[pair, panel * LANES + lane].store(number.reduce(term, arg=Ops.ADD))
        ranges = [it for it in (pair, panel, lane) if it.op is Ops.RANGE]
        name = f"baton_experts_{pairs}_{shared}_{form.experts}_{each.columns}_{each.rows}"
        opts = (Opt(OptOps.UPCAST, len(ranges) - 1, LANES),)
        return stored.end(*ranges).sink(arg=KernelInfo(name=name, opts_to_apply=opts))

    return kernel


def _word_kernel(form: ExpertForm, pairs: int, shared: int) -> Callable[..., Any]:
    """For quantised weights in words."""
    each = form.each
    assert isinstance(each, WordForm), "the others are panels"

    def kernel(out: Any, rows: Any, chosen: Any, words: Any, *scales: Any) -> Any:
        pair = UOp.range(pairs, 0) if pairs > 1 else UOp.const(0)
        column = UOp.range(each.rows, 1)
        row, line = pair // shared, chosen[pair] * each.rows + column
        stored = out[pair, column].store(word_sum(each, (rows, row), (words, scales), line))
        ranges = [it for it in (pair, column) if it.op is Ops.RANGE]
        name = f"baton_experts_{pairs}_{shared}_{each.columns}_{each.rows}_{each.bits}"
        info = KernelInfo(name=name, opts_to_apply=column_threads(each))
        return stored.end(*ranges).sink(arg=info)

    return kernel
