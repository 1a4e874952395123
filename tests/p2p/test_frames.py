"""Frames: any cutting gives the same frames, and what cannot be one is refused at its header."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2p.frames import Frame, FrameKind, FrameParser, credit_frame, read_credit
from wire import limits
from wire.errors import Malformed, Oversize, WireError

_frames = st.lists(
    st.one_of(
        st.builds(Frame, st.just(FrameKind.DATA), st.binary(max_size=300)),
        st.just(Frame(FrameKind.END)),
        st.just(Frame(FrameKind.BEAT)),
        st.builds(credit_frame, st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1)),
    )
)


@given(_frames, st.integers(1, 9))
def test_frames_come_out_the_same_however_the_bytes_are_cut(frames: list[Frame], cut: int) -> None:
    data = b"".join(frame.to_bytes() for frame in frames)
    whole = FrameParser().feed(data)
    assert whole == frames
    for size in (1, cut):
        parser = FrameParser()
        pieces = (data[start : start + size] for start in range(0, len(data), size))
        assert [frame for piece in pieces for frame in parser.feed(piece)] == frames


@given(st.binary(max_size=200))
def test_garbage_raises_only_WireError(data: bytes) -> None:
    with contextlib.suppress(WireError):
        FrameParser().feed(data)


def test_the_numbers_on_the_wire_stay_what_they_are() -> None:
    assert Frame(FrameKind.DATA, b"hi").to_bytes().hex() == "01000000026869"
    assert Frame(FrameKind.END).to_bytes().hex() == "0200000000"
    assert credit_frame(3, 258).to_bytes().hex() == "03000000080000000300000102"
    assert Frame(FrameKind.BEAT).to_bytes().hex() == "0400000000"


def test_credit_says_which_conversation_it_is_for() -> None:
    assert read_credit(credit_frame(7, 1024)) == (7, 1024)


def test_the_largest_frame_passes_and_one_byte_more_is_Oversize() -> None:
    largest = Frame(FrameKind.DATA, bytes(limits.FRAME_BYTES_MAX))
    assert FrameParser().feed(largest.to_bytes()) == [largest]
    with pytest.raises(Oversize):
        FrameParser().feed(b"\x01" + (limits.FRAME_BYTES_MAX + 1).to_bytes(4, "big"))


@pytest.mark.parametrize("header", ["0000000000", "0500000000", "0200000001", "0400000001"])
def test_a_header_that_cannot_be_is_Malformed_before_its_payload(header: str) -> None:
    with pytest.raises(Malformed):
        FrameParser().feed(bytes.fromhex(header))


@pytest.mark.parametrize("size", [0, 7, 9])
def test_credit_of_another_size_is_Malformed(size: int) -> None:
    with pytest.raises(Malformed):
        FrameParser().feed(b"\x03" + size.to_bytes(4, "big"))


def test_a_length_of_four_gigabytes_is_refused_and_nothing_is_kept() -> None:
    with pytest.raises(Oversize):
        FrameParser().feed(b"\x01\xff\xff\xff\xff")
