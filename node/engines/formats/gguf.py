"""What a language model in a GGUF file is: its shape, its tables, what it takes of memory.

Pure Python: the model is described, and refused, before any library sees it.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

from node.engines.formats.architectures import (
    ARCHITECTURES,
    KEYS_NOT_RUN,
    NOT_RUN,
    WIDTH,
    Architecture,
    LayerKind,
)
from node.engines.formats.gguf_file import BLOCKS, GgufFile, GgufTensor, read_gguf
from node.engines.formats.gguf_keys import GgufKeys
from node.engines.formats.gguf_rope import LONG, Rope, read_places
from node.engines.formats.model_memory import ModelMemory
from node.engines.formats.pretokenizers import check_tokenizer
from wire.errors import ModelRefused
from wire.layers import LayerRange

FORMAT = "gguf"
FILE = "model.gguf"
# What is served of a context: as much as all pages hold where memory is not short.
CONTEXT_MAX = 32_768
# So many answers go on at once; on average each has pages for so many tokens.
SLOTS = 8
SLOT_TOKENS = 4096
PAGE_TOKENS = 128
LAYERS_MAX = 256
WIDTH_MAX = 1 << 16
VOCABULARY_MAX = 1 << 20
FLOAT_BYTES = 4
# Every width is a multiple of it: the blocks that matrices are multiplied in. A context has at
# least one.
BLOCK = 8
# Types of numbers that a CPU multiplies with as they are, and how many bytes a block of 256 has
# more in memory than in the file: Q4_K and Q5_K have scales of six bits, kept in eight. The rest
# of the types become floats.
LARGE_BLOCK = 256
KEPT_AS_IT_IS = dict.fromkeys((0, 1, 2, 3, 6, 7, 8, 14, 30), 0) | dict.fromkeys((12, 13), 4)
# Rows of the passes that are kept ready on a GPU: of the one that answers, and of those that read.
ANSWERING_ROWS = 8
READING_ROWS = (32, 128)
# There all scores of a pass are kept, and then as many shares.
SCORES_BYTES_MAX = 512 << 20
# Bits of a weight on a GPU, with its share of scales and minima; of all other types 32.
BITS_IN_WORDS = {8: 9, 2: 5, 3: 6, 6: 9, 7: 10, 12: 6, 13: 10, 14: 10}
# Larger weights are not unpacked for passes of many rows.
UNPACKED_BYTES_MAX = 64 << 20
# Measured: what Python, tinygrad, the tables of tokens and captured graphs take besides.
BESIDES_BYTES = 400 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class GgufModel:
    """One model as its file describes it. `context` is what is served of `context_length`.

    `family` says how its layers are built, `kinds` what differs from layer to layer; scores are
    multiplied by `attention_scale`, what a layer adds by `residual_scale`.
    """

    path: Path
    architecture: str
    family: Architecture
    name: str
    context_length: int
    layers: int
    hidden: int
    inner: int
    heads: int
    kv_heads: int
    head_size: int
    vocabulary: int
    norm_eps: float
    ropes: tuple[Rope, ...]
    kinds: tuple[LayerKind, ...]
    embedding_scale: float
    attention_scale: float
    residual_scale: float
    logit_scale: float
    # Whether query, key and value have biases.
    biases: bool
    tied: bool
    chat_template: str
    quantisation: str
    metadata: Mapping[str, Any] = field(repr=False)
    tensors: Mapping[str, GgufTensor] = field(repr=False)
    # A manifest may say less.
    context_max: int = CONTEXT_MAX
    # The layers that are kept here, where others keep the rest; None: all.
    held: LayerRange | None = None

    def __post_init__(self) -> None:
        if self.context < BLOCK:
            raise ModelRefused(
                f"{self.path.name}: a context of {self.context} tokens is not run",
                todo=f"have the file, and the model's manifest, say {BLOCK} or more",
            )

    @property
    def context(self) -> int:
        return min(self.context_length, self.context_max, CONTEXT_MAX)

    @property
    def here(self) -> LayerRange:
        """The layers that are kept here."""
        return self.held or LayerRange(0, self.layers - 1, self.layers)

    def holding(self, first: int, last: int) -> Self:
        """The same model with these layers alone; ModelRefused names those that it has."""
        if not 0 <= first <= last < self.layers:
            raise ModelRefused(
                f"{self.path.name} has the layers 0 to {self.layers - 1}, not {first} to {last}",
                todo=f"give a range of them (--layers 0-{self.layers - 1} is all)",
            )
        layers = LayerRange(first, last, self.layers)
        return replace(self, held=None if layers.whole else layers)

    @property
    def _held_tensors(self) -> list[GgufTensor]:
        """The tensors whose numbers are kept here: layers, and what comes before and after all."""
        here = self.here
        starts = tuple(f"blk.{number}." for number in range(here.first, here.last + 1))
        ends = () if not here.begins else tuple(it for it in self.tensors if it[:4] != "blk.")
        return [self.tensors[it] for it in self.tensors if it.startswith(starts) or it in ends]

    @property
    def weights_bytes(self) -> int:
        """All weights as a CPU keeps them, and what the file has of the table of embeddings.

        Rows of that table are read from the file as they are needed.
        """
        kept = sum(map(kept_bytes, self._held_tensors))
        if not self.here.begins:
            return kept
        table = self.tensors["token_embd.weight"]
        if not self.tied:
            kept -= kept_bytes(table)
        return kept + table.end - table.begin

    @property
    def floats_bytes(self) -> int:
        """All weights in 32-bit floats, as other devices keep them."""
        return sum(tensor.items for tensor in self.tensors.values()) * FLOAT_BYTES

    @property
    def page_bytes(self) -> int:
        """Keys and values of a page of tokens."""
        per_token = 2 * self.here.size * self.kv_heads * self.head_size * FLOAT_BYTES
        return per_token * PAGE_TOKENS

    @property
    def least_pages(self) -> int:
        """The fewest pages with which a model is run: those of one conversation."""
        return -(-min(self.context, SLOT_TOKENS) // PAGE_TOKENS)

    @property
    def pages(self) -> int:
        """How many pages there are where memory allows it: for a whole context in any case."""
        return SLOTS * self.least_pages

    @property
    def slot_bytes(self) -> int:
        """Keys and values of one conversation, of those that are counted with."""
        return self.least_pages * self.page_bytes

    @property
    def gpu_reading(self) -> tuple[int, ...]:
        """Of `READING_ROWS` those whose scores are not too many, or else those of answering."""
        most = SCORES_BYTES_MAX // (2 * FLOAT_BYTES * self.heads * self.context)
        return tuple(rows for rows in READING_ROWS if rows <= most) or (ANSWERING_ROWS,)

    def memory(self, *, on_gpu: bool) -> ModelMemory:
        """What running it takes of a worker's memory, or of a GPU's, worked out before loading."""
        if on_gpu:
            return self._gpu_memory()
        return ModelMemory(
            weights_bytes=self.weights_bytes,
            besides_bytes=self.memory_bytes - self.weights_bytes - SLOTS * self.slot_bytes,
            slot_bytes=self.slot_bytes,
            slots_max=SLOTS,
        )

    def _gpu_memory(self) -> ModelMemory:
        """Quantised weights as words; the table of embeddings stays with the worker."""
        weights = sum(map(words_bytes, self._held_tensors))
        if self.here.begins and not self.tied:
            weights -= words_bytes(self.tensors["token_embd.weight"])
        # What a layer makes of one row of a pass, and what its attention sees. Measured: a little
        # less than this.
        joined = (self.heads + 2 * self.kv_heads) * self.head_size
        row = 14 * self.hidden + 8 * self.inner + 4 * joined + 2 * self.heads * self.context
        rows = ANSWERING_ROWS + sum(self.gpu_reading)
        work = rows * row + ANSWERING_ROWS * self.vocabulary
        # Each product of a layer, in each of the longer passes, has its weights as floats.
        largest = self.hidden * max(2 * self.inner, joined) * FLOAT_BYTES
        unpacked = 4 * len(self.gpu_reading) * min(largest, UNPACKED_BYTES_MAX)
        return ModelMemory(
            weights_bytes=weights,
            besides_bytes=work * FLOAT_BYTES + unpacked,
            slot_bytes=self.slot_bytes,
            slots_max=SLOTS,
        )

    @property
    def memory_bytes(self) -> int:
        """What a worker needs for this model with all pages, worked out before loading."""
        held = self._held_tensors
        largest = max(map(kept_bytes, held))
        # While a tensor is laid out it is there several times, and the file's pages are counted
        # as well.
        work = 4 * largest + sum(tensor.end - tensor.begin for tensor in held)
        return BESIDES_BYTES + self.weights_bytes + self.pages * self.page_bytes + work


def kept_bytes(tensor: GgufTensor) -> int:
    """What a tensor takes as a CPU keeps it."""
    if tensor.kind not in KEPT_AS_IT_IS:
        return tensor.items * FLOAT_BYTES
    return tensor.end - tensor.begin + tensor.items * KEPT_AS_IT_IS[tensor.kind] // LARGE_BLOCK


def words_bytes(tensor: GgufTensor) -> int:
    """What a tensor takes as a GPU keeps it."""
    return tensor.items * BITS_IN_WORDS.get(tensor.kind, 8 * FLOAT_BYTES) // 8


def describe(path: Path) -> GgufModel:
    """Read a file's head and work out what model it is; ModelRefused names what cannot be run."""
    file = read_gguf(path)
    keys = GgufKeys(file)
    architecture = keys.text("general.architecture")
    family = _family(path, architecture)
    keys.prefix = architecture
    if keys.get("expert_count"):
        raise ModelRefused(f"{path.name} is a mixture of experts, which is not run")
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
        inner=keys.count("feed_forward_length", WIDTH_MAX * 8),
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
        chat_template=keys.text("tokenizer.chat_template", ""),
        quantisation=_quantisation(file),
        metadata=file.metadata,
        tensors=file.tensors,
    )
    _check(model, keys)
    return model


