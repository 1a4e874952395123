"""Tensors as people and JSON have them. Pure."""

import math
from typing import Any

import numpy as np

from wire.tensors import Tensor, Tensors

# Numbers that are told of one output; the whole of it is got by its content id.
NUMBERS_TOLD_MAX = 4096


def tensor_map(tensor: Tensor, numbers_max: int | None = None) -> dict[str, Any]:
    """Type, shape and the first numbers, row by row; what JSON has no number for is null."""
    values = np.frombuffer(tensor.data, np.dtype(tensor.kind).newbyteorder("<"))[:numbers_max]
    shape = list(tensor.shape)
    return {"type": tensor.kind, "shape": shape, "data": list(map(finite, values.tolist()))}


def tensor_maps(output: bytes, numbers_max: int | None = None) -> dict[str, Any]:
    """Every tensor of an output by its name; WireError if it is no tensors."""
    return {it.name: tensor_map(it, numbers_max) for it in Tensors.from_bytes(output).tensors}


def shown_tensors(output: bytes) -> dict[str, Any]:
    """Every tensor of an output, with as many numbers as one answer has room for."""
    return tensor_maps(output, NUMBERS_TOLD_MAX // len(Tensors.from_bytes(output).tensors))


def finite(value: Any) -> Any:
    """What JSON has no number for is null."""
    return None if isinstance(value, float) and not math.isfinite(value) else value
