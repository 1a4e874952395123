"""Proves, from the numbers of an integer model alone, that no 32-bit sum in it can overflow. Pure.

Every value has bounds that its layer keeps. From them follows the largest sum that any input could
lead to; a model for which that does not fit 31 bits is refused, whatever its real inputs are.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from node.engines.exact.model import ELEMENTS_MAX, SOFTMAX_BITS, ExactLayer, ExactModel, Window
from node.engines.formats.onnx_protobuf import Array
from wire.errors import ModelRefused

SUM_MAX = 2**31 - 1
# Of one row, in all layers: multiplications, or elements where there are none.
WORK_MAX = 1 << 31
TABLE_MAX = 1 << 16
# What is in memory for one row, in numbers.
MEMORY_ELEMENTS_MAX = 1 << 24
BLOCK_LEAST = 16

# By operator: how many values it reads, which of the numbers it has, and what it gives.
_PARTS: Mapping[str, tuple[int, frozenset[str], tuple[str, ...]]] = {
    "input": (1, frozenset({"multipliers"}), ("int8",)),
    "linear": (1, frozenset({"weights", "multipliers", "bias"}), ("int8", "int32")),
    "conv": (1, frozenset({"weights", "multipliers", "bias", "window"}), ("int8", "int32")),
    "max_pool": (1, frozenset({"window"}), ("int8",)),
    "mean_pool": (1, frozenset({"window", "multipliers"}), ("int8",)),
    "add": (2, frozenset({"multipliers"}), ("int8", "int32")),
    "affine": (1, frozenset({"multipliers", "bias"}), ("int8", "int32")),
    "table": (1, frozenset({"table"}), ("int8",)),
    "reshape": (1, frozenset(), ("int8", "int32")),
    "softmax": (1, frozenset({"multipliers", "table"}), ("int32",)),
    "arg_max": (1, frozenset({"table"}), ("int32",)),
}


@dataclass(frozen=True, slots=True)
class _Value:
    """What is known of a layer's output before anything is run."""

    shape: tuple[int, ...]
    kind: str
    low: int
    high: int

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @property
    def most(self) -> int:
        return max(abs(self.low), abs(self.high))


def prove(model: ExactModel) -> int:
    """How many multiplications one row takes; ModelRefused, with the layer, if one may overflow."""
    values: list[_Value] = []
    work = 0
    for at, layer in enumerate(model.layers):
        try:
            found, cost = _judged(layer, model, values)
        except ValueError as error:
            raise ModelRefused(
                f"layer {at} ({layer.operator}) of this model cannot be run: {error}",
                todo="make it anew from its float model: python -m node models quantize --exact",
            ) from error
        values.append(found)
        work += cost
    if (most := memory_elements(model)) > MEMORY_ELEMENTS_MAX:
        raise ModelRefused(f"this model takes {most} numbers in memory for one row")
    if work > WORK_MAX:
        raise ModelRefused(f"a row takes {work} multiplications, at most {WORK_MAX} are run here")
    return work


def _judged(layer: ExactLayer, model: ExactModel, values: list[_Value]) -> tuple[_Value, int]:
    if layer.operator not in _PARTS:
        raise ValueError(f"this operator is not known; known are {', '.join(_PARTS)}")
    count, parts, kinds = _PARTS[layer.operator]
    if len(layer.sources) != count or layer.kind not in kinds:
        raise ValueError(f"it reads {len(layer.sources)} values and gives {layer.kind}")
    for name in ("weights", "multipliers", "bias", "table", "window"):
        if bool(getattr(layer, name)) is not (name in parts):
            raise ValueError(f"it has {'no' if name in parts else 'a needless'} {name}")
    if math.prod(layer.shape) > ELEMENTS_MAX:
        raise ValueError(f"a row of it has more than {ELEMENTS_MAX} elements")
    if layer.operator == "input":
        shape = model.inputs[layer.sources[0]].shape
        values = [_Value(shape, "int8", -127, 127)]
        layer_sources = values
    else:
        layer_sources = [values[it] for it in layer.sources]
    return _RULES[layer.operator](layer, layer_sources), _cost(layer)


def work_of(model: ExactModel) -> int:
    """How many multiplications one row takes, or elements where there are none; at least 1."""
    return max(1, sum(map(_cost, model.layers)))


