"""Models from files: what each is, what is refused by name, what is kept and let go again."""

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from node.engines.formats.minilm import PACKAGE, minilm_files, minilm_manifest
from node.models.inspect import check_runs, describe, is_path, memory_bytes
from node.models.model_store import ModelStore
from store import open_memory_store
from tests.engines.tiny import HIDDEN, TOKENS_MAX, write_tiny
from tests.engines.tiny_gguf import write_gguf
from wire.errors import InputError, Malformed, ModelRefused

ONNX = Path(__file__).parents[1] / "engines" / "models" / "torch_mlp.onnx"
CONFIG = {
    "model_type": "bert",
    "hidden_act": "gelu",
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "hidden_size": HIDDEN,
    "max_position_embeddings": TOKENS_MAX,
    "layer_norm_eps": 1e-12,
}


def folder_of(path: Path, **changed: Any) -> Path:
    path.mkdir()
    write_tiny(path)
    (path / "config.json").write_text(json.dumps(CONFIG | changed))
    return path


def test_a_gguf_is_told_by_its_head(tmp_path: Path) -> None:
    found = describe(write_gguf(tmp_path / "small.gguf", kind="q8_0"))
    assert (found.name, found.format, found.operations) == ("small", "gguf", ("generate",))
    assert found.parameters["architecture"] == "llama"
    assert found.parameters["context"] == 256
    assert found.memory_bytes > 100 << 20


def test_an_onnx_tells_its_inputs_and_outputs() -> None:
    found = describe(ONNX, "fraud")
    assert (found.name, found.format, found.operations) == ("fraud", "onnx", ("call",))
    assert "float32" in str(found.parameters["input 0"])
    assert "float32" in str(found.parameters["output 0"])


def test_a_folder_with_safetensors_is_a_bert(tmp_path: Path) -> None:
    found = describe(folder_of(tmp_path / "encoder"))
    assert found.format == "bert-safetensors"
    assert found.parameters["tokens_max"] == TOKENS_MAX
    again = describe(tmp_path / "encoder" / "model.safetensors")
    assert again == found


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"model_type": "roberta"}, "model_type is 'roberta'"),
        ({"hidden_act": "relu"}, "hidden_act is 'relu'"),
        ({"num_hidden_layers": 2}, "lacks the tensor encoder.layer.1"),
        ({"num_attention_heads": None}, "heads"),
        ({"hidden_size": "16"}, "hidden"),
    ],
)
def test_a_folder_that_cannot_run_is_refused_by_name(
    tmp_path: Path, changed: dict[str, Any], said: str
) -> None:
    with pytest.raises(ModelRefused, match=said):
        describe(folder_of(tmp_path / "encoder", **changed))


def test_other_pooling_is_refused(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "encoder")
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text('{"pooling_mode_mean_tokens": false}')
    with pytest.raises(ModelRefused, match="pooling by nothing is not run; mean_tokens"):
        describe(folder)
    modes = '{"pooling_mode_mean_tokens": false, "pooling_mode_max_tokens": true}'
    (folder / "1_Pooling" / "config.json").write_text(modes)
    with pytest.raises(ModelRefused, match="pooling by max_tokens is not run"):
        describe(folder)


def test_pooling_by_the_first_token_is_a_format_of_its_own(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "encoder")
    (folder / "1_Pooling").mkdir()
    modes = '{"pooling_mode_cls_token": true, "pooling_mode_mean_tokens": false}'
    (folder / "1_Pooling" / "config.json").write_text(modes)
    # A peer that pools by the mean alone does not know this name, so it never answers wrongly.
    assert describe(folder).format == "bert-first-safetensors"


@pytest.mark.parametrize(
    ("name", "data", "error"),
    [
        ("a.gguf", b"", ModelRefused),
        ("a.gguf", b"GGUF\x03\0\0\0" + b"\xff" * 64, ModelRefused),
        ("a.onnx", b"\xff" * 64, ModelRefused),
        ("a.pt", b"\x80\x02", ModelRefused),
        ("a.safetensors", b"\x80\x04\x95", ModelRefused),
        ("a", b"", ModelRefused),
    ],
)
def test_bad_files_are_refused_in_words(
    tmp_path: Path, name: str, data: bytes, error: type[Exception]
) -> None:
    path = tmp_path / name
    path.write_bytes(data)
    with pytest.raises(error):
        describe(path)


