"""Half-open connections: each prefix pays for itself, and newcomers find a place."""

import pytest

from p2p.connection_limiter import ConnectionLimiter, ConnectionLimits, HalfOpen, LoopClock
from p2p.ip_address import Scope, place_of, prefix_of, scope_of
from p2p.token_bucket import TokenBucket, TokenBuckets


def limiter(**limits: float) -> ConnectionLimiter:
    return ConnectionLimiter(ConnectionLimits(**limits))  # type: ignore[arg-type]


def let_in(limiter: ConnectionLimiter, host: str, now_at_s: float = 0.0) -> HalfOpen | None:
    return limiter.arrived(host, now_at_s, now_at_s)[0]


@pytest.mark.parametrize(
    ("host", "prefix"),
    [
        ("198.51.100.7", "198.51.100.7"),  # set aside for documents, so nobody's prefix
        ("8.8.8.8", "8.8.8.0/24"),
        ("8.8.8.200", "8.8.8.0/24"),
        ("::ffff:8.8.8.8", "8.8.8.0/24"),
        ("2a01:4f8:1:2345::1", "2a01:4f8:1:2300::/56"),
        ("2a01:4f8:1:23ff::9", "2a01:4f8:1:2300::/56"),
        ("192.168.1.5", "192.168.1.5"),
        ("127.0.0.1", "127.0.0.1"),
        ("fe80::1%eth0", "fe80::1%eth0"),
        ("", ""),
        ("not an address", "not an address"),
    ],
)
def test_strangers_are_counted_by_what_one_customer_is_given(host: str, prefix: str) -> None:
    assert prefix_of(host) == prefix


@pytest.mark.parametrize(
    ("host", "scope"),
    [
        ("8.8.8.8", Scope.GLOBAL),
        ("2a01:4f8::1", Scope.GLOBAL),
        ("example.org", Scope.GLOBAL),
        ("10.1.2.3", Scope.PRIVATE),
        ("172.17.0.1", Scope.PRIVATE),
        ("192.168.1.5", Scope.PRIVATE),
        ("169.254.169.254", Scope.PRIVATE),
        ("100.64.0.1", Scope.PRIVATE),
        ("224.0.0.1", Scope.PRIVATE),
        ("fd00::1", Scope.PRIVATE),
        ("fe80::1", Scope.PRIVATE),
        ("127.0.0.1", Scope.LOOPBACK),
        ("127.9.9.9", Scope.LOOPBACK),
        ("0.0.0.0", Scope.LOOPBACK),
        ("::1", Scope.LOOPBACK),
        ("::", Scope.LOOPBACK),
        ("::ffff:127.0.0.1", Scope.LOOPBACK),
        ("fec0::1", Scope.PRIVATE),
        # A router, or the system, calls the IPv4 address that is in these.
        ("64:ff9b::7f00:1", Scope.LOOPBACK),
        ("64:ff9b::a00:1", Scope.PRIVATE),
        ("64:ff9b::808:808", Scope.GLOBAL),
        ("64:ff9b:1::808:808", Scope.PRIVATE),
        ("2002:c0a8:101::1", Scope.PRIVATE),
        ("2002:808:808::1", Scope.GLOBAL),
        ("::10.0.0.1", Scope.PRIVATE),
    ],
)
def test_how_far_away_an_address_may_be(host: str, scope: Scope) -> None:
    assert scope_of(host) is scope


def test_a_place_is_an_address_without_its_peer() -> None:
    assert place_of("/ip4/8.8.8.8/tcp/1/p2p/12D3") == "/ip4/8.8.8.8/tcp/1"
    assert place_of("/memory/7") == "/memory/7"


def test_one_prefix_spends_its_own_tokens_and_nobody_elses() -> None:
    gate = limiter(burst=3, per_s=1)
    opened = [let_in(gate, f"8.8.8.{it}") for it in range(10)]
    assert [it is not None for it in opened] == [True] * 3 + [False] * 7
    assert gate.refused == 7
    assert let_in(gate, "9.9.9.9") is not None
    assert let_in(gate, "8.8.8.8", now_at_s=1.0) is not None
    assert let_in(gate, "8.8.8.8", now_at_s=1.0) is None


def test_loopback_has_more_and_each_address_of_it_its_own() -> None:
    gate = limiter(burst=2, per_s=1, loopback_times=10, half_open_max=100)
    assert sum(let_in(gate, "127.0.0.1") is not None for _ in range(30)) == 20
    assert let_in(gate, "127.0.0.2") is not None


def test_a_newcomer_finds_a_place_and_the_oldest_of_the_crowd_goes() -> None:
    gate = limiter(half_open_max=4)
    first = let_in(gate, "9.9.9.9")
    crowd = [let_in(gate, "8.8.8.8") for _ in range(3)]
    place, evicted = gate.arrived("7.7.7.7", 0.0, 0.0)
    assert place is not None
    # Not the oldest of all: that one is alone in its prefix, and may be as honest as the newcomer.
    assert evicted is crowd[0]
    assert evicted is not first
    assert (gate.half_open, gate.evicted, gate.refused) == (4, 1, 0)


def test_where_nobody_is_a_crowd_the_oldest_goes() -> None:
    gate = limiter(half_open_max=3)
    opened = [let_in(gate, f"8.8.{it}.8") for it in range(3)]
    assert gate.arrived("9.9.9.9", 0.0, 0.0)[1] is opened[0]


def test_who_says_nothing_or_trickles_is_over_its_time() -> None:
    gate = limiter(silence_s=2, handshake_s=5)
    silent, trickling, done = (let_in(gate, f"8.8.{it}.8") for it in range(3))
    assert silent is not None
    assert trickling is not None
    assert done is not None
    gate.ended(done)
    for now_at_s in (1.0, 1.9):
        gate.heard(trickling, now_at_s)
        assert gate.overdue(now_at_s) == []
    assert gate.overdue(2.0) == [silent]
    for now_at_s in (3.0, 4.0, 4.9):
        gate.heard(trickling, now_at_s)
        assert gate.overdue(now_at_s) == []
    gate.heard(trickling, 5.0)
    assert gate.overdue(5.0) == [trickling]
    assert (gate.half_open, gate.timed_out) == (0, 2)
    gate.ended(trickling)
    assert gate.half_open == 0


def test_a_loop_that_stood_still_blames_nobody() -> None:
    clock = LoopClock(0.25)
    assert clock.tick(100.0) == 0.0
    assert clock.tick(100.25) == 0.25
    # It was busy for ten seconds: peers may have spoken all the while.
    assert clock.tick(110.25) == 0.75
    assert clock.ran_s == 0.75


def test_a_bucket_fills_up_to_its_burst_and_no_further() -> None:
    bucket = TokenBucket(burst=2, per_s=0.5)
    assert [bucket.take(0.0) for _ in range(3)] == [True, True, False]
    assert not bucket.take(1.9)
    assert bucket.take(2.0)
    assert [bucket.take(1000.0) for _ in range(3)] == [True, True, False]
    # A clock that ran back gives nothing.
    assert not bucket.take(0.0)


def test_a_flood_of_keys_does_not_give_a_spent_bucket_back() -> None:
    buckets = TokenBuckets(burst=4, per_s=0.001, keys_max=50)
    while buckets.take("spent", 0.0):
        pass
    for number in range(1000):
        buckets.take(f"fresh {number}", 0.0)
    assert len(buckets) == 50
    assert not buckets.take("spent", 0.0)
