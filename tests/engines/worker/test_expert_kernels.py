"""Rows times the weights that were chosen for each: right, and the same alone and among others."""

import json
from pathlib import Path

import pytest

from node.engines.formats.gguf_file import BLOCKS
from node.engines.worker.weight_blocks import F32, FORMS, Q4_K, Q6_K, Q8_0
from tests.engines.opencl import CL, need_opencl
from tests.engines.worker.test_language_model import run

PROGRAM = """
import json, sys
import numpy as np
from tinygrad import Device, Tensor
from node.engines.worker.matmul import Matmul
from node.engines.worker.weight_blocks import BlockRows
from tests.engines.tiny_gguf import random_blocks

products, found = Matmul(blocked=Device.DEFAULT == "CPU"), {}
experts, out, columns = 8, 56, 256
for kind in map(int, sys.argv[2].split(",")):
    random = np.random.default_rng(kind)
    rows = BlockRows("weights", kind, columns, random_blocks(random, kind, experts * out, columns))
    floats = rows.floats().astype(np.float64).reshape(experts, out, columns)
    form, tensors = products.packed_experts(rows, experts)
    given = random.standard_normal((16, columns)).astype(np.float32)
    ids = random.integers(0, experts, (16, 3)).astype(np.int32)
    wanted = np.array([floats[it] @ row for row, own in zip(given, ids) for it in own])

    def product(numbers, chosen):
        chosen = Tensor(chosen.reshape(-1)).realize()
        tensor = Tensor(numbers).realize()
        return products.experts_of(tensor, chosen, form, iter(tensors)).numpy()

    several = product(given, ids)
    own = product(np.repeat(given, 3, 0), ids)
    alone = np.concatenate([product(given[at : at + 1], ids[at]) for at in range(3)])
    difference = np.abs(several - wanted).max() / np.abs(wanted).max()
    same = np.array_equal(several, own) and np.array_equal(several[:9], alone)
    found[kind] = [float(difference), same]
print(json.dumps(found))
"""
TOLERANCE = 1e-6


@pytest.mark.parametrize(
    ("device", "kinds"),
    [
        pytest.param("CPU", (F32, Q4_K, Q6_K), id="cpu"),
        pytest.param("CPU", tuple(FORMS), id="cpu all", marks=pytest.mark.soak),
        pytest.param(CL, (F32, Q8_0, Q4_K, Q6_K), id="opencl", marks=pytest.mark.soak),
        pytest.param("CPU:LLVM", (F32, Q8_0), id="llvm", marks=pytest.mark.soak),
    ],
)
def test_each_row_meets_the_weights_of_its_expert(
    device: str, kinds: tuple[int, ...], cache: Path
) -> None:
    if device == CL:
        need_opencl()
    names = ",".join(map(str, kinds))
    found = json.loads(run(Path(), cache, names, program=PROGRAM, device=device))
    assert list(found) == [str(kind) for kind in kinds]
    for kind, (difference, same) in found.items():
        assert difference < TOLERANCE, BLOCKS[int(kind)]
        # On a GPU tinygrad may sum in another order for another number of rows.
        assert same or device == CL, BLOCKS[int(kind)]


CHOOSING = """
import numpy as np
from tinygrad import Tensor
from node.engines.worker.expert_kernels import chosen_experts

scores = np.random.default_rng(1).standard_normal((5, 16)).astype(np.float32)
scores[1, 3] = scores[1, 9] = 7.0
scores[2] = 0.5
scores[3] = np.nan
scores[4, 2] = np.inf
ids, shares = (it.numpy() for it in chosen_experts(Tensor(scores), 4))
for row in (0, 1, 2):
    assert ids[row].tolist() == np.argsort(-scores[row], kind="stable")[:4].tolist(), row
    exact = np.exp(scores[row, ids[row]].astype(np.float64))
    assert np.abs(shares[row] - exact / exact.sum()).max() < 1e-6
assert ((0 <= ids) & (ids < 16)).all()
print(ids[1, :2].tolist(), ids[2].tolist())
"""


def test_the_first_of_equal_scores_is_chosen_and_no_id_leads_outside(cache: Path) -> None:
    found = run(Path(), cache, program=CHOOSING)
    assert found.strip() == "[3, 9] [0, 1, 2, 3]"
