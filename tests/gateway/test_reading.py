"""What is shown of a generation whose pieces are provisional: right, or known to be wrong."""

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.gateway.reading import Reader
from wire.errors import WireError
from wire.generation import Ending, Token, to_frame


def frame(text: bytes) -> bytes:
    return to_frame(Token(id=1, text=text, logprob_millionths=None, top=()))


def output_of(pieces: list[bytes], *, text_bytes: int | None = None) -> bytes:
    size = sum(map(len, pieces)) if text_bytes is None else text_bytes
    ending = Ending(reason="stop", prompt_tokens=1, tokens=len(pieces), text_bytes=size)
    return b"".join(map(frame, pieces)) + to_frame(ending)


PIECES = st.lists(st.binary(min_size=1, max_size=5), min_size=1, max_size=30)
TEXTS = st.text(alphabet="ab☃日🎉", min_size=1, max_size=30)


@given(TEXTS, st.lists(st.text(alphabet="ab☃", min_size=1, max_size=4), max_size=3), st.integers())
def test_a_stream_shows_the_text_up_to_the_first_stop_and_never_takes_back(
    text: str, stops: list[str], seed: int
) -> None:
    random, data = Random(seed), text.encode()
    pieces = []
    while data:
        size = random.randint(1, 4)
        pieces.append(data[:size])
        data = data[size:]
    reader = Reader(tuple(it.encode() for it in stops))
    shown = ""
    for position, piece in enumerate(pieces):
        reader.take(position, 1, frame(piece))
        shown += reader.fresh().text
    reader.finish(output_of(pieces))
    shown += reader.fresh().text
    whole = text.encode()
    # The one that is complete first; of two that are at once, the longer.
    ends = [(at + len(it.encode()), at) for it in stops if (at := whole.find(it.encode())) >= 0]
    expected = whole[: min(ends)[1]] if ends else whole
    assert shown == expected.decode()
    assert reader.reason == "stop"
    assert reader.stopped is bool(ends)
    assert not reader.contradicted


@given(PIECES, PIECES, st.integers(0, 29), st.booleans())
def test_after_a_restart_the_text_goes_on_or_is_said_to_be_contradicted(
    first: list[bytes],
    second: list[bytes],
    position: int,
    looked: bool,
) -> None:
    position = min(position, len(first))
    reader = Reader()
    shown = ""
    for at, piece in enumerate(first):
        reader.take(at, 1, frame(piece))
        if looked:
            shown += reader.fresh().text
    reader.restart(position)
    right = first[:position] + second
    for at, piece in enumerate(second):
        reader.take(position + at, 1, frame(piece))
        shown += reader.fresh().text
    reader.finish(output_of(right))
    shown += reader.fresh().text
    before = b"".join(first) if looked else b""
    if not b"".join(right).startswith(before):
        assert reader.contradicted
    else:
        assert not reader.contradicted
        assert shown == b"".join(right).decode(errors="ignore")


@pytest.mark.parametrize(
    ("position", "units", "data"),
    [(1, 1, frame(b"x")), (0, 2, frame(b"x")), (0, 1, frame(b"x")[:-1]), (0, 1, b"nonsense")],
    ids=["a gap", "more units", "cut", "nonsense"],
)
def test_pieces_that_cannot_be_read_are_not_shown_and_the_output_is(
    position: int, units: int, data: bytes
) -> None:
    reader = Reader()
    reader.take(position, units, data)
    reader.take(position + units, 1, frame(b"y"))
    assert reader.fresh().text == ""
    reader.finish(output_of([b"right"]))
    assert reader.fresh().text == "right"


@pytest.mark.parametrize(
    "output", [b"", frame(b"x"), output_of([b"x"]) + frame(b"y"), output_of([b"x"])[:-1]]
)
def test_an_output_that_is_no_generation_is_found(output: bytes) -> None:
    with pytest.raises(WireError):
        Reader().finish(output)


def test_what_the_engine_cut_off_is_not_shown() -> None:
    reader = Reader()
    reader.finish(output_of([b"show", b" me", b"STOP"], text_bytes=7))
    fresh = reader.fresh()
    assert fresh.text == "show me"
    assert [it.text for it in fresh.tokens] == [b"show", b" me"]
