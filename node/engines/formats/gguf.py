"""What a language model in a GGUF file is: its shape and its tables.

Pure Python: the model is described, and refused, before any library sees it.
"""

import math
from pathlib import Path
from typing import Any

from node.engines.formats.architectures import (
    ALWAYS,
    ARCHITECTURES,
    KEYS_NOT_RUN,
    NOT_RUN,
    WIDTH,
    Architecture,
)
from node.engines.formats.gguf_file import BLOCKS, GgufFile, read_gguf
from node.engines.formats.gguf_keys import GgufKeys
from node.engines.formats.gguf_model import BLOCK, SCORES, VECTORS, WORDS, GgufModel
from node.engines.formats.gguf_rope import LONG, read_places
from node.engines.formats.pretokenizers import check_tokenizer
from wire.errors import ModelRefused

# Of models that make words, of those that make vectors of texts, and of those that score texts.
FORMAT, EMBED_FORMAT, RERANK_FORMAT = "gguf", "gguf-embed", "gguf-rerank"
FILE = "model.gguf"
LAYERS_MAX = 256
WIDTH_MAX = 1 << 16
VOCABULARY_MAX = 1 << 20
EXPERTS_MAX = 1024
# How llama.cpp numbers the ways in which a text's tokens become one vector, or a score.
POOLINGS = {None: WORDS, 0: WORDS, 3: VECTORS, 4: SCORES}
FORMAT_OF = {WORDS: FORMAT, VECTORS: EMBED_FORMAT, SCORES: RERANK_FORMAT}
# A score is how much likelier the first answer is than the second.
LABELS = ["yes", "no"]
SCORE_HEAD = "cls.output.weight"
# What a query and a text are put into.
PAIR_TEMPLATE = "tokenizer.chat_template.rerank"


def describe(path: Path) -> GgufModel:
    """Read a file's head and work out what model it is; ModelRefused names what cannot be run."""
    return describe_file(read_gguf(path))


