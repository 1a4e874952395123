"""The tensors of a GGUF file as arrays of 32-bit floats. Worker only."""

import mmap

import numpy as np
from tinygrad import Tensor
from tinygrad.llm.gguf import ggml_data_to_tensor

from node.engines.formats.gguf import GgufModel
from node.engines.formats.safetensors import Array
from wire.errors import ModelRefused

F32, F16, Q8_0, BF16 = 0, 1, 8, 30
# Thirty-two numbers share a scale.
Q8_0_BLOCK = np.dtype([("scale", "<f2"), ("numbers", "i1", 32)])


def read_array(model: GgufModel, name: str) -> Array:
    """One tensor, unpacked; heads with the pairs that turn put half a head apart.

    Files of some families have the two numbers of a pair side by side.
    """
    tensor = model.tensors[name]
    with model.path.open("rb") as file:
        data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    raw = np.frombuffer(data, np.uint8, tensor.end - tensor.begin, tensor.begin)
    if tensor.kind == F32:
        found = raw.view("<f4")
    elif tensor.kind == F16:
        found = raw.view("<f2").astype(np.float32)
    elif tensor.kind == BF16:
        found = (raw.view("<u2").astype(np.uint32) << 16).view(np.float32)
    elif tensor.kind == Q8_0:
        # By far the commonest, and much quicker here than through a graph of its own.
        blocks = raw.view(Q8_0_BLOCK)
        found = blocks["numbers"] * blocks["scale"].astype(np.float32)[:, None]
    else:
        unpacked = ggml_data_to_tensor(Tensor(raw.copy()), tensor.items, tensor.kind)
        found = unpacked.float().numpy()
    if not np.isfinite(found).all():
        raise ModelRefused(f"{name} holds numbers that are not finite")
    array = found.reshape(tensor.shape)
    if model.family.interleaved and (".attn_q." in name or ".attn_k." in name):
        rest = tensor.shape[1:]
        pairs = array.reshape(-1, model.head_size // 2, 2, *rest)
        array = np.ascontiguousarray(pairs.swapaxes(1, 2)).reshape(-1, *rest)
    return array
