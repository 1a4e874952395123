"""Several threads make the numbers that one makes, whoever takes which part of a kernel."""

from pathlib import Path

import pytest

from node.engines.host.launch import EngineConfig
from node.engines.host.model_worker import SharedState
from tests.engines.tiny_gguf import write_gguf
from tests.engines.worker.test_language_model import run

# Each kernel changes what the one before it left, so that a part that is run twice, never or too
# early gives other numbers. The machine has fewer cores than there are threads.
PARTS = """
import numpy as np
from node.engines.worker.thread_choice import ThreadChoice
from node.engines.worker.thread_team import KernelCall, KernelList, ThreadTeam, compiled_as

mixing = compiled_as("mixing", '''
void mixing(long* to, const long* from, long add, long part) {
  for (long at = part ? part - 1 : 0; at < (part ? part : 8); at++)
    to[at] = (from[at] * 31 + from[7 - at] * 17 + add) % 1000003;
}''')
turning = compiled_as("turning", '''
void turning(long* to, const long* from) {
  for (long at = 0; at < 8; at++) to[at] = from[(at + 1) & 7] + 1;
}''')

class Always(ThreadChoice):
    def next(self, most):
        return most

def made(threads):
    one, other = np.arange(8, dtype=np.int64), np.zeros(8, np.int64)
    places = one.ctypes.data, other.ctypes.data
    calls = []
    for _ in range(40):
        calls.append(KernelCall(mixing.addr, [places[1], places[0], None, 0], 8))
        calls.append(KernelCall(mixing.addr, [places[0], places[1], None, 0], 8))
        calls.append(KernelCall(turning.addr, [places[1], places[0]], 1))
        calls.append(KernelCall(turning.addr, [places[0], places[1]], 1))
    kernels, team = KernelList(calls), ThreadTeam(threads)
    kernels.choice = Always()
    for number in range(300):
        team.run(kernels, number)
    return one.tolist()

assert made(1) != made(1)[::-1]
print(made(1) == made(2) == made(4))
"""

# The products of so small a model are not worth dividing: here they are divided nevertheless.
MODEL = """
import sys
from pathlib import Path
import numpy as np
from node.engines.worker import panel_kernels
panel_kernels.DIVIDED_WORK = 1
from node.engines.formats.gguf import describe
from node.engines.worker.load_progress import LoadProgress
from node.engines.worker.matmul import Matmul
from node.engines.worker.passes import SlotRow
from node.engines.worker.thread_choice import ThreadChoice
from node.engines.worker.thread_team import ThreadTeam
from node.engines.worker.transformer import LanguageModel

ThreadChoice.next = lambda self, most: most
path, progress, team = Path(sys.argv[1]), LoadProgress(lambda _: None), ThreadTeam()
model = LanguageModel(describe(path), 6, Matmul(blocked=True), progress, team)
model.ready({4: model.capture(4)})
found = []
for threads in (1, 2, 4):
    team.allow(threads)
    for turn in range(5):
        rows = [SlotRow(7 + at, 0, at, (0,)) for at in range(4)]
        found.append(model.run(rows))
assert np.isfinite(found[0]).all() and found[0].std() > 0
print(all(np.array_equal(found[0], it) for it in found))
"""


def test_each_part_is_run_once_and_after_what_comes_before(tmp_path: Path, cache: Path) -> None:
    assert run(tmp_path, cache, program=PARTS) == "True"


def test_logits_are_the_same_to_the_bit_with_more_threads(tmp_path: Path, cache: Path) -> None:
    path = write_gguf(tmp_path / "model.gguf", "llama", "q4_0", seed=7)
    assert run(path, cache, program=MODEL) == "True"


@pytest.mark.parametrize(
    ("config", "at_work", "threads"),
    [
        (EngineConfig(cores=1), 1, 1),
        (EngineConfig(cores=2), 0, 2),
        (EngineConfig(cores=2), 1, 2),
        (EngineConfig(cores=2), 2, 1),
        (EngineConfig(cores=2), 3, 1),
        (EngineConfig(cores=8), 2, 4),
        (EngineConfig(cores=8, share=0.5), 1, 1),
        (EngineConfig(cores=8, device="CL"), 1, 1),
    ],
)
def test_models_at_work_share_the_cores(
    config: EngineConfig, at_work: int, threads: int, tmp_path: Path
) -> None:
    shared = SharedState(cache_folder=tmp_path, profile="", config=config, at_work=at_work)
    assert shared.threads == threads
