"""Dialing: whom to call and when, without hammering anybody or losing the way home."""

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2p.dialing import Dial, Dialing, DialingConfig
from p2p.ip_address import Scope, may_call
from tests.p2p.transports import key_of
from wire.content import PeerId
from wire.errors import Refused

HOME = "/memory/1/p2p/home"


def peer_of(number: int) -> PeerId:
    return key_of(f"peer {number}").peer


def dialing_of(**config: int) -> Dialing:
    return Dialing(key_of("me").peer, Random(3), DialingConfig(**config))


def retries_s(dialing: Dialing, dial: Dial, count: int) -> list[float]:
    """Fail again and again as soon as it is due: the waits in between, to a tenth of a second."""
    waits, now_at_s = [], 0.0
    for _ in range(count):
        dialing.failed(dial, now_at_s)
        wait_s = 0.0
        while not dialing.due(now_at_s + wait_s):
            wait_s += 0.1
            assert wait_s < 1000, "given up"
        waits.append(wait_s)
        now_at_s += wait_s
    return waits


def test_a_known_peer_is_called_once_until_the_call_has_ended() -> None:
    dialing = dialing_of()
    dialing.learn(peer_of(1), ("/memory/1",))
    dialing.add_bootstrap(HOME)
    dials = dialing.due(0.0)
    assert {it.peer for it in dials} == {None, peer_of(1)}
    assert dialing.due(0.0) == []
    assert dialing.due(1000.0) == []
    # News of another address does not make it two calls.
    dialing.learn(peer_of(1), ("/memory/2",))
    assert dialing.due(1000.0) == []


def test_the_wait_grows_with_each_failure_and_is_bounded() -> None:
    dialing = dialing_of()
    dialing.add_bootstrap(HOME)
    (dial,) = dialing.due(0.0)
    waits = retries_s(dialing, dial, 12)
    assert 0.9 <= waits[0] <= 2.1
    for earlier, later in zip(waits[:6], waits[2:], strict=False):
        assert later > earlier
    assert all(60 <= it <= 120.2 for it in waits[8:])


def test_a_bootstrap_is_never_given_up() -> None:
    dialing = dialing_of()
    dialing.add_bootstrap(HOME)
    (dial,) = dialing.due(0.0)
    assert len(retries_s(dialing, dial, 50)) == 50


def test_a_bootstrap_that_is_dead_for_days_does_no_harm() -> None:
    dialing, now_at_s = dialing_of(), 0.0
    dialing.add_bootstrap(HOME)
    for _ in range(2000):
        now_at_s += 120.0
        [dial] = dialing.due(now_at_s)
        dialing.failed(dial, now_at_s)
    assert now_at_s > 2 * 86_400


def test_a_stranger_that_never_answers_is_given_up() -> None:
    dialing = dialing_of()
    dialing.learn(peer_of(1), ("/memory/1",))
    now_at_s, calls = 0.0, 0
    while now_at_s < 10_000:
        for dial in dialing.due(now_at_s):
            calls += 1
            dialing.failed(dial, now_at_s)
        now_at_s += 10
    assert calls == 9
    assert dialing.known() == {}


def test_a_new_address_is_worth_a_call_at_once_and_the_old_one_is_not() -> None:
    dialing = dialing_of()
    dialing.learn(peer_of(1), ("/memory/1",))
    (dial,) = dialing.due(0.0)
    dialing.failed(dial, 0.0)
    dialing.learn(peer_of(1), ("/memory/1",))
    assert dialing.due(0.1) == []
    dialing.learn(peer_of(1), ("/memory/2",))
    assert dialing.due(0.1) == [Dial(peer_of(1), ("/memory/2",))]


def test_a_bootstrap_that_is_connected_is_not_called_and_one_that_was_lost_is() -> None:
    dialing = dialing_of()
    dialing.add_bootstrap(HOME)
    (dial,) = dialing.due(0.0)
    dialing.connected(peer_of(1))
    dialing.succeeded(dial, peer_of(1))
    assert dialing.due(500.0) == []
    dialing.disconnected(peer_of(1), 500.0)
    assert dialing.due(510.0) == [dial]


def test_who_made_room_is_left_alone_for_a_while_and_then_called_again() -> None:
    dialing = dialing_of()
    dialing.learn(peer_of(1), ("/memory/1",))
    dialing.connected(peer_of(1))
    dialing.disconnected(peer_of(1), 100.0, parted=True)
    assert dialing.due(115.0) == []
    assert [it.peer for it in dialing.due(133.0)] == [peer_of(1)]


