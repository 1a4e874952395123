"""The vector that a hash model makes of a text, the same on every machine. Pure."""

import hashlib
import struct
from collections.abc import Sequence

import numpy as np

from wire.content import ContentId


def hash_vector(model: ContentId, text: str, dimensions: int) -> bytes:
    """The unit vector of a text: `dimensions` little-endian 32-bit floats."""
    return hash_vectors(model, (text,), dimensions)


def hash_vectors(model: ContentId, texts: Sequence[str], dimensions: int) -> bytes:
    """The unit vectors of texts, one after the other."""
    sha256 = hashlib.sha256
    places = [struct.pack("<I", block) for block in range(-(-dimensions // 8))]
    blocks: list[bytes] = []
    for text in texts:
        seed = sha256(model + text.encode()).digest()
        blocks += [sha256(seed + place).digest() for place in places]
    stream = np.frombuffer(b"".join(blocks), dtype="<i4").reshape(len(texts), 8 * len(places))
    # 31-bit halves around zero: plain integers, so every machine makes the same floats.
    raw = stream[:, :dimensions].astype(np.float64) + 0.5
    units: bytes = (raw / np.sqrt(np.sum(raw * raw, axis=1, keepdims=True))).astype("<f4").tobytes()
    return units
