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
import json, sys
from tinygrad import Tensor, TinyJit
from tinygrad.uop.ops import Ops
from node.engines.worker.matmul import Matmul

products, kernels = Matmul(blocked=False), []

def origin(uop):
    while uop.op is not Ops.PARAM and uop.src:
        uop = uop.src[0]
    return uop

for rows in (1, 8):
    weight, bias = Tensor.empty(2048, 8192), Tensor.empty(8192)
    linear = TinyJit(lambda rows, weight, bias: products.linear(rows, weight, bias).realize())
    linear.cnt = 1
    linear(Tensor.empty(rows, 2048), weight, bias)
    (program,) = [call.src[0] for call in linear.captured.linear.src]
    (body,) = [part.src for part in program.src if part.op is Ops.LINEAR]
    (binary,) = [part.arg for part in program.src if part.op is Ops.BINARY]
    loads = [it for it in body if it.op is Ops.LOAD and origin(it).op is Ops.PARAM]
    # The result, the rows, the weights, the bias.
    sizes = [it.src[0].max_numel() for it in loads if origin(it).arg.slot == 2]
    threads = [int(a) * int(b) for a, b in zip(program.arg.global_size, program.arg.local_size)]
    kernels.append({
        "rows": rows,
        "threads": threads[0] * threads[1] * threads[2],
        "loads": len(sizes),
        "weights": sum(sizes),
        "binary_bytes": len(binary),
    })
print(json.dumps(kernels))
"""


@pytest.mark.parametrize("device", ABSENT_GPUS)
def test_few_loads_of_many_threads_bring_the_weights(device: str, cache: Path) -> None:
    kernels = json.loads(run(Path(), cache, program=PROGRAM, device=device))
    one, eight = kernels
    assert (one["rows"], eight["rows"]) == (1, 8)
    # Each weight is loaded once, and is used for all rows.
    assert one["loads"] <= one["weights"]
    assert one["threads"] >= 16_384
    # Four to a load, where the language has such loads.
    in_a_load = 1 if device == "NULL:WGSL" else 4
    assert eight["loads"] * in_a_load <= eight["weights"]
    assert eight["threads"] >= 4_096
    assert min(it["binary_bytes"] for it in kernels) > 0
