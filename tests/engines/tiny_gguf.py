"""Language models of random weights as GGUF files: tiny ones for tests, larger ones for benches."""

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import gguf
import numpy as np

from node.engines.worker.weight_blocks import FORMS, row_bytes
from wire.content import ContentId
from wire.model import Manifest, ModelFile

KINDS = {
    "f32": gguf.GGMLQuantizationType.F32,
    "f16": gguf.GGMLQuantizationType.F16,
    "q8_0": gguf.GGMLQuantizationType.Q8_0,
    "q4_0": gguf.GGMLQuantizationType.Q4_0,
    "q4_K": gguf.GGMLQuantizationType.Q4_K,
}
# hidden, layers, inner, heads, heads of keys, words
TINY = (64, 2, 128, 4, 2, 512)
SPECIAL = ("<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>")
CHAT = (
    "{% for m in messages %}[{{ m.role }}] {{ m.content }}\n{% endfor %}"
    "{% if tools %}{{ tools | tojson }}\n{% endif %}"
    "{% if add_generation_prompt %}[assistant] {% endif %}"
)


@functools.cache
def byte_letters() -> dict[int, str]:
    """The letter that byte-level tables have for each byte."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    letters = {byte: chr(byte) for byte in plain}
    others = [byte for byte in range(256) if byte not in letters]
    return letters | {byte: chr(256 + n) for n, byte in enumerate(others)}


def bpe(words: int, rng: np.random.Generator) -> tuple[list[str], list[str]]:
    """A byte-level table: all bytes, pairs of what is there already, three special tokens."""
    letters = byte_letters()
    tokens = [letters[byte] for byte in range(256)]
    common = [letters[byte] for byte in b" etaoinshrdlucmfwygpbvkETAOIN"]
    merges, seen = [], set(tokens)
    while len(tokens) < words - len(SPECIAL):
        left = tokens[rng.integers(min(len(tokens), 2000))]
        if rng.integers(3) == 0:
            left = common[rng.integers(len(common))]
        right = common[rng.integers(len(common))]
        if len(left) <= 5 and left + right not in seen:
            seen.add(left + right)
            tokens.append(left + right)
            merges.append(f"{left} {right}")
    return [*tokens, *SPECIAL], merges


def random_blocks(
    rng: np.random.Generator, kind: int, rows: int, columns: int, spread: float = 1.0
) -> np.ndarray:
    """Random bytes as blocks of a type, with scales that are finite: [rows, bytes of a row]."""
    parts = FORMS[kind].parts
    dtype = np.dtype([(name, form, (count,)) for name, (form, count) in parts.items()])
    raw = rng.integers(0, 256, (rows, row_bytes(kind, columns)), dtype=np.uint8)
    blocks = raw.view(dtype)
    for name in [it for it in ("scale", "minimum", "numbers") if it in parts]:
        numbers = rng.standard_normal(blocks[name].shape).astype(np.float32) * spread
        bf16 = parts[name][0] == "<u2"
        blocks[name] = numbers.view(np.uint32) >> 16 if bf16 else numbers
    return raw


def write_gguf(
    path: Path,
    architecture: str = "llama",
    kind: str = "f32",
    *,
    sizes: tuple[int, ...] = TINY,
    context: int = 256,
    seed: int = 0,
    tied: bool = False,
    chat: str = CHAT,
    cut: str = "",
    mixed: Mapping[str, int] = MappingProxyType({}),
    floats: bool = False,
) -> Path:
    """A model of random weights from a seed.

    `mixed` are types of tensors by parts of their names, of which the last that fits counts;
    `floats` unpacks what they have.
    """
    hidden, layers, inner, heads, kv_heads, words = sizes
    rng = np.random.default_rng(seed)
    w = gguf.GGUFWriter(path, architecture)
    w.add_name(f"random-{architecture}-{hidden}x{layers}")
    w.add_context_length(context)
    w.add_embedding_length(hidden)
    w.add_block_count(layers)
    w.add_feed_forward_length(inner)
    w.add_head_count(heads)
    w.add_head_count_kv(kv_heads)
    w.add_rope_freq_base(10_000.0)
    w.add_layer_norm_rms_eps(1e-5)
    w.add_rope_dimension_count(hidden // heads)
    w.add_vocab_size(words)
    if architecture == "qwen3":
        w.add_key_length(hidden // heads)
        w.add_value_length(hidden // heads)
    tokens, merges = bpe(words, rng)
    w.add_tokenizer_model("gpt2")
    w.add_tokenizer_pre(cut or ("llama-bpe" if architecture == "llama" else "qwen2"))
    w.add_token_list(tokens)
    w.add_token_types([1] * (words - len(SPECIAL)) + [3] * len(SPECIAL))
    w.add_token_merges(merges)
    w.add_bos_token_id(words - 3)
    w.add_eos_token_id(words - 2)
    w.add_add_bos_token(architecture == "llama")
    if chat:
        w.add_chat_template(chat)
    kinds = MatrixKinds(KINDS[kind], mixed, floats)
    _tensors(w, architecture, kinds, sizes, rng, tied)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()
    return path


@dataclass(frozen=True)
class MatrixKinds:
    """The type of most matrices, of some, and whether all become floats."""

    most: gguf.GGMLQuantizationType
    mixed: Mapping[str, int]
    floats: bool

    def add(self, w: Any, name: str, array: np.ndarray, rng: np.random.Generator) -> None:
        kept = self.most
        for part, kind in self.mixed.items():
            kept = gguf.GGMLQuantizationType(kind) if part in name else kept
        if self.mixed:
            raw = random_blocks(rng, int(kept), *array.shape, spread=0.01)
        else:
            raw = gguf.quants.quantize(array, kept)
        if self.floats:
            kept, raw = gguf.GGMLQuantizationType.F32, gguf.quants.dequantize(raw, kept)
        w.add_tensor(name, raw, raw_dtype=kept)


def _tensors(
    w: Any,
    architecture: str,
    kinds: MatrixKinds,
    sizes: tuple[int, ...],
    rng: np.random.Generator,
    tied: bool,
) -> None:
    hidden, layers, inner, heads, kv_heads, words = sizes
    size = hidden // heads

    def matrix(name: str, rows: int, columns: int, deviation: float = 0.0) -> None:
        spread = deviation or columns**-0.5
        array = (rng.standard_normal((rows, columns)) * spread).astype(np.float32)
        kinds.add(w, name, array, rng)

    def vector(name: str, count: int, around: float) -> None:
        w.add_tensor(name, (around + 0.1 * rng.standard_normal(count)).astype(np.float32))

    matrix("token_embd.weight", words, hidden, 0.5)
    vector("output_norm.weight", hidden, 1.0)
    if not tied:
        matrix("output.weight", words, hidden)
    for number in range(layers):
        at = f"blk.{number}."
        vector(f"{at}attn_norm.weight", hidden, 1.0)
        vector(f"{at}ffn_norm.weight", hidden, 1.0)
        for name, count in (("q", heads), ("k", kv_heads), ("v", kv_heads)):
            matrix(f"{at}attn_{name}.weight", count * size, hidden)
            if architecture == "qwen2":
                vector(f"{at}attn_{name}.bias", count * size, 0.0)
        if architecture == "qwen3":
            vector(f"{at}attn_q_norm.weight", size, 1.0)
            vector(f"{at}attn_k_norm.weight", size, 1.0)
        matrix(f"{at}attn_output.weight", hidden, heads * size)
        matrix(f"{at}ffn_gate.weight", inner, hidden)
        matrix(f"{at}ffn_up.weight", inner, hidden)
        matrix(f"{at}ffn_down.weight", hidden, inner)


def gguf_manifest(path: Path, name: str = "tiny-lm") -> tuple[Manifest, dict[str, Path]]:
    """What a peer would say of such a file."""
    data = path.read_bytes()
    file = ModelFile(name="model.gguf", content=ContentId.of(data), size_bytes=len(data))
    manifest = Manifest(
        name=name,
        format="gguf",
        profile="f32",
        operations=("generate",),
        files=(file,),
        parameters={},
        tolerance=0.0,
    )
    return manifest, {"model.gguf": path}
