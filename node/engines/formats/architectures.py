"""What each family of language models adds to a plain layer, as one table. Pure.

A plain layer is x + attention(norm(x)), then x + feed_forward(norm(x)) with a gate: keys and
queries are turned by their places, and every token sees all before it. The names are those that
GGUF files give in `general.architecture`.
"""

from collections.abc import Mapping
from dataclasses import dataclass

SILU, GELU = "silu", "gelu"
HEADS, WIDTH = "heads", "width"
ALWAYS, SOMETIMES = "always", "sometimes"


@dataclass(frozen=True, slots=True, kw_only=True)
class Architecture:
    """How the layers of a family differ from plain ones."""

    # Whether files keep the two numbers that turn together side by side, not half a head apart.
    interleaved: bool = False
    # Norms of what goes into attention and feed-forward, and of what comes out of them.
    norms_before: bool = True
    norms_after: bool = False
    # Queries and keys are normed head by head (HEADS), each over its whole width (WIDTH), or not.
    query_norms: str = ""
    # Whether query, key and value are one tensor, and gate and up another.
    fused: bool = False
    gate: str = SILU
    # The table of embeddings is multiplied by the root of its width.
    scaled_embedding: bool = False
    # The file says by what embeddings, scores, branches and logits are multiplied.
    multipliers: bool = False
    # Of the layers that see a window only, each nth sees all (0: none); None: no windows.
    full_every: int | None = None
    # The base of an unscaled turning of the layers with a window; 0: the file's; None: no own one.
    window_rope_base: float | None = None
    # Whether the file says (`rope.scaling.finetuned`) if its layers turn keys and queries at all.
    turning_told: bool = False
    # Each nth layer does not turn them.
    unturned_every: int = 0
    # Whether a part of each head may stay unturned.
    partly_turned: bool = False
    # Whether layers are mixtures of experts: ALWAYS, SOMETIMES (the file says), or never.
    experts: str = ""
    # Models of so many layers scale scores by width / heads, not by the size of a head.
    scaled_by_width_layers: int = 0


ARCHITECTURES: Mapping[str, Architecture] = {
    "gemma3": Architecture(
        norms_after=True,
        query_norms=HEADS,
        gate=GELU,
        scaled_embedding=True,
        full_every=6,
        window_rope_base=10_000.0,
        # Only the 27 B model has this many, and it is the one that differs.
        scaled_by_width_layers=62,
    ),
    "granite": Architecture(interleaved=True, multipliers=True, turning_told=True),
    "granitemoe": Architecture(
        interleaved=True, multipliers=True, turning_told=True, experts=ALWAYS
    ),
    "llama": Architecture(interleaved=True, experts=SOMETIMES),
    "mistral3": Architecture(interleaved=True),
    "olmo2": Architecture(
        norms_before=False,
        norms_after=True,
        query_norms=WIDTH,
        full_every=4,
        window_rope_base=0.0,
    ),
    "phi3": Architecture(fused=True, full_every=0, partly_turned=True),
    "qwen2": Architecture(),
    "qwen3": Architecture(query_norms=HEADS),
    "qwen3moe": Architecture(query_norms=HEADS, experts=ALWAYS),
    "smollm3": Architecture(interleaved=True, unturned_every=4),
}
# Known by name, so that a refusal can say what it met.
NOT_RUN: Mapping[str, str] = {
    "bert": "encoders are run from folders with model.safetensors",
    "deepseek2": "its attention keeps compressed keys and values",
    "falcon-h1": "it has layers with a state",
    "gemma-embedding": "it makes vectors of texts",
    "gemma2": "it caps its scores",
    "gemma3n": "it has embeddings for each layer",
    "gpt-oss": "it is a mixture of experts with sinks",
    "granitehybrid": "it has layers with a state",
    "lfm2": "it has convolutions with a state",
    "llama4": "it is a mixture of experts",
    "mamba": "it has layers with a state",
    "nomic-bert": "encoders are run from folders with model.safetensors",
    "qwen2moe": "it has an expert that all tokens share",
    "qwen35": "it has layers with a state",
}
# What would change a model's numbers and is not run, in whichever family: absent, false or zero.
KEYS_NOT_RUN = (
    "attn_logit_softcapping",
    "final_logit_softcapping",
    "attention.clamp_kqv",
    "attention.max_alibi_bias",
    "attention.shared_kv_layers",
    "nextn_predict_layers",
    "use_parallel_residual",
)


@dataclass(frozen=True, slots=True)
class LayerKind:
    """What may differ between the layers of one model; layers of one kind share their graphs.

    `window` is how many tokens a token sees, itself included; 0: all. `rope` is the number of the
    model's turning that the layer has; None: it does not turn.
    """

    window: int
    rope: int | None
