"""Files that people have give what onnxruntime gives; `python -m tests.engines.onnx_real_files`."""

from importlib.util import find_spec

import numpy as np
import pytest

from node.engines.formats.onnx_file import describe
from node.engines.worker.onnx_reference import reference
from tests.engines.conftest import OpenEngine
from tests.engines.onnx_models import call, manifest_of, to_arrays
from tests.engines.onnx_real_files import FILES, RealFile
from wire.errors import ModelRefused

TOLERANCE = 1e-4
# Compiling for a batch, for some: minutes on a slow machine.
LOAD_S_MAX = 1800


@pytest.mark.soak
@pytest.mark.timeout(LOAD_S_MAX)
@pytest.mark.parametrize("file", FILES, ids=lambda it: it.name)
async def test_a_file_that_people_have_gives_what_onnxruntime_gives(
    file: RealFile, open_engine: OpenEngine
) -> None:
    path = file.find()
    if path is None:
        pytest.skip(f"{file.path} is not installed: python -m tests.engines.onnx_real_files")
    if file.refused:
        with pytest.raises(ModelRefused, match=file.refused):
            describe(path)
        return
    if find_spec("onnxruntime") is None:
        pytest.skip("onnxruntime, which it is compared with, is not installed")
    model = describe(path)
    given = file.arrays({it.name: it.kind for it in model.inputs})
    wanted = reference(path, list(given), list(given.values()))
    assert wanted is not None, "onnxruntime takes it"
    manifest, files = manifest_of(path)
    async with open_engine() as engine:
        await engine.load(manifest, files)
        job = call(manifest.id, given, deadline_s=LOAD_S_MAX)
        found = to_arrays((await engine.infer(job)).data)
    for value, array in zip(model.outputs, wanted, strict=True):
        mine = found[value.name]
        assert mine.shape == array.shape
        most = max(1.0, float(np.abs(array).max()))
        assert float(np.abs(mine - array).max()) <= TOLERANCE * most, value.name


def test_most_of_them_are_run() -> None:
    refused = [it.name for it in FILES if it.refused]
    assert len(FILES) - len(refused) >= 12
    assert len({it.sha256 for it in FILES}) == len(FILES)
