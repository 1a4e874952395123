"""Routing: who gets the next leg, by estimated completion and what we know of each."""

from collections import Counter
from random import Random
from typing import Any

import pytest

from node.route import Leg, Load, expected_s, ranked
from p2p.score import Standing
from tests.p2p.adverts import MODEL, advert_of
from tests.p2p.transports import key_of
from wire.advert import Advert, ModelOffer
from wire.content import ContentId, PeerId
from wire.signed import Signed


def running(name: str, units_per_s: float = 100.0, **changes: Any) -> Signed[Advert]:
    offer = ModelOffer(model=MODEL, name="model", units_per_s=units_per_s)
    return advert_of(name, models=(offer,), **changes)


def order(*adverts: Signed[Advert], units: int = 100, **loads: Load) -> list[str]:
    by_peer = {key_of(name).peer: load for name, load in loads.items()}
    names = {it.signer: name for name in "abcde" for it in adverts if it.signer == _peer(name)}
    leg = Leg(MODEL, units)
    return [names[peer] for peer in ranked(adverts, leg, by_peer, Random(1))]


def _peer(name: str) -> PeerId:
    return key_of(name).peer


@pytest.mark.parametrize(
    ("advert", "leg", "load", "expected"),
    [
        (running("a"), Leg(MODEL, 100), Load(), 1.0),
        (running("a", queue_s=3.0), Leg(MODEL, 100), Load(), 4.0),
        (running("a"), Leg(MODEL, 100), Load(under_way=2), 3.0),
        (running("a", units_per_s=0.0), Leg(MODEL, 5), Load(), 5.0),
        (running("a"), Leg(None, 2), Load(), 2.0),
        (running("a"), Leg(ContentId.of(b"another"), 3), Load(), 3.0),
    ],
)
def test_the_estimate_is_queue_and_work_by_speed(
    advert: Signed[Advert], leg: Leg, load: Load, expected: float
) -> None:
    assert expected_s(advert.record, leg, load) == expected


def test_the_sooner_done_is_asked_first() -> None:
    fast, slow, queued = running("a", 400.0), running("b", 50.0), running("c", 400.0, queue_s=1.0)
    assert order(slow, queued, fast) == ["a", "c", "b"]


def test_who_gives_no_speed_comes_after_who_was_measured() -> None:
    assert order(running("a", 0.0), running("b", 2.0)) == ["b", "a"]


def test_a_banned_peer_is_not_asked_at_all() -> None:
    banned = Load(Standing.BANNED)
    assert order(running("a"), running("b"), a=banned) == ["b"]
    assert order(running("a"), a=banned) == []


def test_an_unwelcome_peer_is_asked_last_however_fast() -> None:
    unwelcome = Load(Standing.UNWELCOME)
    assert order(running("a", 1e6), running("b", 1.0, free_slots=0), a=unwelcome) == ["b", "a"]


def test_what_we_gave_a_peer_already_counts() -> None:
    busy = Load(under_way=3)
    assert order(running("a", 200.0), running("b", 100.0), a=busy) == ["b", "a"]


def test_a_peer_whose_slots_we_fill_comes_after_one_with_room() -> None:
    full = Load(under_way=2)
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
