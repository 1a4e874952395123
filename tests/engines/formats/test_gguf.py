"""A GGUF file that came from anybody is described, or refused in words."""

import struct
from dataclasses import replace
from pathlib import Path

import gguf
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.engines.formats.gguf import describe
from node.engines.formats.gguf_file import read_gguf
from node.engines.worker.gguf_tokens import read_table
from tests.engines.tiny_gguf import TINY, write_gguf
from wire.errors import ModelRefused

HIDDEN, LAYERS, INNER, HEADS, KV_HEADS, WORDS = TINY
TEXT = "Hello, world! It's 12345 tests\n\n  na\u00efve \u65e5\u672c x"
# What llama.cpp (0.3.36 of its Python package) makes of TEXT with the table of seed 7.
LLAMA = """
72 296 108 111 44 32 119 111 114 108 100 33 32 73 116 39 115 32 49 50 51 52 53 32 116 101 115 116
115 10 10 32 32 110 97 195 175 359 32 230 151 165 230 156 172 32 120
"""
# By how texts are cut, with a larger table of seed 3.
MIXED = "I've 12345 \u00c0\u00c9 DON'T don't we'LL\r\n\r\n  tabs\t\tend  "
CUT = {
    "llama-bpe": """
        73 39 445 32 49 50 51 52 53 32 195 128 195 137 32 68 731 39 84 2822 453 39 116 32 572 39
        76 76 13 10 13 10 32 840 97 713 9 9 101 1550 2846
    """,
    "qwen2": """
        73 39 445 32 49 50 51 52 53 32 195 128 195 137 32 68 731 39 84 2822 453 39 116 32 572 39
        76 76 13 10 13 10 32 840 97 713 9 9 101 1550 2846
    """,
    "gpt-2": """
        73 39 445 32 49 50 51 52 53 32 195 128 195 137 32 68 731 39 84 2822 453 39 116 32 572 39
        76 76 13 10 13 10 32 840 97 713 9 9 101 1550 2846
    """,
    "smollm": """
        73 39 445 32 49 50 51 52 53 32 195 128 195 137 32 68 731 39 84 2822 453 39 116 32 572 39
        76 76 13 10 13 10 32 840 97 713 9 9 101 1550 2846
    """,
}


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_gguf(tmp_path_factory.mktemp("good") / "good.gguf", "qwen3", "q8_0")


def head(tensors: int = 0, keys: int = 0, version: int = 3, magic: bytes = b"GGUF") -> bytes:
    return magic + struct.pack("<IQQ", version, tensors, keys)


def text(value: bytes) -> bytes:
    return struct.pack("<Q", len(value)) + value


def row(kind: int = 0, shape: tuple[int, ...] = (8,), offset: int = 0) -> bytes:
    sizes = struct.pack(f"<I{len(shape)}Q", len(shape), *shape)
    return head(1) + text(b"t") + sizes + struct.pack("<IQ", kind, offset) + bytes(256)


BAD = {
    "nothing": (b"", "not GGUF"),
    "another magic": (head(magic=b"GGML"), "not GGUF"),
    "an old version": (head(version=1), "version 1"),
    "a head cut short": (head()[:-1], "cut short"),
    "tensors without end": (head(tensors=1 << 60), "tensors, at most"),
    "keys without end": (head(keys=1 << 63), "keys of metadata, at most"),
    "a name beyond the file": (head(keys=1) + struct.pack("<Q", 400), "cut short"),
    "a name beyond all bounds": (head(keys=1) + struct.pack("<Q", 1 << 63), "bytes of text"),
    "a name that is no text": (head(keys=1) + text(b"\xff"), "UTF-8"),
    "a value of no type": (head(keys=1) + text(b"k") + struct.pack("<I", 77), "type 77"),
    "a list beyond the file": (
        head(keys=1) + text(b"k") + struct.pack("<IIQ", 9, 4, 1 << 19),
        "cut short",
    ),
    "a list without end": (
        head(keys=1) + text(b"k") + struct.pack("<IIQ", 9, 4, 1 << 62),
        "items in a list",
    ),
    "lists in lists": (head(keys=1) + text(b"k") + struct.pack("<IIQ", 9, 9, 1), "type 9"),
    "a key twice": (head(keys=2) + 2 * (text(b"k") + struct.pack("<IB", 0, 1)), "twice"),
    "a strange alignment": (
        head(keys=1) + text(b"general.alignment") + struct.pack("<II", 4, 0),
        "alignment",
    ),
    "no dimensions": (row(shape=()), "0 dimensions"),
    "too many dimensions": (row(shape=(1,) * 9), "9 dimensions"),
    "a shape that overflows": (row(shape=(1 << 62, 1 << 62)), "rows, at most"),
    "a product that overflows": (row(shape=(1 << 39, 1 << 39)), "cut short"),
    "an empty shape": (row(shape=(0,)), "is no F32"),
    "a tensor beyond the file": (row(shape=(1 << 20,)), "cut short"),
    "an offset beyond all bounds": (row(offset=1 << 62), "bytes before a tensor"),
    "a crooked offset": (row(offset=8), "not even"),
    "half a block": (row(kind=8, shape=(33,)), "no Q8_0"),
    "a type that is not run": (row(kind=10, shape=(256,)), "Q2_K"),
    "an unknown type": (row(kind=999), "unknown type \\(999\\)"),
}


