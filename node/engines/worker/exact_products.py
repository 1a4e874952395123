"""Rows in 8-bit numbers times the matrices of an exact transformer, on a device. Worker only.

Where clang compiles the kernels a matrix lies in panels of eight outputs, as other weights do
(`panel_kernels`): a block's sum is made in 32-bit floats, which hold it exactly, and added to the
others' in 64. Elsewhere sums are in whole numbers of 32 and 64 bits. All of it gives the same.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from tinygrad import Tensor, TinyJit, dtypes
from tinygrad.uop.ops import UOp

from node.engines.exact.text_file import Matrix, TextModel
from node.engines.exact.whole_numbers import BLOCK, Blocks
from node.engines.worker.buffers import Array, flat, placed, write, zeros
from node.engines.worker.graph_replay import replay
from node.engines.worker.panel_kernels import HEAD, native, part_of, program
from node.engines.worker.thread_team import ThreadTeam
from node.engines.worker.weight_blocks import LANES

# Rows of one run of a kernel; fewer are filled up, more are done in several.
ROWS = (1, 8, 32)
# Sums kept in registers at once: rows, and panels of eight outputs.
ROWS_AT_ONCE, PANELS = 4, 2
# A graph has one variable, though it depends on nothing.
NOTHING = "nothing"


@dataclass(frozen=True, slots=True)
class Shape:
    """Outputs, a multiple of eight, and terms, a multiple of 32."""

    outputs: int
    terms: int

    @property
    def blocks(self) -> int:
        return self.terms // BLOCK


class DeviceProducts:
    """All matrices of a model on the device, and a graph for each of their shapes.

    Matrices that are always multiplied with the same rows lie together as one.
    """

    def __init__(self, model: TextModel, groups: Sequence[Sequence[str]], team: ThreadTeam) -> None:
        self._team = team
        self._native = native()
        self._groups = {tuple(names): self._placed(model, names) for names in groups}
        self._sizes = {
            tuple(names): [len(model.matrix(name).blocks) for name in names] for names in groups
        }
        self.shapes = sorted(
            {shape for shape, _ in self._groups.values()}, key=lambda it: (it.outputs, it.terms)
        )
        self._runs: dict[tuple[tuple[str, ...], int], Callable[[int], Any]] = {}
        # On a CPU, where what runs read and write lies, by their terms and by what they write to.
        self._memory: dict[tuple[int, int], list[Array]] = {}
        self._answers: dict[int, Array] = {}
        self._sources = {
            (terms, rows): self._source(terms, rows)
            for terms in {it.terms for it in self.shapes}
            for rows in ROWS
        }

    def _placed(self, model: TextModel, names: Sequence[str]) -> tuple[Shape, list[Tensor]]:
        parts: list[Matrix] = [model.matrix(name) for name in names]
        numbers = np.concatenate([it.numbers for it in parts])
        scales = np.concatenate([it.scales for it in parts]).astype(np.int16)
        # Outputs that are no multiple of eight have some of nothing after them.
        spare = -len(numbers) % LANES
        numbers, scales = (np.pad(it, ((0, spare), (0, 0))) for it in (numbers, scales))
        shape = Shape(*numbers.shape)
        if self._native:
            numbers, scales = (
                it.reshape(-1, LANES, it.shape[1]).transpose(0, 2, 1) for it in (numbers, scales)
            )
        return shape, [placed(np.ascontiguousarray(it)) for it in (numbers, scales)]

    def _source(self, terms: int, rows: int) -> list[Tensor]:
        """What a run reads: the rows' numbers, and their scales."""
        kind = "float32" if self._native else "int32"
        return [zeros(rows, terms, kind=kind), zeros(rows, terms // BLOCK, kind=kind)]

    def capture(self, rows: int) -> tuple[Any, ...]:
        """Compile the graphs of all shapes for so many rows."""
        found = []
        for shape in self.shapes:
            weights = next(it for own, it in self._groups.values() if own == shape)
            jit = TinyJit(self._graph)
            # The first call would run everything eagerly and throw it away.
            jit.cnt = 1
            # The sources come first in every graph, and the weights after them.
            jit(UOp.variable(NOTHING, 1, 2).bind(1), *self._sources[shape.terms, rows], *weights)
            found.append(jit)
        return tuple(found)

    def ready(self, graphs: dict[int, Any]) -> None:
        """Take the graphs that runs use."""
        for rows, found in graphs.items():
            captured = dict(zip(self.shapes, found, strict=True))
            for names, (shape, weights) in self._groups.items():
                inputs = [*self._sources[shape.terms, rows], *weights]
                graph = captured[shape].captured
                self._runs[names, rows] = replay(
                    [(graph, [it.uop.base for it in inputs])], NOTHING, self._team
                )

    def examples(self) -> list[tuple[str, ...]]:
        """Names of matrices of every shape."""
        found = {shape: names for names, (shape, _) in self._groups.items()}
        return list(found.values())

    def terms(self, names: tuple[str, ...]) -> int:
        """How many terms the rows have that these matrices are multiplied with."""
        return self._groups[names][0].terms

    def __call__(self, blocks: Blocks, names: Sequence[str]) -> list[Array]:
        """See `node.engines.exact.text_layers.Multiply`."""
        count, most = len(blocks.numbers), ROWS[-1]
        parts = [self._once(blocks, tuple(names), at) for at in range(0, count, most)]
        whole = parts[0] if len(parts) == 1 else np.concatenate(parts)
        ends = np.cumsum(self._sizes[tuple(names)])
        # What was filled up is behind the last end.
        return np.split(whole, ends, axis=1)[: len(names)]

    def _once(self, blocks: Blocks, names: tuple[str, ...], at: int) -> Array:
        shape, _ = self._groups[names]
        numbers, scales = (it[at : at + ROWS[-1]] for it in (blocks.numbers, blocks.scales))
        count = len(numbers)
        rows = next(size for size in ROWS if size >= count)
        if self._native:
            # What is in the rows after these is of no matter.
            for target, array in zip(self._flat(shape.terms, rows), (numbers, scales), strict=True):
                target[: array.size] = array.reshape(-1)
            answer = self._runs[names, rows](1)
            if id(answer) not in self._answers:
                self._answers[id(answer)] = flat(answer)
            data = self._answers[id(answer)]
        else:
            for source, array in zip(
                self._sources[shape.terms, rows], (numbers, scales), strict=True
            ):
                filled = np.zeros((rows, array.shape[1]), np.int32)
                filled[:count] = array
                write(source.uop.base.realized, filled)
            answer = self._runs[names, rows](1)
            data = np.frombuffer(answer.uop.base.realized.as_memoryview(), np.int64)
        return data.reshape(rows, shape.outputs)[:count].astype(np.int64)

    def _flat(self, terms: int, rows: int) -> list[Array]:
        if (terms, rows) not in self._memory:
            self._memory[terms, rows] = [flat(it) for it in self._sources[terms, rows]]
        return self._memory[terms, rows]

    def _graph(
        self, _nothing: Any, numbers: Tensor, scales: Tensor, weights: Tensor, steps: Tensor
    ) -> Tensor:
        if self._native:
            panels = int(weights.shape[0])
            out = Tensor.empty(numbers.shape[0], panels * LANES, dtype=dtypes.float64)
            sources = (numbers, scales, weights, steps)
            return Tensor.custom_kernel(out, *sources, fxn=_kernel)[0].realize()
        rows = int(numbers.shape[0])
        outputs, blocks = (int(it) for it in steps.shape)
        cut = weights.cast(dtypes.int32).reshape(1, outputs, blocks, BLOCK)
        products = numbers.reshape(rows, 1, blocks, BLOCK) * cut
        found = products.sum(axis=3, dtype=dtypes.int32).contiguous()
        both = steps.cast(dtypes.int32).reshape(1, outputs, blocks) * scales.reshape(
            rows, 1, blocks
        )
        wide = found.cast(dtypes.int64) * both.cast(dtypes.int64)
        return wide.sum(axis=2, dtype=dtypes.int64).realize()


def _kernel(*buffers: Any) -> Any:
    rows, terms = buffers[1].shape
    panels = buffers[3].shape[0]
    name = f"exact_product_{rows}_{terms}_{panels * LANES}"
    # Groups of panels are divided among threads.
    step, parts = part_of(-(-panels // PANELS), rows * terms * panels * LANES)
    text = _source_text(name, rows, Shape(panels * LANES, terms), step * PANELS)
    return program(name, text, buffers, outs=(0,), parts=parts)


def _source_text(name: str, rows: int, shape: Shape, part_panels: int) -> str:
    """The C function: every group of panels, for a few rows after the others."""
    at_once = next(size for size in (ROWS_AT_ONCE, 2, 1) if rows % size == 0)
    panels = shape.outputs // LANES
    first, loops = 0, []
    for width in (PANELS, 1):
        last = first + (panels - first) // width * width
        if last > first:
            loops.append(
                f"for (long panel = begin > {first} ? begin : {first};"
                f" panel < (end < {last} ? end : {last}); panel += {width}) {{\n"
                f"{_body(at_once, width)}}}"
            )
        first = last
    return (
        f"{HEAD}\ntypedef double doubles __attribute__((ext_vector_type(8), aligned(8)));\n"
        "typedef short shorts __attribute__((ext_vector_type(8), aligned(2)));\n"
        "#define DOUBLES(it) __builtin_convertvector(it, doubles)\n"
        f"enum {{ ROWS = {rows}, BLOCKS = {shape.blocks}, TERMS = {shape.terms},"
        f" OUT = {shape.outputs} }};\n"
        f"void {name}(double* restrict out, const float* restrict rows,"
        " const float* restrict scales, const signed char* restrict weights,"
        " const short* restrict steps, long part) {\n"
        f"const long begin = part ? (part - 1) * {part_panels} : 0;\n"
        f"const long end = part && part * {part_panels} < {panels}"
        f" ? part * {part_panels} : {panels};\n" + "\n".join(loops) + "\n}\n"
    )


def _body(at_once: int, width: int) -> str:
    each = [(row, panel) for row in range(at_once) for panel in range(width)]
    begin = "".join(f"doubles sum{row}_{panel} = 0;\n" for row, panel in each)
    blocks = "".join(f"floats block{row}_{panel} = 0;\n" for row, panel in each)
    loads = "".join(
        f"const floats weight{panel} ="
        f" FLOATS(AT(chars, weights, (panel + {panel}) * TERMS + term));\n"
        for panel in range(width)
    )
    numbers = "".join(
        f"const float number{row} = rows[(row + {row}) * TERMS + term];\n" for row in range(at_once)
    )
    adds = "".join(f"block{row}_{panel} += number{row} * weight{panel};\n" for row, panel in each)
    steps = "".join(
        f"const floats step{panel} ="
        f" FLOATS(AT(shorts, steps, (panel + {panel}) * BLOCKS + block));\n"
        for panel in range(width)
    )
    # A scale of a row times one of a matrix has 23 bits: floats hold it too.
    ends = "".join(
        f"sum{row}_{panel} += DOUBLES(block{row}_{panel})"
        f" * DOUBLES(step{panel} * scales[(row + {row}) * BLOCKS + block]);\n"
        for row, panel in each
    )
    stores = "".join(
        f"*(doubles*)(out + (row + {row}) * OUT + (panel + {panel}) * 8) = sum{row}_{panel};\n"
        for row, panel in each
    )
    return (
        f"for (long row = 0; row < ROWS; row += {at_once}) {{\n{begin}"
        f"for (long block = 0; block < BLOCKS; block++) {{\n{blocks}"
        f"for (long term = block * {BLOCK}; term < (block + 1) * {BLOCK}; term++) {{\n"
        f"{loads}{numbers}{adds}}}\n{steps}{ends}}}\n{stores}}}\n"
    )
