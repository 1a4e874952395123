"""Turns real numbers into a layer's integers: which scales, multipliers and shifts come close.

Pure. Every function builds one `ExactLayer` whose sums fit 32 bits for any input, because scales
are chosen from the largest sum that the weights allow.
"""

import math
from dataclasses import dataclass

import numpy as np

from node.engines.exact.model import BLOCK, ELEMENTS_MAX, SOFTMAX_BITS, ExactLayer, Window
from node.engines.formats.onnx_protobuf import Array
from wire.errors import ModelRefused

# Scaled sums stay below this, so that rounding and a second term still fit.
ROOM = 2**29
# 32-bit outputs are kept below this: as floats they are exact, and softmax has room.
WIDE_MAX = 1 << 20
SHIFT_MAX = 30
EXP_STEPS = 256
EXP_ENTRIES = 4096


@dataclass(frozen=True, slots=True)
class Target:
    """What a layer gives: integers that times `scale` are the real numbers.

    `scale` has one number, or one for each element of a flat row. `wide`: 32-bit integers, of which
    `scale` is 2**-shift.
    """

    scale: Array
    low: int
    high: int
    wide: bool = False

    @property
    def kind(self) -> str:
        return "int32" if self.wide else "int8"


def narrow_target(floats: Array, block: int, *, positive: bool) -> Target:
    """8-bit integers for numbers like these: a scale for each block of a row, or one for all."""
    most = np.abs(floats).reshape(len(floats), -1).max(axis=0)
    if floats.ndim == 2:
        size = min(block, len(most))
        tops = [most[at : at + size].max() for at in range(0, len(most), size)]
        most = np.repeat(tops, size)[: len(most)]
    else:
        most = np.array([most.max()])
    scale = np.where(most > 0, most, 127.0) / 127.0
    return Target(scale, 0 if positive else -127, 127)


def wide_shift(floats: Array) -> int:
    """The finest 2**-shift in which numbers like these stay well below the bound."""
    most = float(np.abs(floats).max())
    if most >= WIDE_MAX / 4:
        raise ModelRefused(
            f"outputs reach {most:.3g}, and exact ones stay below {WIDE_MAX // 4}",
            todo="scale the model's targets down, and its answers up again",
        )
    return max(0, min(24, math.floor(math.log2(WIDE_MAX / 4 / max(most, 1e-6)))))


def wide_target(shift: int, *, positive: bool = False) -> Target:
    """32-bit integers that count 2**-shift."""
    return Target(np.array([2.0**-shift]), 0 if positive else -WIDE_MAX, WIDE_MAX, wide=True)


def input_layer(number: int, floats: Array) -> tuple[ExactLayer, Array]:
    """Floats to 8-bit integers, and their scale: for each element of a flat row, else for all."""
    rows = floats.reshape(len(floats), -1)
    most = np.abs(rows).max(axis=0) if floats.ndim == 2 else np.abs(rows).max(keepdims=True)[0]
    scale = np.where(most > 0, most, 127.0) / 127.0
    if bool((rows == np.rint(rows)).all()) and float(most.max()) <= 127:
        # Small whole numbers are kept as they are.
        scale = np.ones_like(scale)
    shift = max(0, min(SHIFT_MAX, math.floor(math.log2(2**30 * float(scale.min())))))
    multipliers = np.clip(np.rint(2.0**shift / scale), 1, 2**31 - 1)
    layer = ExactLayer(
        operator="input",
        sources=(number,),
        shape=floats.shape[1:],
        kind="int8",
        block=1 if floats.ndim == 2 else ELEMENTS_MAX,
        multipliers=_bytes(multipliers),
        shift=shift,
        low=-127,
        high=127,
    )
    # What the integers really stand for.
    return layer, 2.0**shift / multipliers


def weighted_layer(
    source: int,
    weights: Array,
    bias: Array,
    target: Target,
    *,
    shape: tuple[int, ...],
    block: int = BLOCK,
    window: Window | None = None,
) -> ExactLayer:
    """A fully connected layer, or a convolution: `weights` [terms, outputs] for integers.

    They are multiplied by the scale of what comes in already.
    """
    terms, outputs = weights.shape
    block = min(block, terms)
    starts = range(0, terms, block)
    scale = np.broadcast_to(target.scale, (outputs,)) if target.scale.size > 1 else target.scale
    whole = np.zeros((terms, outputs), np.int8)
    ratios = np.zeros((len(starts), outputs))
    sums = np.zeros((len(starts), outputs))
    for number, at in enumerate(starts):
        part = weights[at : at + block]
        steps = np.abs(part).max(axis=0) / 127.0
        rounded = np.rint(part / np.where(steps > 0, steps, 1.0))
        whole[at : at + block] = rounded.astype(np.int8)
        ratios[number] = steps / scale
        sums[number] = np.abs(rounded).sum(axis=0) * 127.0
    bits = _bits_left(max(float((sums * ratios).max()), float(np.abs(bias / scale).max())))
    block_shift = min(bits, len(starts).bit_length())
    return ExactLayer(
        operator="linear" if window is None else "conv",
        sources=(source,),
        shape=shape,
        kind=target.kind,
        block=block,
        window=() if window is None else (window,),
        weights=whole.tobytes(),
        multipliers=_bytes(np.rint(ratios * 2.0**bits)),
        bias=_bytes(np.rint(bias / scale * 2.0 ** (bits - block_shift))),
        block_shift=block_shift,
        shift=bits - block_shift,
        low=target.low,
        high=target.high,
    )


