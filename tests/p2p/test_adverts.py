"""Adverts out and in: told three times per TTL and at each change, believed from their signer."""

from random import Random

import pytest
import trio
from trio.testing import MockClock

from p2p.adverts import AdvertConfig, Herald, Offering, Seams
from p2p.dialing import Dialing
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


def herald_of(offering: Offering | None = None, wall_s: float = NOW_S) -> Herald:
    def blamed(peer: PeerId, error: WireError) -> None:
        raise AssertionError(peer, error)

    me = key_of("me")
    random = Random(5)
    return Herald(
        me,
        b"my start",
        AdvertConfig(),
        Seams(wall_s=lambda: wall_s, random=random, entropy=random.randbytes),
        lambda: offering or Offering(),
        View(me.peer, b"my start"),
        Dialing(me.peer, random),
        blamed,
    )


def test_an_advert_says_what_is_offered_where_and_since_when() -> None:
    models = (ModelOffer(model=ContentId.of(b"m"), name="m", units_per_s=2.5),)
    herald = herald_of(Offering(roles=3, models=models, free_slots=7, queue_s=1.5))
    advert = herald.advert(Topic()).record
    assert (advert.roles, advert.models, advert.free_slots) == (3, models, 7)
    assert (advert.queue_s, advert.addresses, advert.ttl_s) == (1.5, HERE, 90)
    assert (advert.issued_at_s, advert.instance) == (int(NOW_S), b"my start")


def test_sequence_numbers_rise_also_within_one_millisecond_and_start_from_the_clock() -> None:
    herald = herald_of()
    numbers = [herald.advert(Topic()).record.seq for _ in range(5)]
    assert numbers == list(range(int(NOW_S * 1000), int(NOW_S * 1000) + 5))
    later = herald_of(wall_s=NOW_S + 1)
    assert later.advert(Topic()).record.seq > numbers[-1]


def test_more_than_an_advert_holds_is_cut_and_the_advert_stays_legal() -> None:
    models = tuple(
        ModelOffer(model=ContentId.of(bytes([number])), name=str(number), units_per_s=1.0)
        for number in range(40)
    )
    herald = herald_of(Offering(models=models))
    advert = herald.advert(Topic(tuple(f"/memory/{number}" for number in range(20)))).record
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
    signed = herald_of(Offering(models=models)).advert(Topic(here))
    assert open_signed(signed.raw, Advert).record.addresses == here
    kept = signed.record.models
    assert 1 < len(kept) < len(models)
    left_out = [it for it in models if it not in kept]
    assert max(it.units_per_s for it in left_out) < min(it.units_per_s for it in kept)
    assert kept == tuple(it for it in models if it in kept)


async def test_a_quiet_peer_speaks_three_times_per_ttl(autojump_clock: MockClock) -> None:
    topic = Topic()
    with trio.move_on_after(299):
        await herald_of().speak_forever(topic)
    moments = [at for at, _ in topic.published]
    assert len(moments) == 10
    assert moments == pytest.approx([moments[0] + 30 * number for number in range(10)])


async def test_a_change_is_told_at_once_but_not_more_often_than_the_pause(
    autojump_clock: MockClock,
) -> None:
    herald, topic = herald_of(), Topic()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(herald.speak_forever, topic)
        await trio.sleep(5)
        herald.changed()
        await trio.sleep(0.01)
        assert len(topic.published) == 2
        for _ in range(100):
            herald.changed()
            await trio.sleep(0.1)
        assert 10 <= len(topic.published) <= 23
        nursery.cancel_scope.cancel()


async def test_the_good_bye_is_said_also_while_being_cancelled(autojump_clock: MockClock) -> None:
    topic = Topic()
    with trio.CancelScope() as scope:
        scope.cancel()
        await herald_of().say_good_bye(topic)
    ((_, advert),) = topic.published
    assert advert.record.leaving


def test_what_is_heard_is_dialled_and_what_left_is_not() -> None:
    herald = herald_of()
    heard = advert_of("a")
    assert herald.take_in(heard) is Hearing.NEW
    assert herald.dialing.known() == {heard.signer: heard.record.addresses}
    left = advert_of("a", seq=heard.record.seq + 1, leaving=True)
    assert herald.take_in(left) is Hearing.LEFT
    assert herald.dialing.known() == {}


def test_refused_adverts_are_counted_by_their_reason_and_are_not_dialled() -> None:
    herald = herald_of()
    herald.take_in(advert_of("a", version=9))
    herald.take_in(advert_of("b", issued_at_s=int(NOW_S) - 100))
    herald.take_in(advert_of("c", issued_at_s=int(NOW_S) + 1000))
    herald.take_in(advert_of("d", issued_at_s=int(NOW_S) + 1000))
    assert herald.refused == {"version": 1, "expired": 1, "clock": 2}
    assert herald.heard == 4
    assert herald.dialing.known() == {}


def test_a_batch_holds_our_own_first_nothing_of_the_caller_and_never_too_many() -> None:
    herald = herald_of()
    for number in range(200):
        herald.take_in(advert_of(f"peer {number}"))
    caller = key_of("peer 3").peer
    batch = [open_signed(raw, Advert) for raw in herald.batch_for(caller, Topic())]
    assert batch[0].signer == key_of("me").peer
    assert len(batch) == limits.ADVERTS_PER_MESSAGE_MAX
    assert len({it.signer for it in batch}) == len(batch)
    assert caller not in {it.signer for it in batch}