def describe_file(file: GgufFile) -> GgufModel:
    """What model a file's head describes; ModelRefused names what cannot be run."""
    path, keys = file.path, GgufKeys(file)
    architecture = keys.text("general.architecture")
    family = _family(path, architecture)
    keys.prefix = architecture
    embedding = file.tensors.get("token_embd.weight")
    if embedding is None or len(embedding.shape) != 2:
        raise ModelRefused(f"{path.name} lacks the tensor token_embd.weight")
    heads = keys.count("attention.head_count", WIDTH_MAX)
    hidden = keys.count("embedding_length", WIDTH_MAX)
    head_size = keys.count("attention.key_length", WIDTH_MAX, hidden // heads)
    layers = keys.count("block_count", LAYERS_MAX)
    places = read_places(keys, family, head_size, layers)
    by_width = layers == family.scaled_by_width_layers
    score_size = hidden / heads if by_width else head_size
    model = GgufModel(
        path=path,
        architecture=architecture,
        family=family,
        name=keys.text("general.name", path.stem)[:64] or path.stem,
        context_length=places.context_max,
        layers=layers,
        hidden=hidden,
        **_feed_forward(keys, family),
        heads=heads,
        kv_heads=keys.count("attention.head_count_kv", WIDTH_MAX, heads),
        head_size=head_size,
        vocabulary=embedding.shape[0],
        norm_eps=keys.real("attention.layer_norm_rms_epsilon", 0.0, 1.0),
        ropes=places.ropes,
        kinds=places.kinds,
        **_multipliers(keys, family, 1 / math.sqrt(score_size), hidden),
        biases="blk.0.attn_q.bias" in file.tensors,
        tied="output.weight" not in file.tensors,
        makes=_makes(path, keys),
        chat_template=keys.text("tokenizer.chat_template", ""),
        quantisation=_quantisation(file),
        metadata=file.metadata,
        tensors=file.tensors,
    )
    _check(model, keys)
    return model


def check_format(model: GgufModel, kind: str) -> None:
    """ModelRefused unless the file's model makes what models of the format `kind` do."""
    own = FORMAT_OF[model.makes]
    if own != kind:
        raise ModelRefused(
            f"{model.name} is published as {kind[:40]}, and its file is one of {own}",
            todo="publish it again from its file: python -m node models add FILE",
        )


def _family(path: Path, architecture: str) -> Architecture:
    family = ARCHITECTURES.get(architecture)
    if family is None:
        why = f": {NOT_RUN[architecture]}" if architecture in NOT_RUN else ""
        raise ModelRefused(
            f"{path.name} is of the architecture {architecture[:40]!r}{why};"
            f" run here: {', '.join(ARCHITECTURES)}"
        )
    return family


def _makes(path: Path, keys: GgufKeys) -> str:
    """What the model makes of a text; ModelRefused."""
    pooling = keys.get("pooling_type")
    if type(pooling) not in (int, type(None)) or pooling not in POOLINGS:
        raise ModelRefused(
            f"{path.name} makes a vector or a score of a text in a way (pooling_type"
            f" {str(pooling)[:20]}) that is not run from GGUF files; 3, the last token's vector,"
            " and 4, a score, are"
        )
    if POOLINGS[pooling] == SCORES:
        if (labels := keys.get("classifier.output_labels")) != LABELS:
            raise keys.refused(f"{keys.prefix}.classifier.output_labels", labels)
        template = keys.text(PAIR_TEMPLATE)
        if any(template.count(it) != 1 for it in ("{query}", "{document}")):
            raise keys.refused(PAIR_TEMPLATE, template)
    return POOLINGS[pooling]


def _feed_forward(keys: GgufKeys, family: Architecture) -> dict[str, Any]:
    """The inner width, and of a mixture how many experts there are and how many a token has."""
    experts = 0
    if family.experts == ALWAYS or keys.get("expert_count"):
        experts = keys.count("expert_count", EXPERTS_MAX)
    if not experts:
        return {"inner": keys.count("feed_forward_length", WIDTH_MAX * 8)}
    if not family.experts:
        raise keys.refused(f"{keys.prefix}.expert_count", experts)
    # Files that are older than this key have one width for all.
    own = keys.get("expert_feed_forward_length") is not None
    width = "expert_feed_forward_length" if own else "feed_forward_length"
    return {
        "inner": keys.count(width, WIDTH_MAX * 8),
        "experts": experts,
        "experts_used": keys.count("expert_used_count", experts),
    }


def _multipliers(
    keys: GgufKeys, family: Architecture, attention_scale: float, hidden: int
) -> dict[str, Any]:
    if not family.multipliers:
        return {
            "embedding_scale": math.sqrt(hidden) if family.scaled_embedding else 1.0,
            "attention_scale": attention_scale,
            "residual_scale": 1.0,
            "logit_scale": 1.0,
        }
    return {
        "embedding_scale": keys.real("embedding_scale", 0.0, 1e6, 1.0),
        "attention_scale": keys.real("attention.scale", 0.0, 1e6, attention_scale),
        "residual_scale": keys.real("residual_scale", 0.0, 1e6, 1.0),
        # Files say by what logits are divided.
        "logit_scale": 1 / keys.real("logit_scale", 0.0, 1e6),
    }


def _quantisation(file: GgufFile) -> str:
    """The type that most numbers have."""
    items: dict[int, int] = {}
    for tensor in file.tensors.values():
        items[tensor.kind] = items.get(tensor.kind, 0) + tensor.items
    return BLOCKS[max(items, key=lambda kind: items[kind])][0]


def _check(model: GgufModel, keys: GgufKeys) -> None:
    """Whether widths fit each other and every tensor is there in its shape; ModelRefused."""
    where = model.path.name
    if model.head_size % (2 * BLOCK):
        raise ModelRefused(f"{where}: heads of {model.head_size} are not run")
    if model.heads % model.kv_heads:
        raise ModelRefused(f"{where}: {model.heads} heads do not share {model.kv_heads}")
    if (size := keys.get("attention.value_length")) not in (None, model.head_size):
        raise keys.refused("attention.value_length", size)
    if model.experts % BLOCK:
        raise ModelRefused(f"{where}: {model.experts} experts are no multiple of {BLOCK}")
    for name in KEYS_NOT_RUN:
        if found := keys.get(name):
            raise keys.refused(f"{keys.prefix}.{name}", found)
    if keys.get("attention.causal") is False:
        raise keys.refused(f"{keys.prefix}.attention.causal", False)
    for name, width in (("width", model.hidden), ("inner width", model.inner)):
        if width % BLOCK:
            raise ModelRefused(f"{where}: {name} {width} is no multiple of {BLOCK}")
    if model.vocabulary > VOCABULARY_MAX:
        raise ModelRefused(f"{where}: {model.vocabulary} words, at most {VOCABULARY_MAX} are run")
    wanted = wanted_tensors(model)
    for name, shape in wanted.items():
        found = model.tensors.get(name)
        if found is None:
            raise ModelRefused(f"{where} lacks the tensor {name}")
        if found.shape != shape:
            raise ModelRefused(f"{where}: {name} is {list(found.shape)}, expected {list(shape)}")
    if strange := sorted(set(model.tensors) - set(wanted)):
        raise ModelRefused(f"{where} has the tensor {strange[0][:80]}, which is not run")
    check_tokenizer(where, model.metadata)


def wanted_tensors(model: GgufModel) -> dict[str, tuple[int, ...]]:
    """Every tensor of such a model, and its shape."""
    hidden = model.hidden
    found: dict[str, tuple[int, ...]] = {
        "token_embd.weight": (model.vocabulary, hidden),
        "output_norm.weight": (hidden,),
    }
    if not model.tied:
        found["output.weight"] = (model.vocabulary, hidden)
    if model.makes == SCORES:
        found[SCORE_HEAD] = (len(LABELS), hidden)
    for rope in model.ropes:
        if rope.divisors:
            found[rope.divisors] = (rope.turned // 2,)
    if LONG in model.tensors:
        found[LONG] = (model.ropes[0].turned // 2,)
    for number in range(model.layers):
        found |= _layer_tensors(model, f"blk.{number}.")
    return found


def _layer_tensors(model: GgufModel, at: str) -> dict[str, tuple[int, ...]]:
    family, hidden, inner = model.family, model.hidden, model.inner
    query, key = model.heads * model.head_size, model.kv_heads * model.head_size
    found: dict[str, tuple[int, ...]] = {
        "attn_output.weight": (hidden, query),
    }
    if family.norms_before:
        found |= {"attn_norm.weight": (hidden,), "ffn_norm.weight": (hidden,)}
    if family.norms_after:
        found |= {"post_attention_norm.weight": (hidden,), "post_ffw_norm.weight": (hidden,)}
    if model.experts:
        found |= {
            "ffn_gate_inp.weight": (model.experts, hidden),
            "ffn_gate_exps.weight": (model.experts, inner, hidden),
            "ffn_up_exps.weight": (model.experts, inner, hidden),
            "ffn_down_exps.weight": (model.experts, hidden, inner),
        }
    else:
        width = 2 * inner if family.fused else inner
        found |= {"ffn_up.weight": (width, hidden), "ffn_down.weight": (hidden, inner)}
        if not family.fused:
            found["ffn_gate.weight"] = (inner, hidden)
    if family.fused:
        found["attn_qkv.weight"] = (query + 2 * key, hidden)
    else:
        widths = {"q": query, "k": key, "v": key}
        found |= {f"attn_{name}.weight": (width, hidden) for name, width in widths.items()}
        if model.biases:
            found |= {f"attn_{name}.bias": (width,) for name, width in widths.items()}
    if family.query_norms:
        whole = family.query_norms == WIDTH
        found["attn_q_norm.weight"] = (query if whole else model.head_size,)
        found["attn_k_norm.weight"] = (key if whole else model.head_size,)
    return {at + name: shape for name, shape in found.items()}
