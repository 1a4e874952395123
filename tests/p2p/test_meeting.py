"""Meetings: one key on two machines, and whose clock is wrong."""

import pytest

from p2p.meeting import INSTANCE_GONE_S, NEWCOMER_S, Meetings
from tests.p2p.transports import key_of
from wire import limits
from wire.errors import InputError

ME, OTHER = key_of("me").peer, key_of("other").peer
FIRST, SECOND = b"start  1", b"start  2"


def meetings_of(started_s: float = 0.0, peers_max: int = 1000) -> Meetings:
    return Meetings(ME, FIRST, started_s, peers_max)


def test_a_second_start_of_a_key_is_told_how_long_ago_the_first_was_heard() -> None:
    meetings = meetings_of()
    assert meetings.heard(OTHER, FIRST, 10.0) is None
    assert meetings.heard(OTHER, FIRST, 12.0) is None
    assert meetings.heard(OTHER, SECOND, 15.0) == 3.0
    # And so is the first.
    assert meetings.heard(OTHER, FIRST, 16.0) == 1.0


def test_a_restart_is_not_two_machines_once_the_last_run_is_gone() -> None:
    meetings = meetings_of()
    meetings.heard(OTHER, FIRST, 10.0)
    assert meetings.heard(OTHER, SECOND, 10.0 + INSTANCE_GONE_S) is None


def test_of_two_machines_with_one_key_the_newcomer_ends_and_the_first_stays() -> None:
    neighbour, first, second = meetings_of(), meetings_of(0.0), meetings_of(1000.0)
    for now_s in range(0, 1000, 10):
        first.told_same_key(neighbour.heard(ME, FIRST, now_s), now_s)

    def both_go_on() -> None:
        for now_s in range(1001, 1040, 5):
            first.told_same_key(neighbour.heard(ME, FIRST, now_s), now_s)
            second.told_same_key(neighbour.heard(ME, SECOND, now_s + 1.0), now_s + 1.0)

    with pytest.raises(InputError, match="another machine is running") as ended:
        both_go_on()
    assert "--state" in ended.value.todo
    assert str(ME) in ended.value.message
    first.told_same_key(neighbour.heard(ME, FIRST, 1045.0), 1045.0)
    assert first.same_key


def test_our_own_last_run_is_not_another_machine() -> None:
    neighbour = meetings_of()
    neighbour.heard(ME, FIRST, 95.0)
    restarted = meetings_of(100.0)
    for now_s in range(101, 160, 5):
        restarted.told_same_key(neighbour.heard(ME, SECOND, now_s), now_s)
    assert not restarted.same_key


def test_long_after_the_start_nobody_ends_us_by_copying_our_key() -> None:
    meetings = meetings_of(0.0)
    meetings.told_same_key(0.5, NEWCOMER_S)
    assert meetings.same_key


def test_starts_of_one_key_are_bounded() -> None:
    meetings = meetings_of()
    for number in range(100):
        meetings.heard(OTHER, number.to_bytes(8, "big"), 1.0 + number / 100)
    assert len(meetings._instances[OTHER]) <= 4
    assert meetings.heard(OTHER, (99).to_bytes(8, "big"), 2.0) is not None


def test_peers_that_are_remembered_are_bounded() -> None:
    meetings = meetings_of(peers_max=5)
    for number in range(50):
        meetings.heard(key_of(str(number)).peer, FIRST, float(number))
        meetings.answered(key_of(str(number)).peer, float(number))
        meetings.clock(key_of(str(number)).peer, 0.0)
    assert len(meetings._instances) == len(meetings._answered) == 5
    assert len(meetings._skews) == 32


def test_who_answered_counts_for_a_minute_and_strangers_never() -> None:
    meetings = meetings_of()
    meetings.answered(OTHER, 100.0)
    there = [OTHER, key_of("silent").peer]
    assert meetings.answered_within(there, 159.9, 60.0) == 1
    assert meetings.answered_within(there, 160.0, 60.0) == 0
    # Also in the first minute of the clock.
    assert meetings_of().answered_within(there, 0.0, 60.0) == 0


@pytest.mark.parametrize(("skew_s", "way"), [(3600.0, "behind"), (-3600.0, "ahead of")])
def test_a_clock_wrong_by_an_hour_is_said_with_its_direction(skew_s: float, way: str) -> None:
    meetings = meetings_of()
    for number in range(3):
        meetings.clock(key_of(str(number)).peer, skew_s + number)
    assert meetings.clock_wrong_s() == skew_s + 1
    with pytest.raises(InputError, match=f"3601 s {way}|3599 s {way}") as wrong:
        meetings.check_clock()
    assert "timedatectl" in wrong.value.todo


def test_clocks_may_differ_by_what_is_allowed() -> None:
    meetings = meetings_of()
    meetings.check_clock()
    for skew_s in (limits.CLOCK_SKEW_S_MAX, -limits.CLOCK_SKEW_S_MAX, 0.0):
        meetings.clock(key_of(str(skew_s)).peer, float(skew_s))
    meetings.check_clock()
    assert meetings.clock_wrong_s() is None


def test_one_liar_among_many_does_not_turn_the_median() -> None:
    meetings = meetings_of()
    for number in range(4):
        meetings.clock(key_of(str(number)).peer, 0.1)
    for _ in range(100):
        meetings.clock(key_of("liar").peer, 1e12)
    meetings.check_clock()
