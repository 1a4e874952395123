"""What was seen of peers, and when a leg is worth a second one: learned, believed for a while."""

import pytest

from node.dispatch.hedging import (
    AFTER_S_MIN,
    HEDGED_SHARE,
    HEDGES_AT_ONCE,
    LEGS_KEPT,
    LEGS_MIN,
    Hedging,
)
from node.dispatch.measured import HALF_LIFE_S, KEPT_MAX, TRUST_MAX, Measured
from tests.p2p.transports import key_of
from wire.content import ContentId

PEER = key_of("peer").peer
MODEL = ContentId.of(b"model")


def test_what_was_seen_is_believed_less_as_it_grows_old() -> None:
    measured = Measured()
    assert measured.observed(PEER, MODEL, 0.0) is None
    measured.delivered(PEER, MODEL, 10, 5.0, now_at_s=0.0)
    assert measured.observed(PEER, MODEL, 0.0) == (0.5, TRUST_MAX)
    assert measured.observed(PEER, MODEL, HALF_LIFE_S) == (0.5, TRUST_MAX / 2)
    assert measured.observed(PEER, None, 0.0) is None


def test_the_latest_counts_and_one_leg_does_not_change_everything() -> None:
    measured = Measured()
    measured.delivered(PEER, MODEL, 1, 1.0, now_at_s=0.0)
    measured.delivered(PEER, MODEL, 1, 11.0, now_at_s=1.0)
    once = measured.observed(PEER, MODEL, 1.0)
    assert once is not None
    assert once[0] == pytest.approx(4.0)
    for _ in range(30):
        measured.delivered(PEER, MODEL, 1, 11.0, now_at_s=1.0)
    now = measured.observed(PEER, MODEL, 1.0)
    assert now is not None
    assert now[0] == pytest.approx(11.0, abs=0.01)


def test_a_short_leg_is_measured_too_and_the_first_long_one_counts_for_more() -> None:
    measured = Measured()
    measured.delivered(PEER, MODEL, 1, 0.02, now_at_s=0.0)
    assert measured.observed(PEER, MODEL, 0.0) == (0.02, TRUST_MAX)
    measured.delivered(PEER, MODEL, 1000, 1.0, now_at_s=0.0)
    first = measured.observed(PEER, MODEL, 0.0)
    assert first is not None
    # Four fifths of it are the long one's.
    assert first[0] == pytest.approx(0.0048)
    measured.delivered(PEER, MODEL, 1, 0.02, now_at_s=0.0)
    second = measured.observed(PEER, MODEL, 0.0)
    assert second is not None
    assert second[0] < 0.006


def test_the_way_there_and_back_is_no_work_but_never_all_of_it() -> None:
    measured = Measured()
    measured.answered(PEER, 0.05)
    measured.delivered(PEER, MODEL, 1, 0.15, now_at_s=0.0)
    assert measured.observed(PEER, MODEL, 0.0) == (pytest.approx(0.10), TRUST_MAX)
    other = key_of("other").peer
    measured.answered(other, 5.0)
    measured.delivered(other, MODEL, 1, 0.2, now_at_s=0.0)
    assert measured.observed(other, MODEL, 0.0) == (pytest.approx(0.02), TRUST_MAX)


def test_who_was_outrun_took_longer_and_has_delivered_nothing() -> None:
    measured = Measured()
    measured.outrun(PEER, MODEL, 10, 20.0, now_at_s=0.0)
    assert measured.observed(PEER, MODEL, 0.0) == (2.0, TRUST_MAX)
    assert not measured.has_delivered(PEER, MODEL)
    measured.outrun(PEER, MODEL, 10, 1.0, now_at_s=0.0)
    assert measured.observed(PEER, MODEL, 0.0) == (2.0, TRUST_MAX)
    measured.delivered(PEER, MODEL, 10, 1.0, now_at_s=0.0)
    assert measured.has_delivered(PEER, MODEL)
    assert not measured.has_delivered(PEER, None)


def test_only_the_latest_peers_are_remembered() -> None:
    measured = Measured()
    for number in range(KEPT_MAX + 10):
        peer = key_of(str(number)).peer
        measured.delivered(peer, MODEL, 1, 1.0, now_at_s=0.0)
        measured.answered(peer, 0.1)
    assert measured.observed(key_of("9").peer, MODEL, 0.0) is None
    assert measured.round_trip_s(key_of("9").peer) == 0.0
    assert measured.observed(peer, MODEL, 0.0) is not None
    assert measured.round_trip_s(peer) == pytest.approx(0.1)


def taught(legs: int, ratio: float = 1.0) -> Hedging:
    hedging = Hedging()
    for _ in range(legs):
        hedging.delivered(ratio * 2.0, 2.0)
    return hedging


def test_nothing_is_hedged_before_enough_is_known() -> None:
    assert taught(LEGS_MIN - 1).after_s(1.0) is None
    assert taught(LEGS_MIN).after_s(2.0) == 2.0


def test_what_is_long_is_what_the_slowest_of_a_hundred_took() -> None:
    hedging = taught(LEGS_KEPT - 20, 1.5)
    for _ in range(20):
        hedging.delivered(40.0, 2.0)
    # Twenty of five hundred is more than one of a hundred: that is how long they take here.
    assert hedging.after_s(2.0) == 40.0
    for number in range(LEGS_KEPT):
        hedging.delivered(3.0 if number % 150 else 40.0, 2.0)
    assert hedging.after_s(2.0) == 3.0
    assert hedging.after_s(0.0) == AFTER_S_MIN


def test_no_more_than_a_few_of_a_hundred_are_hedged() -> None:
    hedging = taught(10_000)
    hedged = 0
    while hedging.spend():
        hedged += 1
    # Calm is not saved up.
    assert hedged == HEDGES_AT_ONCE
    for _ in range(1000):
        hedging.delivered(1.0, 1.0)
        hedged += hedging.spend()
    assert hedged - HEDGES_AT_ONCE == pytest.approx(1000 * HEDGED_SHARE, abs=1)
