"""What the families' makers say their models compute, in float64 and as plainly as it can be said.

One function for each family, from its published definition, over weights by the names and in the
layouts that its maker publishes; nothing here knows of GGUF, or of the table of architectures.
A whole text goes in, the logits after each of its tokens come out.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
Weights = Mapping[str, Array]
Config = Mapping[str, Any]


def silu(x: Array) -> Array:
    return x / (1 + np.exp(-x))


def gelu_tanh(x: Array) -> Array:
    return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def rms_norm(x: Array, weight: Array, eps: float) -> Array:
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + eps) * weight


def softmax(x: Array) -> Array:
    shares = np.exp(x - x.max(-1, keepdims=True))
    return shares / shares.sum(-1, keepdims=True)


def plain_speeds(base: float, size: int) -> Array:
    return base ** (-np.arange(0, size, 2) / size)


def rotate(x: Array, speeds: Array, scale: float = 1.0) -> Array:
    """[heads, tokens, size]: x cos + rotate_half(x) sin, over twice as many numbers as speeds."""
    angles = np.arange(x.shape[1])[:, None] * speeds
    cos = np.concatenate([np.cos(angles)] * 2, -1) * scale
    sin = np.concatenate([np.sin(angles)] * 2, -1) * scale
    turned = 2 * len(speeds)
    part = x[..., :turned]
    half = np.concatenate([-part[..., turned // 2 :], part[..., : turned // 2]], -1)
    return np.concatenate([part * cos + half * sin, x[..., turned:]], -1)


def split_heads(x: Array, heads: int) -> Array:
    return x.reshape(len(x), heads, -1).transpose(1, 0, 2)


def attend(q: Array, k: Array, v: Array, scale: float, window: int = 0) -> Array:
    """Causal attention, heads of keys shared: [tokens, heads * size]."""
    tokens, shared = q.shape[1], len(q) // len(k)
    k, v = k.repeat(shared, 0), v.repeat(shared, 0)
    scores = q @ k.transpose(0, 2, 1) * scale
    apart = np.arange(tokens)[:, None] - np.arange(tokens)[None, :]
    seen = (apart >= 0) & ((apart < window) if window else True)
    mixed = softmax(np.where(seen, scores, -np.inf)) @ v
    return mixed.transpose(1, 0, 2).reshape(tokens, -1)


def attend_all(q: Array, k: Array, v: Array) -> Array:
    """Every token sees every other: [heads, tokens, size] -> [tokens, heads * size]."""
    mixed = softmax(q @ k.transpose(0, 2, 1) * q.shape[-1] ** -0.5) @ v
    return mixed.transpose(1, 0, 2).reshape(q.shape[1], -1)


def qkv(w: Weights, at: str, x: Array, c: Config) -> tuple[Array, Array, Array]:
    heads = {"q": c["heads"], "k": c["kv_heads"], "v": c["kv_heads"]}
    found = []
    for name, count in heads.items():
        made = x @ w[f"{at}self_attn.{name}_proj.weight"].T
        bias = w.get(f"{at}self_attn.{name}_proj.bias")
        found.append(split_heads(made if bias is None else made + bias, count))
    return found[0], found[1], found[2]


def gated(w: Weights, at: str, x: Array, act: Callable[[Array], Array] = silu) -> Array:
    gate, up = x @ w[f"{at}mlp.gate_proj.weight"].T, x @ w[f"{at}mlp.up_proj.weight"].T
    return (act(gate) * up) @ w[f"{at}mlp.down_proj.weight"].T


def head(w: Weights, x: Array, c: Config) -> Array:
    x = rms_norm(x, w["model.norm.weight"], c["eps"])
    return x @ w.get("lm_head.weight", w["model.embed_tokens.weight"]).T


def llama(w: Weights, tokens: list[int], c: Config) -> Array:
    """Llama 3.1 and later: slow pairs are slowed down further, with a ramp between."""
    size, eps = c["size"], c["eps"]
    speeds = plain_speeds(c["base"], size)
    if scaling := c.get("llama3"):
        lengths = 2 * math.pi / speeds
        factor, low, high, original = (scaling[it] for it in ("factor", "low", "high", "original"))
        smooth = (original / lengths - low) / (high - low)
        mixed = (1 - smooth) * speeds / factor + smooth * speeds
        speeds = np.where(lengths < original / high, speeds, mixed)
        speeds = np.where(lengths > original / low, plain_speeds(c["base"], size) / factor, speeds)
    x = w["model.embed_tokens.weight"][tokens]
    for number in range(c["layers"]):
        at = f"model.layers.{number}."
        q, k, v = qkv(w, at, rms_norm(x, w[f"{at}input_layernorm.weight"], eps), c)
        mixed = attend(rotate(q, speeds), rotate(k, speeds), v, size**-0.5)
        x = x + mixed @ w[f"{at}self_attn.o_proj.weight"].T
        x = x + gated(w, at, rms_norm(x, w[f"{at}post_attention_layernorm.weight"], eps))
    return head(w, x, c)


def qwen2(w: Weights, tokens: list[int], c: Config) -> Array:
    """As Llama 2; query, key and value have biases, which the weights bring."""
    return llama(w, tokens, c)


def yarn_speeds(c: Config, size: int) -> Array:
    """YaRN: which pairs make many turns within the original context stays, the rest is slowed."""
    base, yarn = c["base"], c["yarn"]

    def dimension(turns: float) -> float:
        return size * math.log(yarn["original"] / (turns * 2 * math.pi)) / (2 * math.log(base))

    low = max(math.floor(dimension(yarn["fast"])), 0)
    high = min(math.ceil(dimension(yarn["slow"])), size - 1)
    extra = plain_speeds(base, size)
    ramp = np.clip((np.arange(size // 2) - low) / max(high - low, 0.001), 0, 1)
    return extra / yarn["factor"] * ramp + extra * (1 - ramp)


def mistral3(w: Weights, tokens: list[int], c: Config) -> Array:
    """Mistral with YaRN whose two magnitudes cancel each other."""
    size, eps = c["size"], c["eps"]
    speeds = yarn_speeds(c, size)
    x = w["model.embed_tokens.weight"][tokens]
    for number in range(c["layers"]):
        at = f"model.layers.{number}."
        q, k, v = qkv(w, at, rms_norm(x, w[f"{at}input_layernorm.weight"], eps), c)
        mixed = attend(rotate(q, speeds), rotate(k, speeds), v, size**-0.5)
        x = x + mixed @ w[f"{at}self_attn.o_proj.weight"].T
        x = x + gated(w, at, rms_norm(x, w[f"{at}post_attention_layernorm.weight"], eps))
    return head(w, x, c)


def gemma3(w: Weights, tokens: list[int], c: Config) -> Array:
    """Norms multiply by one more than their weight; five layers of six see a window."""
    size, eps = c["size"], c["eps"]
    x = w["model.embed_tokens.weight"][tokens] * math.sqrt(c["hidden"])

    def norm(name: str, rows: Array) -> Array:
        return rms_norm(rows, 1 + w[f"{name}.weight"], eps)

    for number in range(c["layers"]):
        at = f"model.layers.{number}."
        sliding = bool((number + 1) % 6)
        speeds = plain_speeds(10_000.0 if sliding else c["base"], size)
        speeds = speeds if sliding else speeds / c["factor"]
        q, k, v = qkv(w, at, norm(f"{at}input_layernorm", x), c)
        q, k = norm(f"{at}self_attn.q_norm", q), norm(f"{at}self_attn.k_norm", k)
        window = c["window"] if sliding else 0
        mixed = attend(rotate(q, speeds), rotate(k, speeds), v, c["scalar"] ** -0.5, window)
        mixed = mixed @ w[f"{at}self_attn.o_proj.weight"].T
        x = x + norm(f"{at}post_attention_layernorm", mixed)
        fed = gated(w, at, norm(f"{at}pre_feedforward_layernorm", x), gelu_tanh)
        x = x + norm(f"{at}post_feedforward_layernorm", fed)
    return norm("model.norm", x) @ w["model.embed_tokens.weight"].T


def smollm3(w: Weights, tokens: list[int], c: Config) -> Array:
    """Each fourth layer does not turn."""
    size, eps = c["size"], c["eps"]
    speeds = plain_speeds(c["base"], size)
    x = w["model.embed_tokens.weight"][tokens]
    for number in range(c["layers"]):
        at = f"model.layers.{number}."
        q, k, v = qkv(w, at, rms_norm(x, w[f"{at}input_layernorm.weight"], eps), c)
        if number % 4 != 3:
            q, k = rotate(q, speeds), rotate(k, speeds)
        x = x + attend(q, k, v, size**-0.5) @ w[f"{at}self_attn.o_proj.weight"].T
        x = x + gated(w, at, rms_norm(x, w[f"{at}post_attention_layernorm.weight"], eps))
    return head(w, x, c)


def granite(w: Weights, tokens: list[int], c: Config) -> Array:
    """Embeddings, scores, branches and logits each have a multiplier."""
    eps = c["eps"]
    speeds = plain_speeds(c["base"], c["size"])
    x = w["model.embed_tokens.weight"][tokens] * c["embedding_multiplier"]
    for number in range(c["layers"]):
        at = f"model.layers.{number}."
        q, k, v = qkv(w, at, rms_norm(x, w[f"{at}input_layernorm.weight"], eps), c)
        q, k = rotate(q, speeds), rotate(k, speeds)
        mixed = attend(q, k, v, c["attention_multiplier"]) @ w[f"{at}self_attn.o_proj.weight"].T
        x = x + mixed * c["residual_multiplier"]
        fed = gated(w, at, rms_norm(x, w[f"{at}post_attention_layernorm.weight"], eps))
        x = x + fed * c["residual_multiplier"]
    return head(w, x, c) / c["logits_scaling"]


def olmo2(w: Weights, tokens: list[int], c: Config) -> Array:
    """Norms after each branch only; queries and keys are normed over all heads.

    OLMo 3: three layers of four see a window, and only the others have YaRN.
    """
    size, eps = c["size"], c["eps"]
    x = w["model.embed_tokens.weight"][tokens]
    for number in range(c["layers"]):
        at = f"model.layers.{number}."
        parts = [x @ w[f"{at}self_attn.{name}_proj.weight"].T for name in "qkv"]
        for place, name in enumerate("qk"):
            parts[place] = rms_norm(parts[place], w[f"{at}self_attn.{name}_norm.weight"], eps)
        counts = c["heads"], c["kv_heads"], c["kv_heads"]
        q, k, v = (split_heads(*it) for it in zip(parts, counts, strict=True))
        sliding = bool(c.get("window")) and number % 4 != 3
        speeds, scale = plain_speeds(c["base"], size), 1.0
        if "yarn" in c and not sliding:
            speeds = yarn_speeds(c, size)
            scale = 0.1 * math.log(c["yarn"]["factor"]) + 1
        q, k = rotate(q, speeds, scale), rotate(k, speeds, scale)
        mixed = attend(q, k, v, size**-0.5, c["window"] if sliding else 0)
        mixed = mixed @ w[f"{at}self_attn.o_proj.weight"].T
        x = x + rms_norm(mixed, w[f"{at}post_attention_layernorm.weight"], eps)
        x = x + rms_norm(gated(w, at, x), w[f"{at}post_feedforward_layernorm.weight"], eps)
    return head(w, x, c)


def phi3(w: Weights, tokens: list[int], c: Config) -> Array:
    """Phi 3 and 4: fused projections, a part of each head turns, by LongRoPE's short factors."""
    size, eps = c["size"], c["eps"]
    turned = int(size * c["partial"])
    speeds, scale = plain_speeds(c["base"], turned), 1.0
    if "short" in c:
        speeds = speeds / np.array(c["short"])
        scale = math.sqrt(1 + math.log(c["context"] / c["original"]) / math.log(c["original"]))
    x = w["model.embed_tokens.weight"][tokens]
    for number in range(c["layers"]):
        at = f"model.layers.{number}."
        normed = rms_norm(x, w[f"{at}input_layernorm.weight"], eps)
        made = normed @ w[f"{at}self_attn.qkv_proj.weight"].T
        ends = c["heads"] * size, (c["heads"] + c["kv_heads"]) * size
        parts = made[:, : ends[0]], made[:, ends[0] : ends[1]], made[:, ends[1] :]
        counts = c["heads"], c["kv_heads"], c["kv_heads"]
        q, k, v = (split_heads(*it) for it in zip(parts, counts, strict=True))
        q, k = rotate(q, speeds, scale), rotate(k, speeds, scale)
        mixed = attend(q, k, v, size**-0.5, c["window"])
        x = x + mixed @ w[f"{at}self_attn.o_proj.weight"].T
        normed = rms_norm(x, w[f"{at}post_attention_layernorm.weight"], eps)
        gate, up = np.split(normed @ w[f"{at}mlp.gate_up_proj.weight"].T, 2, -1)
        x = x + (up * silu(gate)) @ w[f"{at}mlp.down_proj.weight"].T
    return head(w, x, c)


