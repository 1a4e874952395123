"""Numbers of an exact transformer made from a float one: its matrices, norms and tables. Pure."""

import math

import numpy as np

from node.engines.exact.text_file import (
    ARCHITECTURE,
    BLOCKS,
    GATE,
    GATES_COUNT,
    HALF_BITS,
    NORM,
    NORM_MOST,
    POWER,
    POWERS_COUNT,
    STEP,
    TURN,
)
from node.engines.exact.whole_numbers import BLOCK
from node.engines.formats.gguf_model import GgufModel
from node.engines.formats.onnx_protobuf import Array
from wire.errors import ModelRefused

# Scales are whole numbers below it, the largest at least half of it: halves have 11 bits.
STEPS = 1 << 11
# Rows that are made at once.
SLAB_ROWS = 4096


def check_makeable(model: GgufModel) -> None:
    """ModelRefused for a model whose family is not made exact."""
    family = model.architecture
    if family != ARCHITECTURE or model.experts or model.biases or not model.speaks:
        what = "a mixture of experts" if model.experts else f"of the family {family}"
        raise ModelRefused(
            f"{model.name} cannot be made exact: it is {what}",
            todo="models of the family llama that are no mixtures can, as SmolLM2 is",
        )


def matrix_bytes(name: str, floats: Array) -> bytes:
    """[outputs, terms] as blocks of Q8_0 whose scales are whole numbers times one power of two.

    ModelRefused for a matrix whose numbers are too large, or not finite.
    """
    largest = float(np.abs(floats).max())
    if not largest < 2.0**16:
        raise ModelRefused(f"{name} has numbers that are not finite, or of 65536 or more")
    # So that the largest scale is below STEPS, and at least half of it.
    bits = min(HALF_BITS, 11 - math.frexp(max(largest, 1e-30) / 127)[1])
    if (largest / 127) * 2.0**bits > STEPS - 1:
        bits -= 1
    found = np.empty((len(floats), floats.shape[1] // BLOCK), BLOCKS)
    for begin in range(0, len(floats), SLAB_ROWS):
        part = floats[begin : begin + SLAB_ROWS].astype(np.float64)
        part = part.reshape(len(part), -1, BLOCK)
        scales = np.ceil(np.abs(part).max(axis=-1) / 127 * 2.0**bits)
        steps = np.maximum(scales, 1.0)[..., None] * 2.0**-bits
        slab = found[begin : begin + SLAB_ROWS]
        slab["numbers"] = np.rint(part / steps).astype(np.int8)
        slab["scale"] = (scales * 2.0**-bits).astype(np.float16)
    return found.tobytes()


def norm_bytes(name: str, floats: Array) -> bytes:
    """Weights of a norm, rounded to whole numbers / 2**16; ModelRefused for one too large."""
    whole = np.rint(floats.astype(np.float64) * 2.0**NORM)
    if not (np.abs(whole) <= NORM_MOST).all():
        raise ModelRefused(f"{name} has a weight that is not finite, or over {NORM_MOST >> NORM}")
    return (whole / 2.0**NORM).astype("<f4").tobytes()


def turns_table(cosines: Array, sines: Array) -> Array:
    """Cosines and sines of each place, [context, head], rounded to whole numbers / 2**15."""
    both = np.concatenate((cosines, sines), axis=-1).reshape(len(cosines), -1)
    if not (np.abs(both) <= 1).all():
        raise ModelRefused("turned keys and queries of this model become larger, which is not run")
    found: Array = (np.rint(both.astype(np.float64) * 2**TURN) / 2**TURN).astype("<f4")
    return found


def powers_table() -> Array:
    """e**(-i / 1024) * 2**17, rounded."""
    steps = np.arange(POWERS_COUNT) / (1 << STEP)
    return np.asarray(np.rint(np.exp(-steps) * (1 << POWER)).astype("<f4"))


def gates_table() -> Array:
    """How far each gate is open, * 2**16, rounded; in the middle of its step."""
    steps = (np.arange(GATES_COUNT) - GATES_COUNT // 2 + 0.5) / (1 << STEP)
    return np.asarray(np.rint((1 << GATE) / (1 + np.exp(-steps))).astype("<f4"))
