"""The product of rows with weights in panels, as C for the CPU's own vectors. Worker only.

tinygrad's code for it reaches a third to a half of this (measured). Every sum runs over its terms
one after the other, whatever lies beside it, and a weight has the bits that its file's type gives
it: the result is the same alone and among others, and as with 32-bit floats. Where rows are many
a panel is unpacked once for all of them.
"""

from collections.abc import Callable, Sequence
from typing import Any

from tinygrad import Device, dtypes
from tinygrad.renderer.cstyle import ClangRenderer
from tinygrad.uop.ops import KernelInfo, Ops, ProgramInfo, UOp

from node.engines.worker.weight_blocks import (
    BF16,
    F16,
    F32,
    FORMS,
    LANES,
    LARGE,
    OFFSETS,
    Q4_K,
    Q5_K,
    Q6_K,
    Q8_0,
    TERMS,
    PanelForm,
)

HEAD = """
typedef float floats __attribute__((ext_vector_type(8), aligned(4)));
typedef __fp16 halves __attribute__((ext_vector_type(8), aligned(2)));
typedef int ints __attribute__((ext_vector_type(8), aligned(4)));
typedef signed char chars __attribute__((ext_vector_type(8), aligned(1)));
typedef unsigned char bytes __attribute__((ext_vector_type(8), aligned(1)));
typedef unsigned short words __attribute__((ext_vector_type(8), aligned(2)));
#define FLOATS(it) __builtin_convertvector(it, floats)
#define INTS(it) __builtin_convertvector(it, ints)
#define AT(type, from, index) (*(const type*)((from) + (index) * 8))
#define PUT(to, index) (*(floats*)((to) + (index) * 8))
static const ints LANE = {0, 1, 2, 3, 4, 5, 6, 7};
"""
C_TYPES = {
    "float32": "float",
    "float16": "__fp16",
    "uint16": "unsigned short",
    "int8": "signed char",
    "uint8": "unsigned char",
}
# Sums that are kept in registers at once, of one row and of several; the best of those tried.
PANELS_OF_ONE = 6
ROWS_AT_ONCE, PANELS_OF_MANY = 4, 3
# Of few rows of weights that are to be unpacked: each is unpacked once for all of these.
ROWS_OF_A_PANEL = 8
# From so many rows on a panel is unpacked first, so many terms of it at a time.
MANY_ROWS = 16
UNPACKED_TERMS = 512
# A kernel of so many multiplications or more can be run in parts, by several threads: in so many
# at most, so that who has none left to do waits for little.
DIVIDED_WORK = 1 << 16
PARTS_MAX = 8
# The last argument of a kernel that has parts: 0 for all of it, else which of them, from 1 on.
# tinygrad, which knows it as the number of a thread, runs the one thread 0.
PART = "core_id"


def native() -> bool:
    """Whether this device's kernels are C that clang compiles."""
    return isinstance(Device[Device.DEFAULT].renderer, ClangRenderer) and Device.DEFAULT == "CPU"


def program(name: str, text: str, buffers: Sequence[Any], outs: tuple[int, ...], parts: int) -> Any:
    """A C function of these buffers as a kernel; `outs` are the places of those it writes.

    After the buffers it takes `long part`: see `PART`. There are so many `parts`, 1: it has none.
    """
    info = ProgramInfo(
        name=name,
        vars=(UOp.variable(PART, 0, parts - 1, dtypes.int, param=True),),
        globals=tuple(range(len(buffers))),
        outs=outs,
        ins=tuple(it for it in range(len(buffers)) if it not in outs),
        target=Device[Device.DEFAULT].renderer.target,
    )
    built = (
        UOp.sink(*buffers, arg=KernelInfo(name=name)),
        UOp(Ops.LINEAR, src=tuple(buffers)),
        UOp(Ops.SOURCE, arg=text),
    )
    return UOp(Ops.PROGRAM, src=built, arg=info)


def product_kernel(form: PanelForm) -> Callable[..., Any]:
    """A kernel of (out [rows, columns], rows, bias, then the form's fields)."""

    def kernel(*buffers: Any) -> Any:
        count = buffers[1].shape[0]
        name = f"product_{count}_{form.columns}_{form.rows}_of_kind_{form.kind}"
        _, parts = _divided(form, count)
        return program(name, source(name, form, count), buffers, outs=(0,), parts=parts)

    return kernel


