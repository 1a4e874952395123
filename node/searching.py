"""Nearest passages: an index is passages and their vectors, both named by content."""

from collections import Counter
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from node.roles.seam import LegInput
from p2p.blobs import Blobs
from p2p.together import each
from wire import limits
from wire.content import ContentId
from wire.errors import Malformed, Oversize
from wire.payload import Hit, Hits, Index, IndexPart, Passages, Vectors

INDEX_ROWS_MAX = 200_000
INDEX_BYTES_MAX = 1 << 20
INDEXES_MAX = 4
# INDEX_ROWS_MAX rows of 512 numbers, with some to spare.
VECTORS_BYTES_MAX = 512 << 20


@dataclass(frozen=True, slots=True)
class LoadedIndex:
    """An index in memory: `vectors` is rows x dimensions, one row for each passage."""

    model: ContentId
    passages: tuple[ContentId, ...]
    vectors: NDArray[np.float32]

    def nearest(self, vector: NDArray[np.float32], count: int) -> Hits:
        """The `count` passages of greatest cosine, best first; vectors are of length one.

        Equal scores stand in the order of the index, so that two peers give the same answer.
        """
        scores = self.vectors @ vector
        best = np.argsort(-scores, kind="stable")[:count]
        return Hits(
            hits=tuple(
                Hit(passage=self.passages[row], row=int(row), score=float(scores[row]))
                for row in best
            )
        )


@dataclass(slots=True)
class IndexCache:
    """The indexes used last, so that each question does not fetch them anew."""

    blobs: Blobs
    _loaded: dict[ContentId, LoadedIndex] = field(default_factory=dict)

    async def get(self, index_id: ContentId, source: LegInput) -> LoadedIndex:
        """Fetch an index with all its parts; Missing, Malformed, Oversize, TooSlow."""
        if (found := self._loaded.get(index_id)) is None:
            found = await self._load(index_id, source)
            while len(self._loaded) >= INDEXES_MAX:
                self._loaded.pop(next(iter(self._loaded)))
            self._loaded[index_id] = found
        return found

    async def _load(self, index_id: ContentId, source: LegInput) -> LoadedIndex:
        async def bring(content: ContentId, size_bytes_max: int) -> bytes:
            return await self.blobs.get(
                content,
                source.holders,
                deadline_s=source.deadline_s,
                size_bytes_max=size_bytes_max,
            )

        index = Index.from_bytes(await bring(index_id, INDEX_BYTES_MAX))
        rows: dict[IndexPart, tuple[Passages, Vectors]] = {}
        # A part that is named twice is in memory twice once the parts are put together.
        times = Counter(index.parts)
        size_bytes = 0

        async def load(part: IndexPart) -> None:
            nonlocal size_bytes
            passages = Passages.from_bytes(await bring(part.passages, limits.INLINE_BYTES_MAX))
            vectors = Vectors.from_bytes(await bring(part.vectors, Vectors.SIZE_BYTES_MAX))
            if vectors.rows != len(passages.passages):
                raise Malformed("an index part has not one vector for each passage")
            size_bytes += len(vectors.data) * times[part]
            if size_bytes > VECTORS_BYTES_MAX:
                raise Oversize(f"an index of more than {VECTORS_BYTES_MAX} bytes")
            rows[part] = passages, vectors

        await each(load, times)
        return _assembled(index, [rows[part] for part in index.parts])


def _assembled(index: Index, rows: list[tuple[Passages, Vectors]]) -> LoadedIndex:
    if len({vectors.dimensions for _, vectors in rows}) != 1:
        raise Malformed("the parts of an index have vectors of different lengths")
    dimensions = rows[0][1].dimensions
    vectors = np.concatenate(
        [np.frombuffer(it.data, "<f4").reshape(it.rows, dimensions) for _, it in rows]
    )
    if len(vectors) > INDEX_ROWS_MAX:
        raise Oversize(f"an index of {len(vectors)} rows, at most {INDEX_ROWS_MAX}")
    if not np.isfinite(vectors).all():
        raise Malformed("an index holds numbers that are not finite")
    passages = tuple(it for part, _ in rows for it in part.passages)
    return LoadedIndex(index.model, passages, vectors.astype(np.float32))
