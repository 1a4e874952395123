"""Compiled ONNX graphs: kept on disk, and compiled for devices that are not here."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from node.engines.host.engine import open_tinygrad_engine
from node.engines.host.launch import EngineConfig
from tests.engines.absent_gpus import ABSENT_GPUS, environment
from tests.engines.onnx_models import FOLDER, call, golden, manifest_of

COMPILE = """
import sys
from pathlib import Path
from node.engines.formats.onnx_file import describe
from node.engines.worker.onnx_graph import CompiledGraph
for path in sys.argv[1:]:
    model = describe(Path(path))
    CompiledGraph(model).capture(tuple((8, *it.shape[1:]) for it in model.inputs))
    print(model.outputs[0].name)
"""


async def test_graphs_are_compiled_once_and_answer_the_same_after_a_start(tmp_path: Path) -> None:
    manifest, files = manifest_of(FOLDER / "sklearn_boosting.onnx")
    inputs, _ = golden("sklearn_boosting")
    answers, states = [], []
    for _ in range(2):
        async with open_tinygrad_engine(tmp_path, config=EngineConfig()) as engine:
            await engine.load(manifest, files)
            answers.append((await engine.infer(call(manifest.id, inputs))).data)
        graphs = sorted((tmp_path / "graphs").glob("*.graph"))
        states.append([(it.name, it.stat().st_mtime_ns) for it in graphs])
    assert len(states[0]) == 3
    assert states[0] == states[1]
    assert answers[0] == answers[1]


@pytest.mark.parametrize("device", ABSENT_GPUS)
def test_models_compile_for_a_gpu_that_is_not_there(device: str, tmp_path: Path) -> None:
    paths = [str(FOLDER / f"{it}.onnx") for it in ("torch_mlp", "torch_cnn", "sklearn_boosting")]
    done = subprocess.run(
        [sys.executable, "-c", COMPILE, *paths],
        check=False,
        env={**os.environ, **environment(device), "CACHEDB": str(tmp_path / "kernels.db")},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.stdout.split() == ["answer", "answer", "label"], done.stderr[-1000:]
