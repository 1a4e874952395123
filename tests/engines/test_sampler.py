"""The sampler does what its file says, and the same for ever."""

import hashlib
import math
import struct

import numpy as np
import pytest

from node.engines.sampler import (
    LogitRules,
    Sampling,
    best,
    choose,
    keystream,
    log_probabilities,
    millionths,
    noise,
)
from tests.engines import specified_sampler
from wire.errors import ModelRefused

MODEL = b"model"
# RFC 8439, 2.3.2: key 00..1f, this nonce, block 1.
NONCE = bytes.fromhex("000000090000004a00000000")
BLOCK = bytes.fromhex(
    "10f1e7e4d13b5915500fdd1fa32071c4c7d1f4c733c068030422aa9ac3d46c4e"
    "d2826446079faa0914c2d705d98b02a2b5129cd1de164eb9cbd083e8a2503c4e"
)
# A run recorded on one machine is repeated on another.
GOLDEN = [31, 5, 43, 46, 7, 18, 48, 38]


def drawn(logits: object, *, position: int = 0, counts: dict | None = None, **kwargs) -> int:
    return choose(logits, Sampling(**kwargs), MODEL, position, counts or {})


def test_the_keystream_is_that_of_the_standard() -> None:
    assert keystream(bytes(range(32)), NONCE, 32)[16:].astype("<u4").tobytes() == BLOCK
    slow = specified_sampler.keystream(bytes(range(32)), NONCE, [1])
    assert slow[0].astype("<u4").tobytes() == BLOCK


def test_noise_is_what_the_file_says_word_by_word() -> None:
    key = hashlib.sha256((5).to_bytes(8, "little") + MODEL).digest()
    words = keystream(key, (9).to_bytes(12, "little"), 48)
    blocks = specified_sampler.keystream(key, (9).to_bytes(12, "little"), [0, 1, 2]).ravel()
    tokens = np.array([0, 17, 40])
    expected = [-math.log(-math.log((int(blocks[t]) + 0.5) / 2**32)) for t in tokens]
    assert noise(words[tokens]) == pytest.approx(expected, rel=1e-12)
    assert specified_sampler.noise(key, 9, tokens) == pytest.approx(expected, rel=1e-12)


def test_a_run_is_the_same_for_ever_and_another_seed_or_place_is_another() -> None:
    logits = np.linspace(0, 1, 50)
    run = [drawn(logits, temperature=1.0, seed=3, position=at) for at in range(8)]
    assert run == GOLDEN
    assert run != [drawn(logits, temperature=1.0, seed=4, position=at) for at in range(8)]


def test_without_temperature_the_greatest_wins_and_the_lower_of_two() -> None:
    assert drawn([0.0, 2.0, 2.0, 1.0]) == 1


def test_draws_follow_the_softmax() -> None:
    logits = np.log([0.5, 0.3, 0.2])
    found = [drawn(logits, temperature=1.0, position=at) for at in range(4000)]
    shares = np.bincount(found, minlength=3) / 4000
    assert shares == pytest.approx([0.5, 0.3, 0.2], abs=0.03)


@pytest.mark.parametrize(
    ("cut", "possible"),
    [
        ({"top_k": 1}, {0}),
        ({"top_k": 2}, {0, 1}),
        ({"top_p": 0.5}, {0}),
        ({"top_p": 0.51}, {0, 1}),
        ({"top_p": 0.0}, {0}),
        ({"min_p": 0.5}, {0, 1}),
        ({"min_p": 0.61}, {0}),
        ({"top_k": 3, "top_p": 0.9}, {0, 1, 2}),
        ({}, {0, 1, 2, 3}),
    ],
)
def test_what_is_cut_is_never_drawn_and_what_is_kept_is(cut: dict, possible: set) -> None:
    logits = np.log([0.5, 0.3, 0.15, 0.05])
    found = {drawn(logits, temperature=1.0, position=at, **cut) for at in range(400)}
    assert found == possible