def memory_elements(model: ExactModel) -> int:
    """About how many numbers are in memory for one row: of the largest layer, or of all states."""
    sizes = [1, sum(math.prod(it.shape) for it in model.layers)]
    for layer in model.layers:
        size = math.prod(layer.shape)
        kernel = math.prod(layer.window[0].kernel) if layer.window else 1
        if not layer.weights or not layer.shape:
            sizes.append(size * kernel)
            continue
        # Rows of patches, and the sums of their blocks.
        terms = -(-len(layer.weights) // layer.shape[0])
        sizes.append(max(size, terms * (size // layer.shape[0])))
    return max(sizes)


def _cost(layer: ExactLayer) -> int:
    size = math.prod(layer.shape)
    if layer.operator == "conv":
        return len(layer.weights) * math.prod(layer.shape[1:])
    if layer.window:
        return size * math.prod(layer.window[0].kernel)
    return len(layer.weights) or size


def integers(raw: bytes, *shape: int, kind: str = "<i4") -> Array:
    """The integers of a layer's parameter; ValueError unless they are of this shape."""
    wanted = math.prod(shape) * np.dtype(kind).itemsize
    if len(raw) != wanted:
        raise ValueError(f"{len(raw)} bytes of numbers where {wanted} are due")
    return np.frombuffer(raw, kind).reshape(shape)


def spread(count_of: int, block: int) -> int:
    """How many parameters a row of so many elements has."""
    return -(-count_of // min(block, count_of))


def window_shape(shape: tuple[int, ...], window: Window) -> tuple[int, int]:
    """Height and width of what a window gives of (channels, height, width); ValueError if none."""
    if len(shape) != 3:
        raise ValueError(f"a window moves over three dimensions, not {len(shape)}")
    top, left, bottom, right = window.pads
    high, wide = window.kernel
    if max(top, bottom) >= high or max(left, right) >= wide:
        raise ValueError("its padding is as large as its window")
    down = (shape[1] + top + bottom - high) // window.strides[0] + 1
    across = (shape[2] + left + right - wide) // window.strides[1] + 1
    if min(shape[1] + top + bottom - high, shape[2] + left + right - wide) < 0:
        raise ValueError("its window is larger than its input")
    return down, across


def _half(shift: int) -> int:
    return (1 << shift) >> 1


def _fits(most: object, what: str) -> None:
    """ValueError if the largest of these numbers does not fit a 32-bit sum."""
    largest = int(np.max(np.asarray(most, dtype=object), initial=0))
    if largest > SUM_MAX:
        raise ValueError(f"{what} can reach {largest}, beyond 31 bits")


def _is(condition: bool, why: str) -> None:
    if not condition:
        raise ValueError(why)


def _result(layer: ExactLayer) -> _Value:
    _is(layer.low <= layer.high and (layer.low, layer.high) != (0, 0), "it can give nothing but 0")
    return _Value(layer.shape, layer.kind, layer.low, layer.high)


def _input(layer: ExactLayer, sources: list[_Value]) -> _Value:
    (source,) = sources
    _is(layer.shape == source.shape, "its shape is not the input's")
    multipliers = integers(layer.multipliers, spread(source.size, layer.block))
    _is(bool((multipliers > 0).all()), "a scale of 0, or below")
    return _result(layer)


def _terms(layer: ExactLayer, terms: int, outputs: int, most: int) -> _Value:
    """Bounds of sums over blocks of terms, each scaled and shifted, then summed."""
    weights = integers(layer.weights, terms, outputs, kind="<i1")
    block = min(layer.block, terms)
    _is(block >= min(BLOCK_LEAST, terms), f"its blocks have {block} terms")
    starts = range(0, terms, block)
    multipliers = integers(layer.multipliers, len(starts), outputs).astype(np.int64)
    bias = np.abs(integers(layer.bias, outputs).astype(np.int64))
    _is(bool((multipliers >= 0).all()), "a scale below 0")
    # One block after the other: a whole copy in wide integers would be eight times the file.
    in_blocks = (np.abs(weights[at : at + block].astype(np.int64)).sum(axis=0) for at in starts)
    sums = np.stack(list(in_blocks)) * most
    _fits(sums, "a sum of products")
    scaled = sums * multipliers + _half(layer.block_shift)
    _fits(scaled, "a scaled sum")
    total = (scaled >> layer.block_shift).sum(axis=0) + bias + _half(layer.shift)
    # The sums round towards minus infinity: each may be one larger than that below zero.
    _fits(total + len(starts), "the sum of all blocks")
    return _result(layer)


def _linear(layer: ExactLayer, sources: list[_Value]) -> _Value:
    (source,) = sources
    _is(source.kind == "int8", "it reads 8-bit integers")
    _is(len(source.shape) == 1 and len(layer.shape) == 1, "it reads and gives one dimension")
    return _terms(layer, source.size, layer.shape[0], source.most)


def _conv(layer: ExactLayer, sources: list[_Value]) -> _Value:
    (source,), (window,) = sources, layer.window
    _is(source.kind == "int8", "it reads 8-bit integers")
    size = window_shape(source.shape, window)
    _is(len(layer.shape) == 3 and layer.shape[1:] == size, "its shape is not what its window gives")
    return _terms(layer, source.shape[0] * math.prod(window.kernel), layer.shape[0], source.most)


def _pool(layer: ExactLayer, sources: list[_Value]) -> _Value:
    (source,), (window,) = sources, layer.window
    _is(source.kind == "int8", "it reads 8-bit integers")
    size = window_shape(source.shape, window)
    _is(layer.shape == (source.shape[0], *size), "its shape is not what its window gives")
    if layer.operator == "max_pool":
        _is((layer.low, layer.high) == (source.low, source.high), "its bounds are not its input's")
        return _result(layer)
    (multiplier,) = integers(layer.multipliers, 1).tolist()
    _is(multiplier > 0, "a scale of 0, or below")
    most = source.most * math.prod(window.kernel)
    _fits(most * multiplier + _half(layer.shift), "a sum of its window")
    return _result(layer)


def _same_size(layer: ExactLayer, sources: list[_Value]) -> int:
    for source in sources:
        _is(source.shape == layer.shape, "its shape is not its input's")
    return spread(sources[0].size, layer.block)


def _add(layer: ExactLayer, sources: list[_Value]) -> _Value:
    count = _same_size(layer, sources)
    multipliers = np.abs(integers(layer.multipliers, 2, count).astype(np.int64))
    _is(all(it.kind == "int8" for it in sources), "it reads 8-bit integers")
    most = multipliers[0] * sources[0].most + multipliers[1] * sources[1].most
    _fits(most + _half(layer.shift), "a sum")
    return _result(layer)


def _affine(layer: ExactLayer, sources: list[_Value]) -> _Value:
    count = _same_size(layer, sources)
    _is(sources[0].kind == "int8", "it reads 8-bit integers")
    multipliers = np.abs(integers(layer.multipliers, count).astype(np.int64))
    bias = np.abs(integers(layer.bias, count).astype(np.int64))
    _fits(multipliers * sources[0].most + bias + _half(layer.shift), "a product")
    return _result(layer)


def _table(layer: ExactLayer, sources: list[_Value]) -> _Value:
    count = _same_size(layer, sources)
    _is(sources[0].kind == "int8", "it reads 8-bit integers")
    table = integers(layer.table, count, 256, kind="<i1")
    _is(int(table.min()) >= layer.low and int(table.max()) <= layer.high, "bounds of its table")
    return _result(layer)


def _reshape(layer: ExactLayer, sources: list[_Value]) -> _Value:
    (source,) = sources
    _is(math.prod(layer.shape) == source.size, "it would lose or make up elements")
    same = (layer.kind, layer.low, layer.high) == (source.kind, source.low, source.high)
    _is(same, "its kind and bounds are not its input's")
    return _result(layer)


def _softmax(layer: ExactLayer, sources: list[_Value]) -> _Value:
    (source,) = sources
    _is(len(source.shape) == 1 and layer.shape == source.shape, "it reads one dimension")
    (multiplier,) = integers(layer.multipliers, 1).tolist()
    _is(multiplier > 0, "a scale of 0, or below")
    _fits((source.high - source.low) * multiplier + _half(layer.shift), "a difference")
    _is(len(layer.table) % 4 == 0 and 4 <= len(layer.table) <= 4 * TABLE_MAX, "size of its table")
    table = np.frombuffer(layer.table, "<i4")
    _is(int(table[0]) >= 1, "its table begins with 0")
    _is(int(table.min()) >= 0 and int(table.max()) <= 1 << SOFTMAX_BITS, "numbers of its table")
    _fits(source.size << SOFTMAX_BITS, "a sum of powers")
    _is((layer.low, layer.high) == (0, 1 << SOFTMAX_BITS), "bounds of a share")
    return _result(layer)


def _arg_max(layer: ExactLayer, sources: list[_Value]) -> _Value:
    (source,) = sources
    _is(
        len(source.shape) == 1 and layer.shape == (), "it reads one dimension, and gives one number"
    )
    labels = integers(layer.table, source.size)
    _is(int(labels.min()) >= layer.low and int(labels.max()) <= layer.high, "bounds of its labels")
    return _result(layer)


_RULES = {
    "input": _input,
    "linear": _linear,
    "conv": _conv,
    "max_pool": _pool,
    "mean_pool": _pool,
    "add": _add,
    "affine": _affine,
    "table": _table,
    "reshape": _reshape,
    "softmax": _softmax,
    "arg_max": _arg_max,
}
