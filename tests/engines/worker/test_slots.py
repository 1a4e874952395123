"""Slots as a pure core: who reads, who goes on, what is read again, and what is not."""

import random
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from node.engines.sampler import Sampling
from node.engines.worker.pages import PagePool
from node.engines.worker.passes import RestLost
from node.engines.worker.sequence import TokenSequence
from node.engines.worker.slots import SlotRow, Slots
from wire.errors import ModelRefused
from wire.generation import Ending, PromptToken, read_frames

WORDS = 50


class Table:
    names = tuple(map(str, range(WORDS)))
    texts = tuple(bytes([65 + word % 26]) for word in range(WORDS))
    ends = frozenset({0})


PAGE = 4


class Successor:
    """A model whose next token is the sum of all tokens of its slot so far, and that keeps count.

    It fails when a row stands where the rows before it were not written: it has what it was given
    in pages, and whoever writes into a page of another slot spoils that one's answer.
    """

    def __init__(self) -> None:
        self.page = PAGE
        self.kept: dict[int, int] = {}
        self.passes: list[list[SlotRow]] = []

    def __call__(self, rows: Sequence[SlotRow], told: int | None = None) -> object:
        self.passes.append([replace(row, pages=tuple(row.pages)) for row in rows])
        for row in rows:
            assert len(set(row.pages)) == len(row.pages)
            self.kept[
                row.pages[row.position // self.page] * self.page + row.position % self.page
            ] = row.token
        found = []
        for row in rows:
            places = [
                row.pages[at // self.page] * self.page + at % self.page
                for at in range(row.position + 1)
            ]
            logits = np.zeros(WORDS, np.float32)
            logits[following([self.kept[place] for place in places])] = 1
            found.append(logits)
        if told is not None:
            return iter(found[told:])
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


def slots(count: int = 2, *, reuse: bool = True, pages: int = 100) -> Slots:
    pool = PagePool(pages, PAGE)
    return Slots(count, answering=8, reading=(4, 16), reuse=reuse, pages=pool)


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


@pytest.mark.parametrize(("going", "passes"), [(1, [8]), (4, [8]), (5, [8, 5]), (7, [8, 7])])
def test_while_others_go_on_a_long_prompt_is_read_in_short_passes(
    going: int, passes: list[int]
) -> None:
    held, model = slots(8), Successor()
    for number in range(going):
        held.begin(answer(number, [5 + number], most=30))
    held.step(model, frozenset())
    late = answer(9, [7] * 33)
    held.begin(late)
    model.passes.clear()
    made = held.step(model, frozenset())
    # Beside few in their own pass, beside many in one more that is as short.
    assert [len(rows) for rows in model.passes] == passes
    assert list(made.frames) == list(range(going))
    drain(held, model)
    assert late.made == expected(late.prompt, 6)


def test_where_bits_would_differ_a_prompt_is_read_in_passes_of_its_own() -> None:
    held, model = slots(2, reuse=False), Successor()
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


def test_a_prompt_is_read_though_all_who_were_ready_are_paused() -> None:
    held, model = slots(2), Successor()
    held.begin(answer(1, [5], most=30))
    held.step(model, frozenset())
    late = answer(2, [7] * 33)
    held.begin(late)
    for _ in range(20):
        assert 1 not in held.step(model, frozenset({1})).frames
    assert late.made == expected(late.prompt, 6)


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


def test_whole_pages_are_shared_with_an_answer_that_goes_on() -> None:
    held, model = slots(2), Successor()
    begun = [at % 7 for at in range(10)]
    first, second = answer(1, begun, most=20), answer(2, [*begun, 3, 3], most=20)
    held.begin(first)
    for _ in range(3):
        held.step(model, frozenset())
    held.begin(second)
    model.passes.clear()
    drain(held, model)
    # Two pages of four tokens were there; the third is its own.
    read = [row for rows in model.passes for row in rows if row.slot == model.passes[0][-1].slot]
    assert min(row.position for row in read) == 8
    firsts = [row for rows in model.passes for row in rows if row.slot != read[0].slot]
    assert read[0].pages[:2] == firsts[0].pages[:2]
    assert read[0].pages[2] != firsts[0].pages[2]
    for one in (first, second):
        assert one.made == expected(one.prompt, 20)


def test_a_page_that_another_has_is_not_written_to() -> None:
    held, model = slots(3), Successor()
    begun = [at % 7 for at in range(12)]
    held.begin(answer(1, begun, most=1))
    drain(held, model)
    # Both begin with the pages of what was read before; the third leaves in the midst of one.
    asked = [
        answer(2, [*begun, 1, 2, 3], most=9),
        answer(3, [*begun, 1, 2, 4], most=9),
        answer(4, [*begun[:6], 9, 9, 9, 9], most=9),
    ]
    for one in asked:
        held.begin(one)
    drain(held, model)
    assert [one.made for one in asked] == [expected(one.prompt, 9) for one in asked]


def test_where_pages_run_out_the_newest_waits_and_nobody_is_cut() -> None:
    held, model = slots(4, pages=10), Successor()
    # Each takes eight pages at its end, and one at its beginning.
    asked = [answer(number, [number + 1] * 3, most=29) for number in range(4)]
    for one in asked:
        held.begin(one)
    ended: list[int] = []
    grew: list[tuple[int, ...]] = []
    for _ in range(200):
        held.step(model, frozenset())
        ended += [one.id for one in asked if one.reason and one.id not in ended]
        grew.append(tuple(len(one.made) for one in asked))
        assert held.pages_used <= 10
    assert ended == [0, 1, 2, 3]
    assert [one.made for one in asked] == [expected(one.prompt, 29) for one in asked]
    # The oldest never waited for a token.
    assert [it[0] for it in grew[:29]] == list(range(1, 30))
    # All went on at first; then the newest waited first, and the next older ones after it.
    assert all(grew[8])
    stood = [
        max(at for at in range(28) if grew[at][which] != grew[28][which]) for which in (3, 2, 1)
    ]
    assert stood == sorted(stood)


def test_an_answer_that_takes_all_pages_is_made_after_those_before_it() -> None:
    held, model = slots(3, pages=6), Successor()
    small, large = answer(1, [3] * 5, most=8), answer(2, [4] * 14, most=10)
    late = answer(3, [5] * 2, most=3)
    for one in (small, large, late):
        held.begin(one)
    drain(held, model, steps=120)
    for one in (small, large, late):
        assert one.made == expected(one.prompt, one.most)


def test_a_prompt_whose_tokens_are_told_tells_each_once_though_it_made_way() -> None:
    held, model = slots(2, pages=6), Successor()
    first = answer(1, [3] * 3, most=21)
    asked = replace(
        answer(2, [1 + at % 5 for at in range(15)], most=2),
        sampling=Sampling(tokens=2, echo=1, logprobs=0),
    )
    held.begin(first)
    held.step(model, frozenset())
    held.begin(asked)
    told = b""
    for _ in range(80):
        told += held.step(model, frozenset()).read.get(2, b"")
    pieces = [it for it in read_frames(told) if isinstance(it, PromptToken)]
    assert [it.id for it in pieces] == asked.prompt[1:]
    assert asked.made == expected(asked.prompt, 2)
    assert first.made == expected(first.prompt, 21)


def test_pages_come_back_and_those_that_are_only_kept_make_way() -> None:
    held, model = slots(2, pages=8), Successor()
    for number in range(12):
        asked = answer(number, [number + 1] * 17, most=8)
        held.begin(asked)
        drain(held, model, steps=20)
        assert asked.made == expected(asked.prompt, 8)
        assert held.pages_used == 0


@pytest.mark.parametrize("seed", range(8))
def test_whoever_comes_pauses_and_goes_all_others_end_as_they_do_alone(seed: int) -> None:
    rng = random.Random(seed)
    held, model = slots(rng.choice((2, 4, 8)), pages=rng.choice((9, 14, 30))), Successor()
    beginnings = [[rng.randrange(1, WORDS) for _ in range(14)] for _ in range(3)]
    asked: list[TokenSequence] = []
    for number in range(30):
        prompt = rng.choice(beginnings)[: rng.randrange(1, 14)]
        prompt = [*prompt, *(rng.randrange(1, WORDS) for _ in range(rng.randrange(6)))]
        most = rng.randrange(1, 17)
        true = expected(prompt, most)
        asked.append(answer(number, prompt, most, true[: rng.randrange(most)]))
    gone: set[int] = set()
    waiting = list(asked)
    for _ in range(2000):
        for _ in range(min(len(waiting), rng.choice((0, 0, 0, 2)))):
            held.begin(waiting.pop(0))
        paused = frozenset(rng.sample(range(30), rng.choice((0, 0, 3, 12))))
        if rng.random() < 0.02:
            gone.add(number := rng.randrange(30))
            held.end(number)
        assert not held.step(model, paused).refused
        if not waiting and all(one.reason or one.id in gone for one in asked):
            break
    for one in asked:
        assert one.id in gone or one.made == expected(one.prompt, one.most), one.id
    assert held.pages_used == 0


class Forgetful(Successor):
    """Loses everything that it kept, now and then: in a prompt, at the first token, twice."""

    def __init__(self, chance: random.Random, pages: int) -> None:
        super().__init__()
        self._chance = chance
        self._pages = pages
        self.losses = 0

    def __call__(self, rows: Sequence[SlotRow]) -> np.ndarray | None:
        if self._chance.random() < 0.15:
            self.kept.clear()
            self.losses += 1
            pages = self._chance.choice((0, self._pages, self._pages - 5))
            raise RestLost("the peer left", final=False, pages=pages)
        assert max(page for row in rows for page in row.pages) < self._pages
        return super().__call__(rows)


@pytest.mark.parametrize("seed", range(6))
def test_what_is_lost_elsewhere_is_read_once_more_and_no_token_is_lost_or_doubled(
    seed: int,
) -> None:
    chance = random.Random(seed)
    held, model = slots(3, pages=30), Forgetful(chance, 30)
    prompts = [
        [chance.randrange(1, WORDS) for _ in range(chance.randrange(1, 40))] for _ in "abcdef"
    ]
    asked = [answer(at, prompt, most=9) for at, prompt in enumerate(prompts)]
    for one in asked:
        held.begin(one)
    made = drain(held, model, steps=400)
    assert made == dict.fromkeys(range(6), 9)
    assert [it.made for it in asked] == [expected(prompt, 9) for prompt in prompts]
    assert model.losses > 5
    assert held.free == 3


def test_an_answer_that_no_longer_fits_elsewhere_is_refused_and_the_others_go_on() -> None:
    held, lost = slots(2, pages=30), RestLost("the peer left", final=False, pages=4)
    asked = [answer(1, [1] * 40), answer(2, [2] * 3)]
    for one in asked:
        held.begin(one)

    def leave(_: Sequence[SlotRow]) -> None:
        raise lost

    made = held.step(leave, frozenset())
    assert made.lost is lost
    assert list(made.refused) == [1]
    assert "16 tokens" in str(made.refused[1])
    assert drain(held, Successor()) == {2: 6}
    assert asked[1].made == expected([2] * 3, 6)


class Repeating(Successor):
    """A model whose text repeats itself: after each token comes the same one every time."""

    def __call__(self, rows: Sequence[SlotRow], told: int | None = None) -> object:
        super().__call__(rows, told)
        logits = np.zeros((len(rows), WORDS), np.float32)
        for line, row in zip(logits, rows, strict=True):
            line[1 + row.token * 5 % 7] = 1
        return logits


class Straying(Successor):
    """A model that seems to repeat itself and never does: what follows three tokens changes."""

    def __call__(self, rows: Sequence[SlotRow], told: int | None = None) -> object:
        super().__call__(rows, told)
        logits = np.zeros((len(rows), WORDS), np.float32)
        for line, row in zip(logits, rows, strict=True):
            line[row.position // 4 % 45 + 4 if row.position % 4 == 3 else row.position % 4 + 1] = 1
        return logits


def guessing(count: int = 2, pages: int = 100) -> Slots:
    pool = PagePool(pages, PAGE * 16)
    return Slots(count, answering=8, reading=(4, 16), reuse=True, pages=pool, guessing=(1, 4, 8))


def made_by(model: Successor, held: Slots, asked: list[TokenSequence]) -> list[list[int]]:
    """What was made of answers that begin together."""
    model.page = PAGE * 16
    for one in asked:
        held.begin(one)
    drain(held, model, steps=400)
    return [one.made for one in asked]


def without_guesses(count: int = 2) -> Slots:
    return Slots(count, answering=8, reading=(4, 16), reuse=True, pages=PagePool(100, PAGE * 16))


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("kind", [Successor, Repeating, Straying])
def test_guesses_change_no_token(kind: type[Successor], count: int) -> None:
    prompts = [[2 + at, 4, 6, 1, 3] for at in range(count)]
    found = []
    for held in (guessing(count), without_guesses(count)):
        asked = [answer(at, prompt, most=120) for at, prompt in enumerate(prompts)]
        found.append(made_by(kind(), held, asked))
    assert found[0] == found[1]
    assert [len(made) for made in found[0]] == [120] * count


def test_a_text_that_repeats_itself_takes_a_fraction_of_the_passes() -> None:
    model = Repeating()
    made_by(model, guessing(1), [answer(1, [2, 4, 6], most=120)])
    assert len(model.passes) < 120 / 4


def test_guesses_that_are_wrong_become_rare() -> None:
    model = Straying()
    made_by(model, guessing(1), [answer(1, [1, 2, 3], most=240)])
    longer = [rows for rows in model.passes if len(rows) > 1 and rows[0].position > 2]
    assert 1 <= len(longer) <= 16
    assert len(model.passes) >= 220


def test_who_is_not_alone_guesses_only_where_a_pass_has_room() -> None:
    for count, most in ((2, 4), (3, 4), (4, 4), (5, 8), (8, 8)):
        model = Repeating()
        made_by(model, guessing(8), [answer(at, [2 + at, 4, 6], most=60) for at in range(count)])
        # None of them reads its prompt any more.
        together = [
            len(rows)
            for rows in model.passes
            if len({row.slot for row in rows}) == count and min(row.position for row in rows) > 3
        ]
        assert together
        assert max(together) <= most


def test_guesses_make_nobody_give_up_pages_and_end_with_the_answer() -> None:
    model, held = Repeating(), guessing(2, pages=2)
    asked = [answer(1, [2, 4, 6], most=40), answer(2, [3, 5, 1], most=40)]
    found = made_by(model, held, asked)
    assert [len(made) for made in found] == [40, 40]
    last = max(row.position for rows in model.passes for row in rows)
    assert last < 3 + 40