def test_who_refuses_us_is_called_ever_more_seldom_although_each_call_connects() -> None:
    dialing, now_at_s, called = dialing_of(), 0.0, []
    dialing.learn(peer_of(1), ("/memory/1",))
    while now_at_s < 3600.0:
        for dial in dialing.due(now_at_s):
            called.append(now_at_s)
            dialing.connected(peer_of(1))
            dialing.disconnected(peer_of(1), now_at_s, lost=True)
            dialing.failed(dial, now_at_s, Refused("the owner has removed you"))
        now_at_s += 1.0
    # An hour has room for 60 at most at the longest wait, and the first ones follow quickly.
    assert called[2] < 10.0
    assert 30 <= len(called) <= 66
    # Once it has welcomed us it is called as any other.
    dialing.succeeded(Dial(peer_of(1), ("/memory/1",)), peer_of(1))
    dialing.disconnected(peer_of(1), now_at_s)
    assert dialing.due(now_at_s + 1.1)


def test_a_lost_peer_is_called_again_after_a_moment_of_its_own() -> None:
    moments = set()
    for seed in range(5):
        dialing = Dialing(key_of("me").peer, Random(seed))
        dialing.learn(peer_of(1), ("/memory/1",))
        dialing.connected(peer_of(1))
        dialing.disconnected(peer_of(1), 100.0)
        assert dialing.due(100.0) == []
        moments.add(next(at for at in range(1000, 1011) if dialing.due(at / 10)))
    # A bootstrap that restarts is not called by all at once.
    assert len(moments) > 1


def test_enough_connections_are_enough() -> None:
    dialing = dialing_of(connections_wanted=3, dials_at_once=10)
    for number in range(8):
        dialing.learn(peer_of(number), (f"/memory/{number}",))
    dialing.connected(peer_of(0))
    dials = dialing.due(0.0)
    assert len(dials) == 2
    assert peer_of(0) not in {it.peer for it in dials}
    for dial in dials:
        assert dial.peer is not None
        dialing.connected(dial.peer)
        dialing.succeeded(dial, dial.peer)
    assert dialing.due(1000.0) == []


def test_no_more_calls_at_once_than_allowed() -> None:
    dialing = dialing_of(dials_at_once=4)
    for number in range(20):
        dialing.learn(peer_of(number), (f"/memory/{number}",))
    for number in range(3):
        dialing.add_bootstrap(f"/memory/9{number}")
    assert len(dialing.due(0.0)) == 4


def test_who_failed_least_is_called_first_and_equals_are_drawn() -> None:
    firsts = set()
    for seed in range(20):
        dialing = Dialing(key_of("me").peer, Random(seed), DialingConfig(dials_at_once=1))
        for number in range(4):
            dialing.learn(peer_of(number), (f"/memory/{number}",))
        dialing.failed(Dial(peer_of(0), ("/memory/0",)), -1000.0)
        (dial,) = dialing.due(0.0)
        firsts.add(dial.peer)
    assert peer_of(0) not in firsts
    assert len(firsts) > 1


def test_what_is_known_is_bounded_and_the_oldest_goes() -> None:
    dialing = dialing_of(known_max=5)
    for number in range(50):
        dialing.learn(peer_of(number), (f"/memory/{number}",))
    assert set(dialing.known()) == {peer_of(number) for number in range(45, 50)}


def test_neither_ourselves_nor_nowhere_is_called() -> None:
    dialing = dialing_of()
    dialing.learn(key_of("me").peer, ("/memory/1",))
    dialing.learn(peer_of(1), ())
    assert dialing.due(0.0) == []


def test_who_said_good_bye_is_not_called() -> None:
    dialing = dialing_of()
    dialing.learn(peer_of(1), ("/memory/1",))
    dialing.left(peer_of(1))
    assert dialing.due(0.0) == []
    assert dialing.addresses_of(peer_of(1)) == ()


_events = st.lists(
    st.tuples(
        st.sampled_from(["learn", "up", "down", "left", "ok", "no", "wait"]), st.integers(0, 5)
    ),
    max_size=60,
)


