"""The file of an exact transformer: which numbers it has, and that none of its sums can overflow.

It is a GGUF file of the family `llama`, with its tokens and its template as any other, and:

- every matrix is Q8_0, 32 numbers of 8 bits to a scale. All scales of a matrix are whole numbers
  up to `SCALE_MAX` times one power of two, which is not in the file: it follows from them;
- norms' weights are whole numbers / 2**16;
- `exact.turns` [context, head]: cosines, then sines, of each place's angles, whole / 2**15;
- `exact.powers` [16384]: e**(-i / 1024) * 2**17, and `exact.gates` [32768]: how far a gate of
  (i - 16384) / 1024 is open, * 2**16; all whole numbers. What is in the tables is what counts.

The file may come from anybody: it is checked before anything is computed with it.
"""

import math
import mmap
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from node.engines.exact.whole_numbers import BLOCK, MOST, SCALE_MAX, Norm
from node.engines.formats import gguf
from node.engines.formats.gguf_file import GgufFile, GgufTensor, read_gguf
from node.engines.formats.gguf_model import GgufModel
from node.engines.formats.onnx_protobuf import Array
from wire.errors import ModelRefused

FORMAT = "exact-text"
FILE = "model.exact"
VERSION = 1
VERSION_KEY = "exact.version"
ARCHITECTURE = "llama"
# The matrix of the logits, which may be that of the embeddings.
EMBEDDINGS, OUTPUT = "token_embd.weight", "output.weight"
TURNS, POWERS, GATES = "exact.turns", "exact.powers", "exact.gates"
# Bits after the point: of rows, and of what goes through gates; of keys and values; of logits; of
# norms' weights; of cosines and sines; of powers; of gates.
ROW, KEPT, LOGIT, NORM, TURN, POWER, GATE = 16, 12, 14, 16, 15, 17, 16
# Steps in one: of the differences of scores, and of gates.
STEP = 10
POWERS_COUNT, GATES_COUNT = 1 << 14, 1 << 15
# Keys and values are cut off at it, and scales of theirs are so no larger than KEPT_SCALE_MAX.
KEPT_MOST = 1 << 20
KEPT_SCALE_MAX = -(-KEPT_MOST // 127)
LOGIT_MOST = (1 << 24) - 1
# So many terms of the largest products stay below 2**53, and so many places the largest shares.
TERMS_MAX = 1 << 16
CONTEXT_MAX = 1 << 15
HEAD_MAX = 256
NORM_MOST = 1 << 22
# What scores are multiplied by has so many bits.
FACTOR_BITS = 15
Q8_0, F32 = 8, 0
# Scales in 16 bits are whole multiples of this power of two.
HALF_BITS = 24
# So many scales are looked at together.
SLAB = 1 << 20
BLOCKS = np.dtype([("scale", "<f2"), ("numbers", "i1", BLOCK)])

# The largest sums of products, in 64-bit floats.
assert TERMS_MAX * (128 * SCALE_MAX) ** 2 < 1 << 53
assert CONTEXT_MAX * (1 << POWER) * 127 * KEPT_SCALE_MAX < 1 << 53
# The largest numbers in 64 bits: what is divided by a sum of powers, and a score times its factor.
assert CONTEXT_MAX * (1 << POWER) * 127 * KEPT_SCALE_MAX << 5 < 1 << 62
assert HEAD_MAX * 127 * SCALE_MAX * 127 * KEPT_SCALE_MAX << FACTOR_BITS < 1 << 62
# A row that goes into a norm, times a weight, times what all are divided by.
assert (1 << 20) * NORM_MOST << 17 < 1 << 62
# A number that turns, and one that is behind a gate.
assert 2 * MOST << TURN < 1 << 62
assert MOST * MOST < 1 << 62


@dataclass(frozen=True, slots=True)
class Matrix:
    """[outputs, terms] in blocks of 32 terms: number * scale / 2**bits."""

    blocks: Array = field(repr=False)
    down: int
    bits: int

    @property
    def numbers(self) -> Array:
        """8-bit numbers: [outputs, terms]."""
        return np.asarray(self.blocks["numbers"].reshape(len(self.blocks), -1))

    @property
    def scales(self) -> Array:
        """Whole numbers up to `SCALE_MAX`: [outputs, blocks]."""
        return np.asarray(_whole_scales(self.blocks["scale"]) >> self.down)

    def rows(self, which: Array | slice) -> "Matrix":
        """Some outputs of it."""
        return Matrix(self.blocks[which], self.down, self.bits)

    @property
    def products(self) -> Array:
        """Numbers times scales as 64-bit floats, which hold them exactly: [outputs, terms]."""
        blocks = self.blocks
        found = blocks["numbers"] * self.scales[..., None].astype(np.float64)
        return np.asarray(found.reshape(len(blocks), -1))


@dataclass(frozen=True, slots=True, kw_only=True)
class TextModel:
    """A checked model; matrices stay in the file, which is mapped."""

    shape: GgufModel
    context: int
    factor: int
    factor_bits: int
    epsilon: int
    turns: Array = field(repr=False)
    powers: Array = field(repr=False)
    gates: Array = field(repr=False)
    _norms: Mapping[str, Array] = field(repr=False)
    _matrices: Mapping[str, Matrix] = field(repr=False)

    @property
    def kept_block(self) -> int:
        """How many numbers of a key or a value share a scale."""
        return BLOCK if self.shape.head_size % BLOCK == 0 else BLOCK // 2

    def matrix(self, name: str) -> Matrix:
        """A matrix by the name of its tensor; `output.weight` is there in any case."""
        return self._matrices[EMBEDDINGS if name == OUTPUT and self.shape.tied else name]

    def norm(self, name: str) -> Norm:
        """A norm by the name of its weights' tensor."""
        return Norm(self._norms[name], self.epsilon)


def is_text(path: Path) -> bool:
    """Whether a file ending in .exact is a transformer's: it begins with the letters GGUF."""
    with path.open("rb") as file:
        return file.read(4) == b"GGUF"


def describe(path: Path) -> GgufModel:
    """The model as the file's head describes it; ModelRefused if it is no exact transformer's."""
    file = read_gguf(path)
    if file.metadata.get(VERSION_KEY) != VERSION:
        raise _refused(path, f"it does not say that it is one of version {VERSION}")
    own = {name: file.tensors.get(name) for name in (TURNS, POWERS, GATES)}
    others = {name: it for name, it in file.tensors.items() if name not in own}
    model = gguf.describe_file(GgufFile(file.path, file.metadata, others))
    _check_shape(path, model)
    context = min(model.context, CONTEXT_MAX)
    wanted = {TURNS: (context, model.head_size), POWERS: (POWERS_COUNT,), GATES: (GATES_COUNT,)}
    for name, tensor in own.items():
        if tensor is None or tensor.kind != F32 or tensor.shape != wanted[name]:
            there = "missing" if tensor is None else f"of the shape {list(tensor.shape)}"
            raise _refused(path, f"{name} is {there}; it is 32-bit floats, {list(wanted[name])}")
    # The tables are the file's as well, where the memory is worked out.
    return replace(model, tensors=file.tensors, context_max=context)


def _check_shape(path: Path, model: GgufModel) -> None:
    """ModelRefused for what no exact transformer has."""
    if model.architecture != ARCHITECTURE or not model.speaks or model.experts or model.biases:
        raise _refused(path, "it is no plain language model of the family llama")
    plain = (model.embedding_scale, model.residual_scale, model.logit_scale)
    if plain != (1.0, 1.0, 1.0) or any(it.window or it.rope != 0 for it in model.kinds):
        raise _refused(path, "it scales its rows, or sees through windows")
    if len(model.ropes) != 1 or model.ropes[0].turned != model.head_size:
        raise _refused(path, "it does not turn all of each head")
    query = model.heads * model.head_size
    widths = (model.hidden, model.inner, query)
    if any(it % BLOCK or it > TERMS_MAX for it in widths) or model.head_size > HEAD_MAX:
        raise _refused(
            path,
            f"its widths {', '.join(map(str, widths))} are not all multiples of {BLOCK} up to"
            f" {TERMS_MAX}, or its heads are wider than {HEAD_MAX}",
        )
    for name, tensor in model.tensors.items():
        kind = Q8_0 if len(tensor.shape) == 2 else F32
        if tensor.kind != kind:
            raise _refused(path, f"{name} is no {'Q8_0' if kind else 'F32'}")
    factor_of(model.attention_scale)


def factor_of(scale: float) -> tuple[int, int]:
    """What scores are multiplied by: a whole number, and by how many bits the product is shifted.

    ModelRefused for a scale that no such model has.
    """
    if not 2.0**-10 <= scale <= 1.0:
        raise ModelRefused(f"scores are multiplied by {scale:g}, which is not run in whole numbers")
    bits = FACTOR_BITS - math.frexp(scale)[1]
    return round(scale * 2**bits), bits


def read_text(path: Path) -> TextModel:
    """The model in a file, with every number of it that has bounds looked at; ModelRefused."""
    shape = describe(path)
    with path.open("rb") as file:
        data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    norms, matrices = {}, {}
    for name, tensor in shape.tensors.items():
        if tensor.kind == Q8_0:
            matrices[name] = _matrix(path, name, tensor, data)
        elif name not in (TURNS, POWERS, GATES):
            norms[name] = _whole(path, name, _floats(tensor, data), NORM, NORM_MOST)
    factor, bits = factor_of(shape.attention_scale)
    turned = shape.tensors[TURNS]
    powers = _whole(path, POWERS, _floats(shape.tensors[POWERS], data), 0, 1 << POWER, least=0)
    if not powers[0]:
        raise _refused(path, f"{POWERS} begins with 0, so that nothing could be seen")
    return TextModel(
        shape=shape,
        context=turned.shape[0],
        factor=factor,
        factor_bits=bits,
        epsilon=round(shape.norm_eps * 2 ** (2 * ROW)),
        turns=_whole(path, TURNS, _floats(turned, data), TURN, 1 << TURN),
        powers=powers,
        gates=_whole(path, GATES, _floats(shape.tensors[GATES], data), 0, 1 << GATE, least=0),
        _norms=norms,
        _matrices=matrices,
    )


def _floats(tensor: GgufTensor, data: mmap.mmap) -> Array:
    return np.frombuffer(data, "<f4", tensor.items, tensor.begin).reshape(tensor.shape)


def _whole(
    path: Path, name: str, floats: Array, bits: int, most: int, least: int | None = None
) -> Array:
    """Floats * 2**bits as whole numbers; ModelRefused unless they are, within the bounds."""
    wide = floats.astype(np.float64) * 2.0**bits
    floor = -most if least is None else least
    # What is no number is not within any bounds.
    if not ((wide >= floor) & (wide <= most) & (np.rint(wide) == wide)).all():
        raise _refused(
            path,
            f"{name} has numbers that are not whole, or not from {floor} to {most}, / 2**{bits}",
        )
    return wide.astype(np.int64)


def _matrix(path: Path, name: str, tensor: GgufTensor, data: mmap.mmap) -> Matrix:
    rows, columns = tensor.shape
    blocks = np.frombuffer(data, BLOCKS, tensor.items // BLOCK, tensor.begin)
    together, most = 0, 0
    for begin in range(0, len(blocks), SLAB):
        part = blocks["scale"][begin : begin + SLAB]
        if not (np.isfinite(part) & (part >= 0)).all():
            raise _refused(path, f"{name} has scales that are not finite, or below 0")
        whole = _whole_scales(part)
        together |= int(np.bitwise_or.reduce(whole))
        most = max(most, int(whole.max()))
    # By how many bits all of them can be shifted without a loss.
    down = (together & -together).bit_length() - 1 if together else 0
    if most >> down > SCALE_MAX:
        raise _refused(
            path, f"{name} has scales from one to {most >> down} of a step, at most {SCALE_MAX} fit"
        )
    return Matrix(blocks.reshape(rows, columns // BLOCK), down, HALF_BITS - down)


def _whole_scales(scales: Array) -> Array:
    return np.asarray((scales.astype(np.float64) * 2.0**HALF_BITS).astype(np.int64))


def _refused(path: Path, why: str) -> ModelRefused:
    return ModelRefused(
        f"{path.name} is no exact transformer that can be run: {why}",
        todo="make it from its float model: python -m node models quantize --exact",
    )
