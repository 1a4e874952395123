"""A line whose bytes are not paid for waits, then ends; relays are used in the order of cost."""

from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field

import pytest
import trio
from trio.testing import MockClock

from p2p.connect import connect
from p2p.free_bytes import FreeBytes
from p2p.over_libp2p import Site
from p2p.over_libp2p.circuits import UNPAID_S
from p2p.peers import Peers
from p2p.relay_limits import RelayCounts, RelayLimits
from p2p.relaying import LineTill
from tests.p2p.internet import Internet, asks, hears, home, keepers_of, kept, open_internet, servers
from tests.p2p.transports import key_of, until
from wire.content import PeerId
from wire.errors import TransportError, Unreachable


@pytest.fixture
async def internet() -> AsyncIterator[Internet]:
    async with open_internet() as opened:
        yield opened


@dataclass(slots=True)
class Till:
    """Passes on what a test lets it."""

    left_bytes: int
    paid_bytes: int = 0
    charged: dict[PeerId, int] = field(default_factory=dict)
    refused: int = 0

    def charge(self, asker: PeerId, size_bytes: int) -> bool:
        if size_bytes > self.left_bytes:
            self.refused += 1
            return False
        self.left_bytes -= size_bytes
        self.charged[asker] = self.charged.get(asker, 0) + size_bytes
        return True

    def has_promised(self, asker: PeerId) -> bool:
        return asker in self.charged

    def as_map(self) -> Mapping[str, object]:
        return {"carried_earned": self.left_bytes}


class Nothing(FreeBytes):
    """What is free where nothing is."""

    def take(self, *_: object) -> bool:
        return False


async def line(internet: Internet, till: LineTill) -> tuple[Peers, Peers, Peers]:
    """A relay, an asker, and the one that is kept, with a line between them."""
    await servers(internet, 1)
    relay = internet.peers["server 1"]
    relay.relaying.till, relay.relaying.free = till, Nothing()
    target = await kept(internet, "target", home(1), 1)
    asker = await internet.add("asker", Site("192.168.1.2", home(2, refuses=True)))
    await hears(asker, target)
    assert await asks(asker, target.me) == b"here"
    return relay, asker, target


async def test_both_ends_of_a_line_count_the_same_and_who_asked_is_charged(
    autojump_clock: MockClock, internet: Internet
) -> None:
    till = Till(1 << 30)
    relay, asker, target = await line(internet, till)
    assert relay.relaying.as_map()["carried_earned"] == till.left_bytes
    await trio.sleep(1)
    first = asker.endpoint.relayed()[relay.me].size_bytes
    assert first == till.charged[asker.me]
    assert len(asker.endpoint.relayed()) == 1
    assert not target.endpoint.relayed()
    behind = next(it for it in asker.view.advert_of(target.me).record.addresses if "circuit" in it)
    await asker.endpoint.knock(behind, deadline_s=8.0)
    await trio.sleep(1)
    # Also of a line that was parted from at once.
    moved = asker.endpoint.relayed()[relay.me].size_bytes
    assert moved == pytest.approx(till.charged[asker.me], abs=1024)
    assert till.charged[asker.me] > first


async def test_a_line_waits_for_what_is_promised_and_goes_on(
    autojump_clock: MockClock, internet: Internet
) -> None:
    till = Till(1 << 30)
    _, asker, target = await line(internet, till)
    till.left_bytes = 0
    began_at_s = trio.current_time()

    async def pay() -> None:
        await trio.sleep(UNPAID_S / 3)
        till.left_bytes = 1 << 30

    async with trio.open_nursery() as nursery:
        nursery.start_soon(pay)
        assert await asks(asker, target.me) == b"here"
    assert UNPAID_S / 3 <= trio.current_time() - began_at_s < UNPAID_S / 2
    assert asker.endpoint.is_relayed(target.me)


async def test_a_line_that_nobody_pays_for_ends(
    autojump_clock: MockClock, internet: Internet
) -> None:
    till = Till(1 << 30)
    relay, asker, target = await line(internet, till)
    till.left_bytes = 0
    began_at_s = trio.current_time()

    async def ask() -> None:
        with suppress(TransportError):
            await asks(asker, target.me, deadline_s=6 * UNPAID_S)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask)
        await until(lambda: not asker.endpoint.is_connected(target.me), 60)
    assert UNPAID_S <= trio.current_time() - began_at_s < 2 * UNPAID_S
    assert till.refused > 10
    assert relay.endpoint.is_connected(asker.me)


async def test_a_relay_that_begins_to_ask_for_something_is_left_for_one_that_does_not(
    autojump_clock: MockClock, internet: Internet
) -> None:
    await servers(internet, 4)
    for number in range(1, 5):
        limits = RelayLimits(lease_s=60.0)
        internet.peers[f"server {number}"].relaying.counts = RelayCounts(limits)
    target = await kept(internet, "target", home(1), 3)
    before = keepers_of(target)
    costs = {str(before[0]): 5.0, str(before[1]): 9.0}
    target.relay_cost = lambda relay: costs.get(relay, 0.0)
    await trio.sleep(150)
    # Only one other is there, so that the second stays: it is better than none.
    assert len(keepers_of(target)) == 3
    assert len({*before} & {*keepers_of(target)}) == 2
    assert before[2] in keepers_of(target)


@dataclass(slots=True)
class Endpoint:
    """Connects nowhere, and notes where it was told to."""

    near: frozenset[PeerId]
    tried: list[str] = field(default_factory=list)

    def connected(self) -> frozenset[PeerId]:
        return self.near

    async def connect_peer(self, _peer: PeerId, addresses: list[str], *, deadline_s: float) -> None:
        self.tried += addresses
        raise Unreachable(f"nobody within {deadline_s}")


async def test_relays_are_tried_by_cost_and_then_by_who_is_connected() -> None:
    ids = [key_of(it).peer for it in ("free", "near", "cheap", "dear")]
    cost = dict(zip(map(str, ids), (0.0, 0.0, 5.0, 9.0), strict=True))
    me = key_of("me").peer
    behind = [f"/ip4/45.1.0.1/tcp/1/p2p/{it}/p2p-circuit/p2p/{me}" for it in ids]
    direct = f"/ip4/45.9.0.1/tcp/1/p2p/{me}"
    endpoint = Endpoint(frozenset({ids[1], ids[3]}))
    free, near, cheap, dear = behind
    with pytest.raises(Unreachable):
        await connect(endpoint, me, [dear, cheap, free, near, direct], 1.0, cost.__getitem__)  # type: ignore[arg-type]
    assert endpoint.tried == [direct, near, free, cheap, dear]
