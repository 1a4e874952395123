"""A sketch of a language model's last states: 34 bytes for 32 tokens that its weights decide. Pure.

Of each chunk of 32 tokens (the last one may have fewer): the rows that the tokens were drawn from,
each over the root of its mean square, one after the other, are projected onto 32 public vectors of
plus and minus one, and divided by the root of how many numbers they are. The greatest magnitude of
the 32 over 127 is told as a half-precision float, little-endian, and each over that, rounded, as a
signed byte. The signs are the bits of the ChaCha20 keystream with the key SHA-256(`KEY`) and a
nonce of zeros, the lowest of each little-endian word first, one vector after the other; 0 is plus.
"""

import functools
import hashlib
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from node.engines.sampler import keystream
from wire.generation import SKETCH_CHUNK_BYTES, SKETCH_CHUNK_TOKENS

KEY = b"baton sketch 1"
NUMBERS = 32
BYTE_MAX = 127
# The least scale that half precision has as a normal number.
SCALE_MIN = 2.0**-14
EPSILON = 1e-12
Rows = np.ndarray[Any, np.dtype[np.float32]]


@functools.lru_cache(maxsize=4)
def signs(width: int) -> Rows:
    """The public vectors for rows of `width` numbers: [32, 32 * width] of 1 and -1."""
    count = NUMBERS * SKETCH_CHUNK_TOKENS * width
    words = keystream(hashlib.sha256(KEY).digest(), bytes(12), -(-count // 32))
    bits = np.unpackbits(np.ascontiguousarray(words).view(np.uint8), bitorder="little")[:count]
    return (1 - 2 * bits.astype(np.float32)).reshape(NUMBERS, -1)


def sketch_of(rows: Rows) -> bytes:
    """The sketch of at most 32 rows, [rows, width]."""
    count, width = rows.shape
    lengths = np.sqrt(np.square(rows, dtype=np.float64).mean(axis=1, keepdims=True) + EPSILON)
    numbers = (rows / lengths).astype(np.float32).reshape(-1)
    found = signs(width)[:, : count * width] @ numbers / np.sqrt(np.float32(count * width))
    scale = np.float16(max(SCALE_MIN, float(np.abs(found).max()) / BYTE_MAX))
    each = np.clip(np.rint(found / np.float32(scale)), -BYTE_MAX, BYTE_MAX).astype(np.int8)
    return bytes(scale.tobytes() + each.tobytes())


def distances(one: bytes, other: bytes) -> list[float]:
    """How far the chunks of two sketches of the same length are apart, by the other's size."""
    pairs = zip(_numbers(one), _numbers(other), strict=True)
    return [float(np.linalg.norm(a - b) / max(float(np.linalg.norm(b)), EPSILON)) for a, b in pairs]


def _numbers(sketch: bytes) -> Any:
    chunks = np.frombuffer(sketch, np.dtype([("scale", "<f2"), ("each", "i1", (NUMBERS,))]))
    # What a stranger says is a scale need not be finite.
    scales = np.nan_to_num(chunks["scale"].astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0)
    return chunks["each"] * scales[:, None]


@dataclass(slots=True)
class Sketching:
    """The sketch of an answer as it grows."""

    done: bytes = b""
    _rows: list[Rows] = field(default_factory=list)

    def add(self, row: Rows) -> None:
        """One more token was drawn from this row."""
        self._rows.append(np.array(row, np.float32))
        if len(self._rows) == SKETCH_CHUNK_TOKENS:
            self.done, self._rows = self.whole(), []

    def whole(self) -> bytes:
        """The sketch of all tokens so far."""
        return self.done + (sketch_of(np.stack(self._rows)) if self._rows else b"")


assert SKETCH_CHUNK_BYTES == 2 + NUMBERS
