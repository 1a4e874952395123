"""What a relay gives for nothing: a little for each, a bound for all, and shares that are fair."""

from collections.abc import Iterable
from random import Random

import pytest

from p2p import free_bytes
from p2p.free_bytes import (
    ALL_FREE_BYTES,
    ALL_FREE_BYTES_PER_S,
    ASKERS_MAX,
    FREE_BYTES,
    FREE_BYTES_PER_S,
    FairUse,
    FreeBytes,
)
from tests.p2p.transports import key_of
from wire.content import PeerId

A_PIECE = 256 << 10
ANN, BOB = key_of("ann").peer, key_of("bob").peer
HERE, THERE = "198.51.100.0/24", "203.0.113.0/24"


def keys(count: int) -> list[PeerId]:
    random = Random(1)
    return [PeerId(random.randbytes(32)) for _ in range(count)]


def taken(free: FreeBytes, askers: Iterable[PeerId], network: str, at_s: float) -> int:
    """What these have when each asks for a piece."""
    return sum(A_PIECE * free.take(it, network, A_PIECE, at_s) for it in askers)


def test_who_has_promised_nothing_has_so_many_bytes_at_once_and_a_trickle_after_that() -> None:
    free = FreeBytes()
    at_once = taken(free, [ANN] * 100, HERE, 0.0)
    assert FREE_BYTES <= at_once < FREE_BYTES + A_PIECE
    assert free.take(BOB, HERE, A_PIECE, 0.0), "another has its own"
    later = 0
    for second in range(1, 1001):
        later += 512 * sum(free.take(ANN, HERE, 512, float(second)) for _ in range(8))
    assert later == pytest.approx(1000 * FREE_BYTES_PER_S, rel=0.01)
    assert free.owing(1000.0) == 1
    assert free.owing(1002.0) == 0


def test_many_keys_have_no_more_than_all_together_may() -> None:
    free, farm = FreeBytes(), keys(2 * ASKERS_MAX)
    at_once = sum(taken(free, [it], f"{number}", 0.0) for number, it in enumerate(farm))
    assert 0.9 * ALL_FREE_BYTES <= at_once < ALL_FREE_BYTES + A_PIECE
    later = sum(taken(free, [it], f"{number}", 100.0) for number, it in enumerate(farm))
    assert 0 < later <= 101 * ALL_FREE_BYTES_PER_S + A_PIECE
    assert len(free._each) <= ASKERS_MAX
    assert len(free._peers) == len(free._networks._until) < ASKERS_MAX


def test_a_farm_of_keys_in_one_network_starves_nobody_of_another() -> None:
    free, farm, farmed, had = FreeBytes(), keys(200), 0, 0
    for look in range(600):
        at_s = look / 2
        farmed += taken(free, farm, HERE, at_s)
        # It comes a minute late.
        if look == 120:
            had += taken(free, [ANN] * 8, THERE, at_s)
            assert had >= FREE_BYTES, "what is each newcomer's is there at once"
        elif look > 120:
            had += sum(512 * free.take(ANN, THERE, 512, at_s) for _ in range(4))
    assert had >= FREE_BYTES + 0.95 * 240 * FREE_BYTES_PER_S - A_PIECE
    # What it leaves is for the farm, whose keys want three times as much.
    assert farmed + had == pytest.approx(ALL_FREE_BYTES / 2 + 300 * ALL_FREE_BYTES_PER_S, rel=0.03)


def test_peers_of_one_network_have_like_shares_of_it() -> None:
    free, random, everybody = FreeBytes(), Random(3), [*keys(80), ANN]
    before, had = 0, dict.fromkeys(everybody, 0)
    for second in range(1000):
        if second == 200:
            before = sum(had.values())
        random.shuffle(everybody)
        for peer in everybody:
            # One of them comes late, when the others have used up what was there at once.
            if peer != ANN or second >= 200:
                had[peer] += taken(free, [peer], HERE, float(second))
    theirs = (sum(had.values()) - before) / len(everybody)
    assert had[ANN] == pytest.approx(theirs, abs=2 * A_PIECE)


def test_networks_beyond_what_is_remembered_share_one_place(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(free_bytes, "USERS_MAX", 4)
    free, farm = FreeBytes(), keys(40)
    for number, peer in enumerate(farm):
        assert free.take(peer, f"{number}", 100, 0.0)
    assert len(free._networks._until) == len(free._peers) == 5
    assert free._networks.used("39") == 36 * 100
    assert free.take(ANN, HERE, 100, 1e6)
    assert list(free._peers) == [HERE]


def test_what_comes_back_is_shared_alike_by_those_that_used_some() -> None:
    use = FairUse()
    for user, amount in (("ann", 30.0), ("bob", 100.0), ("bob", 20.0), ("dan", 30.0)):
        use.spend(user, amount)
    assert use.come_back(60.0) == []
    assert [use.used(it) for it in ("ann", "bob", "dan", "eve")] == [10.0, 100.0, 10.0, 0.0]
    use.spend("dan", 50.0)
    # Ann has used nothing after thirty, so the rest is for two.
    assert use.come_back(50.0) == ["ann"]
    assert [use.used(it) for it in ("bob", "dan")] == [80.0, 40.0]
    assert use.total == 120.0
    assert use.come_back(1000.0) == ["dan", "bob"]
    assert (use.total, use.used("bob")) == (0.0, 0.0)
