"""Models from files: what each is, what is refused by name, what is kept and let go again."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from node.engines.formats import gguf
from node.engines.formats.minilm import PACKAGE, minilm_files, minilm_manifest
from node.engines.hash_engine import HashEngine
from node.engines.interface import Engine
from node.models.inspect import check_runs, describe, is_path, memory_bytes, memory_of
from node.models.loader import ModelLoader
from node.models.model_store import ModelStore
from node.models.on_demand import open_on_demand
from store import open_memory_store
from tests.engines.exact.samples import kept_at, made
from tests.engines.tiny import HIDDEN, TOKENS_MAX, write_tiny
from tests.engines.tiny_gguf import gguf_manifest, write_gguf
from wire.errors import EngineError, InputError, Malformed, ModelRefused
from wire.model import Manifest

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
        ({"model_type": "deberta-v2"}, "model_type is 'deberta-v2'"),
        ({"architectures": ["XForSequenceClassification"]}, "tells 2 classes apart"),
        (
            {"architectures": ["X", "BertForSequenceClassification"], "id2label": {"0": "good"}},
            "lacks the tensor pooler.dense.weight",
        ),
        ({"model_type": ["bert"]}, "model_type is .*'bert'"),
        ({"model_type": "nomic_bert", "rotary_emb_base": 10**400}, "rotary_emb_base is '1000"),
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


async def test_an_exact_file_called_like_a_pinned_model_has_a_name_of_its_own(
    tmp_path: Path,
) -> None:
    """What `models quantize --exact smollm2 ./smollm2.exact` makes has to be one to serve."""
    path = kept_at(tmp_path, made("torch_mlp"), "smollm2")
    async with open_memory_store(quota_bytes=1 << 30) as store:
        assert (await ModelStore(store).add(path)).name == "smollm2-exact"
    assert describe(kept_at(tmp_path, made("torch_mlp"), "digits")).name == "digits"
    with pytest.raises(InputError) as told:
        async with open_memory_store(quota_bytes=1 << 30) as store:
            await ModelStore(store).add(path, "smollm2")
    # `join` has no --name: what it is told to do has to be possible there too.
    assert "rename the file" in (told.value.todo or "")


def test_files_of_others_that_cannot_run_are_refused(tmp_path: Path) -> None:
    manifest, files = write_tiny(tmp_path)
    check_runs(manifest, files)
    with pytest.raises((ModelRefused, Malformed)):
        check_runs(manifest, {})
    files["model.safetensors"].write_bytes(b"\x80\x04\x95" + b"cos\nsystem\n")
    with pytest.raises(ModelRefused, match="pickle"):
        check_runs(manifest, files)


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("gguf", "model.gguf"),
        ("onnx", "model.onnx"),
        ("bert-safetensors", "model.safetensors"),
        ("bert-first-safetensors", "model.safetensors"),
        ("nomic-bert-safetensors", "model.safetensors"),
    ],
)
def test_a_manifest_whose_files_have_other_names_is_refused(kind: str, name: str) -> None:
    for on_gpu in (False, True):
        with pytest.raises(ModelRefused, match=f"lacks the file {name}; it has: other.bin"):
            memory_of(kind, {"other.bin": ONNX}, on_gpu=on_gpu)


@pytest.mark.parametrize("kind", ["gguf", "onnx", "bert-safetensors"])
def test_a_kept_file_that_is_gone_is_an_error_to_try_again_after(tmp_path: Path, kind: str) -> None:
    names = ("model.gguf", "model.onnx", "model.safetensors", "tokenizer.json")
    files = {name: tmp_path / name for name in names}
    with pytest.raises(EngineError, match="cannot be read: No such file"):
        memory_of(kind, files, on_gpu=False)


@pytest.mark.parametrize("error", [ZeroDivisionError, OverflowError, KeyError, ValueError])
async def test_a_description_that_fails_refuses_the_model_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    file = write_gguf(tmp_path / "small.gguf")
    async with open_memory_store(quota_bytes=1 << 30) as store:
        shelf = ModelStore(store)
        manifest = await shelf.add(file)

        def fails(_path: Path) -> None:
            raise error("a number")

        monkeypatch.setattr(gguf, "describe", fails)
        (row,) = await shelf.rows()
        assert row["whole"]
        assert "memory" not in row
        files = {"model.gguf": file}
        for call in (
            lambda: memory_bytes(manifest, files),
            lambda: check_runs(manifest, files),
            lambda: describe(file),
        ):
            with pytest.raises(ModelRefused, match=f"cannot be described .{error.__name__}"):
                call()


async def test_a_model_of_others_that_is_at_fault_does_not_end_the_peer(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """Its file has another name than its format reads: the loader notes it and goes on."""
    manifest, files = gguf_manifest(write_gguf(tmp_path / "small.gguf"), "odd")
    other = {"other.bin": files["model.gguf"]}
    manifest = replace(manifest, files=(replace(manifest.files[0], name="other.bin"),))
    async with (
        open_on_demand(HashEngine(), 1 << 33, memory_bytes) as engine,
        trio.open_nursery() as nursery,
    ):
        loader = ModelLoader(Brought(engine, manifest, other), NoProbes(), nursery)  # type: ignore[arg-type]
        loader.start("odd")
        with trio.fail_after(60):
            while not loader.problems:
                await trio.lowlevel.checkpoint()
        assert "lacks the file model.gguf" in loader.problems["odd"]
        nursery.cancel_scope.cancel()


@dataclass(frozen=True, slots=True)
class Brought:
    """A collection whose one model is here already."""

    engine: Engine
    manifest: Manifest
    files: Mapping[str, Path]

    async def make_ready(self, _name: str) -> None:
        await self.engine.load(self.manifest, self.files)


class NoProbes:
    async def run(self) -> None:
        await trio.sleep_forever()

    def look(self) -> None:
        """Nothing is probed here."""
