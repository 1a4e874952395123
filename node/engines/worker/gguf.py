"""The tensors of a GGUF file: rows of blocks, or arrays of 32-bit floats. Worker only."""

import mmap

import numpy as np
from tinygrad import Tensor
from tinygrad.llm.gguf import ggml_data_to_tensor

from node.engines.formats.gguf_model import GgufModel
from node.engines.worker.weight_blocks import F32, FORMS, Array, BlockRows, row_bytes

# Whose rows are of pairs, in files that have them side by side.
TURNED = (".attn_q.weight", ".attn_k.weight")
TURNED_BIASES = (".attn_q.bias", ".attn_k.bias")


def read_rows(model: GgufModel, name: str) -> BlockRows:
    """One tensor as it lies in the file, of which only what is looked at is read.

    Heads have the pairs that turn put half a head apart: files of some families have the two
    numbers of a pair side by side.
    """
    tensor = model.tensors[name]
    # Of a file that is larger than this machine's memory only this part takes address space.
    skipped = tensor.begin // mmap.ALLOCATIONGRANULARITY * mmap.ALLOCATIONGRANULARITY
    with model.path.open("rb") as file:
        data = mmap.mmap(
            file.fileno(), tensor.end - skipped, access=mmap.ACCESS_READ, offset=skipped
        )
    raw = np.frombuffer(data, np.uint8, tensor.end - tensor.begin, tensor.begin - skipped)
    kind, columns = tensor.kind, tensor.shape[-1]
    if kind not in FORMS:
        # The rest of the types are unpacked at once, and kept as floats.
        floats = ggml_data_to_tensor(Tensor(raw.copy()), tensor.items, kind).float().numpy()
        kind, raw = F32, np.asarray(floats).reshape(-1).view(np.uint8)
    rows = BlockRows(name, kind, columns, raw.reshape(-1, row_bytes(kind, columns)))
    turned = model.family.interleaved and name.endswith(TURNED)
    return rows.taken(_apart(model, len(rows.raw))) if turned else rows


def read_array(model: GgufModel, name: str) -> Array:
    """One tensor of a single row, such as a norm's or a bias, unpacked; ModelRefused."""
    array = read_rows(model, name).floats().reshape(-1)
    turned = model.family.interleaved and name.endswith(TURNED_BIASES)
    return array[_apart(model, len(array))] if turned else array


def _apart(model: GgufModel, count: int) -> Array:
    pairs = np.arange(count).reshape(-1, model.head_size // 2, 2)
    return pairs.swapaxes(1, 2).reshape(-1)
