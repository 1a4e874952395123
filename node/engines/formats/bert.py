"""What a BERT encoder is made of: its shape from the manifest, its tensors from the file.

Plain numpy; what computes lies in `node.engines.worker.bert`. A model that does not fit is
refused here, before any library sees it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from node.engines.formats.safetensors import Array, TensorTable
from wire.errors import ModelRefused
from wire.model import Manifest

# A text's vector is the mean of its tokens' rows, or the row of its first token.
MEAN_FORMAT, FIRST_FORMAT = "bert-safetensors", "bert-first-safetensors"
# A cross-encoder: the row of the first token of a query and a text together becomes a score.
RERANK_FORMAT = "bert-rerank-safetensors"
# Nomic's: queries and keys turn by their places, the inner layer has a gate, nothing has biases.
NOMIC_FORMAT = "nomic-bert-safetensors"
ROPE_BASE = 10_000.0
ROPE_BASE_MAX = 1e12
LAYERS_MAX = 48
HIDDEN_MAX = 4096
TOKENS_MAX = 512
VOCABULARY_MAX = 1 << 20
FIRST_PLACE_MAX = 16
# The blocks that matrices are multiplied in; every width must be a multiple of it.
BLOCK = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class BertShape:
    """The numbers that decide the graph. Texts beyond `tokens_max` tokens are cut there."""

    layers: int
    heads: int
    hidden: int
    tokens_max: int
    layer_norm_eps: float
    # Whether a text's vector is the row of its first token, not the mean of all.
    first: bool = False
    # Of the turning of queries and keys; 0: places are in a table of embeddings.
    rope_base: float = 0.0
    # Whether pairs of texts become scores.
    scores: bool = False
    # Where a text's first token is in the table of places: RoBERTa's begin later.
    first_place: int = 0

    @classmethod
    def of(cls, manifest: Manifest) -> Self:
        """Read and check a manifest's parameters; ModelRefused."""
        found = manifest.parameters
        eps = found.get("layer_norm_eps")
        if type(eps) is not float or not 0 < eps < 1:
            raise ModelRefused(f"{manifest.name}: layer_norm_eps is a small float")
        base = found.get("rope_base") if manifest.format == NOMIC_FORMAT else 0.0
        turned = manifest.format == NOMIC_FORMAT
        if type(base) is not float or (turned and not 1 < base < ROPE_BASE_MAX):
            raise ModelRefused(f"{manifest.name}: rope_base is a float above one")
        shape = cls(
            layers=_count(manifest, "layers", LAYERS_MAX),
            heads=_count(manifest, "heads", HIDDEN_MAX // BLOCK),
            hidden=_count(manifest, "hidden", HIDDEN_MAX),
            tokens_max=_count(manifest, "tokens_max", TOKENS_MAX),
            layer_norm_eps=eps,
            first=manifest.format in (FIRST_FORMAT, RERANK_FORMAT),
            rope_base=base,
            scores=manifest.format == RERANK_FORMAT,
            first_place=_first_place(manifest),
        )
        if shape.hidden % (shape.heads * BLOCK):
            raise ModelRefused(f"{manifest.name}: heads must have a multiple of {BLOCK} dimensions")
        if found.get("dimensions") != shape.hidden:
            raise ModelRefused(f"{manifest.name}: dimensions must equal hidden")
        if shape.tokens_max % BLOCK:
            raise ModelRefused(f"{manifest.name}: tokens_max must be a multiple of {BLOCK}")
        return shape

    @property
    def buckets(self) -> tuple[int, ...]:
        """Tokens in one pass of the graph: few, since each is compiled; the last takes any text.

        Several texts lie side by side in one pass, so the steps need not be fine.
        """
        return tuple(sorted({min(size, self.tokens_max) for size in (32, 128, self.tokens_max)}))


def slots(bucket: int) -> int:
    """How many texts fit a bucket at most: measured sentences have twelve tokens and more."""
    return max(4, bucket // BLOCK)


@dataclass(frozen=True, slots=True)
class Pass:
    """Which texts of an offer share the next pass, and the bucket it takes."""

    texts: tuple[int, ...]
    bucket: int


def fill(lengths: Sequence[int], buckets: Sequence[int]) -> Pass:
    """The texts that fit the largest bucket, in order, and the smallest bucket that holds them.

    `lengths` are tokens, none above the largest bucket. The first text is always among them, so
    whoever offers the rest again in order makes progress.
    """
    largest = buckets[-1]
    chosen: list[int] = []
    total = 0
    for number, length in enumerate(lengths):
        if total + length <= largest and len(chosen) < slots(largest):
            chosen.append(number)
            total += length
    fitting = [size for size in buckets if size >= total and slots(size) >= len(chosen)]
    return Pass(tuple(chosen), fitting[0])


def _first_place(manifest: Manifest) -> int:
    value = manifest.parameters.get("first_place", 0)
    if type(value) is not int or not 0 <= value <= FIRST_PLACE_MAX:
        raise ModelRefused(f"{manifest.name}: first_place is 0 to {FIRST_PLACE_MAX}")
    return value


def _count(manifest: Manifest, name: str, most: int) -> int:
    value = manifest.parameters.get(name)
    if type(value) is not int or not 1 <= value <= most:
        raise ModelRefused(f"{manifest.name}: {name} is a number from 1 to {most}")
    return value


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer's weights: [out, in] matrices, query, key and value in one."""

    attention: tuple[Array, Array]
    attention_out: tuple[Array, Array]
    attention_norm: tuple[Array, Array]
    inner: tuple[Array, Array]
    outer: tuple[Array, Array]
    norm: tuple[Array, Array]


@dataclass(frozen=True, slots=True)
class ScoreHead:
    """What makes a score of a text's row: a dense layer, tanh, and one sum."""

    dense: tuple[Array, Array]
    out: tuple[Array, Array]

    def score(self, row: Array) -> float:
        """Of one row, by itself: the same bits whichever rows are beside it."""
        inner = np.tanh(self.dense[0] @ row + self.dense[1])
        return float(self.out[0][0] @ inner + self.out[1][0])


@dataclass(frozen=True, slots=True)
class BertWeights:
    """All weights; the tables of embeddings are views of the file and stay there.

    `positions` begin with a text's first place; `kinds` has a row for each part of a pair.
    """

    words: Array
    positions: Array
    kinds: Array
    norm: tuple[Array, Array]
    layers: tuple[Layer, ...]
    head: ScoreHead | None = None

    @property
    def kind(self) -> Array:
        """What is added to each token of a text that stands alone."""
        first: Array = self.kinds[0]
        return first

    @classmethod
    def read(cls, table: TensorTable, shape: BertShape) -> Self:
        """Take what the shape needs out of a file; ModelRefused names what is not there."""
        if shape.rope_base:
            return cls(**_nomic_weights(table, shape))
        hidden = shape.hidden
        at = _prefix(table)
        words = _rows(table, f"{at}embeddings.word_embeddings.weight", VOCABULARY_MAX)
        positions = _rows(table, f"{at}embeddings.position_embeddings.weight", 1 << 16)
        kinds = _rows(table, f"{at}embeddings.token_type_embeddings.weight", 16)
        inner = _rows(table, f"{at}encoder.layer.0.intermediate.dense.weight", 8 * HIDDEN_MAX)
        if positions < shape.tokens_max + shape.first_place:
            raise ModelRefused(f"{positions} positions do not reach tokens_max={shape.tokens_max}")
        if inner % BLOCK:
            raise ModelRefused(f"an intermediate width of {inner} is no multiple of {BLOCK}")
        wanted: dict[str, tuple[int, ...]] = {
            f"{at}embeddings.word_embeddings.weight": (words, hidden),
            f"{at}embeddings.position_embeddings.weight": (positions, hidden),
            f"{at}embeddings.token_type_embeddings.weight": (kinds, hidden),
            f"{at}embeddings.LayerNorm.weight": (hidden,),
            f"{at}embeddings.LayerNorm.bias": (hidden,),
        }
        for number in range(shape.layers):
            wanted |= _layer_shapes(f"{at}encoder.layer.{number}.", hidden, inner)
        dense, out = _head_names(table, at)
        if shape.scores:
            wanted |= {f"{dense}.weight": (hidden, hidden), f"{dense}.bias": (hidden,)}
            wanted |= {f"{out}.weight": (1, hidden), f"{out}.bias": (1,)}
        found = table.floats(wanted)

        def pair(name: str) -> tuple[Array, Array]:
            return found[f"{name}.weight"], found[f"{name}.bias"]

        return cls(
            words=found[f"{at}embeddings.word_embeddings.weight"],
            positions=found[f"{at}embeddings.position_embeddings.weight"][shape.first_place :],
            kinds=found[f"{at}embeddings.token_type_embeddings.weight"],
            norm=pair(f"{at}embeddings.LayerNorm"),
            layers=tuple(_layer(found, f"{at}encoder.layer.{n}.") for n in range(shape.layers)),
            head=ScoreHead(pair(dense), pair(out)) if shape.scores else None,
        )


def _prefix(table: TensorTable) -> str:
    """What stands before the encoder's names where a file has more than the encoder."""
    word, known = "embeddings.word_embeddings.weight", ("", "bert.", "roberta.")
    return next((it for it in known if f"{it}{word}" in table.tensors), "")


def _head_names(table: TensorTable, at: str) -> tuple[str, str]:
    """BERT's pooler is a part of the encoder; RoBERTa's head has both of its layers."""
    if "classifier.out_proj.weight" in table.tensors:
        return "classifier.dense", "classifier.out_proj"
    return f"{at}pooler.dense", "classifier"


def _rows(table: TensorTable, name: str, most: int) -> int:
    rows = table.shape(name)[:1]
    if not rows or not 0 < rows[0] <= most:
        raise ModelRefused(f"{name} has {list(rows)} rows, 1 to {most} are run")
    return rows[0]


def _layer_shapes(prefix: str, hidden: int, inner: int) -> dict[str, tuple[int, ...]]:
    matrices = {
        "attention.self.query": (hidden, hidden),
        "attention.self.key": (hidden, hidden),
        "attention.self.value": (hidden, hidden),
        "attention.output.dense": (hidden, hidden),
        "intermediate.dense": (inner, hidden),
        "output.dense": (hidden, inner),
    }
    shapes: dict[str, tuple[int, ...]] = {}
    for name, shape in matrices.items():
        shapes[f"{prefix}{name}.weight"] = shape
        shapes[f"{prefix}{name}.bias"] = shape[:1]
    for name in ("attention.output.LayerNorm", "output.LayerNorm"):
        shapes[f"{prefix}{name}.weight"] = (hidden,)
        shapes[f"{prefix}{name}.bias"] = (hidden,)
    return shapes


def _layer(found: dict[str, Array], prefix: str) -> Layer:
    def pair(name: str) -> tuple[Array, Array]:
        return found[f"{prefix}{name}.weight"], found[f"{prefix}{name}.bias"]

    parts = [pair(f"attention.self.{name}") for name in ("query", "key", "value")]
    return Layer(
        attention=(
            np.concatenate([weight for weight, _ in parts]),
            np.concatenate([bias for _, bias in parts]),
        ),
        attention_out=pair("attention.output.dense"),
        attention_norm=pair("attention.output.LayerNorm"),
        inner=pair("intermediate.dense"),
        outer=pair("output.dense"),
        norm=pair("output.LayerNorm"),
    )


def _nomic_weights(table: TensorTable, shape: BertShape) -> dict[str, Any]:
    hidden = shape.hidden
    words = _rows(table, "embeddings.word_embeddings.weight", VOCABULARY_MAX)
    kinds = _rows(table, "embeddings.token_type_embeddings.weight", 16)
    inner = _rows(table, "encoder.layers.0.mlp.fc11.weight", 8 * HIDDEN_MAX)
    if inner % BLOCK:
        raise ModelRefused(f"an intermediate width of {inner} is no multiple of {BLOCK}")
    wanted: dict[str, tuple[int, ...]] = {
        "embeddings.word_embeddings.weight": (words, hidden),
        "embeddings.token_type_embeddings.weight": (kinds, hidden),
        "emb_ln.weight": (hidden,),
        "emb_ln.bias": (hidden,),
    }
    for number in range(shape.layers):
        at = f"encoder.layers.{number}."
        wanted |= {
            f"{at}attn.Wqkv.weight": (3 * hidden, hidden),
            f"{at}attn.out_proj.weight": (hidden, hidden),
            f"{at}mlp.fc11.weight": (inner, hidden),
            f"{at}mlp.fc12.weight": (inner, hidden),
            f"{at}mlp.fc2.weight": (hidden, inner),
        }
        for name in ("norm1", "norm2"):
            wanted |= {f"{at}{name}.{part}": (hidden,) for part in ("weight", "bias")}
    found = table.floats(wanted)
    return {
        "words": found["embeddings.word_embeddings.weight"],
        "positions": np.zeros((shape.tokens_max, hidden), np.float32),
        "kinds": found["embeddings.token_type_embeddings.weight"],
        "norm": (found["emb_ln.weight"], found["emb_ln.bias"]),
        "layers": tuple(_nomic_layer(found, f"encoder.layers.{n}.") for n in range(shape.layers)),
    }


def _nomic_layer(found: dict[str, Array], at: str) -> Layer:
    def unbiased(*names: str) -> tuple[Array, Array]:
        weight = np.concatenate([found[f"{at}{name}.weight"] for name in names])
        return weight, np.zeros(len(weight), np.float32)

    def norm(name: str) -> tuple[Array, Array]:
        return found[f"{at}{name}.weight"], found[f"{at}{name}.bias"]

    return Layer(
        attention=unbiased("attn.Wqkv"),
        attention_out=unbiased("attn.out_proj"),
        attention_norm=norm("norm1"),
        # The gate lies before what it opens.
        inner=unbiased("mlp.fc12", "mlp.fc11"),
        outer=unbiased("mlp.fc2"),
        norm=norm("norm2"),
    )
