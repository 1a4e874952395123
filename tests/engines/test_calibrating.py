"""A table from honest answers: what it is made of, what it is tried on, and what makes none."""

from dataclasses import replace

import numpy as np
import pytest

from node.engines.calibrating import (
    CALIBRATING_ONE_IN,
    SLACK_LEAST,
    SLACK_TIMES,
    HonestAnswer,
    calibration_of,
)
from node.engines.hash_model import hash_manifest
from node.engines.margins import GREATEST_LEAST, limits_of, table_for
from wire.calibration import BUILT_IN, Calibration, HeldOut
from wire.errors import InputError

MODEL = hash_manifest().id
TOKENS = 256


def answers(count: int, rate: float = 0.0, greatest: float = 0.0) -> list[HonestAnswer]:
    """So many answers in which that share of the tokens misses by up to `greatest`."""
    chance = np.random.default_rng(3)
    return [
        HonestAnswer(
            number=number,
            provider="f32 CL",
            verifier="f32 CPU",
            tokens=TOKENS,
            margins={
                at: float(chance.uniform(0, greatest))
                for at in range(TOKENS)
                if chance.uniform() < rate
            },
        )
        for number in range(count)
    ]


def test_a_third_makes_the_table_and_the_others_only_try_it() -> None:
    honest = answers(60, 0.01, 0.1)
    table = calibration_of(MODEL, honest, 7)
    used = [it for it in honest if it.number % CALIBRATING_ONE_IN == 0]
    assert table.tokens == len(used) * TOKENS
    assert len(table.margins_millionths) == sum(len(it.margins) for it in used) > 0
    assert table.profiles == ("f32 CL", "f32 CPU")
    assert table.model == MODEL
    others = len(honest) - len(used)
    assert table.held_out == tuple(
        HeldOut(tokens=tokens, answers=others * TOKENS // tokens, alarms=0)
        for tokens in (32, 64, 128, 256)
    )
    assert Calibration.from_bytes(table.to_bytes()) == table


def test_what_was_held_out_moves_no_limit_and_counts_as_alarms() -> None:
    honest = answers(60)
    far = [
        replace(it, margins=dict.fromkeys(range(0, TOKENS, 8), 0.2))
        if it.number % CALIBRATING_ONE_IN
        else it
        for it in honest
    ]
    one, other = calibration_of(MODEL, honest, 7), calibration_of(MODEL, far, 7)
    assert replace(other, held_out=one.held_out) == one
    assert [it.alarms for it in one.held_out] == [0] * 4
    assert [it.alarms for it in other.held_out] == [it.answers for it in other.held_out]


def test_between_equal_profiles_one_token_is_an_alarm_and_so_is_what_is_told_otherwise() -> None:
    honest = answers(6)
    equals = [replace(it, provider="f32 CPU", margins={3: 1e-5}) for it in honest]
    assert calibration_of(MODEL, equals, 7).held_out[-1].alarms == 4
    assert calibration_of(MODEL, [replace(it, margins={3: 1e-5}) for it in honest], 7)
    told = [replace(it, otherwise="its text is another") for it in honest]
    assert calibration_of(MODEL, told, 7).held_out[-1].alarms == 4


def test_slack_is_what_probabilities_differed_by_and_more() -> None:
    honest = answers(6)
    assert calibration_of(MODEL, honest, 7).slack_millionths == SLACK_LEAST * 1e6
    drifting = [replace(it, drift=0.02) for it in honest]
    assert calibration_of(MODEL, drifting, 7).slack_millionths == SLACK_TIMES * 20_000


def test_engines_of_other_models_make_no_table() -> None:
    with pytest.raises(InputError, match="do not run the same model"):
        calibration_of(MODEL, answers(60, 0.001, 40.0), 7)
    with pytest.raises(InputError, match="do not run the same model"):
        calibration_of(MODEL, answers(600, 0.4, 0.1), 7)
    with pytest.raises(InputError, match="no answer"):
        calibration_of(MODEL, [], 7)


def test_few_answers_do_not_say_what_the_greatest_margin_is() -> None:
    few, many = calibration_of(MODEL, answers(6), 7), calibration_of(MODEL, answers(240), 7)
    assert many.tokens >= 20_000 > few.tokens
    assert limits_of(few, TOKENS).greatest == limits_of(BUILT_IN, TOKENS).greatest
    assert limits_of(many, TOKENS).greatest == GREATEST_LEAST


def test_a_table_is_used_for_the_profiles_that_it_names() -> None:
    table = calibration_of(MODEL, answers(6), 7)
    assert table_for(table, "f32 CL", "f32 CPU") is table
    assert table_for(table, "f32 CUDA", "f32 CPU") is BUILT_IN
    assert table_for(None, "f32 CL", "f32 CPU") is BUILT_IN
