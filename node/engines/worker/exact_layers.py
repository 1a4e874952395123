"""The layers of an integer model in tinygrad. What they are, `node.engines.exact.reference` says.

Everything is cast to 32 bits before it is multiplied: on some devices a product of 8-bit integers
wraps in 8 bits. Runs in the worker only.
"""

import math
from collections.abc import Sequence

import numpy as np
from tinygrad import Tensor, TinyJit, dtypes

from node.engines.exact.model import SOFTMAX_BITS, ExactLayer, ExactModel, Window
from node.engines.exact.reference import per_element
from node.engines.formats.onnx_protobuf import Array
from node.engines.worker.buffers import placed, write, zeros


class ExactGraph:
    """The numbers of a model on the device, and graphs over them."""

    def __init__(self, model: ExactModel) -> None:
        self.model = model
        self._inputs = [it for it in model.layers if it.operator == "input"]
        self._numbers = [_numbers(it) for it in model.layers]
        self._constants = [placed(it) for numbers in self._numbers for it in numbers]

    def capture(self, rows: int) -> TinyJit:
        """Compile the graph for so many rows: 8-bit inputs to the outputs' integers."""
        sources = self.sources(rows)

        def once(sources: list[Tensor], constants: list[Tensor]) -> list[Tensor]:
            answers = self._answers(sources, constants)
            Tensor.realize(*answers)
            return answers

        captured = TinyJit(once)
        # Begin with the capture: what is worked out before it would be thrown away.
        captured.cnt = 1
        captured(sources, self._constants)
        return captured

    def sources(self, rows: int) -> list[Tensor]:
        """Inputs to write into: what each `input` layer gives, in the model's order of layers."""
        return [zeros(rows, *it.shape, kind="int8") for it in self._inputs]

    def run(
        self, captured: TinyJit, sources: Sequence[Tensor], arrays: Sequence[Array]
    ) -> list[Array]:
        """The integers of each output for 8-bit inputs, which fill the graph's rows."""
        for source, array in zip(sources, arrays, strict=True):
            write(source.uop.base.realized, array)
        inputs = [tensor.uop.base for tensor in (*sources, *self._constants)]
        answers = captured.captured(inputs, {})
        found = []
        for answer in answers:
            data = np.frombuffer(answer.uop.base.realized.as_memoryview(), np.int32)
            found.append(data.reshape(answer.shape).copy())
        return found

    def _answers(self, sources: list[Tensor], constants: list[Tensor]) -> list[Tensor]:
        given, numbers = iter(sources), iter(constants)
        values: list[Tensor] = []
        for layer, own in zip(self.model.layers, self._numbers, strict=True):
            here = [next(numbers) for _ in own]
            if layer.operator == "input":
                values.append(next(given).cast(dtypes.int32))
                continue
            read = [values[it] for it in layer.sources]
            made = _OPERATORS[layer.operator](layer, read, here)
            # One kernel or a few for each layer: what is fused over layers takes long to compile.
            values.append(made.reshape(made.shape[0], *layer.shape).cast(dtypes.int32).contiguous())
        return [values[it.layer].clone() for it in self.model.outputs]