def qwen3(w: Weights, tokens: list[int], c: Config) -> Array:
    """Queries and keys are normed head by head."""
    return head(w, qwen3_hidden(w, tokens, c), c)


def qwen3_hidden(
    w: Weights,
    tokens: list[int],
    c: Config,
    feed_forward: Callable[[Weights, str, Array, Config], Array] | None = None,
) -> Array:
    size, eps = c["size"], c["eps"]
    speeds = plain_speeds(c["base"], size)
    x = w["model.embed_tokens.weight"][tokens]
    for number in range(c["layers"]):
        at = f"model.layers.{number}."
        q, k, v = qkv(w, at, rms_norm(x, w[f"{at}input_layernorm.weight"], eps), c)
        q = rms_norm(q, w[f"{at}self_attn.q_norm.weight"], eps)
        k = rms_norm(k, w[f"{at}self_attn.k_norm.weight"], eps)
        mixed = attend(rotate(q, speeds), rotate(k, speeds), v, size**-0.5)
        x = x + mixed @ w[f"{at}self_attn.o_proj.weight"].T
        normed = rms_norm(x, w[f"{at}post_attention_layernorm.weight"], eps)
        x = x + (feed_forward(w, at, normed, c) if feed_forward else gated(w, at, normed))
    return x


def mixture(w: Weights, at: str, x: Array, c: Config) -> Array:
    """Each token goes through the experts that its router scores highest, weighed by a softmax.

    The maker takes the softmax over all experts, and divides what is chosen by its sum.
    """
    shares = softmax(x @ w[f"{at}mlp.gate.weight"].T)
    found = np.zeros_like(x)
    for row, share in enumerate(shares):
        chosen = np.argsort(-share)[: c["used"]]
        for expert in chosen:
            gate, up = (
                w[f"{at}mlp.experts.{name}_proj.weight"][expert] @ x[row] for name in ("gate", "up")
            )
            down = w[f"{at}mlp.experts.down_proj.weight"][expert] @ (silu(gate) * up)
            found[row] += share[expert] / share[chosen].sum() * down
    return found