@pytest.mark.parametrize("seed", [1, 2])
@given(events=_events)
def test_whatever_happens_nobody_is_called_twice_at_once_nor_while_connected(
    seed: int, events: list[tuple[str, int]]
) -> None:
    dialing = Dialing(key_of("me").peer, Random(seed), DialingConfig(known_max=4))
    under_way: dict[PeerId, Dial] = {}
    connected: set[PeerId] = set()
    now_at_s = 0.0
    for what, number in events:
        peer = _PEERS[number]
        match what:
            case "learn":
                dialing.learn(peer, (f"/memory/{int(now_at_s)}",))
            case "up":
                dialing.connected(peer)
                connected.add(peer)
            case "down":
                dialing.disconnected(peer, now_at_s)
                connected.discard(peer)
            case "left":
                dialing.left(peer)
                under_way.pop(peer, None)
            case "ok" | "no" if peer in under_way:
                dial = under_way.pop(peer)
                if what == "ok":
                    dialing.succeeded(dial, peer)
                else:
                    dialing.failed(dial, now_at_s)
            case _:
                now_at_s += number
        known = dialing.known()
        assert len(known) <= 4
        # Who fell off the list may be learned and called anew.
        under_way = {it: dial for it, dial in under_way.items() if it in known}
        for dial in dialing.due(now_at_s):
            assert dial.peer is not None
            assert dial.peer not in under_way
            assert dial.peer not in connected
            under_way[dial.peer] = dial


_PEERS = [peer_of(number) for number in range(6)]


def test_a_peer_with_neighbours_enough_still_calls_somebody_else_once_in_a_while() -> None:
    dialing = dialing_of(connections_wanted=1, roam_every_s=60.0)
    dialing.add_bootstrap(HOME)
    (home,) = dialing.due(0.0)
    dialing.connected(peer_of(0))
    dialing.succeeded(home, peer_of(0))
    dialing.disconnected(peer_of(0), 0.0)
    for number in range(1, 4):
        dialing.learn(peer_of(number), (f"/memory/{number}",))
    dialing.connected(peer_of(1))
    called = []
    for at_s in range(5, 1000):
        for dial in dialing.due(float(at_s)):
            called.append(dial)
            dialing.succeeded(dial, dial.peer or peer_of(0))
    # Twice in three minutes or so; the bootstrap that was lost is one of those.
    assert 8 <= len(called) <= 34
    assert {it.peer for it in called} == {None, peer_of(2), peer_of(3)}


def test_who_was_lost_is_called_once_more_although_there_are_neighbours_enough() -> None:
    dialing = dialing_of(connections_wanted=1)
    for number in (1, 2):
        dialing.learn(peer_of(number), (f"/memory/{number}",))
        dialing.connected(peer_of(number))
    dialing.disconnected(peer_of(2), 0.0, lost=True)
    (dial,) = dialing.due(2.0)
    assert dial.peer == peer_of(2)
    dialing.failed(dial, 2.0)
    assert dialing.due(10.0) == []


VICTIM = "/ip4/8.8.8.8/tcp/80/p2p/"


def test_fresh_keys_that_all_name_one_place_have_it_called_a_few_times_only() -> None:
    dialing = Dialing(key_of("me").peer, Random(1))
    called, now_at_s = 0, 0.0
    for number in range(100):
        peer = key_of(f"fresh {number}").peer
        dialing.learn(peer, (f"{VICTIM}{peer}",))
        for dial in dialing.due(now_at_s):
            called += 1
            dialing.failed(dial, now_at_s)
        now_at_s += 0.5
    # Fifty seconds; before, each key was a call.
    assert called <= 10


def test_a_host_that_is_named_with_ever_other_ports_is_left_alone_too() -> None:
    dialing = Dialing(key_of("me").peer, Random(1))
    called, now_at_s = 0, 0.0
    for number in range(200):
        peer = key_of(f"fresh {number}").peer
        dialing.learn(peer, (f"/ip4/8.8.8.8/tcp/{1000 + number}/p2p/{peer}",))
        for dial in dialing.due(now_at_s):
            called += 1
            dialing.failed(dial, now_at_s)
        now_at_s += 0.25
    assert called <= DialingConfig().host_failures + 8


def test_strangers_all_over_the_world_are_called_at_a_bounded_rate() -> None:
    config = DialingConfig()
    dialing = Dialing(key_of("me").peer, Random(1), config)
    called, seconds = 0, 60
    for second in range(seconds):
        for number in range(10):
            peer = key_of(f"fresh {second} {number}").peer
            dialing.learn(peer, (f"/ip4/8.8.{second}.{number}/tcp/1/p2p/{peer}",))
        for dial in dialing.due(float(second)):
            called += 1
            dialing.failed(dial, float(second))
    assert called <= config.stranger_dials + seconds * config.stranger_dials_per_s


