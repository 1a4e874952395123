"""Peers ask strangers to call them back, and say of themselves only what these found."""

from collections.abc import AsyncIterator

import pytest
import trio
from trio.testing import MockClock

from p2p.over_libp2p import Site
from p2p.peers import Peers
from p2p.reachability import Reach
from p2p.typed_call import TypedCall
from tests.p2p.internet import PORT, Internet, home, open_internet, server
from tests.p2p.transports import until
from wire.errors import Refused, TransportError, Unreachable
from wire.kinds import RefusalCode
from wire.message import Message
from wire.reach import DialBack, DialedBack


@pytest.fixture
async def internet() -> AsyncIterator[Internet]:
    async with open_internet() as opened:
        yield opened


def reach_of(peers: Peers) -> Reach:
    return peers.dialing_back.reachability.reach


async def settled(internet: Internet) -> None:
    found = (Reach.OPEN, Reach.MAPPED, Reach.KEPT, Reach.ALONE)
    await until(lambda: all(reach_of(it) in found for it in internet.peers.values()), 60)


async def asked(asker: Peers, other: Peers, port: int = PORT) -> DialedBack:
    async with asker.call(other.me, deadline_s=10.0) as call:
        await call.send(DialBack(port=port))
        return await call.expect(DialedBack)


async def test_servers_are_open_and_who_is_at_home_is_not(
    autojump_clock: MockClock, internet: Internet
) -> None:
    for number in range(1, 5):
        await internet.add(f"server {number}", server(number))
    await internet.add("home", Site("192.168.1.2", home(1)))
    await internet.add("flat", Site("192.168.1.2", home(2, refuses=True, carrier=home(3))))
    await settled(internet)
    for name, peers in internet.peers.items():
        said = peers.mine().record.addresses
        if name.startswith("server"):
            assert reach_of(peers) is Reach.OPEN
            assert said == peers.endpoint.addresses
        else:
            assert reach_of(peers) is not Reach.OPEN
            assert not any(it.startswith("/ip4/192.") for it in said)
    told = internet.peers["home"].dialing_back.as_map()
    assert told["seen_at"] == ["46.1.0.1"]


async def test_a_port_that_the_router_passes_on_is_found(
    autojump_clock: MockClock, internet: Internet
) -> None:
    for number in range(1, 4):
        await internet.add(f"server {number}", server(number))
    router = home(1, forwards={PORT: ("192.168.1.2", PORT)})
    mapped = await internet.add("mapped", Site("192.168.1.2", router))
    await settled(internet)
    assert reach_of(mapped) is Reach.MAPPED
    assert mapped.mine().record.addresses == (f"/ip4/46.1.0.1/tcp/{PORT}/p2p/{mapped.me}",)
    # One behind another router, who had never heard of it, calls it there.
    other = await internet.add("other", Site("192.168.1.2", home(2)))
    await other.endpoint.connect(mapped.mine().record.addresses[0], deadline_s=5.0)
    # The router forgets the mapping: the next look finds it out.
    router.forwards.clear()
    await until(lambda: reach_of(mapped) is not Reach.MAPPED, 4000)


async def test_each_is_called_back_once_a_minute_and_nowhere_but_where_it_is_seen(
    autojump_clock: MockClock, internet: Internet
) -> None:
    first = await internet.add("first", server(1))
    second = await internet.add("second", Site("192.168.1.2", home(2)))
    # Who could ask three asks no more for an hour.
    for number in range(2, 5):
        await internet.add(f"server {number}", server(number))
    await trio.sleep(100)
    assert await asked(second, first) == DialedBack(host="46.2.0.1", reached=False)
    with pytest.raises(Refused) as refusal:
        await asked(second, first)
    assert refusal.value.code is RefusalCode.BUSY
    await trio.sleep(61)
    # A port of ours where nobody listens is no third party.
    assert await asked(first, second, port=80) == DialedBack(host="45.1.0.10", reached=False)


async def test_neighbours_of_this_network_are_not_called_back(
    autojump_clock: MockClock, internet: Internet
) -> None:
    router = home(1)
    one = await internet.add("one", Site("192.168.1.2", router))
    two = await internet.add("two", Site("192.168.1.3", router))
    with pytest.raises(Refused) as refusal:
        await asked(two, one)
    assert refusal.value.code is RefusalCode.NOT_WILLING
    await trio.sleep(100)
    assert reach_of(one) is reach_of(two) is Reach.NEARBY
    assert one.mine().record.addresses == one.endpoint.addresses


async def test_a_knock_proves_the_key_and_leaves_no_connection(
    autojump_clock: MockClock, internet: Internet
) -> None:
    first = await internet.add("first", server(1))
    second = await internet.add("second", server(2), join=False)
    await second.endpoint.knock(first.endpoint.addresses[0], deadline_s=5.0)
    assert not second.connected()
    place = first.endpoint.addresses[0].partition("/p2p/")[0]
    with pytest.raises(Unreachable):
        await second.endpoint.knock(f"{place}/p2p/{second.me}", deadline_s=5.0)
    with pytest.raises(TransportError):
        await second.endpoint.knock(f"/ip4/45.9.9.9/tcp/1/p2p/{first.me}", deadline_s=5.0)


async def test_one_that_lies_convinces_nobody(
    autojump_clock: MockClock, internet: Internet
) -> None:
    async def lie(call: TypedCall, _message: Message) -> None:
        await call.send(DialedBack(host="45.66.0.1", reached=True))

    for number in range(1, 4):
        peers = await internet.add(f"server {number}", server(number))
        if number == 2:
            peers.handlers[DialBack] = lie
    at_home = await internet.add("home", Site("192.168.1.2", home(1)))
    await settled(internet)
    await until(lambda: "45.66.0.1" in at_home.dialing_back.reachability.seen_hosts, 4000)
    assert reach_of(at_home) is not Reach.OPEN
    assert not [it for it in at_home.mine().record.addresses if "45.66" in it]


async def test_of_many_that_join_at_once_none_waits_for_a_minute_to_know(
    autojump_clock: MockClock, internet: Internet
) -> None:
    for number in range(1, 4):
        await internet.add(f"server {number}", server(number), relays=False)
    async with trio.open_nursery() as nursery:
        for number in range(1, 13):
            site = Site("192.168.1.2", home(number))
            nursery.start_soon(internet.add, f"home {number}", site)
    # Each call to a home takes its time, and a server makes four at once.
    waiting = (Reach.ASKING, Reach.NEARBY)
    await until(lambda: all(reach_of(it) not in waiting for it in internet.peers.values()), 50)
