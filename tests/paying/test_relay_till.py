"""Whom a relay charges for bytes, and out of which promise; everybody else has little."""

from types import SimpleNamespace
from typing import Any

from trio.testing import MockClock

from node.paying.channels import EarningChannel
from node.paying.earned_sums import SUM, EarnedSums
from node.paying.earning_channels import EarningChannels
from node.paying.relay_till import RelayTill
from store import Store, Table, open_memory_store
from tests.p2p.transports import key_of
from wire.codec import pack
from wire.content import ContentId, PeerId
from wire.signed import Signed, sign
from wire.tariff import RELAYED, ModelPrice, Tariff

ANN, BOB = key_of("ann").peer, key_of("bob").peer
A_MIB, A_MIB_COSTS = 1 << 20, 1024
NETWORK = ContentId.of(b"network")


def tariff(given: int = 1_000_000) -> Signed[Tariff]:
    price = ModelPrice(model=RELAYED, base=0, given=given, made=0)
    return sign(
        Tariff(network=NETWORK, models=(price,), verdict=0, increment=10_000), key_of("relay")
    )


def channels(store: Store, now: Signed[Tariff] | None) -> EarningChannels:
    nothing: Any = None
    own: Any = SimpleNamespace(now=now)
    return EarningChannels(nothing, store, nothing, own)


def add(of: EarningChannels, payer: PeerId, promised: int, **changes: object) -> EarningChannel:
    """A channel whose payer said that it pays for bytes, by the prices of now."""
    assert of.own.now is not None
    channel = EarningChannel(payer, payer, 10**9, 9, highest=promised)
    channel.tariff, channel.relays = of.own.now.id, True
    for name, value in changes.items():
        setattr(channel, name, value)
    of.by_name[channel.name] = of._latest[payer] = channel
    return channel


def passed(till: RelayTill, asker: PeerId, most_bytes: int = 8 * A_MIB) -> int:
    """How much is passed on now, piece by piece."""
    piece = 64 << 10
    for at in range(0, most_bytes, piece):
        if not till.charge(asker, piece):
            return at
    return most_bytes


async def test_what_is_promised_is_charged_and_no_byte_more(autojump_clock: MockClock) -> None:
    async with open_memory_store(quota_bytes=1 << 20) as store:
        of = channels(store, tariff())
        till = RelayTill(of)
        ann, bob = add(of, ANN, 3 * A_MIB_COSTS), add(of, BOB, 10**6)
        assert till.has_promised(ANN)
        assert passed(till, ANN) == 3 * A_MIB
        assert not till.has_promised(ANN)
        assert ann.charged == ann.highest == ann.models[RELAYED] == till.earned
        assert (ann.tasks, bob.charged) == (0, 0), "nobody pays for another"
        assert till.paid_bytes == 3 * A_MIB
        assert passed(till, BOB) == 8 * A_MIB
        assert bob.charged == 8 * A_MIB_COSTS
        assert till.as_map()["carried_owed"] == 11 * A_MIB_COSTS
        ann.redeemed, bob.redeemed = ann.highest, 6 * A_MIB_COSTS
        assert till.as_map()["carried_owed"] == 2 * A_MIB_COSTS
        # What is held for work is not drawn on, nor what was promised in a model's name.
        of._latest[ANN].highest += 2 * A_MIB_COSTS
        ann.set_aside(2 * A_MIB_COSTS, None)
        assert passed(till, ANN) == 0


async def test_without_its_word_nothing_is_charged_to_an_asker(autojump_clock: MockClock) -> None:
    async with open_memory_store(quota_bytes=1 << 20) as store:
        old = tariff(2_000_000)
        for changes in ({"relays": False}, {"tariff": old.id}, {"highest": 0}, {"expiry": 0}):
            of = channels(store, tariff())
            till = RelayTill(of)
            channel = add(of, ANN, 10**6, **changes)
            assert not till.has_promised(ANN)
            assert passed(till, ANN) == 0, changes
            assert (channel.charged, till.paid_bytes) == (0, 0)


async def test_a_relay_whose_owner_asks_for_nothing_any_more_gives_all(
    autojump_clock: MockClock,
) -> None:
    async with open_memory_store(quota_bytes=1 << 20) as store:
        till = RelayTill(channels(store, None))
        assert passed(till, ANN) == 8 * A_MIB
        assert till.paid_bytes == 0


async def test_sums_of_bytes_are_kept_beside_those_of_an_earlier_version() -> None:
    async with open_memory_store(quota_bytes=1 << 20) as store:
        of = channels(store, tariff())
        of.charge(add(of, ANN, 10**6), 7, RELAYED, tasks=0, size_bytes=7168)
        of.keep_charges()
        store.write_soon(Table.CHANNELS, SUM + BOB, pack([None, 5, 2]))
        after = EarnedSums(store)
        after.load()
        before, row = sorted(after.rows(), key=lambda it: it["bytes"])
        assert (before["charged"], before["tasks"], before["bytes"]) == (5, 2, 0)
        assert (row["charged"], row["tasks"], row["bytes"]) == (7, 0, 7168)
        assert row["model"] == str(RELAYED)
