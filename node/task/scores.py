"""The answer of a model that scores pairs, read as how well each text answers its query."""

import math
import struct

from wire.errors import Malformed
from wire.payload import QueryText, Vectors

# Beyond it the exponential is no number, and the relevance is 0 or 1 long before.
SCORE_MAX = 700.0


def relevances(output: bytes, count: int) -> list[float]:
    """From 0 to 1 for each of `count` pairs, in their order; Malformed if it is another answer."""
    found = Vectors.from_bytes(output)
    if found.rows != count or found.dimensions != QueryText.COLUMNS:
        raise Malformed(f"{found.rows} rows of {found.dimensions} are no scores of {count} pairs")
    scores = [row[0] for row in struct.iter_unpack(f"<{QueryText.COLUMNS}f", found.data)]
    if not all(map(math.isfinite, scores)):
        raise Malformed("a score is not finite")
    return [1 / (1 + math.exp(-max(-SCORE_MAX, min(SCORE_MAX, it)))) for it in scores]


def ranked(scores: list[float]) -> list[int]:
    """The places of scores, the highest first; of equal ones the first."""
    return sorted(range(len(scores)), key=lambda it: (-scores[it], it))
