"""What each layer of an integer model computes, in plain numpy. Every engine has to equal this.

It is written to be read, and to give the same in ten years: arrays of integers, sums, products,
shifts and look-ups, nothing else. `node.engines.exact.overflow` has proved that no sum leaves 32
bits, so the order in which sums are made is of no matter.
"""

from collections.abc import Callable, Sequence

import numpy as np

from node.engines.exact.model import SOFTMAX_BITS, ExactLayer, ExactModel, Window
from node.engines.exact.overflow import WORK_MAX, memory_elements, work_of
from node.engines.formats.onnx_protobuf import Array

# Numbers of a call in one pass: more rows are done in several.
PASS_ELEMENTS_MAX = 1 << 22


def quantised(layer: ExactLayer, data: Array) -> Array:
    """Floats of 32 bits as 8-bit integers: multiplied, divided by 2**shift, rounded half to even.

    The product of a 24-bit and a 31-bit number is rounded once, to 53 bits, as IEEE 754 says. What
    is no number becomes 0.
    """
    rows = np.asarray(data, np.float32).reshape(len(data), -1)
    multipliers = per_element(layer.multipliers, rows.shape[1], layer.block).astype(np.float64)
    numbers = np.nan_to_num(rows.astype(np.float64), nan=0.0, posinf=1e300, neginf=-1e300)
    with np.errstate(over="ignore"):
        scaled = np.rint(np.clip(numbers * multipliers / 2.0**layer.shift, -1e6, 1e6))
    return np.clip(scaled, layer.low, layer.high).astype(np.int8).reshape(len(data), *layer.shape)


def run_layer(layer: ExactLayer, sources: Sequence[Array]) -> Array:
    """A layer's output for some rows: `sources` are its inputs, each of shape [rows, ...]."""
    if layer.operator == "input":
        return quantised(layer, sources[0])
    wide = [it.astype(np.int32) for it in sources]
    found = _OPERATORS[layer.operator](layer, wide)
    shape = (len(sources[0]), *layer.shape)
    return found.reshape(shape).astype(np.int8 if layer.kind == "int8" else np.int32)


def run_layers(model: ExactModel, inputs: Sequence[Array]) -> list[Array]:
    """Every layer's output for the rows of a call; `inputs` are in the model's order."""
    states: list[Array] = []
    for layer in model.layers:
        given = inputs if layer.operator == "input" else states
        states.append(run_layer(layer, [given[it] for it in layer.sources]))
    return states


def _go_on() -> None:
    """For who waits however long it takes."""


