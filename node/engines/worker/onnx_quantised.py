"""Operators of ONNX on numbers of eight bits. Runs in the worker only.

Sums are of whole numbers, so they are exact; what is rounded is rounded to even, as the standard
has it.
"""

from typing import Any

from tinygrad import Tensor, dtypes
from tinygrad.nn.onnx import onnx_ops

from wire.errors import ModelRefused

_KINDS = (dtypes.uint8, dtypes.int8, dtypes.uint16, dtypes.int16)
_NUMBERS = {2: dtypes.uint8, 3: dtypes.int8, 4: dtypes.uint16, 5: dtypes.int16}


def quantize_linear(
    x: Tensor, scale: Tensor, zero: Tensor | None = None, axis: int = 1, **given: Any
) -> Tensor:
    said = _NUMBERS.get(given.get("output_dtype", 0) or 2)
    kind = said if zero is None else zero.dtype
    if kind not in _KINDS:
        raise ModelRefused(f"QuantizeLinear to {kind} is not run here")
    block = given.get("block_size", 0)
    scale = _fit(scale, x, axis, block)
    moved = x.float() / scale
    return _saturated(moved, None if zero is None else _fit(zero, x, axis, block), kind)


def dequantize_linear(
    x: Tensor, scale: Tensor, zero: Tensor | None = None, axis: int = 1, **given: Any
) -> Tensor:
    block = given.get("block_size", 0)
    whole = x.cast(dtypes.int32)
    if zero is not None:
        whole = whole - _fit(zero, x, axis, block).cast(dtypes.int32)
    return (whole.float() * _fit(scale, x, axis, block)).cast(scale.dtype)


def dynamic_quantize_linear(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    least, most = x.min().minimum(0), x.max().maximum(0)
    scale = ((most - least) / 255).contiguous()
    safe = (scale == 0).where(1.0, scale)
    zero = (-least / safe).round().clip(0, 255).cast(dtypes.uint8).contiguous()
    return _saturated(x / safe, zero, dtypes.uint8), scale, zero


def matmul_integer(
    a: Tensor, b: Tensor, a_zero: Tensor | None = None, b_zero: Tensor | None = None
) -> Tensor:
    left, right = a.cast(dtypes.int32), b.cast(dtypes.int32)
    if a_zero is not None:
        zero = a_zero.cast(dtypes.int32)
        left = left - (zero.reshape(-1, 1) if zero.ndim == 1 and zero.numel() > 1 else zero)
    if b_zero is not None:
        right = right - b_zero.cast(dtypes.int32)
    return left.matmul(right, dtype=dtypes.int32)


def conv_integer(
    x: Tensor, w: Tensor, x_zero: Tensor | None = None, w_zero: Tensor | None = None, **given: Any
) -> Tensor:
    left, right = x.cast(dtypes.int32), w.cast(dtypes.int32)
    if x_zero is not None:
        left = left - x_zero.cast(dtypes.int32)
    if w_zero is not None:
        right = right - _fit(w_zero, w, 0, 0).cast(dtypes.int32)
    found: Tensor = onnx_ops["Conv"](left, right, **given)
    return found.cast(dtypes.int32)


def qlinear_conv(*inputs: Any, **given: Any) -> Tensor:
    """Of x, w and y each a scale and a zero in turn, and biases if there are nine inputs."""
    x, x_scale, x_zero, w, w_scale, w_zero, y_scale, y_zero, *rest = inputs
    b = rest[0] if rest else None
    total = conv_integer(x, w, x_zero, w_zero, **given)
    if b is not None:
        total = total + b.reshape(1, -1, *[1] * (total.ndim - 2))
    scale = x_scale * w_scale / y_scale
    return _saturated(total.float() * _fit(scale, total, 1, 0), y_zero, y_zero.dtype)


def qlinear_matmul(
    a: Tensor,
    a_scale: Tensor,
    a_zero: Tensor,
    b: Tensor,
    b_scale: Tensor,
    b_zero: Tensor,
    y_scale: Tensor,
    y_zero: Tensor,
) -> Tensor:
    total = matmul_integer(a, b, a_zero, b_zero)
    left = a_scale.reshape(-1, 1) if a_scale.ndim == 1 and a_scale.numel() > 1 else a_scale
    scale = left.float() * b_scale.float() / y_scale.float()
    return _saturated(total.float() * scale, y_zero, y_zero.dtype)


def _fit(value: Tensor, x: Tensor, axis: int, block: int) -> Tensor:
    """One for all, one for each place of an axis, or one for each block along it."""
    if value.numel() == 1:
        return value.reshape(())
    axis %= x.ndim
    if block:
        return value.repeat_interleave(block, axis).shrink(tuple((0, it) for it in x.shape))
    if value.ndim > 1:
        raise ModelRefused(f"scales of {value.ndim} dimensions are not run here")
    return value.reshape([-1 if at == axis else 1 for at in range(x.ndim)])


def _saturated(moved: Tensor, zero: Tensor | None, kind: Any) -> Tensor:
    rounded = moved.round()
    if zero is not None:
        rounded = rounded + zero.float()
    wide = 1 << (8 * kind.itemsize)
    least = 0 if dtypes.is_unsigned(kind) else -(wide // 2)
    return rounded.clip(least, least + wide - 1).cast(dtypes.int32).cast(kind)
