"""How far two answers to the same texts lie apart: what a verifier measures. Pure numpy.

It decides nothing: the manifest's tolerance says how far two honest engines may differ.
"""

from collections.abc import Sequence

import numpy as np

from wire.errors import Malformed
from wire.payload import Vectors

# The difference of a row that cannot be compared; 2**62 is the largest number a record holds.
DIFFERENCE_MAX = 2**62


def worst_differences(
    claimed: Vectors, recomputed: Vectors, rows: Sequence[int]
) -> tuple[int, ...]:
    """For each of `rows` (of `claimed`), the largest difference to its recomputed row.

    `recomputed` holds those rows alone, in that order. In parts per billion of the largest
    magnitude in the recomputed row, rounded up. A claimed row with a number that is not finite
    differs by `DIFFERENCE_MAX`. Malformed if the shapes do not fit each other or the rows.
    """
    if claimed.dimensions != recomputed.dimensions:
        raise Malformed(f"{claimed.dimensions} dimensions claimed, not {recomputed.dimensions}")
    if len(rows) != recomputed.rows or not all(0 <= row < claimed.rows for row in rows):
        raise Malformed(f"{recomputed.rows} rows recomputed of {claimed.rows} do not fit {rows}")
    theirs = _matrix(claimed)[list(rows)]
    ours = _matrix(recomputed)
    finite = np.array([bool(np.isfinite(row).all()) for row in theirs + ours])
    largest = np.abs(np.where(finite[:, None], ours, 1.0)).max(axis=1)
    apart = np.abs(np.where(finite[:, None], theirs - ours, 0.0)).max(axis=1)
    # A row of zeros has no magnitude to relate to: anything but zeros is as wrong as can be.
    without = np.where(apart > 0, np.inf, 0.0)
    related = np.where(largest > 0, apart / np.where(largest > 0, largest, 1.0), without)
    return tuple(
        _parts(share) if row_finite else DIFFERENCE_MAX
        for share, row_finite in zip(related.tolist(), finite.tolist(), strict=True)
    )


def _matrix(vectors: Vectors) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    flat = np.frombuffer(vectors.data, dtype="<f4").astype(np.float64)
    return flat.reshape(vectors.rows, vectors.dimensions)


def _parts(share: float) -> int:
    return int(min(np.ceil(share * 1e9), DIFFERENCE_MAX))
