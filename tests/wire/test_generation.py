"""Answers of language models: frames that can be cut between tokens, and nowhere else."""

import pytest

from tests.wire.samples import BY_NAME
from wire.errors import Malformed
from wire.generation import Ending, Generation, Token, read_frames, to_frame
from wire.tensors import Tensor

TOKEN, ENDING = BY_NAME["Token"], BY_NAME["Ending"]
assert isinstance(TOKEN, Token)
assert isinstance(ENDING, Ending)


def test_frames_are_read_as_they_were_written() -> None:
    data = to_frame(TOKEN) * 3 + to_frame(ENDING)
    assert [*read_frames(data)] == [TOKEN, TOKEN, TOKEN, ENDING]
    assert [*read_frames(b"")] == []


@pytest.mark.parametrize("cut", range(1, len(to_frame(TOKEN))))
def test_a_part_of_a_token_is_none(cut: int) -> None:
    with pytest.raises(Malformed):
        [*read_frames(to_frame(ENDING) + to_frame(TOKEN)[:cut])]


def test_what_is_neither_token_nor_ending_is_refused() -> None:
    with pytest.raises(Malformed):
        [*read_frames(b"x\0\1\x80")]


@pytest.mark.parametrize(("prompt", "messages"), [("", ""), ("a", "[]")])
def test_a_generation_goes_on_from_one_thing(prompt: str, messages: str) -> None:
    with pytest.raises(Malformed):
        Generation(prompt=prompt, messages=messages, tools="", schema="", stop=())


@pytest.mark.parametrize(
    ("kind", "shape", "size"), [("float32", (2, 2), 15), ("object", (1,), 8), ("int64", (), 7)]
)
def test_a_tensor_is_what_its_shape_says(kind: str, shape: tuple[int, ...], size: int) -> None:
    with pytest.raises(Malformed):
        Tensor(name="x", kind=kind, shape=shape, data=bytes(size))