# What to do about it.
_MENDED = {"not GGUF": "the right file?", "cut short": "download it again"}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_head_is_refused_with_its_reason(name: str, tmp_path: Path) -> None:
    data, reason = BAD[name]
    path = tmp_path / "bad.gguf"
    path.write_bytes(data)
    with pytest.raises(ModelRefused, match=reason) as caught:
        read_gguf(path)
    if reason in _MENDED:
        assert _MENDED[reason] in caught.value.todo
        assert "'" not in str(caught.value)


def test_every_cut_of_a_good_file_is_refused(good: Path, tmp_path: Path) -> None:
    data = good.read_bytes()
    path = tmp_path / "cut.gguf"
    for size in [*range(0, 600, 7), len(data) // 3, len(data) // 2, len(data) - 33]:
        path.write_bytes(data[:size])
        with pytest.raises(ModelRefused):
            describe(path)


@given(place=st.integers(0, 12_000), flip=st.integers(1, 255))
def test_a_flipped_byte_is_refused_or_described(
    good: Path, tmp_path_factory: pytest.TempPathFactory, place: int, flip: int
) -> None:
    data = bytearray(good.read_bytes())
    data[place] ^= flip
    path = tmp_path_factory.mktemp("flip") / "flip.gguf"
    path.write_bytes(bytes(data))
    try:
        read_table(describe(path))
    except ModelRefused:
        return


def test_a_good_file_is_described(good: Path) -> None:
    model = describe(good)
    assert (model.architecture, model.name) == ("qwen3", "random-qwen3-64x2")
    assert (model.hidden, model.layers, model.inner) == (HIDDEN, LAYERS, INNER)
    assert (model.heads, model.kv_heads, model.vocabulary) == (HEADS, KV_HEADS, WORDS)
    assert (model.context_length, model.quantisation) == (256, "Q8_0")
    assert model.family.query_norms == "heads"
    assert not model.biases
    assert "add_generation_prompt" in model.chat_template
    size = HIDDEN // HEADS
    assert model.page_bytes == 2 * LAYERS * KV_HEADS * size * 128 * 4
    # Two pages for each of eight.
    assert (model.least_pages, model.pages) == (2, 16)
    matrices = [it.items for it in model.tensors.values() if len(it.shape) == 2]
    vectors = [it.items for it in model.tensors.values() if len(it.shape) == 1]
    # 34 bytes for 32 numbers of Q8_0.
    assert model.weights_bytes == sum(matrices) * 34 // 32 + 4 * sum(vectors)
    assert model.floats_bytes == 4 * sum(matrices + vectors)
    assert model.memory_bytes > model.weights_bytes + 16 * model.page_bytes


# What a file with yarn says at least.
YARN = {
    "rope.scaling.type": "yarn",
    "rope.scaling.factor": 160333.3125,
    "rope.scaling.original_context_length": 128,
}


def made(path: Path, architecture: str = "llama", **changes: object) -> Path:
    """A file with a head alone, as a good one has it but for `changes`."""
    w = gguf.GGUFWriter(path, architecture)
    keys = {
        "context_length": 64,
        "embedding_length": 32,
        "block_count": 1,
        "feed_forward_length": 64,
        "attention.head_count": 2,
        "attention.layer_norm_rms_epsilon": 1e-5,
    }
    for name, value in (keys | changes).items():
        add = w.add_string if isinstance(value, str) else w.add_uint32
        if value is not None:
            (w.add_float64 if isinstance(value, float) else add)(f"{architecture}.{name}", value)
    w.add_tensor("token_embd.weight", np.zeros((32, 32), np.float32))
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()
    return path


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"architecture": "mamba"}, "architecture 'mamba': it has layers with a state; run here: "),
        ({"architecture": "gpt-oss"}, "mixture of experts"),
        ({"architecture": "nomic-bert"}, "folders with model.safetensors"),
        ({"architecture": "qwen3", "pooling_type": 1}, "makes a vector or a score of a text"),
        ({"architecture": "qwen3", "pooling_type": "3"}, "in a way (pooling_type 3) that is not"),
        ({"architecture": "qwen3", "expert_count": 8}, "qwen3.expert_count is '8'"),
        ({"architecture": "qwen3moe"}, "lacks qwen3moe.expert_count"),
        ({"architecture": "qwen3moe", "expert_count": 8}, "lacks qwen3moe.expert_used_count"),
        (
            {"architecture": "qwen3moe", "expert_count": 8, "expert_used_count": 9},
            "expert_used_count is '9'",
        ),
        ({"expert_count": 12, "expert_used_count": 2}, "12 experts are no multiple of 8"),
        ({"expert_count": 1 << 20}, "llama.expert_count is '1048576'"),
        ({"expert_count": 8, "expert_used_count": 2}, "lacks the tensor"),
        (
            {"architecture": "no such"},
            "'no such'; run here: gemma3, granite, granitemoe, llama, mistral3, olmo2",
        ),
        ({"block_count": None}, "lacks llama.block_count"),
        ({"block_count": 1 << 31}, "llama.block_count is '2147483648'"),
        ({"embedding_length": "wide"}, "llama.embedding_length is 'wide'"),
        ({"attention.head_count": 64}, "attention.key_length"),
        ({"attention.head_count": 4}, "heads of 8"),
        ({"attention.head_count_kv": 3}, "do not share"),
        ({"rope.scaling.type": "dynamic"}, "llama.rope.scaling.type is 'dynamic'"),
        ({"rope.scaling.type": "longrope"}, "llama.rope.scaling.type is 'longrope'"),
        ({"rope.scaling.type": "yarn"}, "lacks llama.rope.scaling.factor"),
        ({"rope.scaling.type": "linear"}, "lacks llama.rope.scaling.factor"),
        (
            {"rope.scaling.type": "yarn", "rope.scaling.factor": 4.0},
            "lacks llama.rope.scaling.original_context_length",
        ),
        *(
            (
                {"rope.scaling.type": kind, "rope.scaling.factor": value},
                f"llama.rope.scaling.factor is '{value}'",
            )
            for kind in ("linear", "yarn")
            for value in (5e-324, 1e-4, -1.0)
        ),
        # The attention's growth would be divided by zero, by almost zero, and by less.
        *(
            (
                YARN | {"rope.scaling.yarn_log_multiplier": value},
                f"llama.rope.scaling.yarn_log_multiplier is '{value}'",
            )
            for value in (-0.8343755984457982, -0.834375598, -1e-9)
        ),
        (
            YARN | {"rope.scaling.attn_factor": 5e-324, "rope.scaling.yarn_attn_factor": 1e-3},
            "llama.rope.scaling.attn_factor is '0.0'",
        ),
        (
            YARN | {"rope.scaling.yarn_beta_fast": 5e-324},
            "llama.rope.scaling.yarn_beta_fast is '5e-324'",
        ),
        (
            YARN | {"rope.scaling.yarn_beta_slow": 5e-324},
            "llama.rope.scaling.yarn_beta_slow is '5e-324'",
        ),
        ({"context_length": 7}, "a context of 7 tokens is not run"),
        ({"rope.dimension_count": 8}, "llama.rope.dimension_count is '8'"),
        ({"attn_logit_softcapping": 50.0}, "llama.attn_logit_softcapping is '50.0'"),
        ({"attention.max_alibi_bias": 8.0}, "llama.attention.max_alibi_bias"),
        ({"architecture": "granite"}, "lacks granite.logit_scale"),
        ({"architecture": "mistral3", "attention.temperature_scale": 0.1}, "original_context"),
        ({"architecture": "gemma3", "attention.sliding_window": 1 << 31}, "sliding_window"),
        (
            {"architecture": "gemma3", "attention.sliding_window": 4}
            | {"attention.sliding_window_pattern": "all"},
            "gemma3.attention.sliding_window_pattern is 'all'",
        ),
        ({"attention.layer_norm_rms_epsilon": 0.0}, "epsilon"),
        ({}, "lacks the tensor"),
    ],
    ids=str,
)
def test_a_model_that_is_not_run_is_refused_by_name(
    changes: dict, reason: str, tmp_path: Path
) -> None:
    with pytest.raises(ModelRefused) as caught:
        describe(made(tmp_path / "model.gguf", **changes))
    assert reason in str(caught.value)


