"""Where matrices are not blocked by hand (on a GPU) the graph computes the same function."""

import sys
from pathlib import Path

import numpy as np
import trio

from node.engines.host.launch import EngineConfig, prepare
from tests.engines.tiny import write_tiny

PROGRAM = """
import sys
from pathlib import Path
from node.engines.formats.bert import BertShape, BertWeights
from node.engines.formats.safetensors import read_table
from node.engines.worker.bert import Encoder
from node.engines.worker.matmul import Matmul
from wire.model import Manifest

manifest = Manifest.from_bytes(bytes.fromhex(sys.argv[1]))
shape = BertShape.of(manifest)
weights = BertWeights.read(read_table(Path(sys.argv[2])), shape)
encoder = Encoder(shape, weights, Matmul(blocked=sys.argv[3] == "blocked"))
graph = encoder.capture(32)
rows = encoder.run(graph, 32, [[1, 5, 6, 2], [1, 2], [1, 9, 9, 9, 9, 2]])
sys.stdout.buffer.write(rows.tobytes())
"""


async def test_blocked_and_plain_products_agree(cache: Path, tmp_path: Path) -> None:
    manifest, files = write_tiny(tmp_path)
    launch = await prepare(cache, EngineConfig())
    weights = str(files["model.safetensors"])
    rows = {}

    async def compute(kind: str) -> None:
        done = await trio.run_process(
            [sys.executable, "-c", PROGRAM, manifest.to_bytes().hex(), weights, kind],
            env=dict(launch.environment),
            capture_stdout=True,
        )
        rows[kind] = np.frombuffer(done.stdout, np.float32)

    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(compute, "blocked")
            nursery.start_soon(compute, "plain")
    blocked, plain = rows["blocked"], rows["plain"]
    assert len(blocked) == 3 * 16
    assert np.abs(blocked - plain).max() < 1e-6
