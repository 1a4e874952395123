"""Relays, and those behind them, that are after an asker's credits: what each can have at most."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from node.paying import paying_channels
from node.paying.channels import PaidChannel
from node.paying.payer import Payer
from node.paying.paying_channels import PayingChannels
from node.paying.relay_bytes import AHEAD_BYTES, RELAYS_KEPT, RelayPayer
from node.paying.relay_price import cost_of_bytes
from p2p.transport import Lined, Moved
from store import open_memory_store
from tests.p2p.transports import key_of
from wire.amount import AMOUNT_MAX, CREDIT
from wire.content import ContentId, PeerId
from wire.payment_message import Paid
from wire.signed import Signed, sign
from wire.tariff import RELAYED, ModelPrice, Tariff

NETWORK, ME, KEPT = ContentId.of(b"network"), key_of("asker"), key_of("kept").peer
A_MIB = 1 << 20
# A hundredth of a credit for a million KiB.
PRICE = CREDIT // 100
AHEAD = cost_of_bytes(AHEAD_BYTES, PRICE)


def tariff_of(
    name: str, given: int = PRICE, increment: int = CREDIT, verdict: int = 0
) -> Signed[Tariff]:
    price = ModelPrice(model=RELAYED, base=0, given=given, made=0)
    found = Tariff(network=NETWORK, models=(price,), verdict=verdict, increment=increment)
    return sign(found, key_of(name))


@dataclass
class World:
    """An asker with credits, the relays around it, and what each of them says it has charged."""

    balance: int = 10 * CREDIT
    tariffs: dict[PeerId, Signed[Tariff]] = field(default_factory=dict)
    moved: dict[PeerId, Moved] = field(default_factory=dict)
    lines: dict[PeerId, Lined] = field(default_factory=dict)
    # What a relay answers to a Pay, of the total that it was promised.
    tells: Callable[[int], int] = lambda _: 0
    # What of that it says was for other work.
    tells_of_others: int = 0
    problems: dict[str, str] = field(default_factory=dict)
    opened: list[PaidChannel] = field(default_factory=list)
    promised: dict[PeerId, int] = field(default_factory=dict)

    def relay(self, name: str, **of: int) -> PeerId:
        """A relay that asks for something, through which a line goes."""
        peer = key_of(name).peer
        self.tariffs[peer] = tariff_of(name, **of)
        return peer

    def move(self, relay: PeerId, size_bytes: int) -> None:
        self.moved.setdefault(relay, Moved()).size_bytes += size_bytes

    async def look(self) -> Any:
        return SimpleNamespace(balance=self.balance, epoch=0)

    async def order(self, _: object, **actions: Any) -> Any:
        self.balance -= sum(it.deposit for it in actions["open"])
        return SimpleNamespace(order=actions["open"], settlement=b"settled")

    def opened_by(self, openings: Any, settlement: bytes) -> list[PaidChannel]:
        found = []
        for it in openings:
            name = len(self.opened).to_bytes(32)
            found.append(
                PaidChannel(it.payee, name, it.deposit, it.expiry, settlement, is_new=True)
            )
            self.opened.append(found[-1])
        return found

    async def pay(
        self, _: object, channel: PaidChannel, named: ContentId, voucher: Any, *, shows: bool
    ) -> Paid:
        await trio.sleep(0.05)
        channel.relays = channel.pays_relays
        if voucher is not None:
            self.promised[channel.payee] = channel.signed
        told = self.tells(channel.signed)
        return Paid(charged=told, voucher=voucher, relayed=told - self.tells_of_others)


@asynccontextmanager
async def payer_in(
    world: World, monkeypatch: pytest.MonkeyPatch, most: int = PRICE
) -> AsyncIterator[RelayPayer]:
    """The asker's side, which looks at what moved as it does in a peer."""
    monkeypatch.setattr(paying_channels, "pay", world.pay)
    monkeypatch.setattr(paying_channels, "opened_by", world.opened_by)

    def take_in(channel: PaidChannel, paid: Paid, *_: object) -> None:
        channel.told, channel.told_relayed = paid.charged, paid.relayed
        channel.heard = channel.signed

    monkeypatch.setattr(paying_channels, "hear", take_in)
    of: Any = SimpleNamespace

    async def version_of(*_: object, **__: object) -> int:
        return 21

    async def leave_line(peer: PeerId) -> None:
        world.lines.pop(peer, None)

    def nothing(*_: object) -> None: ...

    def advert_of(peer: PeerId) -> Any:
        tariff = world.tariffs.get(peer)
        return tariff and of(signer=peer, record=of(tariff=tariff.id))

    endpoint = of(
        lines=lambda: world.lines, relayed=lambda: dict(world.moved), leave_line=leave_line
    )
    peers = of(
        endpoint=endpoint,
        view=of(advert_of=advert_of),
        neighbours=of(version_of=version_of),
        note_problem=world.problems.__setitem__,
        doubted=nothing,
        offended=nothing,
    )
    tariffs = of(of=lambda heard: world.tariffs[heard.signer], learn_soon=nothing)
    genesis = of(id=NETWORK, account_min=1000)
    wallet = of(look=world.look, order=world.order, key=ME, genesis=genesis)
    async with open_memory_store(quota_bytes=1 << 20) as store, trio.open_nursery() as nursery:
        channels = PayingChannels(peers, store, wallet, nursery)
        payer = RelayPayer(Payer(peers, tariffs, channels), most)
        nursery.start_soon(payer.run)
        yield payer
        nursery.cancel_scope.cancel()


