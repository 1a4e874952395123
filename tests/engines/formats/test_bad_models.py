"""A model that came from anybody is refused in words, before any library sees it."""

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.engines.formats.bert import BertShape, BertWeights
from node.engines.formats.safetensors import read_table
from node.engines.worker.tokenizer import read_tokens
from tests.engines.tiny import (
    HIDDEN,
    WORDS,
    tiny_tensors,
    tiny_tokenizer,
    to_safetensors,
    with_table,
    write_tiny,
)
from wire.errors import ModelRefused

LAYER = "encoder.layer.0."


def read(folder: Path, data: bytes) -> BertWeights:
    manifest, files = write_tiny(folder, weights=data)
    return BertWeights.read(read_table(files["model.safetensors"]), BertShape.of(manifest))


def table_of(data: bytes) -> tuple[dict, bytes]:
    size = int.from_bytes(data[:8], "little")
    return json.loads(data[8 : 8 + size]), data[8 + size :]


def changed(name: str, **fields: object) -> bytes:
    table, data = table_of(to_safetensors(tiny_tensors()))
    table[name] |= fields
    return with_table(json.dumps(table).encode(), data)


def without(name: str) -> bytes:
    tensors = tiny_tensors()
    del tensors[name]
    return to_safetensors(tensors)


def replaced(name: str, array: np.ndarray) -> bytes:
    return to_safetensors(tiny_tensors() | {name: array})


