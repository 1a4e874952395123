"""The product that every token waits for, compiled for GPUs that are not here, its loads counted.

At few rows a GPU is bound by its memory: what counts is how many bytes a load brings and how many
threads there are to load at once.
"""

import json
from pathlib import Path

import pytest

from tests.engines.absent_gpus import ABSENT_GPUS
from tests.engines.worker.test_language_model import run

# What is compiled, and of each kernel what it loads of its weights in one turn of its loop.
PROGRAM = """
import json
import numpy as np
from tinygrad import Tensor, TinyJit
from tinygrad.uop.ops import Ops
from node.engines.worker.matmul import Matmul
from node.engines.worker.weight_blocks import FORMS, BlockRows, row_bytes

products, kernels = Matmul(blocked=False), []

def origin(uop):
    while uop.op is not Ops.PARAM and uop.src:
        uop = uop.src[0]
    return uop

def packed(kind):
    if kind == "F32":
        return None, [Tensor.empty(8192), Tensor.empty(2048, 8192)]
    number = {"Q8_0": 8, "Q4_1": 3, "Q4_K": 12}[kind]
    raw = np.zeros((8192, row_bytes(number, 2048)), np.uint8)
    rows = BlockRows("weights", number, 2048, raw)
    return products.packed([rows], np.zeros(8192, np.float32))

for kind, rows in [(kind, rows) for kind in ("F32", "Q8_0", "Q4_1", "Q4_K") for rows in (1, 8)]:
    forms, tensors = packed(kind)

    def linear(rows, tensors):
        if forms is None:
            return products.linear(rows, tensors[1], tensors[0]).realize()
        return products.linear_of(rows, forms, iter(tensors)).realize()

    linear = TinyJit(linear)
    linear.cnt = 1
    linear(Tensor.empty(rows, 2048), tensors)
    (program,) = [call.src[0] for call in linear.captured.linear.src]
    (body,) = [part.src for part in program.src if part.op is Ops.LINEAR]
    (binary,) = [part.arg for part in program.src if part.op is Ops.BINARY]
    loads = [it for it in body if it.op is Ops.LOAD and origin(it).op is Ops.PARAM]
    # The result, the rows, the weights, the bias; words of weights come after the bias.
    slot = 2 if forms is None else 3
    sizes = [it.src[0].max_numel() for it in loads if origin(it).arg.slot == slot]
    in_word = 1 if forms is None else forms[0].in_word
    threads = [int(a) * int(b) for a, b in zip(program.arg.global_size, program.arg.local_size)]
    kernels.append({
        "kind": kind,
        "rows": rows,
        "threads": threads[0] * threads[1] * threads[2],
        "loads": len(sizes),
        "weights": sum(sizes) * in_word,
        "binary_bytes": len(binary),
    })
print(json.dumps(kernels))
"""


@pytest.mark.parametrize("device", ABSENT_GPUS)
def test_few_loads_of_many_threads_bring_the_weights(device: str, cache: Path) -> None:
    found = json.loads(run(Path(), cache, program=PROGRAM, device=device))
    kernels = {(it["kind"], it["rows"]): it for it in found}
    assert min(it["binary_bytes"] for it in found) > 0
    one, eight = kernels["F32", 1], kernels["F32", 8]
    # Each weight is loaded once, and is used for all rows.
    assert one["loads"] <= one["weights"]
    assert one["threads"] >= 16_384
    # Four to a load, where the language has such loads.
    in_a_load = 1 if device == "NULL:WGSL" else 4
    assert eight["loads"] * in_a_load <= eight["weights"]
    assert eight["threads"] >= 4_096
    for kind, in_a_word in (("Q8_0", 4), ("Q4_1", 8), ("Q4_K", 8)):
        for rows in (1, 8):
            # One load of one word, whatever the rows; each column has its own threads.
            kernel = kernels[kind, rows]
            assert (kernel["loads"], kernel["weights"]) == (1, in_a_word)
            assert kernel["threads"] == 8192 * 32