def test_a_manifest_cannot_ask_for_less_context_than_is_run(good: Path) -> None:
    model = describe(good)
    assert replace(model, context_max=8).context == 8
    with pytest.raises(ModelRefused, match="a context of 7 tokens is not run"):
        replace(model, context_max=7)


@pytest.mark.parametrize("architecture", ["llama", "qwen3"])
def test_texts_are_cut_as_llama_cpp_cuts_them_and_come_back_whole(
    architecture: str, tmp_path: Path
) -> None:
    table = read_table(describe(write_gguf(tmp_path / "m.gguf", architecture, seed=7)))
    found = table.of(TEXT)
    begin = [WORDS - 3] if architecture == "llama" else []
    assert found == [*begin, *map(int, LLAMA.split())]
    assert b"".join(table.texts[token] for token in found).decode() == TEXT
    assert table.of("<|eot_id|>") == [*begin, WORDS - 1]
    assert table.ends == {WORDS - 2, WORDS - 1}
    assert table.texts[WORDS - 1] == b""


@pytest.mark.parametrize("cut", CUT)
def test_every_way_of_cutting_is_that_of_llama_cpp(cut: str, tmp_path: Path) -> None:
    sizes = (64, 2, 128, 4, 2, 4096)
    path = write_gguf(tmp_path / "m.gguf", sizes=sizes, seed=3, cut=cut)
    table = read_table(describe(path))
    assert table.of(MIXED)[1:] == list(map(int, CUT[cut].split()))