def run(
    model: ExactModel, inputs: Sequence[Array], before_pass: Callable[[], None] = _go_on
) -> list[Array]:
    """The model's outputs for the rows of a call, some rows at a time.

    `before_pass` is called before each pass; what it raises ends the run.
    """
    rows = min(PASS_ELEMENTS_MAX // memory_elements(model), WORK_MAX // work_of(model))
    at_once = max(1, rows)
    parts = []
    for at in range(0, len(inputs[0]), at_once):
        before_pass()
        some = [it[at : at + at_once] for it in inputs]
        parts.append(outputs_of(model, run_layers(model, some)))
    return [np.concatenate(part) for part in zip(*parts, strict=True)]


def outputs_of(model: ExactModel, states: Sequence[Array]) -> list[Array]:
    """The outputs that the layers' states mean: powers of two divide without rounding."""
    found = []
    for output in model.outputs:
        state = states[output.layer]
        if output.kind == "int64":
            found.append(state.astype(np.int64))
        else:
            found.append((state.astype(np.float64) / 2.0**output.shift).astype(np.float32))
    return found


def per_element(raw: bytes, size: int, block: int, kind: str = "<i4") -> Array:
    """A layer's parameters, one for each element of a flat row."""
    parameters = np.frombuffer(raw, kind)
    return np.repeat(parameters, min(block, size))[:size]


def shifted(values: Array, shift: int) -> Array:
    """Divided by 2**shift and rounded: a half goes up. A right shift rounds down, below 0 too."""
    return (values + ((1 << shift) >> 1)) >> shift


def patches(values: Array, window: Window, fill: int) -> Array:
    """What lies under the window at each of its places: [rows, channels, places, kernel]."""
    top, left, bottom, right = window.pads
    edges = ((0, 0), (0, 0), (top, bottom), (left, right))
    padded = np.pad(values, edges, constant_values=fill)
    views = np.lib.stride_tricks.sliding_window_view(padded, window.kernel, axis=(2, 3))
    views = views[:, :, :: window.strides[0], :: window.strides[1]]
    rows, channels = values.shape[:2]
    return views.reshape(rows, channels, -1, window.kernel[0] * window.kernel[1])


def _dot(layer: ExactLayer, terms: Array, outputs: int) -> Array:
    """[rows, terms] times [terms, outputs]: a block's sum is scaled, then the blocks are summed."""
    count = terms.shape[1]
    weights = np.frombuffer(layer.weights, np.int8).reshape(count, outputs).astype(np.int32)
    block = min(layer.block, count)
    starts = range(0, count, block)
    multipliers = np.frombuffer(layer.multipliers, "<i4").reshape(len(starts), outputs)
    total = np.zeros((len(terms), outputs), np.int32) + np.frombuffer(layer.bias, "<i4")
    for number, at in enumerate(starts):
        sums = terms[:, at : at + block] @ weights[at : at + block]
        total = total + shifted(sums * multipliers[number], layer.block_shift)
    return np.clip(shifted(total, layer.shift), layer.low, layer.high)


def _linear(layer: ExactLayer, sources: Sequence[Array]) -> Array:
    return _dot(layer, sources[0], layer.shape[0])


def _conv(layer: ExactLayer, sources: Sequence[Array]) -> Array:
    under = patches(sources[0], layer.window[0], 0)
    rows, channels, places, kernel = under.shape
    terms = under.transpose(0, 2, 1, 3).reshape(rows * places, channels * kernel)
    found = _dot(layer, terms, layer.shape[0])
    return found.reshape(rows, places, -1).transpose(0, 2, 1)


def _max_pool(layer: ExactLayer, sources: Sequence[Array]) -> Array:
    return np.asarray(patches(sources[0], layer.window[0], -128).max(axis=3))


def _mean_pool(layer: ExactLayer, sources: Sequence[Array]) -> Array:
    sums = patches(sources[0], layer.window[0], 0).sum(axis=3, dtype=np.int32)
    scaled = sums * np.frombuffer(layer.multipliers, "<i4")
    return np.clip(shifted(scaled, layer.shift), layer.low, layer.high)


def _add(layer: ExactLayer, sources: Sequence[Array]) -> Array:
    one, other = (it.reshape(len(it), -1) for it in sources)
    half = len(layer.multipliers) // 2
    first = per_element(layer.multipliers[:half], one.shape[1], layer.block)
    second = per_element(layer.multipliers[half:], one.shape[1], layer.block)
    return np.clip(shifted(one * first + other * second, layer.shift), layer.low, layer.high)


def _affine(layer: ExactLayer, sources: Sequence[Array]) -> Array:
    values = sources[0].reshape(len(sources[0]), -1)
    multipliers = per_element(layer.multipliers, values.shape[1], layer.block)
    bias = per_element(layer.bias, values.shape[1], layer.block)
    return np.clip(shifted(values * multipliers + bias, layer.shift), layer.low, layer.high)


def _table(layer: ExactLayer, sources: Sequence[Array]) -> Array:
    values = sources[0].reshape(len(sources[0]), -1)
    size = values.shape[1]
    begins = np.arange(size) // min(layer.block, size) * 256
    return np.frombuffer(layer.table, np.int8)[values + 128 + begins]


def _reshape(_layer: ExactLayer, sources: Sequence[Array]) -> Array:
    return sources[0]


def _softmax(layer: ExactLayer, sources: Sequence[Array]) -> Array:
    (logits,) = sources
    table = np.frombuffer(layer.table, "<i4")
    below = logits.max(axis=1, keepdims=True) - logits
    places = shifted(below * np.frombuffer(layer.multipliers, "<i4"), layer.shift)
    powers = table[np.minimum(places, len(table) - 1)]
    sums = powers.sum(axis=1, keepdims=True, dtype=np.int32)
    return np.asarray((powers << SOFTMAX_BITS) // sums)


def _arg_max(layer: ExactLayer, sources: Sequence[Array]) -> Array:
    # Of equal ones the first.
    labels = np.frombuffer(layer.table, "<i4")
    return np.asarray(labels[sources[0].argmax(axis=1)])


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