def part_of(count: int, work: int) -> tuple[int, int]:
    """How many of `count` things a part has, and how many parts there are."""
    step = -(-count // PARTS_MAX) if work >= DIVIDED_WORK else count
    return step, -(-count // step)


def _divided(form: PanelForm, count: int) -> tuple[int, int]:
    """How many panels a part has, and how many parts there are."""
    return _divided_by(_width(form, count), form, count * form.rows * form.columns)


def _divided_by(width: int, form: PanelForm, work: int) -> tuple[int, int]:
    step, parts = part_of(-(-(form.rows // LANES) // width), work)
    return step * width, parts


def source(name: str, form: PanelForm, count: int) -> str:
    """The C function: every panel, in groups that share the loads of the rows."""
    part_panels, _ = _divided(form, count)
    fields = "".join(f", const {kind}* restrict {field}" for kind, field, _ in typed_fields(form))
    body = _many if count >= MANY_ROWS else _few
    loops = _loops(form, _width(form, count), lambda width: body(form, count, width))
    return (
        f"{_head(form, count)}"
        f"void {name}(float* restrict out, const float* restrict rows,"
        f" const float* restrict bias{fields}, long part) {{\n"
        f"const long begin = part ? (part - 1) * {part_panels} : 0;\n"
        f"const long end = part ? part * {part_panels} : {form.rows // LANES};\n{loops}\n}}\n"
    )


def row_by_row(form: PanelForm, around: str) -> tuple[str, str]:
    """What a C function begins with, and its panels from `begin` to `end` times one row at a time.

    `around` says which rows they are: it has the product, of `rows` into `out` and without a
    bias, where it says BODY.
    """
    return _head(form, 1), _loops(
        form, _width(form, 1), lambda width: around.replace("BODY", _few(form, 1, width, ""))
    )


def parts_of_row(form: PanelForm, work: int) -> tuple[int, int]:
    """How many panels a part of `row_by_row` has, and how many parts there are."""
    return _divided_by(_width(form, 1), form, work)


def typed_fields(form: PanelForm) -> list[tuple[str, str, int]]:
    """The C type of each of the form's fields, its name, and how many items it has."""
    return [(C_TYPES[dtype], name, count) for name, (dtype, count) in form.fields.items()]


def _head(form: PanelForm, count: int) -> str:
    return (
        f"{HEAD}\nenum {{ ROWS = {count}, COLUMNS = {form.columns}, OUT = {form.rows},"
        f" BLOCKS = {form.columns // TERMS} }};\n"
    )


def _loops(form: PanelForm, width: int, body: Callable[[int], str]) -> str:
    """All panels in groups of `width`, and then in smaller ones."""
    panels, first, loops = form.rows // LANES, 0, []
    while first < panels:
        width = min(width, panels - first)
        last = first + (panels - first) // width * width
        loops.append(
            f"for (long panel = begin > {first} ? begin : {first};"
            f" panel < (end < {last} ? end : {last}); panel += {width}) {{\n{body(width)}}}"
        )
        first = last
    return "\n".join(loops)


def _few(
    form: PanelForm,
    count: int,
    width: int,
    bias: str = " + AT(floats, bias, panel + {panel})",
) -> str:
    """Weights are unpacked where they are used."""
    at_once = _at_once(form, count)
    sums = [(row, panel) for row in range(at_once) for panel in range(width)]
    begin = "".join(f"floats sum{row}_{panel} = 0;\n" for row, panel in sums)
    end = "".join(
        f"PUT(out + (row + {row}) * OUT, panel + {panel}) ="
        f" sum{row}_{panel}{bias.format(panel=panel)};\n"
        for row, panel in sums
    )
    return (
        f"for (long row = 0; row < ROWS; row += {at_once}) {{\n{begin}"
        f"{_walk(form, width, ('0', _all(form)), _added(at_once, width))}{end}}}\n"
    )


def _many(form: PanelForm, count: int, width: int) -> str:
    """Weights are unpacked once for all rows, a piece of each panel at a time."""
    at_once = _at_once(form, count)
    sums = [(row, panel) for row in range(at_once) for panel in range(width)]
    size = UNPACKED_TERMS if form.kind in (F32, F16, BF16) else UNPACKED_TERMS // TERMS
    terms = 1 if form.kind in (F32, F16, BF16) else TERMS
    kept = "".join(
        f"PUT(unpacked + {panel * UNPACKED_TERMS * LANES}, term - first * {terms}) ="
        f" weight{panel};\n"
        for panel in range(width)
    )
    place = "out + (row + {row}) * OUT, panel + {panel}"
    begin = "".join(
        f"floats sum{row}_{panel} = first ? AT(floats, {place.format(row=row, panel=panel)}) : 0;\n"
        for row, panel in sums
    )
    loads = "".join(
        f"floats weight{panel} = AT(floats, unpacked + {panel * UNPACKED_TERMS * LANES}, at);\n"
        for panel in range(width)
    )
    end = "".join(
        f"PUT({place.format(row=row, panel=panel)}) = last == {_all(form)}"
        f" ? sum{row}_{panel} + AT(floats, bias, panel + {panel}) : sum{row}_{panel};\n"
        for row, panel in sums
    )
    return (
        f"float unpacked[{width * UNPACKED_TERMS * LANES}];\n"
        f"for (long first = 0; first < {_all(form)}; first += {size}) {{\n"
        f"long last = first + {size} < {_all(form)} ? first + {size} : {_all(form)};\n"
        f"{_walk(form, width, ('first', 'last'), kept)}"
        f"for (long row = 0; row < ROWS; row += {at_once}) {{\n{begin}"
        f"for (long at = 0; at < (last - first) * {terms}; at++) {{\n"
        f"long term = first * {terms} + at;\n{loads}{_added(at_once, width)}}}\n{end}}}\n}}\n"
    )


def _width(form: PanelForm, count: int) -> int:
    """How many panels share the loads of the rows."""
    if count == 1:
        return PANELS_OF_ONE
    return 1 if _at_once(form, count) == ROWS_OF_A_PANEL else PANELS_OF_MANY


def _at_once(form: PanelForm, count: int) -> int:
    """How many rows share the loads of the weights."""
    if count == ROWS_OF_A_PANEL and form.kind not in (F32, F16, BF16):
        return ROWS_OF_A_PANEL
    return next(size for size in (ROWS_AT_ONCE, 2, 1) if count % size == 0)


def _all(form: PanelForm) -> str:
    """What `_walk` goes over: the blocks of a row, or its terms."""
    return "COLUMNS" if form.kind in (F32, F16, BF16) else "BLOCKS"


def _added(at_once: int, width: int) -> str:
    """One term's product, added to each of the sums."""
    lines = []
    for row in range(at_once):
        lines.append(f"float number{row} = rows[(row + {row}) * COLUMNS + term];\n")
        lines += [f"sum{row}_{panel} += number{row} * weight{panel};\n" for panel in range(width)]
    return "".join(lines)


def _walk(form: PanelForm, width: int, ends: tuple[str, str], body: str) -> str:
    """Goes over the terms of panels, with each panel's eight weights of a term as `weightN`."""
    begin, end = ends
    panels = range(width)
    if form.kind in (F32, F16, BF16):
        places = [f"(panel + {panel}) * COLUMNS + term" for panel in panels]
        numbers = [_FLOATS[form.kind].format(at=place) for place in places]
        loads = "".join(f"floats weight{it} = {numbers[it]};\n" for it in panels)
        return f"for (long term = {begin}; term < {end}; term++) {{\n{loads}{body}}}\n"
    scales = "".join(_scales(form.kind, it) for it in panels)
    halves = []
    for half in (0, 1):
        which = half if form.kind == Q6_K else 0
        loads = "".join(
            f"floats weight{it} = FLOATS({_quantised(form.kind, it, half)}) * scale{it}_{which}"
            f"{'' if form.kind == Q8_0 else f' + minimum{it}_{which}'};\n"
            for it in panels
        )
        halves.append(
            f"for (long at = 0; at < {TERMS // 2}; at++) {{\n"
            f"long term = block * {TERMS} + {half * TERMS // 2} + at;\n{loads}{body}}}\n"
        )
    return f"for (long block = {begin}; block < {end}; block++) {{\n{scales}{''.join(halves)}}}\n"


_FLOATS = {
    F32: "AT(floats, numbers, {at})",
    F16: "FLOATS(AT(halves, numbers, {at}))",
    BF16: "__builtin_bit_cast(floats, INTS(AT(words, numbers, {at})) << 16)",
}


def _quantised(kind: int, panel: int, half: int) -> str:
    """The q of eight lanes, as C."""
    place = f"((panel + {panel}) * BLOCKS + block)"
    if kind == Q8_0:
        return f"AT(chars, numbers, {place} * {TERMS} + {half * TERMS // 2} + at)"
    nibbles = f"AT(bytes, low, {place} * {TERMS // 2} + at)"
    low = f"({nibbles} >> (bytes)4)" if half else f"({nibbles} & (bytes)15)"
    bits = FORMS[kind].bits
    if bits == 4:
        return low
    high = f"high[{place} * {TERMS} + {half * TERMS // 2} + at]"
    if bits == 5:
        return f"(INTS({low}) | ((ints)(int){high} >> LANE & 1) << 4)"
    return f"(INTS({low}) | ((ints)(int){high} >> 2 * LANE & 3) << 4)"


def _scales(kind: int, panel: int) -> str:
    """The scale and the minimum of a block of a panel, of each half for itself in Q6_K."""
    place = f"(panel + {panel}) * BLOCKS + block"
    large = f"((panel + {panel}) * BLOCKS + block) / {LARGE}"
    own = f"const floats scale{panel}_"
    least = f"const floats minimum{panel}_"
    if kind in (Q4_K, Q5_K):
        return (
            f"{own}0 = FLOATS(AT(halves, scale, {large})) * FLOATS(AT(bytes, scales, {place}));\n"
            f"{least}0 = -(FLOATS(AT(halves, minimum, {large}))"
            f" * FLOATS(AT(bytes, minima, {place})));\n"
        )
    if kind == Q6_K:
        return "".join(
            f"{own}{half} = FLOATS(AT(halves, scale, {large}))"
            f" * FLOATS(AT(chars, scales, ({place}) * 2 + {half}));\n"
            f"{least}{half} = {own.split()[-1]}{half} * -{OFFSETS[kind]}.0f;\n"
            for half in (0, 1)
        )
    found = f"{own}0 = FLOATS(AT(halves, scale, {place}));\n"
    if kind in OFFSETS:
        return f"{found}{least}0 = scale{panel}_0 * -{OFFSETS[kind]}.0f;\n"
    if kind == Q8_0:
        return found
    return f"{found}{least}0 = FLOATS(AT(halves, minimum, {place}));\n"
