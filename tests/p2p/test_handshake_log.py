"""Meetings: one key on two machines, and whose clock is wrong."""

import pytest

from p2p.handshake_log import NEWCOMER_S, HandshakeLog, not_met
from tests.p2p.adverts import advert_of
from tests.p2p.transports import key_of
from wire import limits
from wire.advert import Advert
from wire.errors import InputError, Refused
from wire.signed import Signed

ME, OTHER = key_of("me").peer, key_of("other").peer
FIRST, SECOND = b"start  1", b"start  2"
WALL_S = 1_800_000_000.0


def meetings_of(started_at_s: float = 0.0, peers_max: int = 1000) -> HandshakeLog:
    return HandshakeLog(ME, FIRST, started_at_s, WALL_S + started_at_s, peers_max)


def other_start(issued_s: float, name: str = "me", instance: bytes = SECOND) -> Signed[Advert]:
    """What another start of a key signed, so long after the wall clock's beginning."""
    issued_at_s = int(WALL_S + issued_s)
    return advert_of(name, instance=instance, issued_at_s=issued_at_s, seq=issued_at_s * 1000)


def test_of_two_machines_with_one_key_the_newcomer_ends_and_says_what_to_do() -> None:
    newcomer = meetings_of(1000.0)
    with pytest.raises(InputError, match="another machine is running") as ended:
        newcomer.told_same_key(other_start(1010.0), 1011.0)
    assert "--state" in ended.value.todo
    assert str(ME) in ended.value.message


def test_of_two_machines_with_one_key_the_first_stays_and_knows() -> None:
    first = meetings_of(0.0)
    first.told_same_key(other_start(1010.0), NEWCOMER_S + 1000.0)
    assert first.same_key


@pytest.mark.parametrize("issued_s", [95.0, 100.0, 103.0])
def test_our_own_last_run_is_not_another_machine(issued_s: float) -> None:
    restarted = meetings_of(100.0)
    restarted.told_same_key(other_start(issued_s), 101.0)
    assert not restarted.same_key


def test_only_our_own_key_can_say_that_our_key_is_elsewhere() -> None:
    handshake_log = meetings_of()
    handshake_log.told_same_key(other_start(10.0, name="liar"), 11.0)
    handshake_log.told_same_key(other_start(10.0, instance=FIRST), 11.0)
    assert not handshake_log.same_key


def test_peers_that_are_remembered_are_bounded() -> None:
    handshake_log = meetings_of(peers_max=5)
    for number in range(50):
        handshake_log.answered(key_of(str(number)).peer, float(number))
        handshake_log.clock(key_of(str(number)).peer, 0.0, called=True)
    assert len(handshake_log._answered) == 5
    assert len(handshake_log._skews) == 32


def test_who_answered_counts_for_a_minute_and_strangers_never() -> None:
    handshake_log = meetings_of()
    handshake_log.answered(OTHER, 100.0)
    there = [OTHER, key_of("silent").peer]
    assert handshake_log.answered_within(there, 159.9, 60.0) == 1
    assert handshake_log.answered_within(there, 160.0, 60.0) == 0
    # Also in the first minute of the clock.
    assert meetings_of().answered_within(there, 0.0, 60.0) == 0


@pytest.mark.parametrize(("skew_s", "way"), [(3600.0, "behind"), (-3600.0, "ahead of")])
def test_a_clock_wrong_by_an_hour_is_said_with_its_direction(skew_s: float, way: str) -> None:
    handshake_log = meetings_of()
    for number in range(3):
        handshake_log.clock(key_of(str(number)).peer, skew_s + number, called=True)
    assert handshake_log.clock_wrong_s() == skew_s + 1
    with pytest.raises(InputError, match=f"3601 s {way}|3599 s {way}") as wrong:
        handshake_log.check_clock()
    assert "timedatectl" in wrong.value.todo


def test_clocks_may_differ_by_what_is_allowed() -> None:
    handshake_log = meetings_of()
    handshake_log.check_clock()
    for skew_s in (limits.CLOCK_SKEW_S_MAX, -limits.CLOCK_SKEW_S_MAX, 0.0):
        handshake_log.clock(key_of(str(skew_s)).peer, float(skew_s), called=True)
    handshake_log.check_clock()
    assert handshake_log.clock_wrong_s() is None


def test_one_liar_among_many_does_not_turn_the_median() -> None:
    handshake_log = meetings_of()
    for number in range(4):
        handshake_log.clock(key_of(str(number)).peer, 0.1, called=True)
    for _ in range(100):
        handshake_log.clock(key_of("liar").peer, 1e12, called=True)
    handshake_log.check_clock()


@pytest.mark.parametrize(
    ("others_s", "ahead_s", "words"),
    [
        ((0.0, 1.0, -1.0), 400.0, "400 s ahead of this peer's, which agrees with most of 3"),
        ((0.0, 1.0, -1.0), -400.0, "400 s behind this peer's, which agrees with most of 3"),
        ((390.0, 400.0, 410.0), 400.0, "so are most of 3 others': this peer's is the wrong one"),
        ((-400.0, -390.0), -405.0, "so are most of 2 others': this peer's is the wrong one"),
        # One alone may be the odd one itself.
        ((0.0,), 400.0, "400 s ahead of this peer's; too few others were met"),
        ((), 400.0, "too few others were met to say which is wrong"),
    ],
)
def test_whose_clock_is_the_odd_one_is_judged_by_those_of_others(
    others_s: tuple[float, ...], ahead_s: float, words: str
) -> None:
    handshake_log = meetings_of()
    for number, skew_s in enumerate(others_s):
        handshake_log.clock(key_of(str(number)).peer, skew_s, called=True)
    said = handshake_log.whose_clock(ahead_s, "the clock of x")
    assert said.startswith("the clock of x is 4")
    assert words in said


@pytest.mark.parametrize(
    ("why", "todo"),
    [
        ("your membership begins in the future: one of our clocks is wrong", "timedatectl"),
        ("your membership has expired: ask for a new invite", "a clock that is ahead"),
        ("the owner of this network has removed you", "as a new peer: --state DIR"),
        ("this is a private network: ask its owner for an invite", "python -m node invite"),
    ],
)
def test_who_is_not_taken_is_told_what_helps(why: str, todo: str) -> None:
    error = not_met([Refused(why)], private=True)
    assert why in error.message
    assert todo in error.todo
    assert ("invite" in error.todo) is ("clocks" not in why)
