"""MatMul, Gemm and Conv of ONNX with sums in a fixed order, as C for the CPU. Worker only.

tinygrad chooses the order of a sum and its blocks by the shape; here every sum runs over its terms
one after the other, so a row has the same bits alone and among others, and it takes a tenth of the
time. A convolution is a product of windows with its weights: channels lie last, so that a window's
terms are next to each other. What has other types, or runs on another device, tinygrad computes.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from tinygrad import Tensor, dtypes
from tinygrad.nn.onnx import onnx_ops

from node.engines.formats.onnx_graph import Graph
from node.engines.formats.onnx_shapes import CONV_PADDED_MAX
from node.engines.worker.panel_kernels import HEAD, native, program
from node.engines.worker.weight_blocks import LANES

# Rows and panels of eight columns whose sums are kept in registers at once; and how many terms of
# these panels lie packed in a processor's first cache.
ROWS_AT_ONCE, PANELS_AT_ONCE = 4, 3
PACKED_TERMS = 256
# Rows that pass one packed piece after the other while they lie in its second cache.
ROWS_NEAR = 64
# With fewer rows nothing is packed: each weight is read once, in the order of memory.
FEW_ROWS = 8
FEW_TERMS = 4
# Places of a window's terms are a table of the kernel; a longer one is left to tinygrad.
TERMS_MAX = 1 << 16
# So much may be padded however little of it is there.
PADDED_ANYHOW = 1 << 16
Function = Callable[..., Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class ConvWindow:
    """How a convolution goes over [images, high, wide, channels], which is padded already."""

    size: tuple[int, int, int, int]
    kernel: tuple[int, int]
    strides: tuple[int, int]
    dilations: tuple[int, int]

    @property
    def places(self) -> tuple[int, int]:
        """How often it fits in each direction."""
        high, wide = (
            (size - dilation * (kernel - 1) - 1) // stride + 1
            for size, kernel, stride, dilation in zip(
                self.size[1:3], self.kernel, self.strides, self.dilations, strict=True
            )
        )
        return high, wide


@dataclass(frozen=True, slots=True, kw_only=True)
class Product:
    """[stack, rows, terms] times [stack or 1, terms, columns]."""

    stack: int
    rows: int
    terms: int
    columns: int
    shared: bool = True
    window: ConvWindow | None = None

    @property
    def wide(self) -> int:
        """The columns of what is written: whole panels."""
        return -(-self.columns // LANES) * LANES

    @property
    def has_table(self) -> bool:
        """Whether the terms of a window lie apart from each other."""
        it = self.window
        return it is not None and (it.kernel[0] > 1 or it.dilations[1] > 1)

    @property
    def name(self) -> str:
        numbers: list[int] = [self.stack, self.rows, self.terms, self.columns, int(self.shared)]
        if (it := self.window) is not None:
            numbers += [*it.size, *it.kernel, *it.strides, *it.dilations]
        return "products_" + "_".join(map(str, numbers))


def matmul(left: Tensor, right: Tensor) -> Tensor:
    if not _ours(left, right) or min(left.ndim, right.ndim) < 2:
        return left @ right
    if left.shape[-1] != right.shape[-2]:
        # It says what does not fit.
        return left @ right
    *_, rows, terms = (int(it) for it in left.shape)
    columns = int(right.shape[-1])
    before = tuple(int(it) for it in left.shape[:-2])
    if math.prod(right.shape[:-2]) == 1 and right.ndim <= left.ndim:
        product = Product(stack=1, rows=math.prod(before) * rows, terms=terms, columns=columns)
    elif tuple(right.shape[:-2]) == before:
        product = Product(
            stack=math.prod(before), rows=rows, terms=terms, columns=columns, shared=False
        )
    else:
        return left @ right
    return _run(product, left, right).reshape(*before, rows, columns)


def gemm(
    a: Tensor,
    b: Tensor,
    c: Tensor | None = None,
    alpha: float = 1.0,
    beta: float = 1.0,
    transA: int = 0,  # noqa: N803 - so it is called in the standard
    transB: int = 0,  # noqa: N803
    broadcast: int = 0,
) -> Any:
    if not _ours(a, b) or a.ndim != 2 or b.ndim != 2:
        return onnx_ops["Gemm"](a, b, c, alpha, beta, transA, transB, broadcast)
    found = matmul(a.T if transA else a, b.T if transB else b)
    found = found if alpha == 1.0 else found * alpha
    if c is None:
        return found
    if broadcast:
        sizes = [-1 if at < c.ndim else 1 for at in range(found.ndim)]
        c = c.reshape(sizes[::-1])
    return found + (c if beta == 1.0 else c * beta)


def conv(x: Tensor, weights: Tensor, bias: Tensor | None = None, **given: Any) -> Any:
    plain = onnx_ops["Conv"]
    if not _ours(x, weights) or x.ndim not in (3, 4) or given.get("group", 1) != 1:
        return plain(x, weights, bias, **given)
    # tinygrad works out what a padding by name is, and refuses what does not fit together.
    found = plain(x, weights, bias, **given)
    kernel = tuple(int(it) for it in weights.shape[2:])
    window, pads = _window(x, kernel, given)
    if (
        window is None
        or window.places[-len(kernel) :] != tuple(found.shape[2:])
        or window.size[3] * math.prod(kernel) > TERMS_MAX
        or math.prod(window.size) > max(PADDED_ANYHOW, CONV_PADDED_MAX * x.numel())
    ):
        return found
    flat = len(kernel) == 1
    image, matrix = (it.unsqueeze(2) if flat else it for it in (x, weights))
    last = image.permute(0, 2, 3, 1).pad(((0, 0), *pads, (0, 0)))
    columns, high, wide = int(weights.shape[0]), *window.places
    product = Product(
        stack=1,
        rows=window.size[0] * high * wide,
        terms=window.size[3] * math.prod(kernel),
        columns=columns,
        window=window,
    )
    rows = _run(product, last, matrix.permute(2, 3, 1, 0))
    rows = rows.reshape(window.size[0], high, wide, columns)
    rows = rows if bias is None else rows + bias
    result = rows.permute(0, 3, 1, 2)
    return result.squeeze(2) if flat else result


def _window(
    x: Tensor, kernel: tuple[int, ...], given: Mapping[str, Any]
) -> tuple[ConvWindow | None, tuple[tuple[int, int], tuple[int, int]]]:
    """The window, and the pads of height and width; None where the padding is given by name."""
    axes = len(kernel)
    pads = list(given.get("pads") or [0] * 2 * axes)
    if given.get("auto_pad", "NOTSET") not in ("NOTSET", "VALID") or len(pads) != 2 * axes:
        return None, ((0, 0), (0, 0))
    if given.get("auto_pad") == "VALID" or min(pads) < 0:
        return None, ((0, 0), (0, 0))
    strides, dilations = (
        tuple(int(it) for it in given.get(name) or [1] * axes) for name in ("strides", "dilations")
    )
    sizes = [int(it) for it in x.shape[2:]]
    sides = [(int(pads[at]), int(pads[at + axes])) for at in range(axes)]
    if axes == 1:
        sides, sizes = [(0, 0), *sides], [1, *sizes]
        kernel, strides, dilations = (1, *kernel), (1, *strides), (1, *dilations)
    high, wide = (size + sum(pad) for size, pad in zip(sizes, sides, strict=True))
    window = ConvWindow(
        size=(int(x.shape[0]), high, wide, int(x.shape[1])),
        kernel=(kernel[0], kernel[1]),
        strides=(strides[0], strides[1]),
        dilations=(dilations[0], dilations[1]),
    )
    return window, (sides[0], sides[1])


def laid_out(name: str, graph: Graph) -> tuple[int, ...]:
    """The axes of a constant in the order in which products read them; empty: as they are."""
    array = graph.constants[name]
    uses = {it.operator: it for it in graph.nodes if it.inputs[1:2] == (name,)}
    if "Conv" in uses and array.ndim > 2:
        return (*range(2, array.ndim), 1, 0)
    if "Gemm" in uses and array.ndim == 2 and uses["Gemm"].attributes.get("transB"):
        return (1, 0)
    return ()


def _ours(*tensors: Tensor) -> bool:
    """Whether these are numbers that the kernels below take, where they are compiled."""
    known = all(it.dtype == dtypes.float32 and 0 not in it.shape for it in tensors)
    return known and native()


def _run(product: Product, left: Tensor, right: Tensor) -> Tensor:
    """[stack, rows, columns], read out of whole panels."""
    out = Tensor.empty(product.stack, product.rows, product.wide)

    def kernel(*buffers: Any) -> Any:
        return program(product.name, source(product), buffers, outs=(0,), parts=1)

    found = Tensor.custom_kernel(out, left.contiguous(), right.contiguous(), fxn=kernel)[0]
    return found[:, :, : product.columns]


def source(product: Product) -> str:
    """The C function of (out, left, right)."""
    body = _few(product) if product.rows < FEW_ROWS else _many(product)
    rows = f"left + stack * {product.rows * product.terms}l"
    columns = 0 if product.shared else product.terms * product.columns
    return (
        f"{HEAD}\nenum {{ ROWS = {product.rows}, TERMS = {product.terms},"
        f" COLUMNS = {product.columns}, WIDE = {product.wide} }};\n"
        f"void {product.name}(float* restrict outs, const float* restrict left,"
        f" const float* restrict right, long part) {{\n{_table(product)}"
        f"for (long stack = 0; stack < {product.stack}; stack++) {{\n"
        f"float* restrict out = outs + stack * ROWS * (long)WIDE;\n"
        f"const float* rows = {rows};\n"
        f"const float* weights = right + stack * {columns}l;\n{body}}}\n}}\n"
    )


def _table(product: Product) -> str:
    """Where the terms of a window lie, from its first on."""
    window = product.window
    if window is None or not product.has_table:
        return ""
    _, _, wide, channels = window.size
    return (
        "int place[TERMS];\n"
        f"for (int high = 0, at = 0; high < {window.kernel[0]}; high++)\n"
        f"for (int wide = 0; wide < {window.kernel[1]}; wide++)\n"
        f"for (int channel = 0; channel < {channels}; channel++)\n"
        f"place[at++] = (high * {window.dilations[0] * wide}"
        f" + wide * {window.dilations[1]}) * {channels} + channel;\n"
    )


def _first_term(window: ConvWindow | None, row: str) -> str:
    """Where the terms of a row begin."""
    if window is None:
        return f"rows + ({row}) * (long)TERMS"
    high, wide = window.places
    _, tall, across, channels = window.size
    image, line, at = (
        f"({row}) / {high * wide}",
        f"({row}) % {high * wide} / {wide}",
        f"({row}) % {wide}",
    )
    return (
        f"rows + (({image} * {tall} + {line} * {window.strides[0]}) * {across}"
        f" + {at} * {window.strides[1]}) * {channels}"
    )


def _number(product: Product, row: int, term: str) -> str:
    return f"first{row}[place[{term}]]" if product.has_table else f"first{row}[{term}]"


def _few(product: Product) -> str:
    """Row by row of the weights, a few terms at a time: sums lie in what is written."""
    lines = [
        "for (long at = 0; at < ROWS * (long)WIDE; at++) out[at] = 0;\n",
        *(
            f"const float* first{row} = {_first_term(product.window, str(row))};\n"
            for row in range(product.rows)
        ),
    ]
    whole = product.terms // FEW_TERMS * FEW_TERMS
    for begin, end, at_once in ((0, whole, FEW_TERMS), (whole, product.terms, 1)):
        if begin == end:
            continue
        lines.append(f"for (long term = {begin}; term < {end}; term += {at_once}) {{\n")
        pairs = [(row, step) for row in range(product.rows) for step in range(at_once)]
        lines += [
            f"const float number{row}_{step} = {_number(product, row, f'term + {step}')};\n"
            for row, step in pairs
        ]
        for kind, loop in (
            ("floats", f"for (long at = 0; at + {LANES} <= COLUMNS; at += {LANES})"),
            ("float", f"for (long at = {product.columns // LANES * LANES}; at < COLUMNS; at++)"),
        ):
            lines.append(f"{loop} {{\n")
            for row in range(product.rows):
                lines.append(f"{kind} sum{row} = *({kind}*)(out + {row} * WIDE + at);\n")
            for step in range(at_once):
                lines.append(
                    f"const {kind} weight{step} ="
                    f" *(const {kind}*)(weights + (term + {step}) * COLUMNS + at);\n"
                )
                lines += [
                    f"sum{row} += number{row}_{step} * weight{step};\n"
                    for row in range(product.rows)
                ]
            lines += [
                f"*({kind}*)(out + {row} * WIDE + at) = sum{row};\n" for row in range(product.rows)
            ]
            lines.append("}\n")
        lines.append("}\n")
    return "".join(lines)


def _many(product: Product) -> str:
    """A piece of a few panels is packed, and the rows of a block pass it, which lie near then."""
    panels = product.wide // LANES
    whole = panels // PANELS_AT_ONCE * PANELS_AT_ONCE
    groups = [(PANELS_AT_ONCE, 0, whole), (panels - whole, whole, panels)]
    packed = "".join(
        f"for (long panel = {begin}; panel < {end}; panel += {width}) {{\n"
        f"const long there = COLUMNS - panel * {LANES};\n"
        "for (long term = 0; term < terms; term++) {\n"
        f"const float* from = weights + (first + term) * COLUMNS + panel * {LANES};\n"
        f"float* to = packed + term * {width * LANES};\n"
        f"if (there >= {width * LANES})"
        f" for (int at = 0; at < {width}; at++) PUT(to, at) = AT(floats, from, at);\n"
        f"else for (int at = 0; at < {width * LANES}; at++) to[at] = at < there ? from[at] : 0;\n"
        f"}}\nlong row = begin;\n"
        f"for (; row + {ROWS_AT_ONCE} <= end; row += {ROWS_AT_ONCE}) {{\n"
        f"{_passed(product, width, ROWS_AT_ONCE)}}}\n"
        f"for (; row < end; row++) {{\n{_passed(product, width, 1)}}}\n}}\n"
        for width, begin, end in groups
        if begin < end
    )
    return (
        f"float packed[{PACKED_TERMS * PANELS_AT_ONCE * LANES}] __attribute__((aligned(64)));\n"
        f"for (long begin = 0; begin < ROWS; begin += {ROWS_NEAR}) {{\n"
        f"const long end = begin + {ROWS_NEAR} < ROWS ? begin + {ROWS_NEAR} : ROWS;\n"
        f"for (long first = 0; first < TERMS; first += {PACKED_TERMS}) {{\n"
        f"const long terms = first + {PACKED_TERMS} < TERMS ? {PACKED_TERMS} : TERMS - first;\n"
        f"{packed}}}\n}}\n"
    )


def _passed(product: Product, width: int, at_once: int) -> str:
    """Some rows at once pass the packed panels."""
    table = product.has_table
    sums = [(row, panel) for row in range(at_once) for panel in range(width)]
    place = f"out + (row + {{row}}) * WIDE + panel * {LANES}, {{panel}}"
    lines = [
        f"const float* first{row} = {_first_term(product.window, f'row + {row}')}"
        f"{'' if table else ' + first'};\n"
        for row in range(at_once)
    ]
    lines += [
        f"floats sum{row}_{panel} = first ? AT(floats, {place.format(row=row, panel=panel)}) : 0;\n"
        for row, panel in sums
    ]
    lines.append("for (long term = 0; term < terms; term++) {\n")
    lines += [
        f"const floats weight{panel} = AT(floats, packed, term * {width} + {panel});\n"
        for panel in range(width)
    ]
    lines.append(f"const long at = {'place[first + term]' if table else 'term'};\n")
    for row in range(at_once):
        lines.append(f"const float number{row} = first{row}[at];\n")
        lines += [f"sum{row}_{panel} += number{row} * weight{panel};\n" for panel in range(width)]
    lines.append("}\n")
    lines += [
        f"PUT({place.format(row=row, panel=panel)}) = sum{row}_{panel};\n" for row, panel in sums
    ]
    return "".join(lines)


PRODUCTS: Mapping[str, Function] = {"Conv": conv, "Gemm": gemm, "MatMul": matmul}