def _family(path: Path, architecture: str) -> Architecture:
    family = ARCHITECTURES.get(architecture)
    if family is None:
        why = f": {NOT_RUN[architecture]}" if architecture in NOT_RUN else ""
        raise ModelRefused(
            f"{path.name} is of the architecture {architecture[:40]!r}{why};"
            f" run here: {', '.join(ARCHITECTURES)}"
        )
    return family


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
    if pooling := keys.get("pooling_type"):
        raise ModelRefused(
            f"{where} makes a vector or a score of a text (pooling_type {str(pooling)[:20]}),"
            " which is not run from GGUF files"
        )
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
        "ffn_down.weight": (hidden, inner),
    }
    if family.norms_before:
        found |= {"attn_norm.weight": (hidden,), "ffn_norm.weight": (hidden,)}
    if family.norms_after:
        found |= {"post_attention_norm.weight": (hidden,), "post_ffw_norm.weight": (hidden,)}
    if family.fused:
        found["attn_qkv.weight"] = (query + 2 * key, hidden)
        found["ffn_up.weight"] = (2 * inner, hidden)
    else:
        widths = {"q": query, "k": key, "v": key}
        found |= {f"attn_{name}.weight": (width, hidden) for name, width in widths.items()}
        if model.biases:
            found |= {f"attn_{name}.bias": (width,) for name, width in widths.items()}
        found |= {"ffn_gate.weight": (inner, hidden), "ffn_up.weight": (inner, hidden)}
    if family.query_norms:
        whole = family.query_norms == WIDTH
        found["attn_q_norm.weight"] = (query if whole else model.head_size,)
        found["attn_k_norm.weight"] = (key if whole else model.head_size,)
    return {at + name: shape for name, shape in found.items()}
