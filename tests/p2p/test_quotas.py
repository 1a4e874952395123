"""Quotas of a view: made-up keys fill neither a place nor the view, whoever tells of them."""

from random import Random

import pytest

from p2p.anti_entropy import AntiEntropy
from p2p.quotas import CALLERS, TOPIC
from p2p.view import Hearing, View, ViewConfig
from tests.p2p.adverts import MODEL, NOW_S, advert_of
from tests.p2p.transports import key_of
from wire.advert import ModelOffer
from wire.content import ContentId, PeerId
from wire.kinds import Role

HONEST, MADE_UP = 60, 600
QUOTA = ViewConfig().quota_min


def view_of_honest() -> View:
    """A view that has met sixty peers, all of which check."""
    view = View(key_of("me").peer, b"my start")
    for number in range(HONEST):
        assert meets(view, f"honest {number}") is Hearing.NEW
    return view


def meets(view: View, name: str) -> Hearing:
    return view.hear(advert_of(name), NOW_S, key_of(name).peer)


def tells(view: View, introducer: PeerId | None, count: int = MADE_UP) -> int:
    """How many of so many made-up keys were let in."""
    base = f"made up by {introducer}"
    heard = [view.hear(advert_of(f"{base} {it}"), NOW_S, introducer) for it in range(count)]
    return sum(it is Hearing.NEW for it in heard)


def verifiers(view: View) -> tuple[int, int]:
    """Honest ones, and all."""
    found = {it.signer for it in view.candidates(Role.VERIFY, MODEL, NOW_S)}
    return sum(key_of(f"honest {it}").peer in found for it in range(HONEST)), len(found)


def test_eight_that_call_us_share_one_quota_however_many_keys_they_tell_of() -> None:
    view = view_of_honest()
    # Up to a quarter of it is free, and that is taken by those who were met.
    for number in range(10):
        meets(view, f"more {number}")
    let_in = sum(tells(view, key_of(f"caller {it}").peer, MADE_UP // 8) for it in range(8))
    assert let_in == QUOTA
    honest, everybody = verifiers(view)
    assert honest == HONEST
    assert honest / everybody > 0.75


@pytest.mark.parametrize("called", [False, True])
def test_one_introducer_has_its_quota_of_each_place(called: bool) -> None:
    view, introducer = view_of_honest(), key_of("introducer").peer
    for number in range(10):
        meets(view, f"more {number}")
    if called:
        view.origins.called.add(introducer)
    assert tells(view, introducer) == QUOTA
    assert tells(view, None) == QUOTA
    assert view.origins.of(key_of("x").peer, introducer) != TOPIC
    assert (view.origins.of(key_of("x").peer, introducer) == CALLERS) is not called


def test_introducers_of_one_prefix_share_a_quota_and_one_key_moves_to_no_other_place() -> None:
    view = view_of_honest()
    for number in range(10):
        meets(view, f"more {number}")
    for name in "ab":
        view.origins.called.add(key_of(name).peer)
        view.origins.prefixes[key_of(name).peer] = "8.8.8.0/24"
    assert tells(view, key_of("a").peer) == QUOTA
    assert tells(view, key_of("b").peer) == 0
    # Let in as one that offers nothing, it may not become one more that checks.
    other = key_of("c").peer
    view.origins.called.add(other)
    plain = advert_of("plain", roles=0, models=())
    assert view.hear(plain, NOW_S, other) is Hearing.NEW
    assert tells(view, other) == QUOTA
    again = advert_of("plain", seq=plain.record.seq + 1)
    assert view.hear(again, NOW_S, other) is Hearing.FULL
    assert view.advert_of(plain.signer) is None


def test_keys_that_offer_nothing_do_not_fill_the_view_either() -> None:
    view, introducer = view_of_honest(), key_of("introducer").peer
    for number in range(10):
        meets(view, f"more {number}")
    for number in range(MADE_UP):
        view.hear(advert_of(f"plain {number}", roles=0, models=()), NOW_S, introducer)
    assert len(view) <= HONEST + 10 + view.config.adverts_max // view.config.quota_part


def test_fresh_keys_of_one_prefix_that_call_us_one_after_the_other_replace_each_other() -> None:
    view = view_of_honest()
    for number in range(MADE_UP):
        peer = key_of(f"fresh {number}").peer
        view.connected.add(peer)
        view.origins.prefixes[peer] = "8.8.8.0/24"
        view.hear(advert_of(f"fresh {number}"), NOW_S, peer)
        view.connected.discard(peer)
        view.origins.gone(peer)
    honest, _ = verifiers(view)
    assert honest == HONEST


def test_who_delivered_for_us_does_not_make_room() -> None:
    view = View(key_of("me").peer, b"my start", ViewConfig(adverts_max=16))
    meets(view, "useful")
    view.keep(key_of("useful").peer)
    for number in range(100):
        meets(view, f"other {number}")
    assert len(view) == 16
    assert view.advert_of(key_of("useful").peer) is not None
    for number in range(100):
        view.keep(key_of(f"other {number}").peer)
    assert len(view.kept) == 4


def test_who_was_only_heard_of_is_told_to_nobody_until_it_speaks_for_itself() -> None:
    view, introducer = view_of_honest(), key_of("introducer").peer
    for number in range(10):
        meets(view, f"more {number}")
    hearsay = advert_of("hearsay")
    view.origins.called.add(introducer)
    assert view.hear(hearsay, NOW_S, introducer) is Hearing.NEW
    random = Random(1)
    mine, swaps = advert_of("me"), AntiEntropy(view, random)
    other = View(key_of("other").peer, b"its start")
    others = AntiEntropy(other, random)

    def told() -> set[PeerId]:
        return {it.signer for it in swaps.some(1000, other.me, NOW_S)}

    def wanted() -> bytes:
        digest = swaps.digest(mine, NOW_S)
        return others.compare(digest, advert_of("other"), view.me, NOW_S).wanted

    key = hearsay.signer[:8]
    assert hearsay.signer not in told()
    assert key not in wanted()
    assert key_of("honest 1").peer in told()
    view.meet(hearsay.signer)
    assert hearsay.signer in told()
    assert sum(key in wanted() for _ in range(20)) > 0


def test_who_does_what_few_do_is_let_in_though_its_introducer_told_of_many() -> None:
    view, introducer = view_of_honest(), key_of("introducer").peer
    for number in range(10):
        meets(view, f"more {number}")
    view.origins.called.add(introducer)
    assert tells(view, introducer) == QUOTA
    rare = model_named("rare")
    heard = [
        view.hear(advert_of(f"rare {it}", models=(rare,)), NOW_S, introducer) for it in range(60)
    ]
    # As many as are needed of it, and no more; nor does it help to make up one thing after another.
    assert heard.count(Hearing.NEW) == view.config.few
    for number in range(MADE_UP):
        made_up = model_named(f"made up {number}")
        view.hear(advert_of(f"other {number}", models=(made_up,)), NOW_S, introducer)
    mine = len(view) - HONEST - 10
    assert mine == view.config.adverts_max // view.config.quota_part


def model_named(name: str) -> ModelOffer:
    return ModelOffer(model=ContentId.of(name.encode()), name=name, units_per_s=1.0)
