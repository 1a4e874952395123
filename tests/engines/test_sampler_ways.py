"""Both samplers draw the same token; a margin is 0 for that token, and for no other one."""

import random

import numpy as np
import pytest

from node.engines.sampler import (
    LIKELY,
    MARGIN_MAX,
    RANKED,
    Claim,
    LogitRules,
    Sampling,
    choose,
    keystream,
    margin,
)
from tests.engines import specified_sampler
from tests.engines.specified_sampler import choose_slowly

MODEL = b"model"
WORDS = (3, LIKELY, LIKELY + 1, RANKED + 1, 9000)
CUTS = (
    {},
    {"top_k": 1},
    {"top_k": 40},
    {"top_k": RANKED + 1},
    {"top_p": 0.0},
    {"top_p": 0.5},
    {"top_p": 0.95},
    {"min_p": 0.05},
    {"min_p": 1.0},
    {"top_k": 40, "top_p": 0.9, "min_p": 0.02},
)


class Case:
    """One draw from a seed: logits of any shape, any sampling, some tokens not allowed."""

    def __init__(self, number: int, **kwargs: object) -> None:
        chance, spread = random.Random(number), np.random.default_rng(number)
        words = chance.choice(WORDS)
        logits = spread.standard_normal(words) * chance.choice([0.0, 0.01, 1.0, 3.0, 8.0])
        # Rounded ones have many ties.
        self.logits = np.round(logits) if chance.random() < 0.3 else logits.astype(np.float32)
        self.allowed = None
        if chance.random() < 0.3:
            self.allowed = spread.random(words) < chance.choice([0.001, 0.2, 0.9])
            self.allowed[chance.randrange(words)] = True
        self.counts = {chance.randrange(words): chance.randint(1, 3) for _ in range(3)}
        self.rules = LogitRules(
            bias={chance.randrange(words): chance.choice([-100.0, 5.0])},
            prompt=frozenset(chance.sample(range(words), 3)),
            ends=frozenset({chance.randrange(words)}),
        )
        self.sampling = Sampling(
            temperature=chance.choice([0.0, 0.01, 0.3, 0.8, 1.0, 2.0, 50.0]),
            seed=number,
            repetition_penalty=chance.choice([1.0, 1.0, 1.3]),
            presence_penalty=chance.choice([0.0, 0.0, 0.5]),
            ignore_eos=chance.choice([0, 0, 1]),
            **kwargs,
        )
        self.position = chance.randrange(5000)

    def chosen(self, choose=choose) -> int:
        where = (MODEL, self.position, self.counts, self.allowed, self.rules)
        return choose(self.logits, self.sampling, *where)

    def margin(self, token: int, *, logits=None, slack: float = 0.0) -> float:
        logits = self.logits if logits is None else logits
        claim = Claim(token, slack)
        where = (MODEL, self.position, self.counts, claim, self.allowed, self.rules)
        return margin(logits, self.sampling, *where)


@pytest.mark.parametrize("cut", CUTS, ids=str)
def test_both_ways_draw_the_same_token_and_it_has_no_margin(cut: dict) -> None:
    for number in range(40):
        case = Case(number, **cut)
        token = case.chosen()
        assert token == case.chosen(choose_slowly), number
        assert case.margin(token) == 0.0
        assert case.margin(token, slack=0.1) == 0.0


def test_both_keystreams_are_one() -> None:
    key, nonce = bytes(range(32)), (77).to_bytes(12, "little")
    slow = specified_sampler.keystream(key, nonce, np.arange(64)).ravel()
    assert np.array_equal(keystream(key, nonce, 1000), slow[:1000])


@pytest.mark.parametrize("temperature", [0.0, 0.5, 1.0])
def test_a_margin_says_how_much_of_a_logit_was_missing(temperature: float) -> None:
    logits = np.random.default_rng(5).standard_normal(2000) * 3
    sampling = Sampling(temperature=temperature, seed=1)
    chosen = choose(logits, sampling, MODEL, 0, {})
    for other in (chosen - 1, chosen + 1):
        missing = margin(logits, sampling, MODEL, 0, {}, Claim(other))
        assert missing > 0
        for share, expected in ((0.999, chosen), (1.001, other)):
            nearer = logits.copy()
            nearer[other] += missing * share
            assert choose(nearer, sampling, MODEL, 0, {}) == expected


def test_what_cannot_be_has_the_greatest_margin() -> None:
    logits = np.log([0.5, 0.3, 0.15, 0.05])
    for cut in ({"top_k": 2}, {"top_p": 0.7}, {"min_p": 0.5}):
        sampling = Sampling(temperature=1.0, **cut)
        assert margin(logits, sampling, MODEL, 0, {}, Claim(3)) == MARGIN_MAX
        assert margin(logits, sampling, MODEL, 0, {}, Claim(3, 0.01)) == MARGIN_MAX
    for token in (-1, 4):
        assert margin(logits, Sampling(), MODEL, 0, {}, Claim(token)) == MARGIN_MAX
    allowed = np.array([True, True, False, True])
    assert margin(logits, Sampling(), MODEL, 0, {}, Claim(2), allowed) == MARGIN_MAX


@pytest.mark.parametrize("cut", CUTS, ids=str)
def test_logits_that_differ_by_less_than_the_slack_make_small_margins(cut: dict) -> None:
    noise = 0.01
    for number in range(40):
        case = Case(number, **cut)
        apart = np.random.default_rng(number).uniform(-noise, noise, len(case.logits))
        missing = case.margin(case.chosen(), logits=case.logits + apart, slack=4 * noise)
        # Two logits that each moved by `noise`.
        assert missing <= 2 * noise + 1e-6, number


def test_a_cut_far_from_the_slack_still_cuts() -> None:
    logits = np.array([3.0, 2.0, 1.9, -2.0])
    sampling = Sampling(temperature=1.0, top_k=2)
    # The third is so near to the second that it may be the one that is kept.
    assert margin(logits, sampling, MODEL, 0, {}, Claim(2, 0.2)) < MARGIN_MAX
    assert margin(logits, sampling, MODEL, 0, {}, Claim(2, 0.05)) == MARGIN_MAX
    assert margin(logits, sampling, MODEL, 0, {}, Claim(3, 0.2)) == MARGIN_MAX
