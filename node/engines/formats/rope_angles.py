"""Cosines and sines of the angles by which keys and queries are turned at each place. Pure."""

import math
from typing import Any

import numpy as np

from node.engines.formats.gguf_rope import Rope, Yarn
from node.engines.formats.safetensors import Array

DoubleArray = np.ndarray[Any, np.dtype[np.float64]]
# What a ramp has at least, so that it is one.
RAMP_LEAST = 0.001


def angles(rope: Rope, context: int, divisors: Array | None) -> tuple[Array, Array]:
    """Cosine and sine of each place's angles: [context, 1, half], 32-bit floats."""
    half = rope.turned // 2
    speeds = rope.base ** (-np.arange(half, dtype=np.float64) / half)
    if rope.yarn is None:
        speeds = speeds / rope.factor
    else:
        kept = _quick(rope, rope.yarn)
        speeds = speeds / rope.factor * (1 - kept) + speeds * kept
    if divisors is not None:
        speeds = speeds / divisors.astype(np.float64)
    turns = (np.arange(context, dtype=np.float64)[:, None] * speeds)[:, None, :]
    cosines, sines = rope.magnitude * np.cos(turns), rope.magnitude * np.sin(turns)
    return cosines.astype(np.float32), sines.astype(np.float32)


def _quick(rope: Rope, yarn: Yarn) -> DoubleArray:
    """How much of each pair is turned as it is: 1 for quick ones, 0 for slow ones."""

    def pair(turns: float) -> float:
        # The pair that makes so many turns within the original context.
        length = yarn.original_context / (turns * 2 * math.pi)
        return rope.turned * math.log(length) / (2 * math.log(rope.base))

    first = max(0, math.floor(pair(yarn.quick)))
    last = min(rope.turned - 1, math.ceil(pair(yarn.slow)))
    pairs = np.arange(rope.turned // 2, dtype=np.float64)
    ramp = (pairs - first) / max(RAMP_LEAST, last - first)
    return 1 - np.clip(ramp, 0.0, 1.0)