def test_a_made_up_key_at_the_place_of_one_we_met_does_not_close_it() -> None:
    dialing = Dialing(key_of("me").peer, Random(1))
    honest = key_of("honest").peer
    dialing.learn(honest, (f"{VICTIM}{honest}",))
    dialing.connected(honest)
    dialing.disconnected(honest, 0.0)
    for number in range(20):
        dialing.unreachable((f"{VICTIM}{key_of(str(number)).peer}",), 1.0)
    assert dialing.to_call(honest, (), 1.0) == (f"{VICTIM}{honest}",)
    stranger = key_of("stranger").peer
    assert dialing.to_call(stranger, (f"{VICTIM}{stranger}",), 1.0) == ()
    assert dialing.to_call(stranger, (f"{VICTIM}{stranger}",), 1000.0) != ()


@pytest.mark.parametrize(
    ("address", "nearest", "called"),
    [
        ("/ip4/8.8.8.8/tcp/1", Scope.GLOBAL, True),
        ("/ip4/192.168.1.1/tcp/80", Scope.GLOBAL, False),
        ("/ip4/169.254.169.254/tcp/80", Scope.GLOBAL, False),
        ("/ip4/127.0.0.1/tcp/80", Scope.GLOBAL, False),
        ("/ip6/::1/tcp/80", Scope.GLOBAL, False),
        ("/dns4/localhost/tcp/80", Scope.LOOPBACK, False),
        ("/ip4/192.168.1.1/tcp/80", Scope.PRIVATE, True),
        ("/ip4/127.0.0.1/tcp/80", Scope.PRIVATE, False),
        ("/ip4/127.0.0.1/tcp/80", Scope.LOOPBACK, True),
        ("/ip4/192.168.1.1/tcp/80", Scope.LOOPBACK, True),
        ("/memory/7", Scope.GLOBAL, True),
    ],
)
def test_an_advert_leads_no_nearer_than_where_its_teller_was_met(
    address: str, nearest: Scope, called: bool
) -> None:
    assert may_call(address, nearest) is called


def test_who_was_met_before_a_restart_is_called_long_after_a_stranger_is_given_up() -> None:
    dialing = Dialing(key_of("me").peer, Random(1))
    old, stranger = key_of("old").peer, key_of("stranger").peer
    dialing.remember(old, (f"/ip4/8.8.8.8/tcp/1/p2p/{old}",))
    dialing.learn(stranger, (f"/ip4/9.9.9.9/tcp/1/p2p/{stranger}",))
    now_at_s = 0.0
    for _ in range(40):
        now_at_s += 3600.0
        for dial in dialing.due(now_at_s):
            dialing.failed(dial, now_at_s)
    assert set(dialing.known()) == {old}
    assert set(dialing.met()) == {old}


def test_who_was_met_before_is_called_although_a_lying_bootstrap_fills_all_places() -> None:
    dialing = Dialing(key_of("me").peer, Random(1))
    dialing.add_bootstrap("/ip4/9.9.9.9/tcp/1")
    met = [peer_of(number) for number in range(3)]
    for number, peer in enumerate(met):
        dialing.remember(peer, (f"/ip4/8.8.8.8/tcp/{number + 1}/p2p/{peer}",))
    # The bootstrap answers and tells of its own keys, of which more call us than we want.
    rogues = [peer_of(1000 + number) for number in range(200)]
    for number, peer in enumerate(rogues):
        dialing.learn(peer, (f"/ip4/9.9.9.9/tcp/{number + 2}/p2p/{peer}",))
    for peer in rogues[:20]:
        dialing.connected(peer)
    called: set[PeerId | None] = set()
    for now_at_s in range(10):
        for dial in dialing.due(float(now_at_s)):
            called.add(dial.peer)
            if dial.peer in met:
                dialing.succeeded(dial, dial.peer)
                dialing.connected(dial.peer)
    assert set(met) <= called
    # Each once: who is gone is not called again and again for that.
    assert dialing._next_anchor(100.0) is None


def test_nobody_is_called_for_company_where_that_is_not_wanted() -> None:
    dialing = dialing_of()
    dialing.skips = lambda addresses: addresses == ("/memory/1",)
    dialing.learn(peer_of(1), ("/memory/1",))
    dialing.learn(peer_of(2), ("/memory/2",))
    assert [it.peer for it in dialing.due(0.0)] == [peer_of(2)]
    dialing.connected(peer_of(1))
    dialing.disconnected(peer_of(1), 1.0)
    assert not dialing.due(100.0)
    # For work it may be called all the same.
    assert dialing.to_call(peer_of(1), (), 100.0) == ("/memory/1",)
    dialing.skips = lambda _: False
    assert [it.peer for it in dialing.due(200.0)] == [peer_of(1)]
