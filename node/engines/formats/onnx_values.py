"""Reads the values of an ONNX file: what its inputs and outputs are, and its constants.

A constant has exactly the bytes that its shape wants, and they lie in this file and in no other.
"""

import math
from collections.abc import Mapping

import numpy as np

from node.engines.formats.onnx_graph import Dimension, Value
from node.engines.formats.onnx_protobuf import Array, ByteSource, FieldKind, Fields, Span
from wire.errors import ModelRefused

RANK_MAX = 8
NAME_CHARS_MAX = 256
# What a graph may build of one constant: more than any honest model does.
ELEMENTS_MAX = 1 << 28

KINDS: Mapping[int, str] = {
    1: "float32",
    2: "uint8",
    3: "int8",
    4: "uint16",
    5: "int16",
    6: "int32",
    7: "int64",
    8: "string",
    9: "bool",
    10: "float16",
    11: "float64",
    12: "uint32",
    13: "uint64",
    14: "complex64",
    15: "complex128",
    16: "bfloat16",
}
NUMBERS = frozenset(KINDS.values()) - {"string", "complex64", "complex128", "bfloat16"}
_TENSOR = {
    1: ("dims", FieldKind.INTS),
    2: ("kind", FieldKind.INTS),
    3: ("segment", FieldKind.PARTS),
    4: ("float_data", FieldKind.FLOATS),
    5: ("int32_data", FieldKind.INTS),
    7: ("int64_data", FieldKind.INTS),
    8: ("name", FieldKind.TEXTS),
    9: ("raw_data", FieldKind.PARTS),
    10: ("double_data", FieldKind.DOUBLES),
    11: ("uint64_data", FieldKind.INTS),
    13: ("external_data", FieldKind.PARTS),
    14: ("location", FieldKind.INTS),
}
_VALUE = {1: ("name", FieldKind.TEXTS), 2: ("type", FieldKind.PARTS)}
_TYPE = {
    1: ("tensor", FieldKind.PARTS),
    4: ("sequence", FieldKind.PARTS),
    5: ("map", FieldKind.PARTS),
    8: ("sparse tensor", FieldKind.PARTS),
    9: ("optional value", FieldKind.PARTS),
}
_TENSOR_TYPE = {1: ("kind", FieldKind.INTS), 2: ("shape", FieldKind.PARTS)}
_SHAPE = {1: ("dims", FieldKind.PARTS)}
_DIMENSION = {1: ("size", FieldKind.INTS), 2: ("name", FieldKind.TEXTS)}


def read_value(span: Span) -> Value:
    """An input or an output; ModelRefused unless it is a tensor of numbers."""
    source, row = span.source, span.read(_VALUE)
    name, types = read_name(source, row), row.parts.get("type", [])
    if not types:
        raise ModelRefused(f"{source.name}: {name} has no type")
    kinds = types[-1].read(_TYPE)
    if not kinds.has("tensor"):
        kind = next(iter(kinds.parts), "value of a kind that is not known")
        raise ModelRefused(
            f"{source.name}: {name} is a {kind}, and tensors of numbers are run here",
            todo="export it anew (for scikit-learn with zipmap=False)",
        )
    fields = kinds.parts["tensor"][-1].read(_TENSOR_TYPE)
    kind = _number_kind(source, name, fields)
    if not fields.has("shape"):
        return Value(name, kind, None)
    dims = fields.parts["shape"][-1].read(_SHAPE).parts.get("dims", [])
    if len(dims) > RANK_MAX:
        raise ModelRefused(f"{source.name}: {name} has {len(dims)} dimensions")
    return Value(name, kind, tuple(_dimension(source, it) for it in dims))


def _dimension(source: ByteSource, span: Span) -> Dimension:
    fields = span.read(_DIMENSION)
    # Some exporters call every size that they do not know "?": these need not be the same.
    if (name := fields.text("name")) and name != "?":
        return name[:NAME_CHARS_MAX]
    size = fields.number("size", -1)
    if size > ELEMENTS_MAX:
        raise ModelRefused(f"{source.name}: a dimension of {size}")
    return size if size >= 0 else None


def _number_kind(source: ByteSource, name: str, fields: Fields) -> str:
    number = fields.number("kind")
    kind = KINDS.get(number, f"type {number}")
    if kind not in NUMBERS:
        raise ModelRefused(f"{source.name}: {name} is of {kind}, which is not run here")
    return kind


def read_name(source: ByteSource, fields: Fields) -> str:
    """What a value or an attribute is called."""
    name = fields.text("name")
    if not name or len(name) > NAME_CHARS_MAX:
        raise ModelRefused(f"{source.name}: a name of {len(name)} characters")
    return name


def read_constant(span: Span, default: str = "") -> tuple[str, Array]:
    """A constant and its name (`default` where it needs none), as it lies in the file."""
    source, fields = span.source, span.read(_TENSOR)
    name = default or read_name(source, fields)
    if fields.has("external_data") or fields.number("location") != 0:
        raise ModelRefused(
            f"{source.name}: {name} lies in another file, and nothing but this file is read",
            todo="save the model with its data in one file",
        )
    if fields.has("segment"):
        raise ModelRefused(f"{source.name}: {name} comes in pieces")
    kind = _number_kind(source, name, fields)
    shape = tuple(fields.integers("dims").tolist())
    size = math.prod(shape)
    if len(shape) > RANK_MAX or any(it < 0 for it in shape) or size >= 1 << 31:
        raise ModelRefused(f"{source.name}: {name} has the shape {str(shape)[:80]}")
    data = _numbers(fields, kind)
    if data.size != size:
        raise ModelRefused(
            f"{source.name}: {name} of shape {list(shape)} wants {size} numbers, {data.size} came"
        )
    return name, data.reshape(shape)


def _numbers(fields: Fields, kind: str) -> Array:
    little = np.dtype(kind).newbyteorder("<")
    if fields.has("raw_data"):
        data = fields.parts["raw_data"][-1].data()
        if len(data) % little.itemsize:
            raise fields.source.refuse("a constant ends in the middle of a number")
        if kind == "bool":
            return np.frombuffer(data, np.uint8).astype(bool)
        found: Array = np.frombuffer(data, little)
        return found
    match kind:
        case "float32":
            return fields.floats("float_data", "<f4")
        case "float64":
            return fields.floats("double_data", "<f8")
        case "float16":
            return fields.integers("int32_data").astype(np.uint16).view(np.float16)
        case "int64":
            return fields.integers("int64_data")
        case "uint32" | "uint64":
            return fields.integers("uint64_data").astype(kind)
    # Smaller integers and all the rest.
    return np.asarray(fields.integers("int32_data"), kind)
