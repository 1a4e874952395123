"""A model in several GGUF files, as the format's own writer makes them, is one model."""

import shutil
from pathlib import Path

import gguf
import numpy as np
import pytest

from node.engines.formats.gguf import describe
from node.engines.formats.gguf_file import read_gguf
from node.engines.formats.gguf_split import is_part, join, read_parts, whole_name
from node.models.model_store import ModelStore
from store import open_memory_store
from tests.engines.tiny_gguf import write_gguf
from wire.errors import ModelRefused


def split(source: Path, folder: Path, tensors_each: int) -> list[Path]:
    """The parts of a model, written by the format's own library."""
    reader = gguf.GGUFReader(source)
    folder.mkdir()
    writer = gguf.GGUFWriter(folder / source.name, "qwen3", split_max_tensors=tensors_each)
    for field in reader.fields.values():
        if field.name.startswith("GGUF.") or field.name == "general.architecture":
            continue
        kind, *of = field.types
        writer.add_key_value(field.name, field.contents(), kind, of[0] if of else None)
    for tensor in reader.tensors:
        writer.add_tensor(tensor.name, np.array(tensor.data), raw_dtype=tensor.tensor_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return sorted(folder.iterdir())


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("split")
    return split(write_gguf(folder / "small.gguf", "qwen3", "q8_0"), folder / "parts", 7)


def test_the_parts_make_the_model_that_was_split(parts: list[Path], tmp_path: Path) -> None:
    source, whole = parts[0].parents[1] / "small.gguf", tmp_path / "whole.gguf"
    seen: list[tuple[int, int]] = []
    assert len(parts) > 2
    assert all(map(is_part, parts))
    assert whole_name(parts[0]) == "small"
    join(read_parts(parts[0]), whole, lambda *it: seen.append(it))
    assert seen[-1][0] == seen[-1][1] > 0
    mine, theirs = read_gguf(whole), read_gguf(source)
    assert mine.metadata == theirs.metadata
    assert mine.tensors.keys() == theirs.tensors.keys()
    ours, others = whole.read_bytes(), source.read_bytes()
    for name, tensor in theirs.tensors.items():
        assert mine.tensors[name].shape == tensor.shape
        found = ours[mine.tensors[name].begin : mine.tensors[name].end]
        assert found == others[tensor.begin : tensor.end], name
    # The format's own library reads it too.
    assert len(gguf.GGUFReader(whole).tensors) == len(theirs.tensors)


async def test_adding_the_first_part_keeps_the_whole_model(parts: list[Path]) -> None:
    async with open_memory_store(quota_bytes=1 << 30) as store:
        shelf = ModelStore(store)
        before = sorted(parts[0].parent.iterdir())
        manifest = await shelf.add(parts[0])
        assert manifest.name == "small"
        assert (await shelf.add(parts[0])).id == manifest.id
        # Nothing is left beside the parts.
        assert sorted(parts[0].parent.iterdir()) == before
        with pytest.raises(ModelRefused, match=r"part 2 of .*first part.*small-00001-of-"):
            await shelf.add(parts[1])


def test_parts_that_do_not_belong_together_are_refused(parts: list[Path], tmp_path: Path) -> None:
    copies = [Path(shutil.copy(it, tmp_path / it.name)) for it in parts]
    copies[1].unlink()
    with pytest.raises(ModelRefused, match=f"1 are not here: {parts[1].name}"):
        read_parts(copies[0])
    shutil.copy(parts[2], copies[1])
    with pytest.raises(ModelRefused, match="says that it is another part, 2 of"):
        read_parts(copies[0])
    copies[1].write_bytes(parts[1].read_bytes()[:100])
    with pytest.raises(ModelRefused, match="cut short"):
        read_parts(copies[0])


def test_a_part_that_is_named_as_a_model_says_what_to_do(parts: list[Path]) -> None:
    with pytest.raises(ModelRefused, match=r"part 1 of .*models add"):
        describe(parts[0])
