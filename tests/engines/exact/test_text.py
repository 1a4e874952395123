"""Exact transformers: made from a float one, and their numpy reference."""

from pathlib import Path

import numpy as np
import pytest

from node.engines.exact import text_file
from node.engines.exact.text_file import read_text
from node.engines.exact.text_layers import TextPast, as_floats
from node.engines.exact.whole_numbers import (
    ROW_BITS,
    Norm,
    bit_length,
    divided,
    in_blocks,
    integer_root,
    root,
    shifted,
)
from node.models.exact_texts import make_exact_text, write_exact_text
from tests.engines.exact.text_models import layers_of, made_at
from tests.engines.tiny_gguf import write_gguf
from wire.errors import InputError, ModelRefused


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_at(tmp_path_factory.mktemp("exact"))


def test_shifts_round_a_half_up_and_cut_off() -> None:
    values = np.array([-3, -2, -1, 0, 1, 2, 3, 2**40], np.int64)
    assert shifted(values, 1).tolist() == [-1, -1, 0, 0, 1, 1, 2, 2**31 - 1]
    assert shifted(values, -2, 10).tolist() == [-10, -8, -4, 0, 4, 8, 10, 10]
    assert shifted(values, 99).tolist() == [0] * 8
    assert shifted(values, np.array([-99])).tolist() == [-(2**31 - 1)] * 3 + [0] + [2**31 - 1] * 4


def test_whole_roots_lengths_and_quotients() -> None:
    # Six steps, as they are specified: next to a square the last one may go up again.
    squares = np.array([1 << 60, (1 << 62) - 1, 3 << 60], np.int64)
    assert root(squares).tolist() == [1 << 30, 1 << 31, integer_root(3 << 60)]
    assert bit_length(np.array([0, 1, 2, 3, 4, 2**62])).tolist() == [0, 1, 2, 2, 3, 63]
    assert divided(np.array([-3, 3, 5, -5]), np.array([2, 2, 4, 4])).tolist() == [-2, 2, 1, -1]


@pytest.mark.parametrize("size", [1, 100, 2**20, 2**31 - 1])
def test_blocks_are_near_to_what_they_stand_for(size: int) -> None:
    values = np.random.default_rng(size).integers(-size, size + 1, (5, 64))
    values[0] = 0
    blocks = in_blocks(values)
    again = blocks.products * 2.0**blocks.exponents
    most = np.abs(values.reshape(5, 2, 32)).max(axis=2).repeat(32, axis=1)
    # Half of a step of the block, and what is lost where a row is brought to its bits.
    assert (np.abs(again - values) <= most / 253 + 2.0 ** (blocks.exponents + 1)).all()
    assert np.abs(blocks.numbers).max() <= 127
    assert blocks.scales.max() <= text_file.SCALE_MAX
    assert (blocks.exponents >= -ROW_BITS).all()


def test_a_norm_is_that_of_floats() -> None:
    chance = np.random.default_rng(1)
    rows = (chance.standard_normal((6, 96)) * 10.0 ** np.arange(-2, 4)[:, None] * 65536).astype(int)
    weights = np.rint(chance.uniform(0.5, 2, 96) * 65536).astype(np.int64)
    found = Norm(weights, round(1e-5 * 2**32)).of(np.clip(rows, -(2**31) + 1, 2**31 - 1)) / 65536
    floats = rows / 65536
    wanted = floats / np.sqrt(np.square(floats).mean(axis=1, keepdims=True) + 1e-5)
    assert np.allclose(found, wanted * weights / 65536, rtol=2e-3, atol=1e-4)
    assert not Norm(weights, 0).of(np.zeros((1, 96), np.int64)).any()


def test_what_is_made_is_near_to_the_float_model(tmp_path: Path) -> None:
    source = write_gguf(tmp_path / "it.gguf", sizes=(64, 2, 64, 2, 1, 512), tied=True)
    model, cost = make_exact_text(source, tmp_path / "it.exact")
    assert model.layers == 2
    assert cost.tokens >= 256
    assert abs(cost.loss - cost.loss_in_floats) < 0.03
    assert cost.same_best > 0.9


def test_each_token_is_the_same_however_it_is_read(tiny: Path) -> None:
    layers = layers_of(tiny)
    tokens = [int(it) for it in np.random.default_rng(2).integers(0, 512, 40)]
    whole = TextPast(layers).read(tokens)
    for cut in (1, 7, 39):
        past = TextPast(layers)
        parts = [past.read(tokens[:cut]), past.read(tokens[cut:])]
        assert np.array_equal(np.concatenate(parts), whole)
    logits = layers.logits(whole)
    assert np.abs(logits).max() < 2**24
    assert (as_floats(logits) * 2**14 == logits).all()


