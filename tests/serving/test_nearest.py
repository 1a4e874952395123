"""Searching: the nearest passages, and indexes that are not what they say."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from trio.testing import MockClock

from node.engines.hash_engine import HashEngine, hash_manifest
from node.engines.hash_vector import hash_vector
from node.engines.interface import Loaded
from node.peer import Node
from node.serving.infer_role import InferRole
from node.serving.nearest import (
    INDEX_ROWS_MAX,
    INDEXES_MAX,
    VECTORS_BYTES_MAX,
    IndexCache,
    LoadedIndex,
)
from node.serving.role import LegInput
from tests.node.asking import MODEL, asked, request
from tests.node.engines import Counted
from tests.node.network import I, S, V, open_network
from wire import limits
from wire.content import ContentId
from wire.errors import Oversize, Refused, TaskFailed
from wire.kinds import Level, Role
from wire.model import Manifest
from wire.payload import Hits, Index, IndexPart, Passages, Question, Vectors
from wire.receipt import Verdict
from wire.signed import open_signed
from wire.task import Stage

NEAREST = Stage(role=Role.INFER, operation="nearest", model=MODEL, parameters={})
DIMENSIONS = 64
WORDS = [f"passage {number}" for number in range(40)]


def id_of(number: int) -> ContentId:
    return ContentId.of(number.to_bytes(4, "big"))


def unit(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return (rows / np.where(lengths > 0, lengths, 1)).astype(np.float32)


@given(st.integers(0, 2**32 - 1), st.integers(1, 60), st.integers(1, 32))
def test_the_hits_are_those_numpy_finds_in_the_order_of_their_cosine(
    seed: int, rows: int, count: int
) -> None:
    random = np.random.default_rng(seed)
    vectors = unit(random.standard_normal((rows, 8)).astype(np.float32))
    question = unit(random.standard_normal((1, 8)).astype(np.float32))[0]
    index = LoadedIndex(MODEL, tuple(id_of(row) for row in range(rows)), vectors)
    hits = index._nearest(question, count).hits
    cosines = vectors @ question
    assert len(hits) == min(rows, count)
    assert [it.score for it in hits] == sorted((it.score for it in hits), reverse=True)
    assert all(it.passage == id_of(it.row) for it in hits)
    assert all(it.score == float(cosines[it.row]) for it in hits)
    left_out = set(range(rows)) - {it.row for it in hits}
    assert all(cosines[row] <= hits[-1].score for row in left_out)


def test_equal_scores_stand_in_the_order_of_the_index() -> None:
    # Many, for sorts of a few are stable by themselves.
    vectors = np.array([[0, 1], [1, 0], [1, 0]] * 100, np.float32)
    index = LoadedIndex(MODEL, tuple(id_of(row) for row in range(300)), vectors)
    hits = index._nearest(np.array([1, 0], np.float32), 32).hits
    assert [it.row for it in hits] == [row for row in range(48) if row % 3]


def vectors_of(words: Sequence[str], dimensions: int = DIMENSIONS) -> Vectors:
    data = b"".join(hash_vector(MODEL, word, dimensions) for word in words)
    return Vectors(dimensions=dimensions, rows=len(words), data=data)


async def part_of(node: Node, words: Sequence[str], vectors: Vectors | None = None) -> IndexPart:
    store = node.dependencies.store
    ids = tuple([await store.put(word.encode()) for word in words])
    listed = Passages(source="words", first=0, total=len(words), passages=ids)
    return IndexPart(
        passages=await store.put(listed.to_bytes()),
        vectors=await store.put((vectors or vectors_of(words)).to_bytes()),
    )


async def question_of(node: Node, index: Index, text: str = WORDS[7], count: int = 3) -> bytes:
    stored = await node.dependencies.store.put(index.to_bytes())
    return Question(text=text, index=stored, count=count).to_bytes()


async def test_a_question_is_answered_by_the_passage_itself_and_checked(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        asker = await network.start(S)
        await network.start(I, S)
        for _ in range(2):
            await network.start(V, S)
        await network.settled()
        parts = (await part_of(asker, WORDS[:25]), await part_of(asker, WORDS[25:]))
        for number in (7, 30):
            wanted = await question_of(asker, Index(model=MODEL, parts=parts), WORDS[number])
            answered, _ = await asked(asker, request(NEAREST, data=wanted))
            hits = Hits.from_bytes(answered.output).hits
            assert len(hits) == 3
            assert (hits[0].row, hits[0].passage) == (number, ContentId.of(WORDS[number].encode()))
            assert hits[0].score == pytest.approx(1.0)
            verdicts = [open_signed(raw, Verdict) for raw in answered.answer.record.verdicts]
            assert [it.record.agrees for it in verdicts] == [True, True]


async def _strange(node: Node, what: str) -> Index:
    good = await part_of(node, WORDS[:5])
    store = node.dependencies.store
    short = vectors_of(WORDS[:5], dimensions=32)
    never = replace(vectors_of(WORDS[:5]), data=np.full(5 * 64, np.nan, "<f4").tobytes())
    long = replace(vectors_of(WORDS[:5]), data=np.full(5 * 64, 1e30, "<f4").tobytes())
    parts: dict[str, tuple[IndexPart, ...]] = {
        "a vector too few": (await part_of(node, WORDS[:5], vectors_of(WORDS[:4])),),
        "of different lengths": (good, await part_of(node, WORDS[:5], short)),
        "of another length than the question": (await part_of(node, WORDS[:5], short),),
        "not numbers": (await part_of(node, WORDS[:5], never),),
        "not of length one": (await part_of(node, WORDS[:5], long),),
        "no vectors at all": (replace(good, vectors=await store.put(b"no vectors")),),
        "no passages at all": (replace(good, passages=await store.put(b"no passages")),),
        "a part nobody has": (replace(good, vectors=ContentId.of(b"nobody has this")),),
    }
    return Index(model=MODEL, parts=parts[what])


@pytest.mark.parametrize(
    "what",
    [
        "a vector too few",
        "of different lengths",
        "of another length than the question",
        "not numbers",
        "not of length one",
        "no vectors at all",
        "no passages at all",
        "a part nobody has",
    ],
)
async def test_an_index_that_is_not_what_it_says_is_refused_and_harms_nobody(
    autojump_clock: MockClock, tmp_path: Path, what: str
) -> None:
    async with open_network(tmp_path) as network:
        asker = await network.start(S)
        worker = await network.start(I, S)
        await network.settled()
        wanted = await question_of(asker, await _strange(asker, what))
        with pytest.raises(TaskFailed, match=r"nearest cannot be read|cannot be fetched"):
            await asked(asker, request(NEAREST, data=wanted, deadline_s=5, level=Level.SIGNED))
        good = Index(model=MODEL, parts=(await part_of(asker, WORDS[:9]),))
        again = await question_of(asker, good)
        answered, _ = await asked(asker, request(NEAREST, data=again, level=Level.SIGNED))
        assert Hits.from_bytes(answered.output).hits[0].row == 7
        assert worker.leg_server.done == 1


async def test_an_index_of_another_model_is_refused(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        asker = await network.start(S)
        await network.start(I, S)
        await network.settled()
        other = Index(model=hash_manifest("another").id, parts=(await part_of(asker, WORDS[:5]),))
        wanted = await question_of(asker, other)
        with pytest.raises(TaskFailed, match="made with another model"):
            await asked(asker, request(NEAREST, data=wanted, deadline_s=5, level=Level.SIGNED))


async def test_a_part_named_twice_is_refused(autojump_clock: MockClock, tmp_path: Path) -> None:
    async with open_network(tmp_path) as network:
        asker = await network.start(S)
        await network.start(I, S)
        await network.settled()
        part = await part_of(asker, WORDS[:5])
        other = await part_of(asker, WORDS[5:9])
        wanted = await question_of(asker, Index(model=MODEL, parts=(part, other, part)))
        with pytest.raises(TaskFailed, match="names a part twice"):
            await asked(asker, request(NEAREST, data=wanted, deadline_s=5, level=Level.SIGNED))


async def wide_parts(node: Node, dimensions: int, count: int) -> tuple[IndexPart, ...]:
    """Many parts for little content: each lists other passages, and all share one blob of zeros."""
    rows = limits.PASSAGES_MAX
    zeros = Vectors(dimensions=dimensions, rows=rows, data=bytes(4 * dimensions * rows)).to_bytes()
    vectors = await node.dependencies.store.put(zeros)
    ids = tuple(id_of(row) for row in range(rows))
    parts = []
    for first in range(count):
        listed = Passages(source="wide", first=first, total=rows, passages=ids)
        passages = await node.dependencies.store.put(listed.to_bytes())
        parts.append(IndexPart(passages=passages, vectors=vectors))
    return tuple(parts)


class Wide(HashEngine):
    """Its vectors are as wide as an index that is to be refused for its size alone."""

    async def load(self, manifest: Manifest, files: Mapping[str, Any]) -> Loaded:
        ready = await super().load(manifest, files)
        self._loaded[ready.model] = replace(
            ready, manifest=replace(ready.manifest, parameters={"dimensions": 4000})
        )
        return ready


async def test_an_index_too_large_for_memory_is_refused_before_it_is_in_memory(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        asker = await network.start(S)
        worker = await network.start(I, S, engine=Wide())
        await network.settled()
        role = worker.leg_server.roles[Role.INFER]
        assert isinstance(role, InferRole)
        # A few megabytes to send; half a gigabyte and more in memory.
        many = VECTORS_BYTES_MAX // (4 * 4000 * limits.PASSAGES_MAX) + 1
        index = Index(model=MODEL, parts=await wide_parts(asker, 4000, many))
        wanted = await question_of(asker, index)
        with pytest.raises(TaskFailed, match=r"more than \d+ bytes"):
            await asked(asker, request(NEAREST, data=wanted, deadline_s=5, level=Level.SIGNED))
        assert not role.indexes._loaded
        assert role.indexes._coming_bytes == 0


async def test_vectors_of_another_length_are_refused_at_the_first_part(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        asker = await network.start(S)
        worker = await network.start(I, S)
        await network.settled()
        wanted = await question_of(asker, Index(model=MODEL, parts=await wide_parts(asker, 1, 700)))
        with pytest.raises(TaskFailed, match="another length"):
            await asked(asker, request(NEAREST, data=wanted, deadline_s=5, level=Level.SIGNED))
        # What eight at once had begun, and no more, was fetched.
        assert asker.blobs.served < 30
        role = worker.leg_server.roles[Role.INFER]
        assert isinstance(role, InferRole)
        assert role.indexes._coming_bytes == 0


async def test_the_rows_of_an_index_are_bounded(autojump_clock: MockClock, tmp_path: Path) -> None:
    async with open_network(tmp_path) as network:
        asker = await network.start(S)
        await network.settled()
        source = LegInput(id=None, data=None, holders=(), deadline_s=30.0)
        count = INDEX_ROWS_MAX // limits.PASSAGES_MAX + 1
        index = Index(model=MODEL, parts=await wide_parts(asker, 1, count))
        stored = await asker.dependencies.store.put(index.to_bytes())
        with pytest.raises(Oversize, match=f"at most {INDEX_ROWS_MAX}"):
            await IndexCache(asker.blobs).get(stored, MODEL, 1, source)


async def test_indexes_kept_make_room_for_the_next_and_loads_share_one_budget(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        asker = await network.start(S)
        await network.settled()
        cache = IndexCache(asker.blobs)
        source = LegInput(id=None, data=None, holders=(), deadline_s=30.0)
        index = Index(model=MODEL, parts=(await part_of(asker, WORDS[:9]),))
        stored = await asker.dependencies.store.put(index.to_bytes())
        kept = await cache.get(stored, MODEL, DIMENSIONS, source)
        assert await cache.get(stored, MODEL, DIMENSIONS, source) is kept
        # As if other loads had brought in all there is room for.
        cache.make_room(VECTORS_BYTES_MAX)
        assert not cache._loaded
        with pytest.raises(Refused, match="other indexes") as refused:
            await cache.get(stored, MODEL, DIMENSIONS, source)
        assert refused.value.retry_after_s == 1.0
        assert cache._coming_bytes == VECTORS_BYTES_MAX
        assert not cache._loading


async def test_a_question_asked_many_times_at_once_loads_its_index_once(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        asker = await network.start(S)
        reader = await network.start(S)
        await network.settled()
        cache = IndexCache(reader.blobs)
        source = LegInput(id=None, data=None, holders=(asker.peers.me,), deadline_s=30.0)
        index = Index(model=MODEL, parts=(await part_of(asker, WORDS[:9]),))
        stored = await asker.dependencies.store.put(index.to_bytes())
        found: list[LoadedIndex] = []

        async def get() -> None:
            found.append(await cache.get(stored, MODEL, None, source))

        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(get)
        assert len({id(it) for it in found}) == 1
        assert asker.blobs.served == 3


async def test_an_index_is_fetched_once_for_many_questions_and_few_are_kept(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        asker = await network.start(S)
        worker = await network.start(I, S, engine=Counted())
        await network.settled()

        async def ask(words: Sequence[str], **about: Any) -> None:
            index = Index(model=MODEL, parts=(await part_of(asker, words),))
            wanted = await question_of(asker, index, **about)
            await asked(asker, request(NEAREST, data=wanted, level=Level.SIGNED))

        await ask(WORDS, text="first")
        served = asker.blobs.served
        await ask(WORDS, text="second")
        assert asker.blobs.served == served
        for number in range(1, INDEXES_MAX + 3):
            await ask(WORDS[number:], text="third")
        loaded = worker.leg_server.roles[Role.INFER].indexes._loaded  # type: ignore[attr-defined]
        assert len(loaded) == INDEXES_MAX
