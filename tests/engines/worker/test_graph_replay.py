"""One captured layer is run for all layers, each with its own weights, on what the last left."""

from pathlib import Path

from tests.engines.worker.test_language_model import run

PROGRAM = """
import sys
import numpy as np
from tinygrad import TinyJit
from tinygrad.uop.ops import UOp
from node.engines.worker import graph_replay
from node.engines.worker.attention import BLOCKS
from node.engines.worker.buffers import placed, write
from node.engines.worker.thread_team import ThreadTeam

one, other = (placed(np.zeros(16, np.float32)) for _ in range(2))
weights = [placed(np.full(16, at + 2, np.float32)) for at in range(3)]
kept = [placed(np.zeros(16, np.float32)) for _ in range(3)]

def layer(blocks, inputs, own):
    before, after = inputs
    weight, store = own
    return after.assign(before * weight + blocks).realize(store.assign(before + 1))

def number(tensor):
    found = np.frombuffer(tensor.uop.base.buffer.as_memoryview(), np.float32)
    assert len(set(found.tolist())) == 1
    return float(found[0])

jit = TinyJit(layer)
jit.cnt = 1
jit(UOp.variable(BLOCKS, 1, 9).bind(1), [one, other], [weights[0], kept[0]])
pairs = ((one, other), (other, one), (one, other))
runs = [
    (jit.captured, [it.uop.base for it in (*pair, weight, store)])
    for pair, weight, store in zip(pairs, weights, kept)
]
quickly = graph_replay.replay(runs, BLOCKS, ThreadTeam())
graph_replay.CPUProgram = type(None)
plainly = graph_replay.replay(runs, BLOCKS, ThreadTeam())
assert quickly.__name__ != plainly.__name__
for way in (quickly, plainly):
    for blocks in (5, 7):
        write(one.uop.base.buffer, np.ones(16, np.float32))
        way(blocks)
        print(number(other), [number(it) for it in kept])
"""


def test_a_graph_is_run_for_each_of_its_inputs_on_what_the_last_run_left(
    tmp_path: Path, cache: Path
) -> None:
    found = run(tmp_path, cache, program=PROGRAM).splitlines()
    # One times two and five more; then times three, then times four.
    assert found == 2 * [
        "109.0 [2.0, 8.0, 27.0]",
        "143.0 [2.0, 10.0, 35.0]",
    ]
