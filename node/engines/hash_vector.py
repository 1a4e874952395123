"""The vector that a hash model makes of a text, the same on every machine. Pure."""

import hashlib
import struct

import numpy as np

from wire.content import ContentId


def hash_vector(model: ContentId, text: str, dimensions: int) -> bytes:
    """The unit vector of a text: `dimensions` little-endian 32-bit floats."""
    seed = hashlib.sha256(model + text.encode()).digest()
    blocks = -(-dimensions // 8)
    stream = b"".join(
        hashlib.sha256(seed + struct.pack("<I", block)).digest() for block in range(blocks)
    )
    # 31-bit halves around zero: plain integers, so every machine makes the same floats.
    raw = np.frombuffer(stream, dtype="<i4")[:dimensions].astype(np.float64) + 0.5
    unit: bytes = (raw / np.sqrt(np.sum(raw * raw))).astype("<f4").tobytes()
    return unit
