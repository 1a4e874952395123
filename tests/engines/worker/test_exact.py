"""Integer models in tinygrad: equal to the reference to the bit, on every device that is here."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from node.engines.exact.reference import run
from node.engines.host.launch import default_device
from tests.engines.conftest import OpenEngine
from tests.engines.exact.samples import kept_at, made, manifest_of, random_rows
from tests.engines.onnx_models import call, to_arrays
from tests.engines.opencl import CL, need_opencl
from wire.errors import ModelRefused

pytestmark = pytest.mark.own_device
PROGRAM = """
import sys
from pathlib import Path
from node.engines.exact.reference import run
from node.engines.worker.exact import LoadedExact
from node.engines.worker.exact_layers import ExactGraph
from tests.engines.exact.samples import random_model, random_rows

for seed in map(int, sys.argv[1:]):
    model = random_model(seed)
    graph = ExactGraph(model)
    loaded = LoadedExact(model, graph, graph.capture(16), graph.sources(16))
    for turn in range(3):
        rows = random_rows(model, 16, turn)
        ours, theirs = loaded.compiled(rows), run(model, rows)
        assert [it.tobytes() for it in ours] == [it.tobytes() for it in theirs], (seed, turn)
print("equal")
"""


def equal_on(device: str, seeds: range) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *map(str, seeds)],
        env={
            "PATH": "/usr/local/bin:/usr/bin:/bin",
            "PYTHONPATH": ":".join([str(Path(__file__).parents[3]), *filter(None, sys.path)]),
            "DEV": device,
            "PARALLEL": "0",
            "HOME": os.environ.get("HOME", "/"),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "equal"


@pytest.mark.soak
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("device", ["processor", CL])
def test_random_models_are_equal_to_the_bit_on_every_device(device: str) -> None:
    if device == CL:
        need_opencl()
    equal_on(default_device() if device == "processor" else CL, range(12))


async def test_a_served_model_answers_what_the_reference_says(
    tmp_path: Path, open_engine: OpenEngine
) -> None:
    model = made("sklearn_logistic")
    name = model.inputs[0].name
    manifest, files = manifest_of(kept_at(tmp_path, model))
    async with open_engine(device=default_device()) as engine:
        loaded = await engine.load(manifest, files)
        assert loaded.units_per_s > 0
        for rows in (1, 3, 130):
            (given,) = random_rows(model, rows, rows)
            output = await engine.infer(call(manifest.id, {name: given}))
            found = to_arrays(output.data)
            wanted = run(model, [given])
            for named, array in zip(model.outputs, wanted, strict=True):
                assert found[named.name].dtype == array.dtype
                assert found[named.name].tobytes() == array.tobytes()
        cut = tmp_path / "cut.exact"
        cut.write_bytes(files["model.exact"].read_bytes()[:-1])
        with pytest.raises(ModelRefused, match="quantize --exact"):
            await engine.load(*manifest_of(cut))
