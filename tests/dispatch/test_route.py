"""Routing: who gets the next leg, by estimated completion and what we know of each."""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from random import Random
from statistics import quantiles
from typing import Any

import pytest

from node.dispatch.route import Candidate, Leg, PeerLoad, candidates, drawn, expected_s, ranked
from p2p.score import Standing
from tests.p2p.adverts import MODEL, advert_of
from tests.p2p.transports import key_of
from wire.advert import Advert, ModelOffer
from wire.content import ContentId, PeerId
from wire.signed import Signed


def running(name: str, units_per_s: float = 100.0, **changes: Any) -> Signed[Advert]:
    offer = ModelOffer(model=MODEL, name="model", units_per_s=units_per_s)
    return advert_of(name, models=(offer,), **changes)


def order(*adverts: Signed[Advert], units: int = 100, **loads: PeerLoad) -> list[str]:
    by_peer = {key_of(name).peer: load for name, load in loads.items()}
    names = {it.signer: name for name in "abcde" for it in adverts if it.signer == _peer(name)}
    leg = Leg(MODEL, units)
    return [names[peer] for peer in ranked(adverts, leg, by_peer, Random(1))]


def _peer(name: str) -> PeerId:
    return key_of(name).peer


@pytest.mark.parametrize(
    ("advert", "leg", "load", "expected"),
    [
        (running("a"), Leg(MODEL, 100), PeerLoad(), 1.0),
        (running("a", queue_s=3.0), Leg(MODEL, 100), PeerLoad(), 4.0),
        (running("a"), Leg(MODEL, 100), PeerLoad(under_way=2), 3.0),
        (running("a", units_per_s=0.0), Leg(MODEL, 5), PeerLoad(), 5.0),
        (running("a"), Leg(None, 2), PeerLoad(), 2.0),
        (running("a"), Leg(ContentId.of(b"another"), 3), PeerLoad(), 3.0),
    ],
)
def test_the_estimate_is_queue_and_work_by_speed(
    advert: Signed[Advert], leg: Leg, load: PeerLoad, expected: float
) -> None:
    assert expected_s(advert.record, leg, load) == expected


def test_the_sooner_done_is_asked_first() -> None:
    fast, slow, queued = running("a", 400.0), running("b", 50.0), running("c", 400.0, queue_s=1.0)
    assert order(slow, queued, fast) == ["a", "c", "b"]


def test_who_gives_no_speed_comes_after_who_was_measured() -> None:
    assert order(running("a", 0.0), running("b", 2.0)) == ["b", "a"]


def test_a_banned_peer_is_not_asked_at_all() -> None:
    banned = PeerLoad(Standing.BANNED)
    assert order(running("a"), running("b"), a=banned) == ["b"]
    assert order(running("a"), a=banned) == []


def test_an_unwelcome_peer_is_asked_last_however_fast() -> None:
    unwelcome = PeerLoad(Standing.UNWELCOME)
    assert order(running("a", 1e6), running("b", 1.0, free_slots=0), a=unwelcome) == ["b", "a"]


def test_what_we_gave_a_peer_already_counts() -> None:
    busy = PeerLoad(under_way=3)
    assert order(running("a", 200.0), running("b", 100.0), a=busy) == ["b", "a"]


def test_a_peer_whose_slots_we_fill_comes_after_one_with_room() -> None:
    full = PeerLoad(under_way=2)
    assert order(running("a", 1e6, free_slots=2), running("b"), a=full) == ["b", "a"]
    assert order(running("a", 1e6, free_slots=0), running("b")) == ["b", "a"]


def test_equals_are_drawn_so_that_many_askers_do_not_all_choose_the_same() -> None:
    adverts = [running(name) for name in "abcd"]
    firsts = Counter(ranked(adverts, Leg(MODEL), {}, Random(seed))[0] for seed in range(400))
    assert set(firsts) == {_peer(name) for name in "abcd"}
    assert min(firsts.values()) > 50


def test_the_same_seed_gives_the_same_order() -> None:
    adverts = [running(name) for name in "abcde"]
    assert len({tuple(ranked(adverts, Leg(MODEL), {}, Random(9))) for _ in range(5)}) == 1


def test_nobody_to_ask_is_an_empty_order() -> None:
    assert ranked([], Leg(MODEL), {}, Random(1)) == []


def choose(adverts: list[Signed[Advert]], seed: int, units: int = 100, **loads: PeerLoad) -> PeerId:
    by_peer = {_peer(name): load for name, load in loads.items()}
    return drawn(candidates(adverts, Leg(MODEL, units), by_peer), Random(seed))[0].peer


def test_of_two_that_are_drawn_the_better_comes_first() -> None:
    adverts = [running("a", 50.0), running("b", 100.0)]
    assert {choose(adverts, seed) for seed in range(50)} == {_peer("b")}


def test_two_are_two_of_the_best_kind() -> None:
    adverts = [running(name) for name in "abcd"]
    unwelcome = {_peer("d"): PeerLoad(Standing.UNWELCOME)}
    for seed in range(50):
        two = drawn(candidates(adverts, Leg(MODEL), unwelcome), Random(seed))
        assert len({it.peer for it in two}) == 2
        assert _peer("d") not in {it.peer for it in two}


def test_who_said_that_it_is_full_is_asked_less_often_but_asked() -> None:
    adverts = [*(running(name) for name in "abc"), running("e", free_slots=0)]
    asked = Counter(
        it.peer
        for seed in range(400)
        for it in drawn(candidates(adverts, Leg(MODEL), {}), Random(seed))
    )
    assert 0 < asked[_peer("e")] < asked[_peer("a")] / 2
    assert drawn([], Random(1)) == []


