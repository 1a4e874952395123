"""Integer models on the command line: made from a float one, kept, refused."""

from pathlib import Path

import numpy as np

from tests.engines.onnx_models import FOLDER, golden
from tests.live.command_line import baton


def test_an_exact_model_is_made_measured_and_kept(state: Path, tmp_path: Path) -> None:
    inputs, outputs = golden("sklearn_mlp")
    rows, out = tmp_path / "rows.npz", tmp_path / "digits.exact"
    np.savez(rows, X=inputs["X"], labels=outputs["label"])
    quantize = ("models", "quantize", "--exact")
    source = tmp_path / "digits.onnx"
    source.write_bytes((FOLDER / "sklearn_mlp.onnx").read_bytes())
    done = baton(*quantize, source, out, "--calibration", rows, "--json")
    # A peer can have only one of that name.
    assert "name it digits-exact.exact" in done.err
    found = done.document
    assert found["layers"] == ["input", "linear", "linear", "softmax", "arg_max"]
    assert found["accuracy"]["same label"] >= 0.97
    added = baton("models", "add", out, "--json", "--state", state).document
    assert (added["name"], added["format"]) == ("digits", "exact")
    forest = baton(*quantize, FOLDER / "sklearn_forest.onnx", out)
    assert "TreeEnsembleClassifier cannot be made exact" in forest.error
