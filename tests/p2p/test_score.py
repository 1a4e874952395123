"""Standing: offences add up, weigh less as time passes, and a flood of keys washes nothing out."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2p.score import COST_MAX, HALF_LIFE_S, Offence, Score, Scores, Standing
from tests.p2p.transports import key_of

GOOD, UNWELCOME, BANNED = Standing
A = key_of("a").peer


@pytest.mark.parametrize(
    ("offences", "wait_s", "expected"),
    [
        ((), 0, GOOD),
        ((Offence.SLOW,) * 11, 0, GOOD),
        ((Offence.SLOW,) * 12, 0, UNWELCOME),
        ((Offence.UNANSWERED,) * 2, 0, GOOD),
        ((Offence.UNANSWERED,) * 3, 0, UNWELCOME),
        ((Offence.UNANSWERED,) * 100, 0, UNWELCOME),
        ((Offence.UNANSWERED,) * 100 + (Offence.MALFORMED,), 0, BANNED),
        ((Offence.MALFORMED,), 0, UNWELCOME),
        ((Offence.MALFORMED,), HALF_LIFE_S, GOOD),
        ((Offence.MALFORMED,) * 3, 0, BANNED),
        ((Offence.WRONG_ANSWER,), 0, BANNED),
        ((Offence.WRONG_ANSWER,), HALF_LIFE_S, UNWELCOME),
        ((Offence.WRONG_ANSWER,), 3 * HALF_LIFE_S, GOOD),
        ((Offence.WRONG_ANSWER,) * 100, 2 * HALF_LIFE_S, BANNED),
        ((Offence.WRONG_ANSWER,) * 100, 5 * HALF_LIFE_S, GOOD),
    ],
)
def test_standing_follows_from_offences_and_time(
    offences: tuple[Offence, ...], wait_s: float, expected: Standing
) -> None:
    scores = Scores()
    for offence in offences:
        scores.note(A, offence, 1000.0)
    assert scores.standing(A, 1000.0 + wait_s) is expected


def test_half_of_a_cost_is_gone_after_one_half_life() -> None:
    score = Score().after(Offence.WRONG_ANSWER, 50.0)
    assert score.cost_at(50.0) == 64
    assert score.cost_at(50.0 + HALF_LIFE_S) == 32
    assert score.after(Offence.SLOW, 50.0 + HALF_LIFE_S).cost_at(50.0 + HALF_LIFE_S) == 33


def test_a_clock_that_steps_back_forgives_nothing_and_costs_nothing() -> None:
    score = Score().after(Offence.MALFORMED, 50.0)
    assert score.cost_at(10.0) == 16


def test_one_peers_offence_is_not_anothers() -> None:
    scores = Scores()
    scores.note(A, Offence.WRONG_ANSWER, 0.0)
    assert scores.standing(key_of("b").peer, 0.0) is GOOD
    assert scores.cost(key_of("b").peer, 0.0) == 0


def test_a_flood_of_fresh_keys_does_not_wash_out_a_ban() -> None:
    scores = Scores(peers_max=10)
    scores.note(A, Offence.WRONG_ANSWER, 0.0)
    for number in range(200):
        scores.note(key_of(f"fresh {number}").peer, Offence.MALFORMED, 1.0)
    assert scores.standing(A, 1.0) is BANNED
    assert len(scores._scores) <= 10


@given(st.lists(st.tuples(st.sampled_from(list(Offence)), st.floats(0, 1e4)), max_size=50))
def test_a_cost_is_bounded_and_time_alone_never_raises_it(
    offences: list[tuple[Offence, float]],
) -> None:
    score, now_at_s = Score(), 0.0
    for offence, later_s in offences:
        now_at_s += later_s
        before = score.cost_at(now_at_s)
        score = score.after(offence, now_at_s)
        assert before <= score.cost_at(now_at_s) <= COST_MAX
        assert score.cost_at(now_at_s + 1) <= score.cost_at(now_at_s)
