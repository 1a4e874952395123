"""Tiny models of random weights of each family, as their makers lay them out and as GGUF files."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import gguf
import numpy as np

from tests.engines import family_references as references
from tests.engines.tiny_gguf import CHAT, SPECIAL, bpe

Array = np.ndarray[Any, Any]
HIDDEN, INNER, HEADS, KV_HEADS, SIZE, WORDS, CONTEXT = 64, 64, 4, 2, 16, 320, 64
QUERY, KEY = HEADS * SIZE, KV_HEADS * SIZE
PLAIN = {
    "hidden": HIDDEN,
    "heads": HEADS,
    "kv_heads": KV_HEADS,
    "size": SIZE,
    "base": 10_000.0,
    "eps": 1e-5,
    "layers": 2,
}
# By their names in GGUF files, and in those of the makers; what a layer has besides the plain.
MATRICES = {
    "attn_q": ("self_attn.q_proj", (QUERY, HIDDEN)),
    "attn_k": ("self_attn.k_proj", (KEY, HIDDEN)),
    "attn_v": ("self_attn.v_proj", (KEY, HIDDEN)),
    "attn_output": ("self_attn.o_proj", (HIDDEN, QUERY)),
    "ffn_gate": ("mlp.gate_proj", (INNER, HIDDEN)),
    "ffn_up": ("mlp.up_proj", (INNER, HIDDEN)),
    "ffn_down": ("mlp.down_proj", (HIDDEN, INNER)),
}
FUSED = {
    "attn_qkv": ("self_attn.qkv_proj", (QUERY + 2 * KEY, HIDDEN)),
    "attn_output": MATRICES["attn_output"],
    "ffn_up": ("mlp.gate_up_proj", (2 * INNER, HIDDEN)),
    "ffn_down": MATRICES["ffn_down"],
}
EXPERTS = 8
MIXTURE = {
    **{name: MATRICES[name] for name in ("attn_q", "attn_k", "attn_v", "attn_output")},
    "ffn_gate_inp": ("mlp.gate", (EXPERTS, HIDDEN)),
    "ffn_gate_exps": ("mlp.experts.gate_proj", (EXPERTS, INNER // 2, HIDDEN)),
    "ffn_up_exps": ("mlp.experts.up_proj", (EXPERTS, INNER // 2, HIDDEN)),
    "ffn_down_exps": ("mlp.experts.down_proj", (EXPERTS, HIDDEN, INNER // 2)),
}
NORMS = {"attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm"}
HEAD_NORMS = {"attn_q_norm": ("self_attn.q_norm", SIZE), "attn_k_norm": ("self_attn.k_norm", SIZE)}
WIDE_NORMS = {"attn_q_norm": ("self_attn.q_norm", QUERY), "attn_k_norm": ("self_attn.k_norm", KEY)}
YARN = {"factor": 4.0, "fast": 32.0, "slow": 1.0, "original": 256}
_RNG = np.random.default_rng(3)
SHORT, LONG = ([round(1 + it, 3) for it in _RNG.random(6) * much] for much in (0.5, 8))


@dataclass(frozen=True, kw_only=True)
class Family:
    """One family: its architecture in GGUF, its reference, its numbers, and what it writes."""

    architecture: str
    reference: Callable[[Any, list[int], Any], Array]
    config: Mapping[str, Any] = field(default_factory=dict)
    keys: Mapping[str, Any] = field(default_factory=dict)
    # Keys of the table of tokens that it has besides.
    tokenizer: Mapping[str, str] = field(default_factory=dict)
    matrices: Mapping[str, tuple[str, tuple[int, ...]]] = field(default_factory=lambda: MATRICES)
    norms: Mapping[str, str] = field(default_factory=lambda: NORMS)
    query_norms: Mapping[str, tuple[str, int]] = field(default_factory=dict)
    # What files add to the weights of norms, and whether they put pairs that turn side by side.
    norm_offset: float = 0.0
    interleaved: bool = False
    biases: bool = False
    tied: bool = False
    # Of the table of embeddings, which some families multiply.
    spread: float = 0.5
    cut: str = "qwen2"

    @property
    def numbers(self) -> dict[str, Any]:
        return {**PLAIN, **self.config}


def llama3_divisors(c: Mapping[str, Any]) -> Array:
    """What files have instead of the four numbers: by what each speed is divided."""
    scaling = c["llama3"]
    lengths = 2 * math.pi * c["base"] ** (np.arange(0, c["size"], 2) / c["size"])
    smooth = (scaling["original"] / lengths - scaling["low"]) / (scaling["high"] - scaling["low"])
    found = 1 / ((1 - smooth) / scaling["factor"] + smooth)
    found = np.where(lengths < scaling["original"] / scaling["high"], 1.0, found)
    slow = lengths > scaling["original"] / scaling["low"]
    return np.where(slow, scaling["factor"], found).astype(np.float32)


FAMILIES = {
    "llama 3": Family(
        architecture="llama",
        reference=references.llama,
        config={"llama3": {"factor": 8.0, "low": 1.0, "high": 4.0, "original": 64}},
        interleaved=True,
        tied=True,
        cut="llama-bpe",
    ),
    "mistral": Family(
        architecture="llama", reference=references.llama, interleaved=True, cut="tekken"
    ),
    "mistral 3": Family(
        architecture="mistral3",
        reference=references.mistral3,
        config={"yarn": YARN},
        keys={
            "rope.scaling.type": "yarn",
            "rope.scaling.factor": YARN["factor"],
            "rope.scaling.original_context_length": YARN["original"],
            "rope.scaling.yarn_beta_fast": YARN["fast"],
            "rope.scaling.yarn_beta_slow": YARN["slow"],
            "rope.scaling.yarn_log_multiplier": 1.0,
            "attention.temperature_scale": 0.1,
        },
        interleaved=True,
        cut="tekken",
    ),
    "gemma 3": Family(
        architecture="gemma3",
        reference=references.gemma3,
        config={"layers": 7, "window": 12, "base": 1e6, "factor": 8.0, "scalar": SIZE, "eps": 1e-6},
        keys={
            "attention.sliding_window": 12,
            "rope.scaling.type": "linear",
            "rope.scaling.factor": 8.0,
        },
        norms={
            "attn_norm": "input_layernorm",
            "post_attention_norm": "post_attention_layernorm",
            "ffn_norm": "pre_feedforward_layernorm",
            "post_ffw_norm": "post_feedforward_layernorm",
        },
        query_norms=HEAD_NORMS,
        norm_offset=1.0,
        tied=True,
        spread=0.05,
    ),
    "smollm 3": Family(
        architecture="smollm3",
        reference=references.smollm3,
        config={"layers": 5},
        interleaved=True,
        tied=True,
        cut="smaug-bpe",
    ),
    "granite": Family(
        architecture="granite",
        reference=references.granite,
        config={
            "embedding_multiplier": 12.0,
            "attention_multiplier": 0.015625,
            "residual_multiplier": 0.22,
            "logits_scaling": 8.0,
        },
        keys={
            "embedding_scale": 12.0,
            "attention.scale": 0.015625,
            "residual_scale": 0.22,
            "logit_scale": 8.0,
        },
        interleaved=True,
        tied=True,
        spread=0.02,
        cut="refact",
    ),
    "olmo 2": Family(
        architecture="olmo2",
        reference=references.olmo2,
        norms={
            "post_attention_norm": "post_attention_layernorm",
            "post_ffw_norm": "post_feedforward_layernorm",
        },
        query_norms=WIDE_NORMS,
        cut="dbrx",
    ),
    "olmo 3": Family(
        architecture="olmo2",
        reference=references.olmo2,
        config={"layers": 5, "window": 12, "yarn": YARN},
        keys={
            "attention.sliding_window": 12,
            "rope.scaling.type": "yarn",
            "rope.scaling.factor": YARN["factor"],
            "rope.scaling.original_context_length": YARN["original"],
        },
        norms={
            "post_attention_norm": "post_attention_layernorm",
            "post_ffw_norm": "post_feedforward_layernorm",
        },
        query_norms=WIDE_NORMS,
        cut="dbrx",
    ),
    "phi 3": Family(
        architecture="phi3",
        reference=references.phi3,
        config={"partial": 1.0, "window": 20},
        keys={"attention.sliding_window": 20},
        matrices=FUSED,
        cut="dbrx",
    ),
    "phi 4 mini": Family(
        architecture="phi3",
        reference=references.phi3,
        config={"partial": 0.75, "window": 0, "short": SHORT, "original": CONTEXT, "context": 2048},
        keys={
            "context_length": 2048,
            "attention.sliding_window": 262_144,
            "rope.dimension_count": 12,
            "rope.scaling.original_context_length": CONTEXT,
            "rope.scaling.attn_factor": math.sqrt(1 + math.log(2048 / CONTEXT) / math.log(CONTEXT)),
        },
        matrices=FUSED,
        tied=True,
        cut="gpt-4o",
    ),
    "qwen 2": Family(architecture="qwen2", reference=references.qwen2, biases=True, tied=True),
    "qwen 3": Family(architecture="qwen3", reference=references.qwen3, query_norms=HEAD_NORMS),
    "qwen 3 moe": Family(
        architecture="qwen3moe",
        reference=references.qwen3_moe,
        config={"used": 3},
        keys={
            "expert_count": EXPERTS,
            "expert_used_count": 3,
            "expert_feed_forward_length": INNER // 2,
        },
        matrices=MIXTURE,
        query_norms=HEAD_NORMS,
    ),
    "mixtral": Family(
        architecture="llama",
        reference=references.mixtral,
        config={"used": 2},
        keys={"expert_count": EXPERTS, "expert_used_count": 2, "feed_forward_length": INNER // 2},
        matrices=MIXTURE,
        interleaved=True,
        cut="llama-bpe",
    ),
}


def weights_of(family: Family, seed: int) -> dict[str, Array]:
    """Random weights as the family's maker would publish them, 32-bit floats."""
    rng = np.random.default_rng(seed)
    found: dict[str, Array] = {}

    def normal(name: str, *shape: int, spread: float, around: float = 0.0) -> None:
        found[name] = (around + spread * rng.standard_normal(shape)).astype(np.float32)

    around = 1.0 - family.norm_offset
    normal("model.embed_tokens.weight", WORDS, HIDDEN, spread=family.spread)
    normal("model.norm.weight", HIDDEN, spread=0.2, around=around)
    if not family.tied:
        normal("lm_head.weight", WORDS, HIDDEN, spread=0.2)
    for number in range(family.numbers["layers"]):
        at = f"model.layers.{number}."
        for name, shape in family.matrices.values():
            normal(f"{at}{name}.weight", *shape, spread=2 * shape[-1] ** -0.5)
        for name in family.norms.values():
            normal(f"{at}{name}.weight", HIDDEN, spread=0.2, around=around)
        for name, width in family.query_norms.values():
            normal(f"{at}{name}.weight", width, spread=0.2, around=around)
        if family.biases:
            for name, width in (("q", QUERY), ("k", KEY), ("v", KEY)):
                normal(f"{at}self_attn.{name}_proj.bias", width, spread=0.2)
    return found