def test_an_architecture_that_is_not_run_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelRefused, match="gptneox"):
        describe(write_gguf(tmp_path / "a.gguf", "gptneox"))


def test_what_does_not_exist_or_has_no_name_is_the_askers_fault(tmp_path: Path) -> None:
    for path in (tmp_path / "none.gguf", Path("/" + "a" * 5000), Path("/dev/null")):
        with pytest.raises((InputError, ModelRefused)):
            describe(path)
    with pytest.raises(InputError, match="--name"):
        describe(ONNX, "  ")
    assert len(describe(ONNX, "é" * 500).name.encode()) <= 64


def test_paths_are_told_from_names() -> None:
    assert all(map(is_path, ("./a", "a/b", "a.gguf", "A.ONNX", "~/m", "/x")))
    assert not any(map(is_path, ("minilm", "bafkreibp4nylo2", "qwen3-0.6b")))


@pytest.mark.skipif(find_spec(PACKAGE) is None, reason="the model's package is not installed")
async def test_the_installed_minilm_is_the_pinned_one() -> None:
    async with open_memory_store(quota_bytes=1 << 30) as store:
        folder = minilm_files()["model.safetensors"].parent
        assert (await ModelStore(store).add(folder, "minilm")).id == minilm_manifest().id


async def test_a_model_is_kept_whole_and_pinned_and_taken_out_again(tmp_path: Path) -> None:
    file = write_gguf(tmp_path / "small.gguf")
    seen: list[tuple[int, int]] = []
    async with open_memory_store(quota_bytes=1 << 30) as store:
        shelf = ModelStore(store)
        manifest = await shelf.add(file, progress=lambda *it: seen.append(it))
        assert seen[-1] == (file.stat().st_size, file.stat().st_size)
        assert shelf.resolve("small") == shelf.resolve(str(manifest.id)) == manifest.id
        assert shelf.manifest_of(manifest.id) == manifest
        assert (await shelf.add(file)).id == manifest.id
        (row,) = await shelf.rows()
        assert (row["name"], row["whole"]) == ("small", True)
        assert {it.id for it in store.pins()} == {manifest.id, manifest.files[0].content}
        out = tmp_path / "out.gguf"
        await store.export(manifest.files[0].content, out)
        check_runs(manifest, {"model.gguf": out})
        assert memory_bytes(manifest, {"model.gguf": out}) == describe(file).memory_bytes

        # The same file under another name shares its content, which stays for it.
        other = await shelf.add(file, "twin")
        await shelf.remove(manifest.id)
        assert {it.id for it in store.pins()} == {other.id, manifest.files[0].content}
        with pytest.raises(InputError, match="not kept here"):
            await shelf.remove(manifest.id)
        with pytest.raises(InputError, match="no model 'small'"):
            shelf.resolve("small")


async def test_a_name_means_one_model(tmp_path: Path) -> None:
    async with open_memory_store(quota_bytes=1 << 30) as store:
        shelf = ModelStore(store)
        await shelf.add(ONNX, "mine")
        before = store.pins()
        with pytest.raises(InputError, match="another model called 'mine'"):
            await shelf.add(write_gguf(tmp_path / "small.gguf"), "mine")
        with pytest.raises(InputError, match="reserves for another"):
            await shelf.add(ONNX, "minilm")
        assert store.pins() == before


def test_files_of_others_that_cannot_run_are_refused(tmp_path: Path) -> None:
    manifest, files = write_tiny(tmp_path)
    check_runs(manifest, files)
    with pytest.raises((ModelRefused, Malformed)):
        check_runs(manifest, {})
    files["model.safetensors"].write_bytes(b"\x80\x04\x95" + b"cos\nsystem\n")
    with pytest.raises(ModelRefused, match="pickle"):
        check_runs(manifest, files)
