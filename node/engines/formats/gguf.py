"""What a language model in a GGUF file is: its shape, its tables, what it takes of memory.

Pure Python: the model is described, and refused, before any library sees it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from node.engines.formats.gguf_file import BLOCKS, GgufFile, GgufTensor, read_gguf
from node.engines.formats.model_memory import ModelMemory
from wire.errors import ModelRefused

FORMAT = "gguf"
FILE = "model.gguf"
ARCHITECTURES = ("llama", "qwen2", "qwen3")
# What is kept of a context: the model's own may need more memory than the rest of it.
CONTEXT_MAX = 4096
SLOTS = 8
LAYERS_MAX = 256
WIDTH_MAX = 1 << 16
VOCABULARY_MAX = 1 << 20
FLOAT_BYTES = 4
# Every width is a multiple of it: the blocks that matrices are multiplied in.
BLOCK = 8
# Rows of all passes that are kept ready on a GPU, and of those among them that answer.
PASS_ROWS, ANSWERING_ROWS = 8 + 32 + 128, 8
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

    @property
    def context(self) -> int:
        return min(self.context_length, CONTEXT_MAX)

    @property
    def weights_bytes(self) -> int:
        """All weights in 32-bit floats, and the table of embeddings as rows besides."""
        items = sum(tensor.items for tensor in self.tensors.values())
        embedding = self.vocabulary * self.hidden if self.tied else 0
        return (items + embedding) * FLOAT_BYTES

    @property
    def slot_bytes(self) -> int:
        """Keys and values of one conversation of full length."""
        per_token = 2 * self.layers * self.kv_heads * self.head_size * FLOAT_BYTES
        return per_token * self.context

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
        """Its weights as 32-bit floats; the table of embeddings stays with the worker."""
        table = self.vocabulary * self.hidden
        items = sum(tensor.items for tensor in self.tensors.values())
        # What a layer makes of one row of a pass, and what its attention sees. Measured: a little
        # less than this.
        joined = (self.heads + 2 * self.kv_heads) * self.head_size
        row = 14 * self.hidden + 8 * self.inner + 4 * joined + 2 * self.heads * self.context
        work = PASS_ROWS * row + ANSWERING_ROWS * self.vocabulary
        return ModelMemory(
            weights_bytes=(items if self.tied else items - table) * FLOAT_BYTES,
            besides_bytes=work * FLOAT_BYTES,
            slot_bytes=self.slot_bytes,
            slots_max=SLOTS,
        )

    @property
    def memory_bytes(self) -> int:
        """What a worker needs for this model with all slots, worked out before loading."""
        largest = max(tensor.items for tensor in self.tensors.values())
        # While a tensor is unpacked and laid out its floats are there several times, and the
        # file's pages are counted as well.
        work = 4 * largest * FLOAT_BYTES + max(tensor.end for tensor in self.tensors.values())
        return BESIDES_BYTES + self.weights_bytes + SLOTS * self.slot_bytes + work


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
