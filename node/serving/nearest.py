"""Nearest passages: an index is passages and their vectors, both named by content."""

from dataclasses import dataclass, field

import numpy as np
import trio
from numpy.typing import NDArray

from node.serving.role import LegInput
from p2p.blobs import Blobs
from p2p.gather import gather
from p2p.timeouts import stretched
from wire import limits
from wire.content import ContentId
from wire.errors import Malformed, Oversize, Refused, TooSlow
from wire.latest import Latest
from wire.payload import Hit, Hits, Index, IndexPart, Passages, Vectors

INDEX_ROWS_MAX = 200_000
INDEX_BYTES_MAX = 1 << 20
INDEXES_MAX = 4
# For all indexes kept and loading: more than INDEX_ROWS_MAX rows of 512 numbers.
VECTORS_BYTES_MAX = 512 << 20
# A peer that holds back parts must not keep others from searching for long.
LOADS_AT_ONCE = 16
LOAD_S_MAX = 60.0
# A smaller index is searched faster than a thread starts.
ASIDE_BYTES = 8 << 20


@dataclass(frozen=True, slots=True)
class LoadedIndex:
    """An index in memory: `vectors` is rows x dimensions, one row for each passage."""

    model: ContentId
    passages: tuple[ContentId, ...]
    vectors: NDArray[np.float32]

    async def nearest(self, vector: NDArray[np.float32], count: int) -> Hits:
        """The `count` passages of greatest cosine, best first; vectors are of length one.

        Equal scores stand in the order of the index, so that two peers give the same answer.
        """
        if self.vectors.nbytes < ASIDE_BYTES:
            return self._nearest(vector, count)
        return await trio.to_thread.run_sync(self._nearest, vector, count)

    def _nearest(self, vector: NDArray[np.float32], count: int) -> Hits:
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
    _loaded: Latest[ContentId, LoadedIndex] = field(default_factory=lambda: Latest(INDEXES_MAX))
    _loading: dict[ContentId, trio.Event] = field(default_factory=dict)
    # Bytes of vectors that the running loads hold.
    _coming_bytes: int = 0

    async def get(
        self, index_id: ContentId, model: ContentId, dimensions: int | None, source: LegInput
    ) -> LoadedIndex:
        """An index with all its parts; Missing, Malformed, Oversize, TooSlow, Refused.

        Malformed unless it was made with `model` and, where given, has `dimensions` to a row.
        """
        deadline_s = min(source.deadline_s, stretched(LOAD_S_MAX))
        with trio.move_on_after(max(0.0, deadline_s)):
            while (other := self._loading.get(index_id)) is not None:
                await other.wait()
            found = self._loaded.get(index_id)
            if found is None:
                found = await self._load_once(index_id, model, dimensions, source)
            _check_made_with(found.model, model, dimensions, found.vectors.shape[1])
            return found
        raise TooSlow(f"the index {index_id.short} did not arrive within {deadline_s:.0f} s")

    async def _load_once(
        self, index_id: ContentId, model: ContentId, dimensions: int | None, source: LegInput
    ) -> LoadedIndex:
        if len(self._loading) >= LOADS_AT_ONCE:
            raise Refused("other indexes are being loaded", retry_after_s=1.0)
        done = self._loading[index_id] = trio.Event()
        load = _Load(self, model, dimensions, source)
        try:
            found = await load.run(index_id)
            self._loaded[index_id] = found
        finally:
            self._coming_bytes -= load.size_bytes
            del self._loading[index_id]
            done.set()
        return found

    def make_room(self, size_bytes: int) -> None:
        """Count bytes that will be kept; the indexes used longest ago make room for them."""
        self._coming_bytes += size_bytes
        while self._loaded and self._kept_bytes + self._coming_bytes > VECTORS_BYTES_MAX:
            self._loaded.forget_oldest()
        if self._coming_bytes > VECTORS_BYTES_MAX:
            raise Refused("other indexes are being loaded", retry_after_s=1.0)

    @property
    def _kept_bytes(self) -> int:
        return sum(it.vectors.nbytes for it in self._loaded.values())


@dataclass(slots=True)
class _Load:
    """One index that is being loaded; each part is checked and counted before it is kept."""

    cache: IndexCache
    model: ContentId
    dimensions: int | None
    source: LegInput
    size_bytes: int = 0
    rows: int = 0

    async def run(self, index_id: ContentId) -> LoadedIndex:
        index = Index.from_bytes(await self._bring(index_id, INDEX_BYTES_MAX))
        _check_made_with(index.model, self.model, None, 0)
        if len(set(index.parts)) != len(index.parts):
            # With repeated parts, a few megabytes to send would be gigabytes in memory.
            raise Malformed("an index names a part twice")
        parts: dict[IndexPart, tuple[Passages, Vectors]] = {}

        async def load(part: IndexPart) -> None:
            parts[part] = await self._part(part)

        await gather(load, index.parts)
        passages = tuple(it for part in index.parts for it in parts[part][0].passages)
        vectors = [parts.pop(part)[1] for part in index.parts]
        if self.size_bytes < ASIDE_BYTES:
            return LoadedIndex(index.model, passages, _put_together(vectors))
        together = await trio.to_thread.run_sync(_put_together, vectors)
        return LoadedIndex(index.model, passages, together)

    async def _part(self, part: IndexPart) -> tuple[Passages, Vectors]:
        passages = Passages.from_bytes(await self._bring(part.passages, limits.INLINE_BYTES_MAX))
        vectors = Vectors.from_bytes(await self._bring(part.vectors, Vectors.SIZE_BYTES_MAX))
        if vectors.rows != len(passages.passages):
            raise Malformed("an index part has not one vector for each passage")
        if self.dimensions is None:
            self.dimensions = vectors.dimensions
        if vectors.dimensions != self.dimensions:
            raise Malformed("the vectors of an index are of another length than they should be")
        rows, size_bytes = self.rows + vectors.rows, self.size_bytes + len(vectors.data)
        if rows > INDEX_ROWS_MAX:
            raise Oversize(f"an index of {rows} rows or more, at most {INDEX_ROWS_MAX}")
        if size_bytes > VECTORS_BYTES_MAX:
            raise Oversize(f"an index of more than {VECTORS_BYTES_MAX} bytes")
        self.rows, self.size_bytes = rows, size_bytes
        self.cache.make_room(len(vectors.data))
        return passages, vectors

    async def _bring(self, content: ContentId, size_bytes_max: int) -> bytes:
        return await self.cache.blobs.get(
            content,
            self.source.holders,
            deadline_s=self.source.deadline_s,
            size_bytes_max=size_bytes_max,
        )


def _check_made_with(
    found: ContentId, model: ContentId, dimensions: int | None, found_dimensions: int
) -> None:
    if found != model or dimensions not in (None, found_dimensions):
        raise Malformed("the index was made with another model")


def _put_together(vectors: list[Vectors]) -> NDArray[np.float32]:
    """Every row in one array, as this machine's own floats; Malformed if one is no number.

    Each part is freed once it is copied, so that an index is not in memory twice.
    """
    at = sum(it.rows for it in vectors)
    together = np.empty((at, vectors[0].dimensions), np.float32)
    while vectors:
        part = vectors.pop()
        rows = np.frombuffer(part.data, "<f4").reshape(part.rows, part.dimensions)
        if not np.isfinite(rows).all():
            raise Malformed("an index holds numbers that are not finite")
        together[at - part.rows : at] = rows
        at -= part.rows
    return together