def test_a_thousand_askers_do_not_all_land_on_one_fast_and_idle_peer() -> None:
    names = [str(number) for number in range(50)]
    adverts = [running(name, 100.0) for name in names] + [running("fast", 400.0)]
    landed = Counter(choose(adverts, seed) for seed in range(1000))
    # It gets several times what others get, and is not swamped.
    assert 60 < landed[_peer("fast")] < 500
    # Where all are equal nobody is far from the mean.
    landed = Counter(choose(adverts[:50], seed) for seed in range(1000))
    assert max(landed.values()) < 45


def test_at_a_calm_time_a_slow_peer_is_hardly_asked() -> None:
    adverts = [running(name, 1.0) for name in "abcde"] + [running("fast", 100.0)]
    landed = Counter(choose(adverts, seed) for seed in range(200))
    assert landed[_peer("fast")] > 195


def test_what_was_observed_counts_for_more_than_what_is_claimed() -> None:
    boaster, honest = running("a", 1e9), running("b", 100.0)
    seen = PeerLoad(observed=(1.0, 0.9))
    assert order(boaster, honest) == ["a", "b"]
    assert order(boaster, honest, a=seen, b=PeerLoad(observed=(0.01, 0.9))) == ["b", "a"]
    assert expected_s(boaster.record, Leg(MODEL, 100), seen) == pytest.approx(90.0)


def test_a_claim_that_nobody_measured_counts_at_most_as_the_median_of_the_measured() -> None:
    leg = Leg(MODEL, 100)
    adverts = [running(name, 100.0) for name in "abc"] + [running("d", 1e9), running("e", 10.0)]
    loads = {
        _peer(name): PeerLoad(observed=(unit_s, 0.9))
        for name, unit_s in (("a", 0.01), ("b", 0.02), ("c", 0.04))
    }
    found = {it.peer: it.work_s for it in candidates(adverts, leg, loads)}
    assert found[_peer("d")] == pytest.approx(2.0)
    # Who claims less than that is taken at its word.
    assert found[_peer("e")] == pytest.approx(10.0)


def test_no_stranger_ranks_above_who_delivered() -> None:
    delivered = PeerLoad(observed=(0.02, 0.9), delivered=True)
    assert order(running("a", 1e9), running("b", 50.0), b=delivered) == ["b", "a"]


def test_who_is_benched_comes_after_all_others() -> None:
    benched = PeerLoad(benched=True, delivered=True)
    assert order(running("a", 1e9), running("b", 1.0), a=benched) == ["b", "a"]


def test_the_way_there_and_back_counts() -> None:
    far = PeerLoad(round_trip_s=0.3)
    assert order(running("a", 120.0), running("b", 100.0), a=far) == ["b", "a"]


Choice = Callable[[list[Candidate], Callable[[PeerId], float], Random], PeerId]


def simulated(choose_one: Choice) -> float:
    """The p99 of legs, from offer to end, at 70 % load, where adverts are ten seconds old."""
    random = Random(1)
    speeds = {_peer(str(number)): random.choice((50.0, 100.0, 400.0)) for number in range(30)}
    adverts = {_peer(str(it)): running(str(it), speeds[_peer(str(it))]) for it in range(30)}
    free_at_s = dict.fromkeys(speeds, 0.0)
    at_s, advertised_s, took_s = 0.0, -100.0, []
    choices: list[Candidate] = []

    def expected(peer: PeerId) -> float:
        return max(0.0, free_at_s[peer] - at_s) + 100 / speeds[peer]

    while at_s < 300:
        at_s += random.expovariate(0.7 * sum(speeds.values()) / 100)
        if at_s - advertised_s > 10:
            advertised_s = at_s
            heard = [
                replace(it, record=replace(it.record, queue_s=max(0.0, free_at_s[peer] - at_s)))
                for peer, it in adverts.items()
            ]
            choices = candidates(heard, Leg(MODEL, 100), {})
        peer = choose_one(choices, expected, random)
        took_s.append(expected(peer))
        free_at_s[peer] = at_s + took_s[-1]
    return quantiles(took_s, n=100)[98]


def test_two_asked_wait_far_less_than_at_random_or_by_the_least_advertised_load() -> None:
    by_two = simulated(lambda them, ask, it: min((one.peer for one in drawn(them, it)), key=ask))
    by_chance = simulated(lambda them, _, random: random.choice(them).peer)
    by_advert = simulated(lambda them, _, __: min(them, key=lambda it: it.expected_s).peer)
    assert by_two < 3
    assert by_two < by_chance / 5
    assert by_two < by_advert / 5


def test_a_price_of_nothing_is_no_reason_to_ask_who_keeps_what_it_was_paid() -> None:
    random = Random(34)
    keys = [key_of(it).peer for it in ("thief", "honest")]
    usual = {"full": False, "expected_s": 1.0, "work_s": 1.0, "idle_s": 1.0, "delivered": True}
    thief = Candidate(keys[0], unwelcome=True, price=0, **usual)  # type: ignore[arg-type]
    honest = Candidate(keys[1], unwelcome=False, price=10**9, **usual)  # type: ignore[arg-type]
    for _ in range(200):
        assert drawn([thief, honest], random, 1) == [honest]
    # Among peers of one standing the cheaper one is asked more often.
    cheap = Candidate(keys[0], unwelcome=False, price=0, **usual)  # type: ignore[arg-type]
    count = sum(drawn([cheap, honest], random, 1) == [cheap] for _ in range(400))
    assert count > 240