def test_penalties_count_what_the_answer_has() -> None:
    assert drawn([1.0, 0.9], counts={0: 1}, presence_penalty=0.2) == 1
    assert drawn([1.0, 0.5], counts={0: 2}, frequency_penalty=0.2) == 0
    assert drawn([1.0, 0.5], counts={0: 3}, frequency_penalty=0.2) == 1


def test_what_is_not_allowed_is_never_drawn() -> None:
    allowed = np.array([False, True, False])
    for temperature in (0.0, 1.0):
        sampling = Sampling(temperature=temperature, top_k=1)
        assert choose(np.array([9.0, 0.0, 5.0]), sampling, MODEL, 0, {}, allowed) == 1


def test_the_bound_on_the_noise_loses_nothing() -> None:
    words = struct.pack("<2I", 0, 2**32 - 1)
    least, most = (-math.log(-math.log((k + 0.5) / 2**32)) for k in struct.unpack("<2I", words))
    assert most - least < 26.1


def test_log_probabilities_are_told_in_whole_millionths() -> None:
    found = log_probabilities([0.0, 0.0, -1e12])
    assert millionths(found[0]) == -693147
    assert millionths(found[2]) == -(10**9)
    assert best(found, 2) == [0, 1]
    assert best(found, 0) == []


@pytest.mark.parametrize(
    "parameters",
    [
        {"tokens": -1},
        {"tokens": True},
        {"tokens": 1.0},
        {"temperature": -1},
        {"temperature": math.nan},
        {"top_p": 1.5},
        {"seed": -1},
        {"logprobs": 21},
        {"best_of": 2},
        {"temperature": "hot"},
    ],
    ids=str,
)
def test_parameters_out_of_bounds_are_refused_by_name(parameters: dict) -> None:
    with pytest.raises(ModelRefused, match=next(iter(parameters))):
        Sampling.of(parameters)


@pytest.mark.parametrize("temperature", [5e-324, 1e-310, 1e-307, 1e-9])
def test_hardly_any_temperature_is_none(temperature: float) -> None:
    logits = np.full(8, -5.0)
    allowed = np.array([False] * 6 + [True] * 2)
    found = choose(logits, Sampling.of({"temperature": temperature}), b"m", 0, {}, allowed)
    assert found == 6


def test_a_bias_and_a_penalty_for_repetition_are_what_the_file_says() -> None:
    logits = np.array([1.0, 2.0, 3.0, -1.0])
    biased = LogitRules(bias={0: 10.0, 99: 5.0})
    assert choose(logits, Sampling(), MODEL, 0, {}, None, biased) == 0
    rules = LogitRules(prompt=frozenset({2}))
    assert choose(logits, Sampling(repetition_penalty=2.0), MODEL, 0, {}, None, rules) == 1
    # What is below zero gets further below it.
    less = np.array([-1.0, -1.5])
    assert choose(less, Sampling(repetition_penalty=2.0), MODEL, 1, {0: 1}) == 1


def test_an_answer_does_not_end_before_it_may() -> None:
    logits = np.array([5.0, 1.0])
    rules = LogitRules(ends=frozenset({0}))
    assert choose(logits, Sampling(min_tokens=3), MODEL, 2, {}, None, rules) == 1
    assert choose(logits, Sampling(min_tokens=3), MODEL, 3, {}, None, rules) == 0
    assert choose(logits, Sampling(ignore_eos=1), MODEL, 9, {}, None, rules) == 1
    # A schema that leaves nothing but the end has the last word.
    only = np.array([True, False])
    assert choose(logits, Sampling(ignore_eos=1), MODEL, 9, {}, only, rules) == 0


def test_top_p_of_zero_is_the_first_token_alone() -> None:
    logits = np.linspace(0, 1, 50)
    found = {drawn(logits, temperature=2.0, top_p=0.0, seed=seed) for seed in range(20)}
    assert found == {49}
