"""Named tensors as clients write them: JSON, numpy's npy, safetensors. A pure core.

Every form is read by hand, bounded by what came: nothing here can be made to run code.
"""

import ast
import json
import math
import struct
from collections.abc import Sequence
from typing import Any

import numpy as np

from node.gateway.errors import HttpError, bad
from node.gateway.requests import TensorInput
from wire.errors import WireError
from wire.tensors import (
    ELEMENT_BYTES,
    SAFETENSORS_KINDS,
    SAFETENSORS_LABELS,
    Tensor,
    Tensors,
)

NPY_TYPE, SAFETENSORS_TYPE = "application/x-npy", "application/x-safetensors"
_MAGIC = b"\x93NUMPY"
HEAD_BYTES_MAX = 64 << 10


def tensor_of(name: str, kind: str, shape: Sequence[int], data: bytes) -> Tensor:
    """A tensor of what a client sent; HttpError says what is wrong with it."""
    try:
        return Tensor(name=name, kind=kind, shape=tuple(shape), data=data)
    except WireError as error:
        raise bad(str(error), param="inputs") from error


def tensors_of(found: Sequence[Tensor]) -> bytes:
    try:
        return Tensors(tensors=tuple(found)).to_bytes()
    except WireError as error:
        raise bad(str(error), param="inputs") from error


# JSON


def from_json(asked: TensorInput) -> Tensor:
    """Elements in nested lists or in one, each a number (or true and false) that fits the type."""
    if asked.dtype not in ELEMENT_BYTES:
        raise bad(
            f"{asked.dtype[:16]!r} is not an element type ({', '.join(ELEMENT_BYTES)})",
            param="inputs",
        )
    flat = list(_flat(asked.data))
    allowed = bool if asked.dtype == "bool" else (int, float)
    whole = "int" in asked.dtype
    for value in flat:
        right = isinstance(value, allowed) and (allowed is bool or not isinstance(value, bool))
        if not right or (whole and not isinstance(value, int)):
            raise bad(f"{asked.name}: {str(value)[:20]!r} is no {asked.dtype}", param="inputs")
    try:
        with np.errstate(over="ignore"):
            data = np.array(flat, dtype=asked.dtype)
    except (OverflowError, ValueError) as error:
        raise bad(f"{asked.name}: {error}", param="inputs") from error
    little = data.astype(data.dtype.newbyteorder("<"))
    return tensor_of(asked.name, asked.dtype, asked.shape, little.tobytes())


def _flat(data: list[Any]) -> Any:
    stack = [iter(data)]
    while stack:
        for value in stack[-1]:
            if isinstance(value, list):
                stack.append(iter(value))
                break
            yield value
        else:
            stack.pop()


def to_json(tensor: Tensor) -> dict[str, Any]:
    """Elements in one list; what JSON has no number for is null."""
    values = np.frombuffer(tensor.data, np.dtype(tensor.kind).newbyteorder("<")).tolist()
    told = [None if isinstance(it, float) and not math.isfinite(it) else it for it in values]
    return {"name": tensor.name, "dtype": tensor.kind, "shape": list(tensor.shape), "data": told}


# npy


def from_npy(name: str, data: bytes) -> Tensor:
    """One array, as `numpy.save` writes it; never a pickled one."""
    if data[:6] != _MAGIC or len(data) < 12 or data[6] not in (1, 2, 3):
        raise bad("the body is no npy file of version 1 to 3", param="body")
    wide = data[6] > 1
    size, start = struct.unpack_from("<I" if wide else "<H", data, 8)[0], 12 if wide else 10
    if size > HEAD_BYTES_MAX or start + size > len(data):
        raise bad("the npy header is cut short", param="body")
    try:
        head = ast.literal_eval(data[start : start + size].decode("utf-8").strip())
        kind = np.dtype(head["descr"]).name
        shape, fortran = tuple(int(it) for it in head["shape"]), head["fortran_order"] is True
        dtype = np.dtype(head["descr"])
        if kind not in ELEMENT_BYTES or min(shape, default=0) < 0:
            raise ValueError(kind)
        array = np.frombuffer(data, dtype, offset=start + size)
        array = array.reshape(shape, order="F" if fortran else "C")
    except (
        ValueError,
        TypeError,
        KeyError,
        SyntaxError,
        RecursionError,
        MemoryError,
        OverflowError,
    ) as error:
        raise bad(f"the npy file cannot be read: {str(error)[:200]}", param="body") from error
    little = np.ascontiguousarray(array).astype(dtype.newbyteorder("<"))
    return tensor_of(name, kind, shape, little.tobytes())


def to_npy(tensor: Tensor) -> bytes:
    """The array as `numpy.load` reads it."""
    descr = np.dtype(tensor.kind).newbyteorder("<").str
    head = f"{{'descr': {descr!r}, 'fortran_order': False, 'shape': {tensor.shape!r}, }}"
    # The data begin at a multiple of 64.
    padded = head + " " * (-(len(head) + 11) % 64) + "\n"
    return _MAGIC + b"\1\0" + struct.pack("<H", len(padded)) + padded.encode() + tensor.data


# safetensors


def from_safetensors(data: bytes) -> list[Tensor]:
    """The tensors of a safetensors file; HttpError for any other bytes."""
    size = int.from_bytes(data[:8], "little")
    if len(data) < 8 or size > min(HEAD_BYTES_MAX, len(data) - 8):
        raise bad("the safetensors header is cut short or too long", param="body")
    body = data[8 + size :]
    found = []
    try:
        head = json.loads(data[8 : 8 + size])
        for name, told in head.items():
            if name == "__metadata__":
                continue
            begin, end = told["data_offsets"]
            if type(begin) is not int or type(end) is not int or not 0 <= begin <= end <= len(body):
                raise ValueError(f"the offsets of {name[:64]}")
            shape = told["shape"]
            if any(type(it) is not int for it in shape):
                raise ValueError(f"the shape of {name[:64]}")
            found.append(tensor_of(name, SAFETENSORS_KINDS[told["dtype"]], shape, body[begin:end]))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise bad(f"the safetensors file cannot be read: {str(error)[:200]}") from error
    return found


def to_safetensors(tensors: Sequence[Tensor]) -> bytes:
    head, at = {}, 0
    for tensor in tensors:
        offsets = [at, at + len(tensor.data)]
        head[tensor.name] = {
            "dtype": SAFETENSORS_LABELS[tensor.kind],
            "shape": list(tensor.shape),
            "data_offsets": offsets,
        }
        at = offsets[1]
    text = json.dumps(head).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + b"".join(it.data for it in tensors)


def one_tensor(tensors: Sequence[Tensor]) -> Tensor:
    """The one that an npy file can have; HttpError for several."""
    if len(tensors) != 1:
        names = ", ".join(it.name for it in tensors)
        raise one_only(names)
    return tensors[0]


def one_only(names: str) -> HttpError:
    return bad(
        f"the model gives {names}, and an npy file has one array: accept {SAFETENSORS_TYPE}"
        " or application/json",
        param="accept",
    )
