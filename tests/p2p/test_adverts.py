"""Adverts out and in: told at each change within bounds, believed from their signer."""

from dataclasses import replace
from random import Random

import pytest
import trio
from trio.testing import MockClock

from p2p.adverts import Advertiser, Capacity, Environment
from p2p.anti_entropy import AntiEntropy
from p2p.dialing import Dialing
from p2p.gossip_rate import GossipRateConfig, GossipRateLimit
from p2p.view import Hearing, View
from tests.p2p.adverts import NOW_S, advert_of
from tests.p2p.transports import key_of
from wire import limits
from wire.advert import Advert, ModelOffer
from wire.content import ContentId, PeerId
from wire.errors import WireError
from wire.signed import Signed, open_signed

HERE = ("/memory/5/p2p/here",)


class Topic:
    """Stands for an endpoint: keeps what is published, and when."""

    def __init__(self, addresses: tuple[str, ...] = HERE) -> None:
        self.addresses = addresses
        self.published: list[tuple[float, Signed[Advert]]] = []

    async def publish(self, topic: str, data: bytes) -> None:
        assert topic == "baton/1/baton/adverts"
        self.published.append((trio.current_time(), open_signed(data, Advert)))


def herald_of(capacity: Capacity | None = None, wall_s: float = NOW_S) -> Advertiser:
    def blamed(peer: PeerId, error: WireError) -> None:
        raise AssertionError(peer, error)

    me = key_of("me")
    random = Random(5)
    view = View(me.peer, b"my start")
    return Advertiser(
        me,
        b"my start",
        "baton/1/baton/adverts",
        Environment(wall_s=lambda: wall_s, random=random, entropy=random.randbytes),
        lambda: capacity or Capacity(),
        view,
        Dialing(me.peer, random),
        AntiEntropy(view, random),
        GossipRateLimit(GossipRateConfig(), view.config.adverts_max),
        blamed,
    )


def test_an_advert_says_what_is_offered_where_and_since_when() -> None:
    models = (ModelOffer(model=ContentId.of(b"m"), name="m", units_per_s=2.5),)
    advertiser = herald_of(Capacity(roles=3, models=models, free_slots=7, queue_s=1.5))
    advert = advertiser.advert(Topic()).record
    assert (advert.roles, advert.models, advert.free_slots) == (3, models, 7)
    assert (advert.queue_s, advert.addresses, advert.ttl_s) == (1.5, HERE, 90)
    assert (advert.issued_at_s, advert.instance) == (int(NOW_S), b"my start")


def test_sequence_numbers_rise_also_within_one_millisecond_and_start_from_the_clock() -> None:
    advertiser = herald_of()
    numbers = [advertiser.advert(Topic()).record.seq for _ in range(5)]
    assert numbers == list(range(int(NOW_S * 1000), int(NOW_S * 1000) + 5))
    later = herald_of(wall_s=NOW_S + 1)
    assert later.advert(Topic()).record.seq > numbers[-1]


def test_more_than_an_advert_holds_is_cut_and_the_advert_stays_legal() -> None:
    models = tuple(
        ModelOffer(model=ContentId.of(bytes([number])), name=str(number), units_per_s=1.0)
        for number in range(40)
    )
    advertiser = herald_of(Capacity(models=models))
    advert = advertiser.advert(Topic(tuple(f"/memory/{number}" for number in range(20)))).record
    assert advert.models == models[: limits.ADVERT_MODELS_MAX]
    assert len(advert.addresses) == limits.ADVERT_ADDRESSES_MAX


def test_an_advert_too_large_for_the_wire_leaves_out_its_slowest_models() -> None:
    models = tuple(
        ModelOffer(
            model=ContentId.of(bytes([number])),
            name=f"{number:0{limits.NAME_BYTES_MAX}}",
            units_per_s=float((number * 5) % limits.ADVERT_MODELS_MAX),
        )
        for number in range(limits.ADVERT_MODELS_MAX)
    )
    here = tuple(f"{number:0{limits.ADDRESS_BYTES_MAX}}" for number in range(4))
    signed = herald_of(Capacity(models=models)).advert(Topic(here))
    assert open_signed(signed.raw, Advert).record.addresses == here
    kept = signed.record.models
    assert 1 < len(kept) < len(models)
    left_out = [it for it in models if it not in kept]
    assert max(it.units_per_s for it in left_out) < min(it.units_per_s for it in kept)
    assert kept == tuple(it for it in models if it in kept)


