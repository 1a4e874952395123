"""The sketch of states: its size, how little rounding moves it, how much another model does."""

import numpy as np
import pytest

from node.engines.margins import SKETCH_LEAST
from node.engines.replay import SKETCH_DISTANCE, JudgedAnswer, sketch_distances, told_otherwise
from node.engines.sketch import Sketching, distances, signs, sketch_of
from wire.errors import WireError
from wire.generation import (
    SKETCH_CHUNK_BYTES,
    SKETCH_CHUNK_TOKENS,
    Ending,
    Sketch,
    Token,
    read_frames,
    to_frame,
)

WIDTH = 64


def rows(seed: int, count: int = SKETCH_CHUNK_TOKENS) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, WIDTH), np.float32) * 7


def test_a_chunk_has_34_bytes_and_is_the_same_however_rows_come() -> None:
    many = rows(1, 70)
    sketching = Sketching()
    for row in many:
        sketching.add(row)
    found = sketching.whole()
    assert len(found) == 3 * SKETCH_CHUNK_BYTES == 3 * 34
    assert sketching.whole() == found
    parts = [many[at : at + SKETCH_CHUNK_TOKENS] for at in range(0, 70, SKETCH_CHUNK_TOKENS)]
    assert found == b"".join(map(sketch_of, parts))
    # The length of a row is no matter: the model divides by it.
    assert max(distances(sketch_of(rows(1) * 3), sketch_of(rows(1)))) < SKETCH_LEAST


def test_the_vectors_are_public_and_do_not_change() -> None:
    found = signs(WIDTH)
    assert found.shape == (32, SKETCH_CHUNK_TOKENS * WIDTH)
    assert set(np.unique(found)) == {-1.0, 1.0}
    assert abs(found.mean()) < 0.02
    assert found[0, :8].tolist() == [-1, 1, 1, 1, -1, 1, -1, -1]


@pytest.mark.parametrize(("noise", "least", "most"), [(1e-5, 0.0, SKETCH_LEAST), (0.2, 0.05, 0.4)])
def test_rounding_moves_it_little_and_other_states_far(
    noise: float, least: float, most: float
) -> None:
    chance = np.random.default_rng(9)
    for seed in range(40):
        true = rows(seed)
        near = true * (1 + noise * chance.standard_normal(true.shape, np.float32))
        (found,) = distances(sketch_of(near), sketch_of(true))
        assert least <= found <= most
    assert distances(sketch_of(rows(1)), sketch_of(rows(2)))[0] > 0.5


def test_what_a_stranger_says_is_a_sketch_is_compared_or_refused() -> None:
    true = sketch_of(rows(1))
    for scale in (np.float16("inf"), np.float16("nan"), np.float16(-1)):
        (found,) = distances(scale.tobytes() + true[2:], true)
        assert found >= 0.9
    for size in (0, 33, 35, 1 << 20):
        with pytest.raises(WireError):
            Sketch(chunks=bytes(size))


def answer(*between: Sketch, tokens: int = 3) -> bytes:
    made = [Token(id=5, text=b"a", logprob_millionths=None, top=()) for _ in range(tokens)]
    ending = Ending(reason="length", prompt_tokens=2, tokens=tokens, text_bytes=tokens)
    return b"".join(to_frame(it) for it in (*made, *between, ending))


def told(*between: Sketch) -> JudgedAnswer:
    return JudgedAnswer(margins=bytes(12), output=answer(*between), positions=3)


def test_an_answer_is_told_otherwise_where_its_sketch_is_missing_or_off() -> None:
    true = Sketch(chunks=sketch_of(rows(1)))
    scale = np.frombuffer(true.chunks[:2], np.float16)[0]
    near = Sketch(chunks=np.float16(scale * 1.01).tobytes() + true.chunks[2:])
    far = Sketch(chunks=np.float16(scale * 1.1).tobytes() + true.chunks[2:])
    longer = Sketch(chunks=true.chunks * 2)
    assert told_otherwise(answer(true), told(true)) == ""
    assert told_otherwise(answer(near), told(true)) == ""
    assert "off, more than" in told_otherwise(answer(near), told(true), SKETCH_LEAST)
    assert "states of tokens 0 and on" in told_otherwise(answer(far), told(true))
    assert "0 sketches" in told_otherwise(answer(), told(true))
    assert "1 sketches" in told_otherwise(answer(true), told())
    assert "2 sketches" in told_otherwise(answer(true, true), told(true))
    assert "of other tokens" in told_otherwise(answer(longer), told(true))
    pieces = list(read_frames(answer(true)))
    early = b"".join(to_frame(it) for it in [pieces[3], *pieces[:3], pieces[4]])
    assert "another order" in told_otherwise(early, told(true))
    assert sketch_distances(answer(far), told(true))[0] == pytest.approx(0.1, abs=0.01)
    assert sketch_distances(answer(), told(true)) == []
    assert 0.01 < SKETCH_DISTANCE < 0.1
