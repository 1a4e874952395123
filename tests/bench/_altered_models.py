"""SmolLM2 with other weights than its file has: what a peer runs that says it runs the true one."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from gguf import quants

Array = np.ndarray[Any, np.dtype[np.float32]]
Kind = gguf.GGMLQuantizationType
Q4_0, Q8_0, F16 = Kind.Q4_0, Kind.Q8_0, Kind.F16
BLOCKS_KEY = "llama.block_count"
HEAD = "output.weight"
EMBEDDING = "token_embd.weight"


def as_is(weights: Array, _: np.random.Generator) -> Array:
    return weights


def off_by(share: float) -> Callable[[Array, np.random.Generator], Array]:
    """Each weight is off by so much of the root mean square of all."""

    def alter(weights: Array, chance: np.random.Generator) -> Array:
        size = np.float32(np.sqrt(np.square(weights).mean()) * share)
        return weights + chance.standard_normal(weights.shape, np.float32) * size

    return alter


def int8_by_channel(weights: Array, _: np.random.Generator) -> Array:
    scale = np.abs(weights).max(axis=1, keepdims=True) / 127
    rounded: Array = np.round(weights / scale) * scale
    return rounded


def bf16(weights: Array, _: np.random.Generator) -> Array:
    bits = np.ascontiguousarray(weights).view(np.uint32)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) & 0xFFFF0000).view(np.float32)


def write_altered(
    source: Path,
    target: Path,
    *,
    kind: Kind | None = None,
    alter: Callable[[Array, np.random.Generator], Array] = as_is,
    left_out: range = range(0),
    head: Callable[[Array, np.random.Generator], Array] | None = None,
) -> Path:
    """The file with its matrices altered and kept as `kind`, without some layers.

    `head` alters only what comes after all layers, which the file shares with the embedding. With
    no `kind` matrices stay as they are.
    """
    reader, chance = gguf.GGUFReader(source), np.random.default_rng(1)
    writer = gguf.GGUFWriter(target, "llama")
    for name, field in reader.fields.items():
        if name.startswith("GGUF.") or name == "general.architecture":
            continue
        value = field.contents()
        if name == BLOCKS_KEY:
            value -= len(left_out)
        of = field.types[-1] if field.types[0] is gguf.GGUFValueType.ARRAY else None
        writer.add_key_value(name, value, field.types[0], of)
    for tensor in reader.tensors:
        name = _name_without(tensor.name, left_out)
        if not name:
            continue
        is_matrix = len(tensor.shape) == 2
        if kind is None or not is_matrix:
            writer.add_tensor(name, tensor.data, raw_dtype=tensor.tensor_type)
        else:
            weights = alter(quants.dequantize(tensor.data, tensor.tensor_type), chance)
            writer.add_tensor(name, quants.quantize(weights, kind), raw_dtype=kind)
        if head is not None and tensor.name == EMBEDDING:
            last = head(quants.dequantize(tensor.data, tensor.tensor_type), chance)
            writer.add_tensor(HEAD, quants.quantize(last, F16), raw_dtype=F16)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return target


def _name_without(name: str, left_out: range) -> str:
    """What a tensor is called where these layers are not; empty for one of them."""
    head, _, rest = name.partition(".")
    if head != "blk":
        return name
    number, _, what = rest.partition(".")
    at = int(number)
    if at in left_out:
        return ""
    return f"blk.{at - sum(it < at for it in left_out)}.{what}"
