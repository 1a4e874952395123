"""A change of this machine's network is told from clocks, addresses and lost connections."""

from p2p.network_changes import (
    BACK_EVERY_S,
    BACK_EVERY_S_MAX,
    CALM_S,
    JUMP_S,
    LOST_KEPT,
    LOST_WITHIN_S,
    STALLED_S,
    Change,
    NetworkChanges,
)
from wire.content import PeerId

HERE = ("/ip4/192.168.1.2/tcp/4747", "/ip4/127.0.0.1/tcp/4747")


def peer(number: int) -> PeerId:
    return PeerId(number.to_bytes(32, "big"))


def met(count: int) -> NetworkChanges:
    changes = NetworkChanges()
    for number in range(count):
        changes.met(peer(number))
    assert changes.look(0.0, 1000.0, HERE) == ()
    return changes


def test_a_clock_that_jumps_either_way_is_a_sleep() -> None:
    for forward_s, slept in ((600.0, True), (-3600.0, True), (JUMP_S - 1, False), (0.0, False)):
        changes = met(1)
        assert changes.look(2.0, 1002.0 + forward_s, HERE) == ((Change.SLEPT,) if slept else ())
        # Said once, not for ever after.
        assert changes.look(4.0, 1004.0 + forward_s, HERE) == ()


def test_a_process_that_stood_still_slept_though_no_clock_jumped() -> None:
    assert met(1).look(STALLED_S + 1, 1000.0 + STALLED_S + 1, HERE) == (Change.SLEPT,)
    assert met(1).look(STALLED_S - 1, 1000.0 + STALLED_S - 1, HERE) == ()


def test_other_addresses_are_a_move_and_another_order_is_none() -> None:
    changes = met(1)
    assert changes.look(2.0, 1002.0, HERE[::-1]) == ()
    assert changes.look(4.0, 1004.0, (*HERE[1:], "/ip4/10.0.0.2/tcp/4747")) == (Change.MOVED,)
    assert changes.look(6.0, 1006.0, ()) == (Change.MOVED,)


def test_who_lost_most_at_once_is_back_when_somebody_answers() -> None:
    changes = met(4)
    for number in range(3):
        changes.lost(peer(number), 1.0 + number)
    assert not changes.cut_off
    assert changes.look(5.0, 1005.0, HERE) == (Change.BACK,)
    changes = met(4)
    for number in range(4):
        changes.lost(peer(number), 1.0 + number)
    assert changes.cut_off
    for at_s in range(6, 306, 2):
        assert changes.look(at_s, 1000.0 + at_s, HERE) == ()
    changes.met(peer(9))
    assert not changes.cut_off
    assert changes.look(308.0, 1308.0, HERE) == (Change.BACK,)
    assert changes.look(310.0, 1310.0, HERE) == ()


def test_losses_one_after_the_other_are_no_change() -> None:
    changes = met(8)
    for number in range(4):
        at_s = number * (LOST_WITHIN_S + 1)
        changes.lost(peer(number), at_s)
        assert changes.look(at_s, 1000.0 + at_s, HERE) in ((), (Change.SLEPT,))
        changes.met(peer(number))


def test_keys_that_call_and_hang_up_are_heard_less_and_less_and_take_no_room() -> None:
    changes, back = met(0), 0
    for second in range(2, 602, 2):
        for number in range(50):
            changes.met(peer(50 * second + number))
            changes.lost(peer(50 * second + number), float(second))
        changes.met(peer(0))
        back += Change.BACK in changes.look(float(second), 1000.0 + second, HERE)
    # After a minute, two, and four.
    assert back == 4 < 600 / BACK_EVERY_S
    assert len(changes._lost_at_s) <= LOST_KEPT


def test_who_flaps_all_day_is_hurried_once_an_hour_and_after_a_calm_hour_at_once() -> None:
    changes, back = met(1), 0

    def flaps(at_s: float) -> bool:
        changes.lost(peer(0), at_s)
        changes.met(peer(0))
        return Change.BACK in changes.look(at_s, 1000.0 + at_s, HERE)

    day_s = 86_400
    for at_s in range(4, day_s, 4):
        back += flaps(float(at_s))
    assert 24 <= back <= 24 + 6
    later_s = float(day_s) + BACK_EVERY_S_MAX + CALM_S
    assert flaps(later_s)
    assert not flaps(later_s + BACK_EVERY_S - 1)
    assert flaps(later_s + BACK_EVERY_S)


def test_who_was_never_met_across_the_internet_is_no_loss() -> None:
    changes = NetworkChanges()
    changes.lost(peer(1), 1.0)
    assert not changes.cut_off
    assert changes.look(2.0, 1002.0, HERE) == ()