def _numbers(layer: ExactLayer) -> list[Array]:
    """What of a layer lies on the device, in the order in which its operator reads it."""
    size = math.prod(layer.shape)
    match layer.operator:
        case "linear" | "conv":
            outputs = layer.shape[0]
            weights = np.frombuffer(layer.weights, np.int8).reshape(-1, outputs)
            block = min(layer.block, len(weights))
            blocks = -(-len(weights) // block)
            whole = np.zeros((blocks * block, outputs), np.int8)
            whole[: len(weights)] = weights
            # A block's terms of one output lie side by side.
            in_blocks = whole.reshape(blocks, block, outputs).transpose(0, 2, 1)
            multipliers = np.frombuffer(layer.multipliers, np.int32).reshape(blocks, outputs)
            bias = np.frombuffer(layer.bias, np.int32)
            return [np.ascontiguousarray(in_blocks), multipliers.copy(), bias.copy()]
        case "affine":
            parts = (layer.multipliers, layer.bias)
            return [per_element(it, size, layer.block) for it in parts]
        case "add":
            half = len(layer.multipliers) // 2
            parts = (layer.multipliers[:half], layer.multipliers[half:])
            return [per_element(it, size, layer.block) for it in parts]
        case "table":
            begins = np.arange(size) // min(layer.block, size) * 256
            table = np.frombuffer(layer.table, np.int8).astype(np.int32)
            return [table, (begins + 128).astype(np.int32)]
        case "softmax" | "arg_max":
            return [np.frombuffer(layer.table, np.int32).copy()]
    return []


def _shifted(values: Tensor, shift: int) -> Tensor:
    """Divided by 2**shift and rounded: a half goes up. The shift is arithmetic."""
    return (values + (1 << (shift - 1))) >> shift if shift else values


def _clipped(values: Tensor, layer: ExactLayer) -> Tensor:
    return values.clip(layer.low, layer.high)


def _views(values: Tensor, window: Window, fill: int) -> list[Tensor]:
    """For each place in the window, what lies there at every place of it."""
    top, left, bottom, right = window.pads
    high, wide = window.kernel
    down, across = window.strides
    padded = values.pad(((0, 0), (0, 0), (top, bottom), (left, right)), value=fill)
    rows = (padded.shape[2] - high) // down * down + 1
    columns = (padded.shape[3] - wide) // across * across + 1
    return [
        padded[:, :, at : at + rows : down, beside : beside + columns : across]
        for at in range(high)
        for beside in range(wide)
    ]


def _dot(layer: ExactLayer, terms: Tensor, numbers: list[Tensor]) -> Tensor:
    weights, multipliers, bias = numbers
    blocks, _outputs, block = weights.shape
    rows, count = terms.shape
    padded = terms.pad(((0, 0), (0, blocks * block - count)))
    products = padded.reshape(rows, blocks, 1, block) * weights.cast(dtypes.int32)
    sums = products.sum(axis=3, dtype=dtypes.int32)
    scaled = _shifted(sums * multipliers, layer.block_shift)
    total = scaled.sum(axis=1, dtype=dtypes.int32) + bias
    return _clipped(_shifted(total, layer.shift), layer)


def _linear(layer: ExactLayer, sources: list[Tensor], numbers: list[Tensor]) -> Tensor:
    return _dot(layer, sources[0], numbers)


def _conv(layer: ExactLayer, sources: list[Tensor], numbers: list[Tensor]) -> Tensor:
    views = _views(sources[0], layer.window[0], 0)
    under = views[0].unsqueeze(-1).cat(*(it.unsqueeze(-1) for it in views[1:]), dim=-1)
    rows, channels, down, across, kernel = under.shape
    terms = under.permute(0, 2, 3, 1, 4).reshape(rows * down * across, channels * kernel)
    found = _dot(layer, terms.contiguous(), numbers)
    return found.reshape(rows, down * across, layer.shape[0]).permute(0, 2, 1)


def _max_pool(layer: ExactLayer, sources: list[Tensor], _numbers: list[Tensor]) -> Tensor:
    first, *others = _views(sources[0], layer.window[0], -128)
    for view in others:
        first = first.maximum(view)
    return first


def _mean_pool(layer: ExactLayer, sources: list[Tensor], _numbers: list[Tensor]) -> Tensor:
    first, *others = _views(sources[0], layer.window[0], 0)
    for view in others:
        first = first + view
    multiplier = int(np.frombuffer(layer.multipliers, "<i4")[0])
    return _clipped(_shifted(first * multiplier, layer.shift), layer)


def _add(layer: ExactLayer, sources: list[Tensor], numbers: list[Tensor]) -> Tensor:
    one, other = (it.reshape(it.shape[0], -1) for it in sources)
    return _clipped(_shifted(one * numbers[0] + other * numbers[1], layer.shift), layer)


def _affine(layer: ExactLayer, sources: list[Tensor], numbers: list[Tensor]) -> Tensor:
    values = sources[0].reshape(sources[0].shape[0], -1)
    return _clipped(_shifted(values * numbers[0] + numbers[1], layer.shift), layer)


def _table(_layer: ExactLayer, sources: list[Tensor], numbers: list[Tensor]) -> Tensor:
    values = sources[0].reshape(sources[0].shape[0], -1)
    return numbers[0][values + numbers[1]]


def _reshape(_layer: ExactLayer, sources: list[Tensor], _numbers: list[Tensor]) -> Tensor:
    return sources[0]


def _softmax(layer: ExactLayer, sources: list[Tensor], numbers: list[Tensor]) -> Tensor:
    (logits,), (table,) = sources, numbers
    multiplier = int(np.frombuffer(layer.multipliers, "<i4")[0])
    below = logits.max(axis=1, keepdim=True) - logits
    places = _shifted(below * multiplier, layer.shift).minimum(table.shape[0] - 1)
    powers = table[places].contiguous()
    sums = powers.sum(axis=1, keepdim=True, dtype=dtypes.int32)
    return (powers << SOFTMAX_BITS) // sums


def _arg_max(_layer: ExactLayer, sources: list[Tensor], numbers: list[Tensor]) -> Tensor:
    (values,), (labels,) = sources, numbers
    # The first of the largest: the least place among them.
    count = values.shape[1]
    places = Tensor.arange(count, dtype=dtypes.int32)
    largest = values == values.max(axis=1, keepdim=True)
    return labels[largest.where(places, count).min(axis=1)]


_OPERATORS = {
    "linear": _linear,
    "conv": _conv,
    "max_pool": _max_pool,
    "mean_pool": _mean_pool,
    "add": _add,
    "affine": _affine,
    "table": _table,
    "reshape": _reshape,
    "softmax": _softmax,
    "arg_max": _arg_max,
}
