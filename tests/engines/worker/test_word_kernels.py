"""Quantised weights on a GPU: multiplied as words, they are what they are as floats."""

import json
from pathlib import Path

import pytest

from node.engines.formats.gguf_file import BLOCKS
from node.engines.formats.gguf_model import BITS_IN_WORDS
from tests.engines.opencl import CL, need_opencl
from tests.engines.worker.test_language_model import run

# A row alone, as many as answer together, and so many that weights are unpacked first.
PROGRAM = """
import json, sys
import numpy as np
from tinygrad import Tensor
from node.engines.worker.matmul import Matmul
from node.engines.worker.weight_blocks import BlockRows
from tests.engines.tiny_gguf import random_blocks

products, kind = Matmul(blocked=False), int(sys.argv[2])
random, found = np.random.default_rng(kind), {}
rows = BlockRows("weights", kind, 512, random_blocks(random, kind, 24, 512))
bias = random.standard_normal(24).astype(np.float32)
forms, tensors = products.packed([rows], bias)
found["bits"] = 8 * sum(it.nbytes() for it in tensors[1:]) / (24 * 512)
for count in (1, 8, 32):
    numbers = random.standard_normal((count, 512)).astype(np.float32)
    wanted = numbers.astype(np.float64) @ rows.floats().T.astype(np.float64) + bias
    answer = products.linear_of(Tensor(numbers).realize(), forms, iter(tensors)).numpy()
    found[count] = float(np.abs(answer - wanted).max() / np.abs(wanted).max())
print(json.dumps(found))
"""
ALWAYS = {3, 14}
TOLERANCE = 1e-6


@pytest.mark.parametrize(
    "kind",
    [
        pytest.param(kind, id=BLOCKS[kind][0], marks=() if kind in ALWAYS else pytest.mark.soak)
        for kind in BITS_IN_WORDS
    ],
)
def test_the_product_is_that_of_the_same_weights_in_floats(kind: int, cache: Path) -> None:
    need_opencl()
    found = json.loads(run(Path(), cache, str(kind), program=PROGRAM, device=CL))
    # As much memory as was worked out from the file.
    assert found.pop("bits") == BITS_IN_WORDS[kind]
    assert len(found) == 3
    assert max(found.values()) < TOLERANCE
