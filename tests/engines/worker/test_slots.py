"""Slots as a pure core: who reads, who goes on, what is read again, and what is not."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from node.engines.sampler import Sampling
from node.engines.worker.sequence import TokenSequence
from node.engines.worker.slots import SlotRow, Slots
from wire.errors import ModelRefused
from wire.generation import Ending, PromptToken, read_frames

WORDS = 50


class Table:
    names = tuple(map(str, range(WORDS)))
    texts = tuple(bytes([65 + word % 26]) for word in range(WORDS))
    ends = frozenset({0})


class Successor:
    """A model whose next token is the sum of all tokens of its slot so far, and that keeps count.

    It fails when a row stands where the rows before it were not written.
    """

    def __init__(self) -> None:
        self.kept: dict[int, list[int]] = {}
        self.passes: list[list[SlotRow]] = []

    def __call__(self, rows: Sequence[SlotRow]) -> np.ndarray | None:
        self.passes.append(list(rows))
        found = []
        for row in rows:
            kept = self.kept.setdefault(row.slot, [])
            assert row.position <= len(kept)
            del kept[row.position :]
            kept.append(row.token)
            logits = np.zeros(WORDS, np.float32)
            logits[following(kept)] = 1
            found.append(logits)
        return np.array(found) if len(rows) <= 8 else None


def following(tokens: list[int]) -> int:
    return 1 + (sum(tokens) * 7 + len(tokens)) % (WORDS - 1)


def expected(prompt: list[int], count: int) -> list[int]:
    tokens = list(prompt)
    for _ in range(count):
        tokens.append(following(tokens))
    return tokens[len(prompt) :]


def answer(
    number: int, prompt: list[int], most: int = 6, forced: Sequence[int] = ()
) -> TokenSequence:
    return TokenSequence(
        id=number,
        model=b"m",
        table=Table(),
        prompt=prompt,
        most=most,
        sampling=Sampling(),
        stops=(),
        grammar=None,
        forced=list(forced),
    )


def slots(count: int = 2, *, reuse: bool = True) -> Slots:
    return Slots(count, answering=8, reading=(4, 16), reuse=reuse)


def drain(held: Slots, model: Successor, steps: int = 60) -> dict[int, int]:
    """Step until nothing more is made; how many frames each answer had."""
    found: dict[int, int] = {}
    for _ in range(steps):
        for number, frames in held.step(model, frozenset()).frames.items():
            found[number] = found.get(number, 0) + len(frames)
    return found


@pytest.mark.parametrize("length", [1, 2, 4, 5, 17, 40])
def test_a_prompt_of_any_length_is_read_and_gone_on_with(length: int) -> None:
    held, prompt = slots(), [(3 * at) % WORDS for at in range(length)]
    asked = answer(1, prompt)
    held.begin(asked)
    assert drain(held, Successor()) == {1: 6}
    assert asked.made == expected(prompt, 6)
    assert asked.reason == "length"
    assert held.free == 2


def test_more_answers_than_slots_wait_and_each_is_as_it_is_alone() -> None:
    held, model = slots(2), Successor()
    asked = [answer(at, [at + 1] * (1 + 5 * at), most=3 + at) for at in range(6)]
    for one in asked:
        held.begin(one)
    assert held.free == -4
    assert drain(held, model) == {at: 3 + at for at in range(6)}
    assert [one.made for one in asked] == [expected(one.prompt, one.most) for one in asked]


def test_while_others_go_on_a_long_prompt_is_read_in_short_passes() -> None:
    held, model = slots(2), Successor()
    held.begin(answer(1, [5], most=30))
    held.step(model, frozenset())
    held.begin(answer(2, [7] * 33))
    model.passes.clear()
    made = held.step(model, frozenset())
    assert [len(rows) for rows in model.passes] == [4, 1]
    assert list(made.frames) == [1]


def test_what_a_free_slot_has_read_is_not_read_again() -> None:
    held, model = slots(2), Successor()
    begun = [9] * 20
    held.begin(answer(1, begun))
    drain(held, model)
    model.passes.clear()
    again = answer(2, [*begun, 4, 4])
    held.begin(again)
    drain(held, model)
    assert sum(len(rows) for rows in model.passes) == 2 + 5
    assert again.made == expected(again.prompt, 6)


def test_where_bits_would_differ_nothing_is_taken_over() -> None:
    held, model = slots(1, reuse=False), Successor()
    for number in (1, 2):
        held.begin(answer(number, [9] * 20))
        drain(held, model)
    assert sum(len(rows) for rows in model.passes) == 2 * (20 + 5)


@pytest.mark.parametrize("right", [0, 3, 9])
def test_what_another_made_is_checked_many_at_a_time_up_to_where_it_is_wrong(right: int) -> None:
    held, model = slots(), Successor()
    prompt = [3, 1, 4]
    true = expected(prompt, 12)
    forced = [*true[:right], *((token + 1) % WORDS for token in true[right:10])]
    asked = answer(1, prompt, most=12, forced=forced)
    held.begin(asked)
    assert drain(held, model) == {1: 12}
    assert asked.made == true
    # Right tokens share passes; every other one takes its own.
    answering = [rows for rows in model.passes if rows[0].position >= len(prompt) - 1]
    assert len(answering) <= 12 - right + -(-right // 7)


def test_a_paused_answer_waits_and_an_ended_one_is_forgotten() -> None:
    held, model = slots(2), Successor()
    for number in (1, 2, 3):
        held.begin(answer(number, [number], most=50))
    made = held.step(model, frozenset({1}))
    assert list(made.frames) == [2]
    held.end(1)
    held.end(2)
    assert list(held.step(model, frozenset()).frames) == [3]
    held.end(3)
    assert held.step(model, frozenset()).frames == {}
    assert held.free == 2


def test_numbers_that_are_not_finite_end_their_answer_alone() -> None:
    held, model = slots(2), Successor()
    held.begin(answer(1, [1]))
    held.begin(answer(2, [2]))

    def broken(rows: Sequence[SlotRow]) -> np.ndarray | None:
        logits = model(rows)
        assert logits is not None
        logits[0] = np.nan
        return logits

    made = held.step(broken, frozenset())
    assert list(made.refused) == [1]
    assert isinstance(made.refused[1], ModelRefused)
    assert list(made.frames) == [2]


@pytest.mark.parametrize("length", [1, 2, 9, 20])
@pytest.mark.parametrize("most", [0, 3])
def test_the_tokens_of_a_prompt_are_told_with_their_probabilities(length: int, most: int) -> None:
    held, model = slots(), Successor()
    prompt = [1 + at % 5 for at in range(length)]
    # A slot that has read a prompt does not have its logits any more.
    held.begin(answer(1, prompt, most=1))
    drain(held, model)
    asked = replace(
        answer(2, prompt, most=most), sampling=Sampling(tokens=most, echo=1, logprobs=2)
    )
    held.begin(asked)
    told, made = b"", []
    for _ in range(30):
        step = held.step(model, frozenset())
        told += step.read.get(2, b"")
        made += step.frames.get(2, [])
    pieces = list(read_frames(told))
    assert [it.id for it in pieces if isinstance(it, PromptToken)] == prompt[1:]
    assert all(len(it.top) == 2 for it in pieces if isinstance(it, PromptToken))
    *_, ending = read_frames(made[-1])
    assert isinstance(ending, Ending)
    assert (ending.tokens, ending.prompt_tokens) == (most, length)
    assert asked.made == expected(prompt, most)
