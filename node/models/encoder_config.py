"""What a folder with safetensors says of its encoder; refuses encoders that cannot run."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from node.engines.formats import bert
from wire.errors import ModelRefused

# The bound for any file that a folder needs besides its weights.
CONFIG_BYTES_MAX = 1 << 20
_MEAN, _FIRST = "pooling_mode_mean_tokens", "pooling_mode_cls_token"
# What must be said if it is said, by the kind of model.
_WANTED: Mapping[str, Mapping[str, Any]] = {
    "bert": {"hidden_act": "gelu", "position_embedding_type": "absolute"},
    "roberta": {"hidden_act": "gelu", "position_embedding_type": "absolute"},
    "xlm-roberta": {"hidden_act": "gelu", "position_embedding_type": "absolute"},
    "nomic_bert": {
        "activation_function": "swiglu",
        "causal": False,
        "mlp_fc1_bias": False,
        "mlp_fc2_bias": False,
        "num_experts": 0,
        "prenorm": False,
        "qkv_proj_bias": False,
        "rotary_emb_fraction": 1.0,
        "rotary_emb_interleaved": False,
        "use_rms_norm": False,
    },
}
# Where RoBERTa's places begin: after that of the token that pads, which is the number 1 there.
_ROBERTA, _PADDING = ("roberta", "xlm-roberta"), 1
_SCORES = "ForSequenceClassification"
_BERT_NAMES = (
    *("num_hidden_layers", "num_attention_heads", "hidden_size"),
    *("max_position_embeddings", "layer_norm_eps"),
)
# Names in `config.json` of layers, heads, width and longest text, and of the norms' epsilon.
_NAMES: Mapping[str, tuple[str, ...]] = {
    "bert": _BERT_NAMES,
    "roberta": _BERT_NAMES,
    "xlm-roberta": _BERT_NAMES,
    "nomic_bert": ("n_layer", "n_head", "n_embd", "n_positions", "layer_norm_epsilon"),
}


def read_encoder(folder: Path) -> tuple[str, dict[str, int | float]]:
    """The format and the parameters of its manifest; ModelRefused names what is not run."""
    config = _json(folder / "config.json")
    kind = config.get("model_type", "bert")
    if type(kind) is not str or kind not in _WANTED:
        known = " and ".join(_WANTED)
        raise ModelRefused(f"{folder.name}: model_type is {str(kind)[:40]!r}; {known} are run")
    for key, wanted in _WANTED[kind].items():
        # Of what they do not have, files also say that it is null.
        said = config.get(key)
        if said is not None and said != wanted:
            raise ModelRefused(f"{folder.name}: {key} is {str(said)[:40]!r}; {wanted} is supported")
    if _scores(folder, config):
        if kind == "nomic_bert":
            raise ModelRefused(f"{folder.name}: {kind} is run as an embedder, not with scores")
        return bert.RERANK_FORMAT, _parameters(folder, config, kind)
    pooling = _format(folder)
    if kind != "nomic_bert":
        return pooling, _parameters(folder, config, kind)
    if pooling != bert.MEAN_FORMAT:
        raise ModelRefused(f"{folder.name}: {kind} is run with pooling by the mean of its tokens")
    base = config.get("rotary_emb_base", bert.ROPE_BASE)
    # A larger integer is no float.
    if type(base) not in (int, float) or not 1 < base < bert.ROPE_BASE_MAX:
        raise ModelRefused(f"{folder.name}: rotary_emb_base is {str(base)[:40]!r}")
    return bert.NOMIC_FORMAT, {**_parameters(folder, config, kind), "rope_base": float(base)}


def _scores(folder: Path, config: Mapping[str, Any]) -> bool:
    """Whether it scores pairs of texts; ModelRefused for what tells classes apart."""
    made = config.get("architectures")
    if not isinstance(made, list) or not any(str(it).endswith(_SCORES) for it in made):
        return False
    labels = config.get("id2label")
    count = len(labels) if isinstance(labels, dict) else config.get("num_labels", 2)
    if count != 1:
        raise ModelRefused(
            f"{folder.name} tells {str(count)[:20]} classes apart; one score for each text is run",
            todo="take a model that reranks: bge-reranker-base, ms-marco-MiniLM-L-6-v2",
        )
    return True


def _format(folder: Path) -> str:
    """By how the rows of a text's tokens become its vector."""
    pooling = folder / "1_Pooling" / "config.json"
    if not pooling.is_file():
        return bert.MEAN_FORMAT
    said = {_MEAN: True, **_json(pooling)}
    modes = sorted(it for it in said if it.startswith("pooling_mode_") and said[it])
    if modes not in ([_MEAN], [_FIRST]):
        ways = ", ".join(it.removeprefix("pooling_mode_") for it in modes) or "nothing"
        raise ModelRefused(
            f"{folder.name}: pooling by {ways[:80]} is not run; mean_tokens and cls_token are"
        )
    return bert.MEAN_FORMAT if modes == [_MEAN] else bert.FIRST_FORMAT


def _parameters(folder: Path, config: Mapping[str, Any], kind: str) -> dict[str, int | float]:
    layers, heads, hidden, longest, epsilon = _NAMES[kind]
    tokens = config.get(longest)
    sentences = folder / "sentence_bert_config.json"
    if sentences.is_file():
        tokens = _json(sentences).get("max_seq_length") or tokens
    said = {
        "layers": config.get(layers),
        "heads": config.get(heads),
        "hidden": config.get(hidden),
        "dimensions": config.get(hidden),
        "tokens_max": tokens,
    }
    found: dict[str, int | float] = {}
    if kind in _ROBERTA:
        padding = config.get("pad_token_id", _PADDING)
        if type(padding) is not int or not 0 <= padding < bert.FIRST_PLACE_MAX:
            raise ModelRefused(f"{folder.name}: pad_token_id is {str(padding)[:20]}")
        found["first_place"] = padding + 1
        if type(tokens) is int and tokens == config.get(longest):
            # The table has rows that no token ever has.
            said["tokens_max"] = (tokens - padding - 1) // bert.BLOCK * bert.BLOCK
    for key, value in said.items():
        if type(value) is not int:
            raise ModelRefused(f"{folder.name}: config.json lacks {key}")
        found[key] = min(value, bert.TOKENS_MAX) if key == "tokens_max" else value
    eps = config.get(epsilon)
    if type(eps) is not float:
        raise ModelRefused(f"{folder.name}: config.json lacks {epsilon}")
    return {**found, "layer_norm_eps": eps}


def _json(path: Path) -> dict[str, Any]:
    with path.open("rb") as source:
        data = source.read(CONFIG_BYTES_MAX + 1)
    try:
        found = json.loads(data) if len(data) <= CONFIG_BYTES_MAX else None
    except (ValueError, RecursionError) as error:
        raise ModelRefused(f"{path} is not JSON") from error
    if not isinstance(found, dict):
        raise ModelRefused(f"{path} is not a map of at most {CONFIG_BYTES_MAX >> 20} MiB")
    return found
