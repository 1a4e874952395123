"""A relay gives no more than it set itself: leases, lines, bytes a second and a day."""

import pytest

from p2p.relay_limits import DAY_S, Pacer, RelayCounts, RelayLimits
from p2p.transport import RelayAnswer
from tests.p2p.transports import key_of

ANN, BOB, KEPT = (key_of(it).peer for it in ("ann", "bob", "kept"))
LIMITS = RelayLimits(
    kept_max=2,
    lease_s=100.0,
    lines_per_kept=3,
    lines_per_asker=2,
    bytes_per_s_each=1000.0,
    bytes_per_s_all=1500.0,
    bytes_per_day=10_000.0,
)


def counts() -> RelayCounts:
    found = RelayCounts(LIMITS)
    assert found.lease(KEPT, 100.0, 0.0)
    return found


def test_so_many_are_kept_and_no_more_until_a_lease_ends() -> None:
    found = counts()
    assert found.lease(ANN, 50.0, 0.0)
    assert not found.lease(BOB, 100.0, 0.0)
    assert found.lease(KEPT, 100.0, 40.0), "who is kept renews"
    assert found.lease(BOB, 100.0, 51.0)
    assert found.kept() == {KEPT, BOB}


def test_a_lease_is_no_longer_than_the_limit() -> None:
    found = counts()
    assert found.lease(ANN, 1e9, 0.0)
    assert found.admit(BOB, ANN, 99.0) is RelayAnswer.THROUGH
    assert found.admit(BOB, ANN, 100.0) is RelayAnswer.NOT_KEPT


def test_lines_are_bounded_for_each_asker_and_each_that_is_kept() -> None:
    found = counts()
    assert found.admit(ANN, KEPT, 0.0) is RelayAnswer.THROUGH
    assert found.admit(ANN, KEPT, 0.0) is RelayAnswer.THROUGH
    assert found.admit(ANN, KEPT, 0.0) is RelayAnswer.FULL
    assert found.admit(BOB, KEPT, 0.0) is RelayAnswer.THROUGH
    assert found.admit(BOB, KEPT, 0.0) is RelayAnswer.FULL
    found.ended(ANN, KEPT)
    assert found.admit(BOB, KEPT, 0.0) is RelayAnswer.THROUGH
    assert found.lines == 3
    assert found.admit(KEPT, KEPT, 0.0) is RelayAnswer.NOT_KEPT
    assert found.admit(ANN, BOB, 0.0) is RelayAnswer.NOT_KEPT


def test_who_pays_has_room_whatever_those_hold_that_do_not() -> None:
    found = counts()
    for asker in (ANN, ANN, BOB):
        assert found.admit(asker, KEPT, 0.0) is RelayAnswer.THROUGH
    payer = key_of("payer").peer
    assert found.admit(payer, KEPT, 0.0) is RelayAnswer.FULL
    assert found.admit(payer, KEPT, 0.0, pays=True) is RelayAnswer.THROUGH
    assert found.admit(payer, KEPT, 0.0, pays=True) is RelayAnswer.THROUGH
    assert found.admit(payer, KEPT, 0.0, pays=True) is RelayAnswer.FULL, "an asker's own bound"
    assert found.admit(BOB, KEPT, 0.0) is RelayAnswer.FULL


def test_a_line_that_ends_after_its_lease_is_counted_down_once() -> None:
    found = counts()
    found.admit(ANN, KEPT, 0.0)
    found.end_lease(KEPT)
    found.ended(ANN, KEPT)
    assert found.lines == 0
    assert found.lease(KEPT, 100.0, 1.0)
    assert found.admit(ANN, KEPT, 1.0) is RelayAnswer.THROUGH


def test_bytes_keep_to_the_rate_of_each_and_of_all() -> None:
    found = counts()
    assert found.lease(BOB, 100.0, 0.0)
    # A second's worth at once, then a thousand a second.
    assert found.wait_s(ANN, KEPT, 1000, 10.0) == 0.0
    assert found.wait_s(ANN, KEPT, 1000, 10.0) == pytest.approx(1.0)
    # Another may have what is left of all: 1,500 at once and a second.
    assert found.wait_s(ANN, BOB, 1000, 10.0) == pytest.approx(1.0)
    assert found.carried_bytes == found.carried_for[ANN] == 3000


def test_after_the_bytes_of_a_day_nothing_goes_on_until_the_next() -> None:
    found = counts()
    for second in range(10):
        assert found.wait_s(ANN, KEPT, 1000, 2.0 * second) is not None
    assert found.wait_s(ANN, KEPT, 1, 30.0) is None
    assert found.admit(BOB, KEPT, 30.0) is RelayAnswer.FULL
    assert found.lease(KEPT, 100.0, DAY_S)
    assert found.admit(BOB, KEPT, DAY_S) is RelayAnswer.THROUGH


def test_a_lease_that_has_ended_carries_nothing() -> None:
    found = counts()
    assert found.wait_s(ANN, KEPT, 1, 99.0) is not None
    assert found.wait_s(ANN, KEPT, 1, 100.0) is None
    found.end_lease(KEPT)
    assert found.wait_s(ANN, KEPT, 1, 1.0) is None


def test_what_was_not_used_is_not_saved_for_long() -> None:
    pacer = Pacer(100.0, 1.0)
    assert pacer.wait_s(100, 1000.0) == 0.0
    assert pacer.wait_s(50, 1000.0) == pytest.approx(0.5)
    assert pacer.wait_s(100, 5000.0) == 0.0
