"""Standard operators that tinygrad computes in a way that is not safe, or not right. Worker only.

A division of whole numbers by zero, or of the smallest by -1, ends a process on many machines, and
what an operator divides by may be anything that comes in. Here `x / 0` and `x % 0` are 0, and the
smallest number by -1 is itself, as two's complement has it.
"""

from collections.abc import Callable, Mapping
from typing import Any

from tinygrad import Tensor, dtypes
from tinygrad.nn.onnx import Domain, OpSetId

from node.engines.worker import onnx_quantised as quantised
from node.engines.worker.onnx_attention import attention
from node.engines.worker.onnx_recurrent import gru, lstm, rnn
from node.engines.worker.onnx_resize import resize, resize_10, upsample
from node.engines.worker.onnx_sampling import grid_sample
from wire.errors import ModelRefused


def div(x: Tensor, y: Tensor) -> Tensor:
    if not dtypes.is_int(x.dtype):
        return x.div(y)
    nothing, minus = y == 0, _minus_one(y)
    found = x.div(_divisor(y), rounding_mode="trunc")
    return nothing.where(0, minus.where(-x, found)).cast(x.dtype)


def mod(x: Tensor, y: Tensor, fmod: int = 0) -> Tensor:
    if not dtypes.is_int(x.dtype):
        return _fmod(x, y) if fmod else _floor_mod(x, y)
    found = x.fmod(_divisor(y)) if fmod else x % _divisor(y)
    return ((y == 0) | _minus_one(y)).where(0, found).cast(x.dtype)


def _fmod(x: Tensor, y: Tensor) -> Tensor:
    """What is left of `x`, with its sign; by infinity all of it is."""
    return (y.isinf() & x.isinf().logical_not()).where(x, x.fmod(y))


def _floor_mod(x: Tensor, y: Tensor) -> Tensor:
    """What is left of `x`, with the sign of `y`."""
    left = _fmod(x, y)
    return ((left != 0) & ((left < 0) != (y < 0))).where(left + y, left)


def lp_normalization(x: Tensor, axis: int = -1, p: int = 2) -> Tensor:
    """Along an axis by its length; nothing stays nothing."""
    if p not in (1, 2):
        raise ModelRefused(f"LpNormalization by p={p} is not run here")
    length = x.abs().sum(axis, keepdim=True)
    if p == 2:
        length = x.square().sum(axis, keepdim=True).sqrt()
    return (length == 0).where(0.0, x / length)


def _minus_one(y: Tensor) -> Tensor:
    return y == -1 if not dtypes.is_unsigned(y.dtype) else y != y


def _divisor(y: Tensor) -> Tensor:
    """`y`, or 1 where that cannot be divided by. A tensor of its own.

    So no rewriting of a graph can divide first and choose afterwards.
    """
    return ((y == 0) | _minus_one(y)).where(1, y).cast(y.dtype).contiguous()


def size(data: Tensor) -> Tensor:
    return Tensor(data.numel(), dtype=dtypes.int64, device=data.device)


def shape(data: Tensor, end: int | None = None, start: int = 0) -> Tensor:
    sizes = list(data.shape[start:end])
    return Tensor(sizes, dtype=dtypes.int64, device=data.device)


def eye_like(x: Tensor, dtype: int | None = None, k: int = 0) -> Tensor:
    """Ones on the k-th diagonal: right of the main one where k is positive."""
    if x.ndim != 2:
        raise ModelRefused(f"EyeLike takes a matrix, and this has {x.ndim} dimensions")
    kind = x.dtype if dtype is None else _DTYPES.get(dtype)
    if kind is None:
        raise ModelRefused(f"EyeLike of the type {dtype} is not run here")
    rows, columns = (int(it) for it in x.shape)
    row = Tensor.arange(rows).reshape(-1, 1)
    column = Tensor.arange(columns).reshape(1, -1)
    return (column - row == max(-rows, min(columns, k))).cast(kind)


def dropout(x: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
    """Of a model that is not being trained: nothing is dropped, and the mask says so."""
    return x, Tensor.ones(*x.shape, dtype=dtypes.bool)


# By ONNX's numbers.
_DTYPES: Mapping[int, Any] = {
    1: dtypes.float32,
    2: dtypes.uint8,
    3: dtypes.int8,
    4: dtypes.uint16,
    5: dtypes.int16,
    6: dtypes.int32,
    7: dtypes.int64,
    9: dtypes.bool,
    10: dtypes.float16,
    11: dtypes.float64,
    12: dtypes.uint32,
    13: dtypes.uint64,
}


def _flattened(function: Callable[[Tensor], Tensor]) -> Callable[..., Tensor]:
    """As it was before version 13: all axes from `axis` on count as one."""

    def flat(x: Tensor, axis: int = 1) -> Tensor:
        axis = axis % x.ndim if x.ndim else 0
        rows = 1
        for size in x.shape[:axis]:
            rows *= int(size)
        return function(x.reshape(rows, -1)).reshape(x.shape)

    return flat


def hardmax(x: Tensor, axis: int = -1) -> Tensor:
    """One at the first of the largest, and zeros."""
    places = Tensor.arange(x.shape[axis]).reshape(
        [-1 if it == axis % x.ndim else 1 for it in range(x.ndim)]
    )
    return (places == x.argmax(axis, keepdim=True)).cast(x.dtype)


def _since(*versions: tuple[int, Callable[..., Any]]) -> Mapping[OpSetId, Callable[..., Any]]:
    return {OpSetId(Domain.ONNX, number): function for number, function in versions}


STANDARD: Mapping[str, Any] = {
    "Attention": attention,
    "ConvInteger": quantised.conv_integer,
    "DequantizeLinear": quantised.dequantize_linear,
    "DynamicQuantizeLinear": quantised.dynamic_quantize_linear,
    "GRU": gru,
    "GridSample": grid_sample,
    "Hardmax": _since((1, _flattened(lambda x: hardmax(x, 1))), (13, hardmax)),
    "LSTM": lstm,
    "LpNormalization": lp_normalization,
    "LogSoftmax": _since(
        (1, _flattened(lambda x: x.log_softmax(1))),
        (13, lambda x, axis=-1: x.log_softmax(axis)),
    ),
    "MatMulInteger": quantised.matmul_integer,
    "QLinearConv": quantised.qlinear_conv,
    "QLinearMatMul": quantised.qlinear_matmul,
    "QuantizeLinear": quantised.quantize_linear,
    "RNN": rnn,
    "Resize": _since((10, resize_10), (11, resize)),
    "Softmax": _since(
        (1, _flattened(lambda x: x.softmax(1))), (13, lambda x, axis=-1: x.softmax(axis))
    ),
    "Upsample": upsample,
    "Div": div,
    "Dropout": dropout,
    "EyeLike": eye_like,
    "Mod": mod,
    "Shape": shape,
    "Size": size,
}