def test_a_way_of_cutting_that_is_not_known_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelRefused, match="cut as 'no-such-cut'"):
        read_table(describe(write_gguf(tmp_path / "m.gguf", cut="no-such-cut")))


def test_pieces_with_scores_are_joined_best_first(tmp_path: Path) -> None:
    path = tmp_path / "pieces.gguf"
    names = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    kinds = [2, 3, 3, *[6] * 256]
    pieces = {"\u2581": -9.0, "a": -9.0, "b": -9.0, "c": -9.0, "ab": -1.0, "bc": -0.5}
    pieces |= {"\u2581a": -2.0}
    write_pieces(path, [*names, *pieces], [*kinds, *[1] * 7], [0.0] * 259 + [*pieces.values()])
    table = read_table(describe(path))
    first = len(names)
    joined = {name: first + at for at, name in enumerate(pieces)}
    # "bc" is better than "ab", and then the space joins "a".
    assert table.of("abc") == [1, joined["\u2581a"], joined["bc"]]
    assert table.of("ab") == [1, joined["\u2581"], joined["ab"]]
    assert [table.texts[token] for token in table.of("\u00e9")[2:]] == [b"\xc3", b"\xa9"]
    assert table.texts[joined["\u2581a"]] == b" a"
    assert table.ends == {2}


def write_pieces(path: Path, names: list[str], kinds: list[int], scores: list[float]) -> None:
    made_up = write_gguf(path.with_suffix(".all"), sizes=(*TINY[:5], len(names) + 300))
    source, w = gguf.GGUFReader(made_up), gguf.GGUFWriter(path, "llama")
    for name, field in source.fields.items():
        if name.startswith("llama."):
            kind = field.types[0]
            w.add_key_value(name, field.contents(), kind)
    w.add_tokenizer_model("llama")
    w.add_token_list(names)
    w.add_token_types(kinds)
    w.add_token_scores(scores)
    w.add_bos_token_id(1)
    w.add_eos_token_id(2)
    for tensor in source.tensors:
        w.add_tensor(tensor.name, np.array(tensor.data))
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


@pytest.mark.parametrize("version", [2, 3])
def test_a_big_endian_file_says_so(tmp_path: Path, version: int) -> None:
    path = tmp_path / "big.gguf"
    path.write_bytes(b"GGUF" + struct.pack(">IQQ", version, 0, 0))
    with pytest.raises(ModelRefused, match="big-endian"):
        read_gguf(path)


def test_a_part_of_a_model_says_which_it_is(tmp_path: Path) -> None:
    path = tmp_path / "m-00002-of-00003.gguf"
    w = gguf.GGUFWriter(path, "llama")
    w.add_uint16("split.no", 1)
    w.add_uint16("split.count", 3)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()
    with pytest.raises(ModelRefused, match="part 2 of 3"):
        describe(path)