def side_by_side(array: Array) -> Array:
    """Rows of queries or keys with the two of each pair, half a head apart before, side by side."""
    halves = array.reshape(-1, 2, SIZE // 2, *array.shape[1:])
    return np.ascontiguousarray(halves.swapaxes(1, 2)).reshape(array.shape)


def write_family(
    path: Path,
    family: Family,
    weights: Mapping[str, Array],
    context: int = CONTEXT,
    more: Mapping[str, Array] = MappingProxyType({}),
) -> Path:
    """The model as a GGUF file, as converters write it, and `more` tensors."""
    w = gguf.GGUFWriter(path, family.architecture)
    _write_keys(w, family, context)
    _write_tokens(w, family.cut)
    for name, text in family.tokenizer.items():
        w.add_string(f"tokenizer.{name}", text)
    for name, array in more.items():
        w.add_tensor(name, array)
    offset = np.float32(family.norm_offset)
    w.add_tensor("token_embd.weight", weights["model.embed_tokens.weight"])
    w.add_tensor("output_norm.weight", weights["model.norm.weight"] + offset)
    if not family.tied:
        w.add_tensor("output.weight", weights["lm_head.weight"])
    c = family.numbers
    if "llama3" in c:
        w.add_tensor("rope_freqs.weight", llama3_divisors(c))
    if "short" in c:
        w.add_tensor("rope_factors_short.weight", np.array(c["short"], np.float32))
        w.add_tensor("rope_factors_long.weight", np.array(LONG, np.float32))
    for number in range(c["layers"]):
        at, theirs = f"blk.{number}.", f"model.layers.{number}."
        for name, (their, _) in family.matrices.items():
            array = weights[f"{theirs}{their}.weight"]
            turned = family.interleaved and name in ("attn_q", "attn_k")
            w.add_tensor(f"{at}{name}.weight", side_by_side(array) if turned else array)
        norms = {**family.norms, **{it: their for it, (their, _) in family.query_norms.items()}}
        for name, their in norms.items():
            w.add_tensor(f"{at}{name}.weight", weights[f"{theirs}{their}.weight"] + offset)
        if family.biases:
            for name in "qkv":
                bias = weights[f"{theirs}self_attn.{name}_proj.bias"]
                w.add_tensor(f"{at}attn_{name}.bias", bias)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()
    return path


def _write_keys(w: Any, family: Family, context: int) -> None:
    c = family.numbers
    keys: dict[str, Any] = {
        "context_length": context,
        "embedding_length": HIDDEN,
        "block_count": c["layers"],
        "feed_forward_length": INNER,
        "attention.head_count": HEADS,
        "attention.head_count_kv": KV_HEADS,
        "attention.key_length": SIZE,
        "attention.value_length": SIZE,
        "attention.layer_norm_rms_epsilon": c["eps"],
        "rope.freq_base": c["base"],
        **family.keys,
    }
    w.add_name(f"tiny {family.architecture}")
    kinds = {
        str: w.add_string,
        float: w.add_float32,
        int: w.add_uint32,
        bool: w.add_bool,
        list: w.add_array,
    }
    for name, value in keys.items():
        kinds[type(value)](f"{family.architecture}.{name}", value)


def _write_tokens(w: Any, cut: str) -> None:
    tokens, merges = bpe(WORDS, np.random.default_rng(0))
    w.add_tokenizer_model("gpt2")
    w.add_tokenizer_pre(cut)
    w.add_token_list(tokens)
    w.add_token_types([1] * (WORDS - len(SPECIAL)) + [3] * len(SPECIAL))
    w.add_token_merges(merges)
    w.add_bos_token_id(WORDS - 3)
    w.add_eos_token_id(WORDS - 2)
    w.add_chat_template(CHAT)
