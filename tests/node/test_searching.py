"""Searching: the nearest passages, and indexes that are not what they say."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from trio.testing import MockClock

from node.engines.hash_engine import hash_manifest, hash_vector
from node.peer import Node
from node.searching import INDEX_ROWS_MAX, INDEXES_MAX, LoadedIndex
from tests.node.asking import MODEL, asked, request
from tests.node.engines import Counted
from tests.node.network import I, S, V, open_network
from wire import limits
from wire.content import ContentId
from wire.errors import TaskFailed
from wire.kinds import Level, Role
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
    hits = index.nearest(question, count).hits
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
    hits = index.nearest(np.array([1, 0], np.float32), 32).hits
    assert [it.row for it in hits] == [row for row in range(48) if row % 3]


def vectors_of(words: Sequence[str], dimensions: int = DIMENSIONS) -> Vectors:
    data = b"".join(hash_vector(MODEL, word, dimensions) for word in words)
    return Vectors(dimensions=dimensions, rows=len(words), data=data)


async def part_of(node: Node, words: Sequence[str], vectors: Vectors | None = None) -> IndexPart:
    store = node.parts.store
    ids = tuple([await store.put(word.encode()) for word in words])
    listed = Passages(source="words", first=0, total=len(words), passages=ids)
    return IndexPart(
        passages=await store.put(listed.to_bytes()),
        vectors=await store.put((vectors or vectors_of(words)).to_bytes()),
    )


async def question_of(node: Node, index: Index, text: str = WORDS[7], count: int = 3) -> bytes:
    stored = await node.parts.store.put(index.to_bytes())
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
    store = node.parts.store
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
        with pytest.raises(TaskFailed, match=r"nearest cannot be read|is not to be had"):
            await asked(asker, request(NEAREST, data=wanted, deadline_s=5, level=Level.SIGNED))
        good = Index(model=MODEL, parts=(await part_of(asker, WORDS[:9]),))
        again = await question_of(asker, good)
        answered, _ = await asked(asker, request(NEAREST, data=again, level=Level.SIGNED))
        assert Hits.from_bytes(answered.output).hits[0].row == 7
        assert worker.legs.done == 1


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


async def test_a_part_named_a_thousand_times_is_measured_before_it_is_put_together(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        asker = await network.start(S)
        await network.start(I, S)
        await network.settled()
        rows = limits.PASSAGES_MAX
        wide = Vectors(dimensions=4000, rows=rows, data=bytes(4 * 4000 * rows))
        words = [str(number) for number in range(rows)]
        # A few megabytes to send; four gigabytes in memory.
        many = Index(model=MODEL, parts=(await part_of(asker, words, wide),) * 1000)
        wanted = await question_of(asker, many)
        with pytest.raises(TaskFailed, match=r"more than \d+ bytes"):
            await asked(asker, request(NEAREST, data=wanted, deadline_s=5, level=Level.SIGNED))
        slim = Vectors(dimensions=1, rows=rows, data=bytes(4 * rows))
        parts = (await part_of(asker, words, slim),) * (INDEX_ROWS_MAX // rows + 1)
        wanted = await question_of(asker, Index(model=MODEL, parts=parts))
        with pytest.raises(TaskFailed, match=f"at most {INDEX_ROWS_MAX}"):
            await asked(asker, request(NEAREST, data=wanted, deadline_s=5, level=Level.SIGNED))


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
        loaded = worker.legs.roles[Role.INFER].indexes._loaded  # type: ignore[attr-defined]
        assert len(loaded) == INDEXES_MAX
