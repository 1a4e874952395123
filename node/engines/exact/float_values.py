"""What operators of a float ONNX graph give, in numpy, for the inputs that a model is measured on.

Pure. Only the operators that `node.engines.exact.quantise` turns into integers are here.
"""

import math
from collections.abc import Callable, Mapping

import numpy as np

from node.engines.exact.model import Window
from node.engines.exact.reference import patches
from node.engines.formats.onnx_graph import GraphNode
from node.engines.formats.onnx_protobuf import Array
from wire.errors import ModelRefused

Function = Callable[[Array], Array]


def number(node: GraphNode, name: str, default: float) -> float:
    """An attribute that is a number; ModelRefused if it is something else."""
    value = node.attributes.get(name, default)
    if not isinstance(value, float | int):
        raise refuse(node, f"its {name} is no number")
    return value


def numbers(node: GraphNode, name: str, default: tuple[float, ...] = ()) -> Array:
    """An attribute that is a list of numbers; ModelRefused if it is something else."""
    value = node.attributes.get(name, default)
    if not isinstance(value, tuple) or any(isinstance(it, str) for it in value):
        raise refuse(node, f"its {name} is no list of numbers")
    return np.array(value, np.float64)


def refuse(node: GraphNode, why: str) -> ModelRefused:
    """What is said of an operator that cannot be made exact."""
    return ModelRefused(
        f"{node.operator} cannot be made exact: {why}",
        todo="serve the float model, or export it without this operator",
    )


def _sigmoid(values: Array) -> Array:
    return np.asarray(1.0 / (1.0 + np.exp(-np.clip(values, -60, 60))))


def _gelu(values: Array) -> Array:
    error = np.vectorize(math.erf, otypes=[np.float64])(values / math.sqrt(2.0))
    return np.asarray(values * (1.0 + error) / 2.0)


def _leaky(slope: float) -> Function:
    return lambda values: np.where(values < 0, slope * values, values)


def _elu(alpha: float) -> Function:
    return lambda values: np.where(values < 0, alpha * np.expm1(np.minimum(values, 0)), values)


def _hard_sigmoid(alpha: float, beta: float) -> Function:
    return lambda values: np.clip(alpha * values + beta, 0, 1)


def function_of(node: GraphNode) -> Function | None:
    """The function of one number that a node is; None if it is no such operator."""
    match node.operator:
        case "Relu":
            return lambda values: np.maximum(values, 0)
        case "LeakyRelu":
            return _leaky(number(node, "alpha", 0.01))
        case "Elu":
            return _elu(number(node, "alpha", 1.0))
        case "HardSigmoid":
            return _hard_sigmoid(number(node, "alpha", 0.2), number(node, "beta", 0.5))
        case "HardSwish":
            return lambda values: values * np.clip(values / 6 + 0.5, 0, 1)
        case "Softplus":
            return lambda values: np.logaddexp(values, 0)
        case "Gelu" if node.attributes.get("approximate", "none") == "none":
            return _gelu
    return _SIMPLE.get(node.operator)


_SIMPLE: Mapping[str, Function] = {
    "Sigmoid": _sigmoid,
    "Tanh": np.tanh,
    "Abs": np.abs,
    "Neg": np.negative,
    "Sign": np.sign,
    "Softsign": lambda values: values / (1 + np.abs(values)),
    "Erf": np.vectorize(math.erf, otypes=[np.float64]),
}


def window_of(node: GraphNode, shape: tuple[int, ...], kernel: tuple[int, ...]) -> Window:
    """How a convolution or a pool moves over (channels, height, width); ModelRefused if unlike."""
    if len(shape) != 3 or len(kernel) != 2:
        raise refuse(node, "only windows over two dimensions are exact")
    dilations = [int(it) for it in numbers(node, "dilations", (1, 1))]
    if dilations != [1, 1] or number(node, "ceil_mode", 0) or number(node, "group", 1) != 1:
        raise refuse(node, "dilations, groups and ceil_mode are not run in whole numbers")
    if node.attributes.get("auto_pad", "NOTSET") not in ("NOTSET", "VALID"):
        raise refuse(node, "its padding depends on its input (auto_pad)")
    pads = tuple(int(it) for it in numbers(node, "pads", (0, 0, 0, 0)))
    strides = tuple(int(it) for it in numbers(node, "strides", (1, 1)))
    if min(pads) < 0 or max(*kernel, *strides) > 64 or max(pads) > 63 or min(strides) < 1:
        raise refuse(node, f"a window of {kernel}, strides of {strides} and pads of {pads}")
    return Window(kernel=kernel, strides=strides, pads=pads)


def convolved(values: Array, weights: Array, bias: Array, window: Window) -> Array:
    """A convolution: `weights` are [outputs, channels, down, across]."""
    under = patches(values, window, 0)
    rows, channels, places, kernel = under.shape
    terms = under.transpose(0, 2, 1, 3).reshape(rows, places, channels * kernel)
    found = terms @ weights.reshape(len(weights), -1).T + bias
    high = (values.shape[2] + window.pads[0] + window.pads[2] - window.kernel[0]) // window.strides[
        0
    ]
    return np.asarray(found.transpose(0, 2, 1).reshape(rows, len(weights), high + 1, -1))


def pooled(values: Array, window: Window, *, mean: bool) -> Array:
    """The largest, or the mean, under each place of a window."""
    fill = 0.0 if mean else -np.inf
    top, left, bottom, right = window.pads
    edges = ((0, 0), (0, 0), (top, bottom), (left, right))
    padded = np.pad(values, edges, constant_values=fill)
    views = np.lib.stride_tricks.sliding_window_view(padded, window.kernel, axis=(2, 3))
    views = views[:, :, :: window.strides[0], :: window.strides[1]]
    return np.asarray(views.mean(axis=(4, 5)) if mean else views.max(axis=(4, 5)))


def shares(values: Array) -> Array:
    """Softmax over the last dimension."""
    powers = np.exp(values - values.max(axis=-1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=-1, keepdims=True))