def qwen3_moe(w: Weights, tokens: list[int], c: Config) -> Array:
    """Qwen 3 with a mixture of experts in each layer."""
    return head(w, qwen3_hidden(w, tokens, c, mixture), c)


def mixtral(w: Weights, tokens: list[int], c: Config) -> Array:
    """Mistral with a mixture of experts in each layer."""
    size, eps = c["size"], c["eps"]
    speeds = plain_speeds(c["base"], size)
    x = w["model.embed_tokens.weight"][tokens]
    for number in range(c["layers"]):
        at = f"model.layers.{number}."
        q, k, v = qkv(w, at, rms_norm(x, w[f"{at}input_layernorm.weight"], eps), c)
        mixed = attend(rotate(q, speeds), rotate(k, speeds), v, size**-0.5)
        x = x + mixed @ w[f"{at}self_attn.o_proj.weight"].T
        x = x + mixture(w, at, rms_norm(x, w[f"{at}post_attention_layernorm.weight"], eps), c)
    return head(w, x, c)


def greedy(
    reference: Callable[[Weights, list[int], Config], Array],
    w: Weights,
    prompt: list[int],
    c: Config,
    count: int,
) -> tuple[list[int], Array]:
    """The likeliest tokens one after the other, and the logits that each was chosen from."""
    tokens, lines = list(prompt), []
    for _ in range(count):
        lines.append(reference(w, tokens, c)[-1])
        tokens.append(int(lines[-1].argmax()))
    return tokens[len(prompt) :], np.array(lines)