def test_a_file_of_the_same_model_is_the_same_bytes(tiny: Path, tmp_path: Path) -> None:
    assert made_at(tmp_path).read_bytes() == tiny.read_bytes()


@pytest.mark.parametrize("kind", ["q8_0", "q4_0"])
def test_a_quantised_source_can_be_made_exact(tmp_path: Path, kind: str) -> None:
    path = made_at(tmp_path, kind=kind, tied=False)
    assert not read_text(path).shape.tied


def test_whoever_waits_is_told_of_each_tensor(tmp_path: Path) -> None:
    told: list[tuple[str, int, int]] = []
    source = write_gguf(tmp_path / "tiny.gguf", sizes=(64, 2, 64, 2, 1, 512))
    write_exact_text(source, tmp_path / "out.exact", lambda *step: told.append(step))
    count = told[0][2]
    assert told == [("making", at, count) for at in range(count)]
    assert count == len(read_text(tmp_path / "out.exact").shape.tensors)


def test_what_cannot_be_made_is_refused_in_words(tmp_path: Path) -> None:
    other = write_gguf(tmp_path / "other.gguf", architecture="qwen2")
    with pytest.raises(ModelRefused, match="of the family qwen2"):
        make_exact_text(other, tmp_path / "out.exact")
    source = write_gguf(tmp_path / "tiny.gguf", sizes=(64, 2, 64, 2, 1, 512))
    short = tmp_path / "short.txt"
    short.write_text("too short")
    with pytest.raises(InputError, match="fewer than"):
        make_exact_text(source, tmp_path / "out.exact", short)
    with pytest.raises(InputError, match="cannot be written"):
        make_exact_text(source, tmp_path / "none" / "out.exact")
    assert not list(tmp_path.glob("out.exact*"))


def test_a_file_cut_or_altered_is_refused_or_runs(tiny: Path, tmp_path: Path) -> None:
    """Whatever the bytes are: words, or a model whose sums stay within their bounds."""
    data, chance = tiny.read_bytes(), np.random.default_rng(3)
    head = 12_000
    path = tmp_path / "altered.exact"
    refused = 0
    for number in range(60):
        altered = bytearray(data)
        where = int(chance.integers(0, head if number % 2 else len(data)))
        altered[where] ^= int(chance.integers(1, 256))
        path.write_bytes(altered[: where + 1] if number % 10 == 0 else altered)
        try:
            read_text(path)
        except ModelRefused:
            refused += 1
    assert refused > 10


ALTERED = {
    "exact.version": "version",
    "exact.powers": "exact.powerr, which is not run",
    "exact.gates": "exact.gater, which is not run",
    "exact.turns": "exact.turnr, which is not run",
    "llama.embedding_length": "embedding_length",
    "llama.attention.head_count": "key_length is",
    "llama.block_count": "lacks the tensor",
    "llama.context_length": "exact.turns is of the shape",
}


@pytest.mark.parametrize("name", ALTERED)
def test_a_header_that_lies_is_refused(tiny: Path, tmp_path: Path, name: str) -> None:
    data = bytearray(tiny.read_bytes())
    at = data.index(name.encode()) + len(name)
    tensor = name.startswith("exact.") and name != "exact.version"
    # A tensor by another name; or, behind a key and its type, another number.
    data[at - 1 if tensor else at + 4] ^= 0x40 if not tensor else 1
    path = tmp_path / "lies.exact"
    path.write_bytes(data)
    with pytest.raises(ModelRefused, match=ALTERED[name]):
        read_text(path)


def test_numbers_that_do_not_fit_are_refused(tiny: Path, tmp_path: Path) -> None:
    model = text_file.describe(tiny)

    def altered(name: str, number: bytes, offset: int = 0) -> Path:
        data = bytearray(tiny.read_bytes())
        at = model.tensors[name].begin + offset
        data[at : at + len(number)] = number
        path = tmp_path / "numbers.exact"
        path.write_bytes(data)
        return path

    for name, number, words in (
        ("exact.powers", np.float32(0), "nothing could be seen"),
        ("exact.powers", np.float32(2**18), "not from 0 to"),
        ("exact.powers", np.float32(0.5), "not whole"),
        ("exact.gates", np.float32("nan"), "not whole"),
        ("exact.turns", np.float32(1.5), "not from"),
        ("output_norm.weight", np.float32(65), "not from"),
        ("output_norm.weight", np.float32("inf"), "not whole"),
        ("blk.0.ffn_down.weight", np.float16("inf"), "not finite"),
        ("blk.0.ffn_down.weight", np.float16(-1), "below 0"),
        ("blk.1.attn_q.weight", np.float16(60000), "fit"),
    ):
        with pytest.raises(ModelRefused, match=words):
            read_text(altered(name, number.tobytes()))
