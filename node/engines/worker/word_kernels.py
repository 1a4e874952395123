"""Weights as GPUs multiply with them: quantised, many in each 32-bit word. Worker only.

At few rows a GPU is bound by its memory, so what counts is how many bytes a weight takes, and how
many threads load at once: each column of the result has a group of threads, each of which takes one
block of the column after the other, a word of weights and as many numbers of the row at a time.
Where rows are many, the weights are unpacked first, once for all of them.

A weight is (q - offset) * scale + minimum, as in its file (`weight_blocks`). Scales are 32-bit
floats here, since not every GPU has smaller ones.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from tinygrad import Tensor, dtypes
from tinygrad.codegen.opt import Opt, OptOps
from tinygrad.uop.ops import AxisType, KernelInfo, Ops, UOp

from node.engines.formats.gguf_model import FLOAT_BYTES, UNPACKED_BYTES_MAX
from node.engines.worker.buffers import placed
from node.engines.worker.weight_blocks import (
    FORMS,
    OFFSETS,
    Q8_0,
    SLAB_ROWS,
    TERMS,
    BlockRows,
)

WORD_BITS = 32
# Threads that share a column: as many as GPUs run together at least.
THREADS = 32
# From so many rows on weights are unpacked once for all of them.
MANY_ROWS = 16
# Signed bytes are kept as unsigned ones.
SIGNED = 128


@dataclass(frozen=True, slots=True)
class WordForm:
    """So many rows of weights of `bits` bits, with `parts` scales, and minima, for 32 of them.

    Its tensors are words [rows, words of a block, blocks], so that neighbouring threads load
    neighbouring words, and scales and minima [rows, parts, blocks].
    """

    rows: int
    columns: int
    bits: int
    offset: int
    parts: int
    minima: bool

    @property
    def blocks(self) -> int:
        return self.columns // TERMS

    @property
    def in_word(self) -> int:
        """How many weights are in a word."""
        return WORD_BITS // self.bits

    @property
    def words(self) -> int:
        """How many words a block has."""
        return TERMS // self.in_word

    @property
    def tensors(self) -> int:
        """How many tensors such weights are kept in."""
        return 3 if self.minima else 2


def packed_words(rows: BlockRows) -> tuple[WordForm, list[Tensor]]:
    """Quantised weights on the device; ModelRefused if a scale is not finite."""
    form = _form_of(rows)
    words = np.empty((form.rows, form.words, form.blocks), np.uint32)
    shape = (form.rows, form.parts, form.blocks)
    scales = [np.empty(shape, np.float32) for _ in range(form.tensors - 1)]
    shifts = np.arange(form.in_word, dtype=np.uint32) * np.uint32(form.bits)
    # Some rows at a time: what is between the file and the words stays small.
    for begin in range(0, form.rows, SLAB_ROWS):
        slab = slice(begin, begin + SLAB_ROWS)
        q, scale, minimum = rows.taken(slab).numbers()
        if rows.kind == Q8_0:
            q = (q.astype(np.int16) + SIGNED).astype(np.uint8)
        each = q.reshape(len(q), form.blocks, form.words, form.in_word).astype(np.uint32) << shifts
        words[slab] = np.bitwise_or.reduce(each, axis=-1).swapaxes(1, 2)
        for target, found in zip(scales, (scale, minimum), strict=False):
            target[slab] = found.swapaxes(1, 2)
    return form, [placed(words), *map(placed, scales)]


def _form_of(rows: BlockRows) -> WordForm:
    _, scale, minimum = rows.taken(slice(0, 1)).numbers()
    kind = rows.kind
    return WordForm(
        rows=len(rows.raw),
        columns=rows.columns,
        # Nibbles stay nibbles; five bits and six take a byte.
        bits=4 if FORMS[kind].bits == 4 else 8,
        offset=SIGNED if kind == Q8_0 else OFFSETS.get(kind, 0),
        parts=scale.shape[2],
        minima=kind not in OFFSETS and minimum is not None,
    )


def words_product(form: WordForm, rows: Tensor, bias: Tensor, weights: list[Tensor]) -> Tensor:
    """[rows, columns] times the weights: [rows, form.rows], with the bias."""
    count = int(rows.shape[0])
    if count >= MANY_ROWS:
        floats = _unpacked(form, weights)
        # Larger ones are unpacked where they are used, which takes longer and no memory.
        if form.rows * form.columns * FLOAT_BYTES <= UNPACKED_BYTES_MAX:
            floats = floats.contiguous()
        return rows @ floats.T + bias
    out = Tensor.empty(count, form.rows)
    kernel = _kernel(form, count)
    return Tensor.custom_kernel(out, rows.contiguous(), bias, *weights, fxn=kernel)[0]


def _unpacked(form: WordForm, weights: list[Tensor]) -> Tensor:
    """All weights as floats: [rows, columns]."""
    words, *scales = (it.transpose(1, 2) for it in weights)
    mask = (1 << form.bits) - 1
    each = [(words >> (form.bits * at)) & mask for at in range(form.in_word)]
    shape = (form.rows, form.blocks, form.parts, TERMS // form.parts)
    q = Tensor.stack(*each, dim=-1).cast(dtypes.float).reshape(shape) - float(form.offset)
    found = q * scales[0].unsqueeze(-1)
    if form.minima:
        found = found + scales[1].unsqueeze(-1)
    return found.reshape(form.rows, form.columns)


def _kernel(form: WordForm, count: int) -> Callable[..., Any]:
    """A kernel of (out [rows, columns], rows, bias, then the form's tensors)."""

    def kernel(out: Any, rows: Any, bias: Any, words: Any, *scales: Any) -> Any:
        # A range of one is folded away.
        row = UOp.range(count, 0) if count > 1 else UOp.const(0)
        column = UOp.range(form.rows, 1)
        whole = word_sum(form, (rows, row), (words, scales), column)
        ranges = [it for it in (row, column) if it.op is Ops.RANGE]
        info = KernelInfo(
            name=f"baton_words_{count}_{form.columns}_{form.rows}_{form.bits}_{form.parts}",
            opts_to_apply=_side_by_side(form, count),
        )
        return out[row, column].store(whole + bias[column]).end(*ranges).sink(arg=info)

    return kernel


def word_sum(
    form: WordForm, numbers: tuple[Any, Any], weights: tuple[Any, Sequence[Any]], line: Any
) -> Any:
    """One number of a kernel: a row, which `numbers` names, times a `line` of the weights."""
    (rows, row), (words, scales) = numbers, weights
    block = UOp.range(form.blocks, 2, AxisType.REDUCE)
    at = UOp.range(form.words, 3, AxisType.REDUCE)
    part = at // (form.words // form.parts) if form.parts > 1 else UOp.const(0)
    word = words[line, at, block]
    product = total = None
    for lane in range(form.in_word):
        q = (word >> (form.bits * lane)) & ((1 << form.bits) - 1)
        weight = q.cast(dtypes.float) - float(form.offset)
        number = rows[row, block * TERMS + at * form.in_word + lane]
        product = weight * number if product is None else product + weight * number
        total = number if total is None else total + number
    found = product * scales[0][line, part, block]
    if form.minima:
        found = found + total * scales[1][line, part, block]
    return found.reduce(block, at, arg=Ops.ADD)


def _side_by_side(form: WordForm, count: int) -> tuple[Opt, ...]:
    """The threads of a column, each with its blocks; all rows share the loads of its words."""
    threads = column_threads(form)
    return (*threads, Opt(OptOps.UPCAST, 0, count)) if count > 1 else threads


def column_threads(form: WordForm) -> tuple[Opt, ...]:
    """As many threads as can share the blocks of a column evenly."""
    threads = next(it for it in range(THREADS, 0, -1) if form.blocks % it == 0)
    return (Opt(OptOps.GROUP, 0, threads),) if threads > 1 else ()