async def test_nothing_is_told_before_somebody_is_there_to_hear_it(
    autojump_clock: MockClock,
) -> None:
    advertiser, topic = herald_of(), Topic()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(advertiser.speak_forever, topic)
        await trio.sleep(5)
        assert topic.published == []
        advertiser.met()
        await trio.sleep(0.01)
        assert len(topic.published) == 1
        nursery.cancel_scope.cancel()


async def test_a_change_is_told_at_once_but_only_as_often_as_the_network_bears(
    autojump_clock: MockClock,
) -> None:
    advertiser, topic = herald_of(), Topic()
    advertiser.anti_entropy.told_peers = 30
    advertiser.met()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(advertiser.speak_forever, topic)
        await trio.sleep(5)
        advertiser.changed()
        await trio.sleep(0.01)
        assert len(topic.published) == 2
        for _ in range(3000):
            advertiser.changed()
            await trio.sleep(0.1)
        # Three at first, then one for each thirty seconds: of thirty peers, one message a second.
        assert len(topic.published) == 3 + 300 // 30
        nursery.cancel_scope.cancel()


async def test_a_peer_that_becomes_full_says_so_and_so_it_does_when_it_has_room_again(
    autojump_clock: MockClock,
) -> None:
    offerings = {"now": Capacity(free_slots=2)}
    advertiser, topic = herald_of(), Topic()
    advertiser.capacity = lambda: offerings["now"]
    advertiser.met()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(advertiser.speak_forever, topic)
        for free_slots in (2, 1, 0, 0, 3):
            offerings["now"] = Capacity(free_slots=free_slots)
            await trio.sleep(5)
        nursery.cancel_scope.cancel()
    assert [it.record.free_slots for _, it in topic.published] == [2, 0, 3]


def test_our_advert_stays_the_same_until_a_period_is_over_or_something_has_changed() -> None:
    moments = [NOW_S]
    advertiser = herald_of()
    advertiser.environment = replace(advertiser.environment, wall_s=lambda: moments[-1])
    first = advertiser.mine(Topic())
    assert advertiser.mine(Topic()) is first
    elsewhere = advertiser.mine(Topic(("/memory/6/p2p/there",)))
    assert elsewhere.record.seq > first.record.seq
    advertiser.changed()
    changed = advertiser.mine(Topic(("/memory/6/p2p/there",)))
    assert changed.record.seq > elsewhere.record.seq
    moments.append(NOW_S + changed.record.ttl_s / 3)
    assert advertiser.mine(Topic(("/memory/6/p2p/there",))).record.seq > changed.record.seq


async def test_the_good_bye_is_said_also_while_being_cancelled(autojump_clock: MockClock) -> None:
    topic = Topic()
    with trio.CancelScope() as scope:
        scope.cancel()
        await herald_of().say_good_bye(topic)
    ((_, advert),) = topic.published
    assert advert.record.leaving


def test_what_is_heard_is_dialled_and_what_left_is_not() -> None:
    advertiser = herald_of()
    heard = advert_of("a")
    assert advertiser.take_in(heard) is Hearing.NEW
    assert advertiser.dialing.known() == {heard.signer: heard.record.addresses}
    left = advert_of("a", seq=heard.record.seq + 1, leaving=True)
    assert advertiser.take_in(left) is Hearing.LEFT
    assert advertiser.dialing.known() == {}


def test_refused_adverts_are_counted_by_their_reason_and_are_not_dialled() -> None:
    advertiser = herald_of()
    advertiser.take_in(advert_of("a", version=9))
    advertiser.take_in(advert_of("b", issued_at_s=int(NOW_S) - 100))
    advertiser.take_in(advert_of("c", issued_at_s=int(NOW_S) + 1000))
    advertiser.take_in(advert_of("d", issued_at_s=int(NOW_S) + 1000))
    assert advertiser.refused == {"version": 1, "expired": 1, "clock": 2}
    assert advertiser.heard == 4
    assert advertiser.dialing.known() == {}


async def test_of_a_batch_only_what_is_not_known_already_is_heard() -> None:
    advertiser = herald_of()
    batch = [advert_of(f"peer {number}").raw for number in range(20)]
    neighbour = key_of("neighbour").peer
    await advertiser.take_in_batch(batch, neighbour)
    await advertiser.take_in_batch(batch, neighbour)
    assert (advertiser.heard, len(advertiser.view)) == (20, 20)
    with pytest.raises(WireError):
        await advertiser.take_in_batch([b"no advert"], neighbour)
