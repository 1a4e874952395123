"""A network that ends connections after a fixed time is told from peers that come and go."""

from random import Random

import pytest

from p2p.connection_ages import KEPT, NEEDED, ConnectionAges
from tests.p2p.transports import key_of


def broken(
    ages: ConnectionAges, *lived_s: float, apart_s: float = 100.0, at_s: float = 0.0
) -> None:
    """Connections that broke one after the other, so far apart, each so old."""
    for number, age_s in enumerate(lived_s):
        peer = key_of(str(number)).peer
        now_at_s = at_s + number * apart_s
        ages.begun(peer, now_at_s - age_s)
        ages.ended(peer, now_at_s, broke=True)


def test_what_breaks_at_one_age_is_cut_by_the_network() -> None:
    ages = ConnectionAges()
    broken(ages, 300.0, 302.0, 299.5, 300.0)
    assert ages.cut_after_s() is None
    broken(ages, 301.0, at_s=1000.0)
    assert ages.cut_after_s() == pytest.approx(300.0)
    # One that died of something else changes nothing.
    broken(ages, 77.0, at_s=2000.0)
    assert ages.cut_after_s() == pytest.approx(300.0, abs=1.0)


@pytest.mark.parametrize("seed", range(20))
def test_peers_that_come_and_go_are_no_network_that_cuts(seed: int) -> None:
    random, ages = Random(seed), ConnectionAges()
    broken(ages, *(random.expovariate(1 / 600) + 20 for _ in range(KEPT)))
    assert ages.cut_after_s() is None


def test_a_router_that_was_restarted_once_is_one_break() -> None:
    ages = ConnectionAges()
    broken(ages, *[600.0] * 3 * NEEDED, apart_s=1.0)
    assert ages.cut_after_s() is None


def test_who_hangs_up_on_purpose_or_at_once_says_nothing_of_the_network() -> None:
    ages, peer = ConnectionAges(), key_of("it").peer
    for number in range(2 * NEEDED):
        ages.begun(peer, number * 1000.0)
        ages.ended(peer, number * 1000.0 + 300.0, broke=False)
    broken(ages, *[5.0] * 2 * NEEDED, at_s=1e6)
    ages.ended(peer, 2e6, broke=True)
    assert ages.cut_after_s() is None
