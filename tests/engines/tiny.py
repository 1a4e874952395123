"""A BERT of one layer with random weights: everything an engine needs, loaded in a moment."""

import json
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from wire.content import ContentId
from wire.model import Manifest, ModelFile
from wire.payload import Texts

HIDDEN = 16
TOKENS_MAX = 32
WORDS = ["[UNK]", "[CLS]", "[SEP]", *"abcdefghijklmnopqrstuvwxyz"]


def tiny_tensors(seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    shapes = {
        "embeddings.word_embeddings.weight": (len(WORDS), HIDDEN),
        "embeddings.position_embeddings.weight": (TOKENS_MAX, HIDDEN),
        "embeddings.token_type_embeddings.weight": (2, HIDDEN),
        "embeddings.LayerNorm.weight": (HIDDEN,),
        "embeddings.LayerNorm.bias": (HIDDEN,),
    }
    layer = "encoder.layer.0."
    for name, out, inner in (
        ("attention.self.query", HIDDEN, HIDDEN),
        ("attention.self.key", HIDDEN, HIDDEN),
        ("attention.self.value", HIDDEN, HIDDEN),
        ("attention.output.dense", HIDDEN, HIDDEN),
        ("intermediate.dense", 2 * HIDDEN, HIDDEN),
        ("output.dense", HIDDEN, 2 * HIDDEN),
    ):
        shapes[f"{layer}{name}.weight"] = (out, inner)
        shapes[f"{layer}{name}.bias"] = (out,)
    for name in ("attention.output.LayerNorm", "output.LayerNorm"):
        shapes[f"{layer}{name}.weight"] = (HIDDEN,)
        shapes[f"{layer}{name}.bias"] = (HIDDEN,)
    return {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}


def to_safetensors(tensors: dict[str, np.ndarray]) -> bytes:
    table, at = {}, 0
    kinds = {"float32": "F32", "float16": "F16", "uint16": "BF16", "int8": "I8"}
    for name, array in tensors.items():
        kind = kinds[array.dtype.name]
        table[name] = {
            "dtype": kind,
            "shape": list(array.shape),
            "data_offsets": [at, at + array.nbytes],
        }
        at += array.nbytes
    return with_table(json.dumps(table).encode(), b"".join(a.tobytes() for a in tensors.values()))


def with_table(table: bytes, data: bytes) -> bytes:
    return len(table).to_bytes(8, "little") + table + data


def tiny_tokenizer() -> bytes:
    tokenizer = Tokenizer(
        models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]")
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    return tokenizer.to_str().encode()


def write_tiny(
    folder: Path, *, weights: bytes | None = None, tokenizer: bytes | None = None, **parameters
) -> tuple[Manifest, dict[str, Path]]:
    """A tiny model's files, or files that only pretend to be one, and their manifest."""
    contents = {
        "model.safetensors": to_safetensors(tiny_tensors()) if weights is None else weights,
        "tokenizer.json": tiny_tokenizer() if tokenizer is None else tokenizer,
    }
    files = {}
    for name, data in contents.items():
        files[name] = folder / name
        files[name].write_bytes(data)
    manifest = Manifest(
        name="tiny",
        format="bert-safetensors",
        profile="f32",
        operations=("embed", "nearest"),
        files=tuple(
            ModelFile(name=name, content=ContentId.of(data), size_bytes=len(data))
            for name, data in contents.items()
        ),
        parameters={
            "layers": 1,
            "heads": 2,
            "hidden": HIDDEN,
            "dimensions": HIDDEN,
            "tokens_max": TOKENS_MAX,
            "layer_norm_eps": 1e-12,
        }
        | parameters,
        tolerance=1e-4,
    )
    return manifest, files


def texts(*lines: str) -> bytes:
    return Texts(texts=lines).to_bytes()