async def test_no_byte_is_paid_twice_however_many_relays_there_are(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World()
    async with payer_in(world, monkeypatch) as payer:
        first = world.relay("first")
        world.lines[KEPT] = Lined(first, 0, dialed=True)
        world.move(first, A_MIB)
        await trio.sleep(3)
        world.move(first, A_MIB)
        await trio.sleep(3)
        channel = payer.payer.channels.by_peer[first]
        counted = channel.relayed_bytes
        for number in range(RELAYS_KEPT + 5):
            # The endpoint forgets those that were called longest ago, and this is not one of them.
            world.relay(f"relay {number}")
            world.move(key_of(f"relay {number}").peer, 1024)
            if len(world.moved) > RELAYS_KEPT:
                del world.moved[next(it for it in world.moved if it != first)]
                await trio.sleep(0.3)
        await trio.sleep(5)
        assert channel.relayed_bytes == counted


async def test_a_farm_of_relays_locks_little_of_what_an_asker_has(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World()
    async with payer_in(world, monkeypatch, most=CREDIT):
        for number in range(60):
            relay = world.relay(f"relay {number}", given=CREDIT, increment=AMOUNT_MAX)
            world.lines[KEPT] = Lined(relay, 0, dialed=True)
            world.move(relay, 80 << 10)
            await trio.sleep(5)
            world.move(relay, 80 << 10)
            await trio.sleep(5)
        assert world.balance > 9 * CREDIT
        assert sum(world.promised.values()) < CREDIT // 10


async def test_a_relay_with_a_tiny_increment_has_no_channel_after_the_other_opened(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World()
    async with payer_in(world, monkeypatch, most=10 * CREDIT):
        relay = world.relay("relay", given=10 * CREDIT, increment=1)
        world.lines[KEPT] = Lined(relay, 0, dialed=True)
        for _ in range(30):
            world.move(relay, 256 << 10)
            await trio.sleep(2)
        assert len(world.opened) <= 1


@pytest.mark.parametrize(
    ("tells", "promises_most"),
    [(lambda _: AMOUNT_MAX, 2), (lambda promised: promised, 4)],
    ids=["anything", "what_it_was_promised"],
)
async def test_a_relay_that_lies_from_the_first_word_on_has_one_small_promise(
    autojump_clock: MockClock,
    monkeypatch: pytest.MonkeyPatch,
    tells: Callable[[int], int],
    promises_most: int,
) -> None:
    world = World()
    world.tells = tells
    async with payer_in(world, monkeypatch):
        relay = world.relay("relay")
        world.lines[KEPT] = Lined(relay, 0, dialed=True)
        for _ in range(60):
            world.move(relay, 64 << 10)
            await trio.sleep(1)
        assert sum(world.promised.values()) <= promises_most * AHEAD
        assert f"relay {relay}" in world.problems


async def test_a_relay_whose_verdict_is_not_booked_yet_is_no_liar(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(tells=lambda _: 1000, tells_of_others=1000)
    async with payer_in(world, monkeypatch) as payer:
        relay = world.relay("relay", verdict=1000)
        world.lines[KEPT] = Lined(relay, 0, dialed=True)
        for _ in range(10):
            world.move(relay, 64 << 10)
            await trio.sleep(1)
        channel = payer.payer.channels.by_peer[relay]
        assert not world.problems
        assert channel.relayed_bytes == 9 * (64 << 10)
        # It is promised as much as any peer that is given work, within what is in its channel.
        assert channel.signed <= channel.deposit == 1000 or channel.signed <= 11_000