BIAS = f"{LAYER}output.dense.bias"
BAD = {
    "nothing": (b"", "cut short"),
    "a pickle": (pickle.dumps({"a": 1}, protocol=4), "pickle"),
    "a zipped pickle": (b"PK\x03\x04" + bytes(100), "pickle"),
    "a header beyond the file": ((1 << 20).to_bytes(8, "little") + b"{}", "cut short"),
    "a header beyond all bounds": ((1 << 62).to_bytes(8, "little") + b"{}", "cut short"),
    "no JSON": (with_table(b"{nonsense", b""), "not JSON"),
    "JSON nested without end": (with_table(b"[" * 100_000, b""), "not JSON"),
    "no map": (with_table(b"[]", b""), "not a map"),
    "no tensors": (with_table(b'{"__metadata__":{"a":"b"}}', b""), "0 tensors"),
    "a name twice": (with_table(b'{"a":{},"a":{}}', b""), "twice"),
    "an odd row": (with_table(b'{"a":7}', b""), "'a'"),
    "the last byte missing": (to_safetensors(tiny_tensors())[:-1], "its table says"),
    "a byte too many": (to_safetensors(tiny_tensors()) + b"x", "its table says"),
    "an unknown kind": (changed(BIAS, dtype="F4"), "F4"),
    "a negative shape": (changed(BIAS, shape=[-16]), BIAS),
    "a shape of truths": (changed(BIAS, shape=[True]), BIAS),
    "a shape that is text": (changed(BIAS, shape="16"), BIAS),
    "a shape beyond its bytes": (changed(BIAS, shape=[17]), BIAS),
    "a place beyond the file": (changed(BIAS, data_offsets=[1 << 40, (1 << 40) + 64]), "gap"),
    "a place twice": (changed(BIAS, data_offsets=[0, 64]), "overlaps"),
    "a tensor missing": (without(BIAS), f"lacks the tensor {BIAS}"),
    "a wrong shape": (replaced(BIAS, np.zeros(HIDDEN + 1, np.float32)), "expected"),
    "whole numbers": (replaced(BIAS, np.zeros(HIDDEN, np.int8)), "is I8; F32, F16, BF16 are run"),
    "halves that are not finite": (
        replaced(BIAS, np.full(HIDDEN, np.inf, np.float16)),
        "not finite",
    ),
    "short halves that are not finite": (
        replaced(BIAS, np.full(HIDDEN, 0x7FC0, np.uint16)),
        "not finite",
    ),
    "not a number": (replaced(BIAS, np.full(HIDDEN, np.nan, np.float32)), "not finite"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_file_is_refused_with_its_reason(name: str, tmp_path: Path) -> None:
    data, reason = BAD[name]
    with pytest.raises(ModelRefused) as caught:
        read(tmp_path, data)
    assert reason in str(caught.value)


def test_a_good_file_is_read(tmp_path: Path) -> None:
    weights = read(tmp_path, to_safetensors(tiny_tensors()))
    expected = tiny_tensors()
    assert np.array_equal(weights.words, expected["embeddings.word_embeddings.weight"])
    assert np.array_equal(weights.layers[0].outer[1], expected[BIAS])


@given(place=st.integers(0, 4000), flip=st.integers(1, 255))
def test_a_flipped_byte_is_refused_or_changes_a_number_only(
    tmp_path_factory: pytest.TempPathFactory, place: int, flip: int
) -> None:
    data = bytearray(to_safetensors(tiny_tensors()))
    data[place] ^= flip
    try:
        weights = read(tmp_path_factory.mktemp("flip"), bytes(data))
    except ModelRefused:
        return
    assert weights.words.shape == (len(WORDS), HIDDEN)


@given(st.binary(max_size=200))
def test_garbage_raises_only_ModelRefused(
    tmp_path_factory: pytest.TempPathFactory, data: bytes
) -> None:
    with pytest.raises(ModelRefused):
        read(tmp_path_factory.mktemp("garbage"), data)


@pytest.mark.parametrize(
    "parameters",
    [
        {"layers": 0},
        {"layers": 10**6},
        {"layers": True},
        {"heads": 3},
        {"heads": 4},
        {"hidden": 17},
        {"dimensions": 8},
        {"tokens_max": 31},
        {"tokens_max": 10**6},
        {"layer_norm_eps": 0.0},
        {"layer_norm_eps": 1},
    ],
    ids=str,
)
def test_parameters_that_make_no_model_are_refused(parameters: dict, tmp_path: Path) -> None:
    manifest, _ = write_tiny(tmp_path, **parameters)
    with pytest.raises(ModelRefused):
        BertShape.of(manifest)


@pytest.mark.parametrize("data", [b"", b"{}", b"[1]", b"\x80\x04", tiny_tokenizer()[:-30]])
def test_a_table_that_is_no_tokenizer_is_refused(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_bytes(data)
    with pytest.raises(ModelRefused, match=r"tokenizer\.json"):
        read_tokens(path, tokens_max=32, vocabulary=len(WORDS))


def test_a_tokenizer_with_words_the_model_lacks_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_bytes(tiny_tokenizer())
    with pytest.raises(ModelRefused, match="beyond the model"):
        read_tokens(path, tokens_max=32, vocabulary=len(WORDS) - 1)
    tokens = read_tokens(path, tokens_max=8, vocabulary=len(WORDS))
    assert tokens.of(["a b", "a " * 100]) == [[1, 3, 4, 2], [1, *[3] * 6, 2]]


async def test_the_engine_says_which_file_is_missing_or_of_another_size(
    open_engine, tmp_path: Path
) -> None:
    manifest, files = write_tiny(tmp_path)
    async with open_engine() as engine:
        with pytest.raises(ModelRefused, match=r"without tokenizer\.json"):
            await engine.load(manifest, {"model.safetensors": files["model.safetensors"]})
        files["tokenizer.json"].write_bytes(b"{}")
        with pytest.raises(ModelRefused, match=r"tokenizer\.json has 2 bytes"):
            await engine.load(manifest, files)
        files["tokenizer.json"].unlink()
        with pytest.raises(ModelRefused, match=r"tokenizer\.json cannot be read"):
            await engine.load(manifest, files)


async def test_the_workers_refusal_reaches_the_caller_and_other_workers_live_on(
    open_engine, tmp_path: Path
) -> None:
    good, files = write_tiny(tmp_path)
    async with open_engine() as engine:
        await engine.load(good, files)
        workers = engine.worker_ids
        folder = tmp_path / "bad"
        folder.mkdir()
        bad, bad_files = write_tiny(folder, weights=without(BIAS))
        with pytest.raises(ModelRefused, match="lacks the tensor"):
            await engine.load(bad, bad_files)
        # Its own has ended; the other one lives on.
        assert engine.worker_ids == workers
        assert set(workers) == {good.id}


@pytest.mark.parametrize("kind", ["F16", "BF16"])
def test_halves_are_the_floats_that_they_stand_for(kind: str, tmp_path: Path) -> None:
    """Every number exactly, and their memory is worked out."""
    numbers = np.random.default_rng(4).standard_normal((3, 8)).astype(np.float32)
    bits = numbers.view(np.uint32) >> 16
    halves = bits.astype(np.uint16) if kind == "BF16" else numbers.astype(np.float16)
    wanted = (bits << 16).view(np.float32) if kind == "BF16" else halves.astype(np.float32)
    path = tmp_path / "model.safetensors"
    path.write_bytes(to_safetensors({"own": halves, "other": numbers}))
    table = read_table(path)
    found = table.floats({"own": (3, 8), "other": (3, 8)})
    assert found["own"].dtype == np.float32
    assert (found["own"] == wanted).all()
    assert (found["other"] == numbers).all()
    assert table.copied_bytes == numbers.nbytes
