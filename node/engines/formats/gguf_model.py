"""A language model in a GGUF file as its head describes it, and the memory that it takes. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

from node.engines.formats.architectures import Architecture, LayerKind
from node.engines.formats.gguf_file import GgufTensor
from node.engines.formats.gguf_rope import Rope
from node.engines.formats.model_memory import ModelMemory
from wire.errors import ModelRefused
from wire.layers import LayerRange

# What is served of a context: as much as all pages hold where memory is not short.
CONTEXT_MAX = 32_768
# So many answers go on at once; on average each has pages for so many tokens.
SLOTS = 8
SLOT_TOKENS = 4096
PAGE_TOKENS = 128
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
# What models make of a text.
WORDS, VECTORS, SCORES = "words", "vectors", "scores"


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
    # Of a mixture: how many networks `inner` wide a layer has, and how many of them a token goes
    # through; 0: one for all tokens.
    experts: int = 0
    experts_used: int = 0
    # WORDS, or of a text one vector, or a score.
    makes: str = WORDS
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
    def speaks(self) -> bool:
        """Whether words are made of what comes out of the last layer."""
        return self.makes == WORDS

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
        # A head of its own is there once more; others have none.
        if not self.tied or not self.speaks:
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
    def slots(self) -> int:
        """How many conversations there are at once; others take one pass after the other."""
        return SLOTS if self.speaks else 1

    @property
    def least_pages(self) -> int:
        """The fewest pages with which a model is run: those of one conversation."""
        return -(-min(self.context, SLOT_TOKENS) // PAGE_TOKENS)

    @property
    def pages(self) -> int:
        """How many pages there are where memory allows it: for a whole context in any case."""
        return self.slots * self.least_pages

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
            besides_bytes=self.memory_bytes - self.weights_bytes - self.slots * self.slot_bytes,
            slot_bytes=self.slot_bytes,
            slots_max=self.slots,
        )

    def _gpu_memory(self) -> ModelMemory:
        """Quantised weights as words; the table of embeddings stays with the worker."""
        weights = sum(map(words_bytes, self._held_tensors))
        if self.here.begins and (not self.tied or not self.speaks):
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
            slots_max=self.slots,
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
