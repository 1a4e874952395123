"""Nomic's encoder: places turn queries and keys, the inner layer has a gate, nothing has biases.

Beside a reference in float64, written from its maker's definition.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from node.engines.interface import Job
from node.engines.worker.tokenizer import read_tokens
from node.models.inspect import describe
from tests.engines.family_references import attend_all, plain_speeds, rotate, silu, split_heads
from tests.engines.tiny import HIDDEN, TOKENS_MAX, WORDS, texts, tiny_tokenizer, to_safetensors
from wire.content import ContentId
from wire.errors import ModelRefused
from wire.model import ModelFile
from wire.payload import Vectors

LAYERS, HEADS, INNER, BASE = 2, 2, 24, 1000.0
LINES = ("a b c", "b", "c b a x y z q", "", "a b c d")
CONFIG: dict[str, Any] = {
    "model_type": "nomic_bert",
    "activation_function": "swiglu",
    "n_layer": LAYERS,
    "n_head": HEADS,
    "n_embd": HIDDEN,
    "n_positions": TOKENS_MAX,
    "layer_norm_epsilon": 1e-12,
    "rotary_emb_base": 1000,
    "rotary_emb_fraction": 1.0,
    "prenorm": False,
    "qkv_proj_bias": False,
    "rotary_scaling_factor": None,
}


def tensors() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(4)
    shapes: dict[str, tuple[int, ...]] = {
        "embeddings.word_embeddings.weight": (len(WORDS), HIDDEN),
        "embeddings.token_type_embeddings.weight": (2, HIDDEN),
        "emb_ln.weight": (HIDDEN,),
        "emb_ln.bias": (HIDDEN,),
    }
    for number in range(LAYERS):
        at = f"encoder.layers.{number}."
        shapes |= {
            f"{at}attn.Wqkv.weight": (3 * HIDDEN, HIDDEN),
            f"{at}attn.out_proj.weight": (HIDDEN, HIDDEN),
            f"{at}mlp.fc11.weight": (INNER, HIDDEN),
            f"{at}mlp.fc12.weight": (INNER, HIDDEN),
            f"{at}mlp.fc2.weight": (HIDDEN, INNER),
        }
        for name in ("norm1", "norm2"):
            shapes |= {f"{at}{name}.{part}": (HIDDEN,) for part in ("weight", "bias")}
    return {
        name: (rng.standard_normal(shape) * 0.4).astype(np.float32)
        for name, shape in shapes.items()
    }


def folder_of(path: Path, **changed: Any) -> Path:
    path.mkdir()
    (path / "model.safetensors").write_bytes(to_safetensors(tensors()))
    (path / "tokenizer.json").write_bytes(tiny_tokenizer())
    (path / "config.json").write_text(json.dumps(CONFIG | changed))
    return path


def reference(tokens: list[int]) -> np.ndarray:
    w = {name: array.astype(np.float64) for name, array in tensors().items()}

    def layer_norm(x: np.ndarray, name: str) -> np.ndarray:
        x = x - x.mean(-1, keepdims=True)
        return (
            x / np.sqrt(x.var(-1, keepdims=True) + 1e-12) * w[f"{name}.weight"] + w[f"{name}.bias"]
        )

    x = w["embeddings.word_embeddings.weight"][tokens]
    x = layer_norm(x + w["embeddings.token_type_embeddings.weight"][0], "emb_ln")
    speeds = plain_speeds(BASE, HIDDEN // HEADS)
    for number in range(LAYERS):
        at = f"encoder.layers.{number}."
        parts = np.split(x @ w[f"{at}attn.Wqkv.weight"].T, 3, -1)
        q, k, v = (split_heads(part, HEADS) for part in parts)
        mixed = attend_all(rotate(q, speeds), rotate(k, speeds), v)
        x = layer_norm(mixed @ w[f"{at}attn.out_proj.weight"].T + x, f"{at}norm1")
        made = x @ w[f"{at}mlp.fc11.weight"].T * silu(x @ w[f"{at}mlp.fc12.weight"].T)
        x = layer_norm(made @ w[f"{at}mlp.fc2.weight"].T + x, f"{at}norm2")
    return x.mean(0) / np.linalg.norm(x.mean(0))


async def test_vectors_are_those_of_the_makers_definition(open_engine, tmp_path: Path) -> None:
    found = describe(folder_of(tmp_path / "nomic"))
    assert (found.format, found.parameters["rope_base"]) == ("nomic-bert-safetensors", BASE)
    contents = {
        name: ModelFile(
            name=name, content=ContentId.of(path.read_bytes()), size_bytes=path.stat().st_size
        )
        for name, path in found.files.items()
    }
    manifest = found.manifest(contents)
    table = read_tokens(found.files["tokenizer.json"], tokens_max=TOKENS_MAX, vocabulary=len(WORDS))
    expected = np.array([reference(line) for line in table.of(LINES)])
    async with open_engine() as engine:
        await engine.load(manifest, dict(found.files))

        async def embed(*lines: str) -> np.ndarray:
            job = Job(
                model=manifest.id,
                operation="embed",
                input=texts(*lines),
                parameters={},
                deadline_s=60,
            )
            vectors = Vectors.from_bytes((await engine.infer(job)).data)
            return np.frombuffer(vectors.data, "<f4").reshape(vectors.rows, -1)

        together = await embed(*LINES)
        assert np.abs(together - expected).max() < 1e-6
        # A text's places begin with it, wherever it lies in a pass.
        assert (await embed(LINES[-1]))[0].tobytes() == together[-1].tobytes()


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"activation_function": "gelu"}, "activation_function is 'gelu'"),
        ({"prenorm": True}, "prenorm is 'True'"),
        ({"num_experts": 8}, "num_experts is '8'"),
        ({"rotary_emb_interleaved": True}, "rotary_emb_interleaved"),
        ({"rotary_emb_fraction": 0.5}, "rotary_emb_fraction is '0.5'"),
        ({"rotary_emb_base": "10"}, "rotary_emb_base is '10'"),
        ({"rotary_emb_base": 0}, "rotary_emb_base is '0'"),
        ({"n_layer": 3}, "lacks the tensor encoder.layers.2"),
        ({"n_head": None}, "lacks heads"),
    ],
)
def test_what_is_not_run_is_refused_by_name(
    changed: dict[str, Any], said: str, tmp_path: Path
) -> None:
    with pytest.raises(ModelRefused, match=said):
        describe(folder_of(tmp_path / "nomic", **changed))
