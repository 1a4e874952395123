"""What a language model in a GGUF file is: its shape, its tables, what it takes of memory.

Pure Python: the model is described, and refused, before any library sees it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from node.engines.formats.gguf_file import BLOCKS, GgufFile, GgufTensor, read_gguf
from wire.errors import ModelRefused

FORMAT = "gguf"
FILE = "model.gguf"
ARCHITECTURES = ("llama", "qwen2", "qwen3")
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
# Every width is a multiple of it: the blocks that matrices are multiplied in.
BLOCK = 8
# Types of numbers that a CPU multiplies with as they are, and how many bytes a block of 256 has
# more in memory than in the file: Q4_K and Q5_K have scales of six bits, kept in eight. The rest
# of the types become floats.
LARGE_BLOCK = 256
KEPT_AS_IT_IS = dict.fromkeys((0, 1, 2, 3, 6, 7, 8, 14, 30), 0) | dict.fromkeys((12, 13), 4)
# Measured: what Python, tinygrad, the tables of tokens and captured graphs take besides.
BESIDES_BYTES = 400 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class GgufModel:
    """One model as its file describes it. `context` is what is served of `context_length`."""

    path: Path
    architecture: str
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
    rope_base: float
    rope_factor: float
    # Whether attention's query and key are normed, and whether they have biases.
    norms: bool
    biases: bool
    tied: bool
    chat_template: str
    quantisation: str
    metadata: Mapping[str, Any] = field(repr=False)
    tensors: Mapping[str, GgufTensor] = field(repr=False)
    # A manifest may say less.
    context_max: int = CONTEXT_MAX

    @property
    def context(self) -> int:
        return min(self.context_length, self.context_max, CONTEXT_MAX)

    @property
    def weights_bytes(self) -> int:
        """All weights as a CPU keeps them, and what the file has of the table of embeddings.

        Rows of that table are read from the file as they are needed.
        """
        table = self.tensors["token_embd.weight"]
        kept = sum(map(kept_bytes, self.tensors.values()))
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
        per_token = 2 * self.layers * self.kv_heads * self.head_size * FLOAT_BYTES
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
    def memory_bytes(self) -> int:
        """What a worker needs for this model with all pages, worked out before loading."""
        largest = max(map(kept_bytes, self.tensors.values()))
        # While a tensor is laid out it is there several times, and the file's pages are counted
        # as well.
        work = 4 * largest + max(tensor.end for tensor in self.tensors.values())
        return BESIDES_BYTES + self.weights_bytes + self.pages * self.page_bytes + work


def kept_bytes(tensor: GgufTensor) -> int:
    """What a tensor takes as a CPU keeps it."""
    if tensor.kind not in KEPT_AS_IT_IS:
        return tensor.items * FLOAT_BYTES
    return tensor.end - tensor.begin + tensor.items * KEPT_AS_IT_IS[tensor.kind] // LARGE_BLOCK


def describe(path: Path) -> GgufModel:
    """Read a file's head and work out what model it is; ModelRefused names what cannot be run."""
    file = read_gguf(path)
    meta = _Keys(file)
    architecture = meta.text("general.architecture")
    if architecture not in ARCHITECTURES:
        runs = ", ".join(ARCHITECTURES)
        raise ModelRefused(
            f"{path.name} is of the architecture {architecture[:40]!r}; run here: {runs}"
        )
    meta.prefix = architecture
    if file.metadata.get(f"{architecture}.expert_count", 0):
        raise ModelRefused(f"{path.name} is a mixture of experts, which is not run")
    embedding = file.tensors.get("token_embd.weight")
    if embedding is None or len(embedding.shape) != 2:
        raise ModelRefused(f"{path.name} lacks the tensor token_embd.weight")
    heads = meta.count("attention.head_count", WIDTH_MAX)
    hidden = meta.count("embedding_length", WIDTH_MAX)
    head_size = meta.count("attention.key_length", WIDTH_MAX, hidden // heads)
    model = GgufModel(
        path=path,
        architecture=architecture,
        name=meta.text("general.name", path.stem)[:64] or path.stem,
        context_length=meta.count("context_length", 1 << 30),
        layers=meta.count("block_count", LAYERS_MAX),
        hidden=hidden,
        inner=meta.count("feed_forward_length", WIDTH_MAX * 8),
        heads=heads,
        kv_heads=meta.count("attention.head_count_kv", WIDTH_MAX, heads),
        head_size=head_size,
        vocabulary=embedding.shape[0],
        norm_eps=meta.real("attention.layer_norm_rms_epsilon", 0.0, 1.0),
        rope_base=meta.real("rope.freq_base", 1.0, 1e12, 10_000.0),
        rope_factor=_rope_factor(meta),
        norms="blk.0.attn_q_norm.weight" in file.tensors,
        biases="blk.0.attn_q.bias" in file.tensors,
        tied="output.weight" not in file.tensors,
        chat_template=meta.text("tokenizer.chat_template", ""),
        quantisation=_quantisation(file),
        metadata=file.metadata,
        tensors=file.tensors,
    )
    _check(model, meta)
    return model


class _Keys:
    """The metadata, with every value checked where it is read."""

    def __init__(self, file: GgufFile) -> None:
        self._file = file
        self.prefix = ""

    def refused(self, name: str, found: Any) -> ModelRefused:
        where = self._file.path.name
        if found is None:
            return ModelRefused(f"{where} lacks {name} in its metadata")
        return ModelRefused(f"{where}: {name} is {str(found)[:60]!r}, which is not run")

    def get(self, name: str) -> Any:
        return self._file.metadata.get(f"{self.prefix}.{name}")

    def text(self, name: str, default: str | None = None) -> str:
        found = self._file.metadata.get(name, default)
        if not isinstance(found, str):
            raise self.refused(name, found)
        return found

    def count(self, name: str, most: int, default: int | None = None) -> int:
        found = self.get(name)
        found = default if found is None else found
        if type(found) is not int or not 1 <= found <= most:
            raise self.refused(f"{self.prefix}.{name}", found)
        return found

    def real(self, name: str, least: float, most: float, default: float | None = None) -> float:
        found = self.get(name)
        found = default if found is None else found
        if not isinstance(found, float | int) or not least < found <= most:
            raise self.refused(f"{self.prefix}.{name}", found)
        return float(found)


def _rope_factor(meta: _Keys) -> float:
    kind = meta.get("rope.scaling.type")
    if kind in (None, "none"):
        return 1.0
    if kind != "linear":
        raise meta.refused(f"{meta.prefix}.rope.scaling.type", kind)
    return meta.real("rope.scaling.factor", 0.0, 1e6)


def _quantisation(file: GgufFile) -> str:
    """The type that most numbers have."""
    items: dict[int, int] = {}
    for tensor in file.tensors.values():
        items[tensor.kind] = items.get(tensor.kind, 0) + tensor.items
    return BLOCKS[max(items, key=lambda kind: items[kind])][0]


def _check(model: GgufModel, meta: _Keys) -> None:
    """Whether widths fit each other and every tensor is there in its shape; ModelRefused."""
    where = model.path.name
    rope = meta.count("rope.dimension_count", WIDTH_MAX, model.head_size)
    if rope != model.head_size or model.head_size % (2 * BLOCK):
        raise ModelRefused(
            f"{where}: heads of {model.head_size}, of which {rope} turn, are not run"
        )
    if model.heads % model.kv_heads:
        raise ModelRefused(f"{where}: {model.heads} heads do not share {model.kv_heads}")
    if (size := meta.get("attention.value_length")) not in (None, model.head_size):
        raise meta.refused("attention.value_length", size)
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


def wanted_tensors(model: GgufModel) -> dict[str, tuple[int, ...]]:
    """Every tensor of such a model, and its shape."""
    hidden, inner = model.hidden, model.inner
    query, key = model.heads * model.head_size, model.kv_heads * model.head_size
    found: dict[str, tuple[int, ...]] = {
        "token_embd.weight": (model.vocabulary, hidden),
        "output_norm.weight": (hidden,),
    }
    if not model.tied:
        found["output.weight"] = (model.vocabulary, hidden)
    if "rope_freqs.weight" in model.tensors:
        found["rope_freqs.weight"] = (model.head_size // 2,)
    for number in range(model.layers):
        at = f"blk.{number}."
        found |= {
            f"{at}attn_norm.weight": (hidden,),
            f"{at}attn_q.weight": (query, hidden),
            f"{at}attn_k.weight": (key, hidden),
            f"{at}attn_v.weight": (key, hidden),
            f"{at}attn_output.weight": (hidden, query),
            f"{at}ffn_norm.weight": (hidden,),
            f"{at}ffn_gate.weight": (inner, hidden),
            f"{at}ffn_up.weight": (inner, hidden),
            f"{at}ffn_down.weight": (hidden, inner),
        }
        if model.biases:
            found |= {
                f"{at}attn_{n}.bias": (s,) for n, s in zip("qkv", (query, key, key), strict=True)
            }
        if model.norms:
            found |= {f"{at}attn_{n}_norm.weight": (model.head_size,) for n in "qk"}
    return found
