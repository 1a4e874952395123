"""Patience with the busy: advice counts, within bounds that are ours."""

import pytest

from node.dispatch.backoff import PAUSE_S_MAX, PAUSE_S_MIN, Backoff
from tests.p2p.transports import key_of

A, B = key_of("a").peer, key_of("b").peer


def test_who_was_not_asked_yet_comes_before_who_is_busy() -> None:
    patience = Backoff()
    patience.refused(A, 0.0, 0.0)
    assert patience.ready([A, B], 100.0) == [B, A]


def test_retry_at_once_said_for_ever_is_obeyed_ever_more_rarely() -> None:
    patience, now_at_s, asked = Backoff(), 0.0, 0
    while now_at_s < 300.0:
        if patience.ready([A], now_at_s):
            patience.refused(A, 0.0, now_at_s)
            asked += 1
        now_at_s += PAUSE_S_MIN / 2
    assert 5 < asked < 25


@pytest.mark.parametrize("advice_s", [2.0**62, 1e308, PAUSE_S_MAX * 2])
def test_advice_to_wait_for_ever_is_cut(advice_s: float) -> None:
    patience = Backoff()
    patience.refused(A, advice_s, 0.0)
    assert patience.ready([A], PAUSE_S_MAX - 1) == []
    assert patience.ready([A], PAUSE_S_MAX + 1) == [A]


def test_the_best_to_ask_are_those_who_refused_least_and_may_be_asked_now() -> None:
    patience = Backoff()
    assert patience.best([A, B], 0.0) == [A, B]
    patience.refused(A, 1.0, 0.0)
    assert patience.best([A, B], 5.0) == [B]
    patience.refused(B, 1.0, 5.0)
    assert patience.best([A, B], 5.5) == [A]
    assert patience.best([A, B], 8.0) == [A, B]
    assert patience.best([], 8.0) == []