def affine_layer(
    source: int,
    shape: tuple[int, ...],
    factors: Array,
    offsets: Array,
    scale: Array,
    target: Target,
) -> ExactLayer:
    """`factors` times what comes in, plus `offsets`; each one number, or one for each element."""
    size = math.prod(shape)
    ratios, added = (
        np.broadcast_to(it, (size,))
        for it in (factors * scale / target.scale, offsets / target.scale)
    )
    block = block_of((ratios, added), shape)
    ratios, added = ratios[::block], added[::block]
    bits = _bits_left(float((np.abs(ratios) * 127 + np.abs(added)).max()))
    return ExactLayer(
        operator="affine",
        sources=(source,),
        shape=shape,
        kind=target.kind,
        block=block,
        multipliers=_bytes(np.rint(ratios * 2.0**bits)),
        bias=_bytes(np.rint(added * 2.0**bits)),
        shift=bits,
        low=target.low,
        high=target.high,
    )


def add_layer(
    sources: tuple[int, int], shape: tuple[int, ...], scales: tuple[Array, Array], target: Target
) -> ExactLayer:
    """The sum of two values."""
    size = math.prod(shape)
    one, other = (np.broadcast_to(it / target.scale, (size,)) for it in scales)
    block = block_of((one, other), shape)
    one, other = one[::block], other[::block]
    bits = _bits_left(float(((one + other) * 127).max()))
    return ExactLayer(
        operator="add",
        sources=sources,
        shape=shape,
        kind=target.kind,
        block=block,
        multipliers=_bytes(np.rint(one * 2.0**bits)) + _bytes(np.rint(other * 2.0**bits)),
        shift=bits,
        low=target.low,
        high=target.high,
    )


def mean_layer(source: int, shape: tuple[int, ...], window: Window, ratio: float) -> ExactLayer:
    """The mean under a window; `ratio` is the scale of what comes in by that of what goes out."""
    kernel = math.prod(window.kernel)
    bits = _bits_left(ratio * 127)
    return ExactLayer(
        operator="mean_pool",
        sources=(source,),
        shape=shape,
        kind="int8",
        window=(window,),
        multipliers=_bytes(np.array([max(1, round(ratio / kernel * 2.0**bits))])),
        shift=bits,
        low=-127,
        high=127,
    )


def soft_max_layer(source: int, outputs: int, shift: int) -> ExactLayer:
    """Shares that sum up to one, of integers that count 2**-shift."""
    steps = np.arange(EXP_ENTRIES) / EXP_STEPS
    finer = EXP_STEPS.bit_length() - 1 - shift
    return ExactLayer(
        operator="softmax",
        sources=(source,),
        shape=(outputs,),
        kind="int32",
        multipliers=_bytes(np.array([1 << max(0, finer)])),
        table=_bytes(np.rint(np.exp(-steps) * (1 << SOFTMAX_BITS))),
        shift=max(0, -finer),
        low=0,
        high=1 << SOFTMAX_BITS,
    )


def _bits_left(most: float) -> int:
    """How far real numbers up to `most` can be shifted left and have room."""
    if not math.isfinite(most):
        raise ModelRefused("a number of this model is not finite")
    bits = math.floor(math.log2(ROOM / max(most, 2.0**-10)))
    if bits < 0:
        raise ModelRefused(f"a sum of this model can reach {most:.3g} steps: more than fit 32 bits")
    return min(SHIFT_MAX, bits)


def block_of(parameters: tuple[Array, ...], shape: tuple[int, ...]) -> int:
    """The longest run of elements that share their parameters: a row, a channel, a block, one."""
    size = math.prod(shape)
    plane = math.prod(shape[1:]) if len(shape) > 1 else BLOCK
    for block in (size, plane):
        spread = (np.repeat(it[::block], block)[:size] for it in parameters)
        if all(np.array_equal(one, other) for one, other in zip(spread, parameters, strict=True)):
            return block
    return 1


def _bytes(values: Array) -> bytes:
    return np.ascontiguousarray(values, "<i4").tobytes()
