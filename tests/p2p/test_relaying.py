"""Peers behind routers are reached through open ones, which neither read nor answer for them."""

from collections.abc import AsyncIterator
from functools import partial

import pytest
import trio
from libp2p.network.connection.raw_connection import RawConnection
from multiaddr import Multiaddr  # type: ignore[import-untyped]
from trio.testing import MockClock

from p2p.over_libp2p import Site
from p2p.over_libp2p.circuits import RELAY, RELAYED, Line
from p2p.over_libp2p.host import libp2p_id
from p2p.over_libp2p.stream import LibStream
from p2p.reachability import Reach
from p2p.relay_limits import RelayCounts, RelayLimits
from p2p.score import Standing
from p2p.transport import RelayAnswer, WrongPeer
from p2p.typed_call import TypedCall
from tests.p2p.internet import (
    Internet,
    alone,
    asks,
    hears,
    home,
    keepers_of,
    kept,
    open_internet,
    server,
    servers,
)
from tests.p2p.transports import key_of, until
from wire.content import PeerId
from wire.errors import TransportError, Unreachable
from wire.message import Message
from wire.reach import DialBack, DialedBack, Reservation, Reserve, Reserved
from wire.signed import open_signed, sign
from wire.signing import SigningKey


@pytest.fixture
async def internet() -> AsyncIterator[Internet]:
    async with open_internet() as opened:
        yield opened


async def test_one_home_is_reached_from_another(
    autojump_clock: MockClock, internet: Internet
) -> None:
    await servers(internet, 4)
    target = await kept(internet, "target", home(1), 3)
    asker = await internet.add("asker", Site("192.168.1.2", home(2, refuses=True)))
    await hears(asker, target)
    assert await asks(asker, target.me) == b"here"
    assert asker.endpoint.is_relayed(target.me)
    assert target.endpoint.is_relayed(asker.me)
    assert target.dialing_back.as_map()["how"] == "kept"
    assert len({*keepers_of(target)}) == 3
    carried = [it.relaying.counts.carried_for.get(asker.me) for it in internet.peers.values()]
    assert sum(map(bool, carried)) == 1


async def test_two_of_one_home_and_one_behind_a_carrier_reach_each_other(
    autojump_clock: MockClock, internet: Internet
) -> None:
    await servers(internet, 3)
    router = home(1)
    one = await kept(internet, "one", router, 3)
    two = await internet.add("two", Site("192.168.1.3", router))
    carried = await internet.add("carried", Site("192.168.1.2", home(2, carrier=home(3))))
    for asker in (two, carried):
        await hears(asker, one)
        assert await asks(asker, one.me) == b"here"


async def test_after_its_relay_was_killed_the_next_one_is_used_within_ten_seconds(
    autojump_clock: MockClock, internet: Internet
) -> None:
    await servers(internet, 4)
    target = await kept(internet, "target", home(1), 3)
    asker = await internet.add("asker", Site("192.168.1.2", home(2)))
    await hears(asker, target)
    assert await asks(asker, target.me) == b"here"
    used = next(
        name for name, it in internet.peers.items() if it.relaying.counts.carried_for.get(asker.me)
    )
    before = trio.current_time()
    internet.kill(used)
    await until(lambda: not asker.endpoint.is_connected(target.me), 10)
    with trio.fail_after(10):
        while True:
            try:
                assert await asks(asker, target.me) == b"here"
                break
            except TransportError:
                await trio.sleep(0.2)
    assert trio.current_time() < before + 10
    # The fourth server takes the place of the one that is gone.
    await until(lambda: len(keepers_of(target)) == 3, 60)


async def test_a_peer_that_is_open_again_lets_its_relays_go(
    autojump_clock: MockClock, internet: Internet
) -> None:
    await servers(internet, 3)
    router = home(1)
    target = await kept(internet, "target", router, 3)
    router.forwards[4747] = ("192.168.1.2", 4747)
    # An hour later.
    target.dialing_back.reachability._due_at_s = trio.current_time() + 70
    await until(lambda: target.dialing_back.reachability.reach is Reach.MAPPED, 90)
    await until(lambda: not keepers_of(target), 60)


async def test_leases_are_renewed(autojump_clock: MockClock, internet: Internet) -> None:
    await servers(internet, 1)
    relay = internet.peers["server 1"]
    relay.relaying.counts = RelayCounts(RelayLimits(lease_s=60.0))
    target = await kept(internet, "target", home(1), 1)
    await trio.sleep(150)
    assert keepers_of(target) == [relay.me]
    assert relay.relaying.counts.kept() == {target.me}


async def test_a_relay_that_is_full_says_so(autojump_clock: MockClock, internet: Internet) -> None:
    await servers(internet, 1)
    relay = internet.peers["server 1"]
    relay.relaying.counts = RelayCounts(RelayLimits(kept_max=1, lines_per_asker=0))
    target = await kept(internet, "target", home(1), 1)
    second = await internet.add("second", Site("192.168.1.2", home(2)))
    await until(lambda: "all there is room for" in "".join(second.problems.values()), 60)
    assert second.dialing_back.as_map()["how"] == "alone"
    await alone(second, target)
    with pytest.raises(Unreachable, match="no room"):
        await second.endpoint.connect(target.relaying.addresses()[0], deadline_s=8.0)


async def test_who_is_not_kept_is_not_reached_and_closes_nobody_elses_place(
    autojump_clock: MockClock, internet: Internet
) -> None:
    await servers(internet, 2)
    relay, asker = internet.peers["server 1"], internet.peers["server 2"]
    place = relay.endpoint.addresses[0]
    nobody = key_of("nobody").peer
    with pytest.raises(Unreachable, match="not kept"):
        await asker.endpoint.connect(f"{place}/p2p-circuit/p2p/{nobody}", deadline_s=8.0)
    for bad in (
        f"{place}/p2p-circuit",
        f"{place}/p2p-circuit/p2p/{nobody}/p2p-circuit/p2p/{relay.me}",
        f"{place}/p2p-circuit/tcp/1/p2p/{nobody}",
        f"/p2p-circuit/p2p/{nobody}",
    ):
        with pytest.raises(Exception, match=r"p2p"):
            await asker.endpoint.connect(bad, deadline_s=8.0)
    target = await kept(internet, "target", home(1), 2)
    await hears(asker, target)
    await alone(asker, target)
    assert await asks(asker, target.me) == b"here"


async def test_a_relay_that_answers_for_a_peer_is_found_out(
    autojump_clock: MockClock, internet: Internet
) -> None:
    await servers(internet, 1)
    relay = internet.peers["server 1"]
    target = await kept(internet, "target", home(1), 1)
    asker = await internet.add("asker", server(2), join=False, bootstraps=())
    circuits = relay.endpoint._circuits  # type: ignore[attr-defined]

    async def answer_itself(stream: LibStream) -> None:
        await stream.read(32)
        await stream.write(bytes([RelayAnswer.THROUGH]))
        raw = RawConnection(Line(stream, None), False)
        await circuits._swarm.upgrade_inbound_raw_conn(raw, None)

    circuits.pass_on = answer_itself
    with pytest.raises(WrongPeer):
        await asker.endpoint.connect(
            f"{relay.endpoint.addresses[0]}/p2p-circuit/p2p/{target.me}", deadline_s=8.0
        )
    assert not asker.endpoint.is_connected(target.me)


async def test_a_lease_of_another_or_for_another_is_none(
    autojump_clock: MockClock, internet: Internet
) -> None:
    await servers(internet, 1)
    relay = internet.peers["server 1"]
    about, found = (
        "a lease of another",
        ((key_of("thief"), None), (relay.key, key_of("other").peer)),
    )
    for number, (signer, named) in enumerate(found):
        relay.handlers[Reserve] = partial(lease_of, signer, named)
        target = await internet.add(f"target {number}", Site("192.168.1.2", home(number + 1)))
        await until(lambda it=target: about in "".join(it.problems.values()), 60)
        assert not keepers_of(target)
        assert target.dialing_back.as_map()["how"] == "alone"


async def lease_of(
    signer: SigningKey, named: PeerId | None, call: TypedCall, _message: Message
) -> None:
    """Answer with a lease that this key signed for that peer, or for whoever asks."""
    lease = Reservation(
        kept=named or call.peer, issued_at_s=1, lease_s=60, lines_max=1, bytes_per_s=1
    )
    await call.send(Reserved(reservation=sign(lease, signer).raw))


async def test_a_lease_is_signed_and_says_its_bounds(
    autojump_clock: MockClock, internet: Internet
) -> None:
    await servers(internet, 1)
    relay = internet.peers["server 1"]
    target = await kept(internet, "target", home(1), 1)
    async with target.call(relay.me, deadline_s=8.0) as call:
        await call.send(Reserve(lease_s=86_400))
        lease = open_signed((await call.expect(Reserved)).reservation, Reservation)
    assert lease.signer == relay.me
    assert lease.record.kept == target.me
    assert lease.record.lease_s == 1800


async def test_strangers_on_a_line_cost_only_their_line(
    autojump_clock: MockClock, internet: Internet
) -> None:
    """Bytes that are no key, none at all, and a peer that calls itself a relay."""
    await servers(internet, 2)
    relay, rude = internet.peers["server 1"], internet.peers["server 2"]
    target = await kept(internet, "target", home(1), 2)
    endpoint = rude.endpoint
    await endpoint.connect(relay.endpoint.addresses[0], deadline_s=8.0)
    lines = [await endpoint._open(relay.me, RELAY, 5.0) for _ in range(40)]  # type: ignore[attr-defined]
    for at, line in enumerate(lines):
        if at % 2:
            await line.write(b"\xff" * 31)
    silent = await endpoint._open(relay.me, RELAYED, 5.0)  # type: ignore[attr-defined]
    await silent.write(target.me)
    assert await silent.read(1) == bytes([RelayAnswer.NOT_KEPT])
    await trio.sleep(60)
    assert relay.relaying.counts.lines == 0
    asker = await internet.add("asker", Site("192.168.1.2", home(2)))
    await hears(asker, target)
    assert await asks(asker, target.me) == b"here"
    assert relay.standing(rude.me) is Standing.GOOD


async def test_a_line_that_nobody_uses_is_let_go(
    autojump_clock: MockClock, internet: Internet
) -> None:
    await servers(internet, 1)
    relay = internet.peers["server 1"]
    target = await kept(internet, "target", home(1), 1)
    asker = await internet.add("asker", Site("192.168.1.2", home(2)))
    await hears(asker, target)
    assert await asks(asker, target.me) == b"here"
    assert relay.relaying.counts.lines == 1
    await until(lambda: not relay.relaying.counts.lines, 200)
    assert await asks(asker, target.me) == b"here"


async def test_who_came_through_a_relay_first_has_its_relay_called_by_nobody(
    autojump_clock: MockClock, internet: Internet
) -> None:
    await servers(internet, 4)
    target = await kept(internet, "target", home(1), 3)
    asker = await internet.add("asker", server(9))
    await hears(asker, target)
    await alone(asker, target)
    relayed = [it for it in target.mine().record.addresses if "p2p-circuit" in it]
    await asker.endpoint.connect(relayed[0], deadline_s=8.0)
    assert target.endpoint.is_relayed(asker.me)
    await target.endpoint._swarm.dial_addr(  # type: ignore[attr-defined]
        Multiaddr(asker.endpoint.addresses[0].partition("/p2p/")[0]), libp2p_id(asker.me)
    )
    assert not target.endpoint.is_relayed(asker.me)
    async with asker.call(target.me, deadline_s=10.0) as call:
        await call.send(DialBack(port=80))
        found = await call.expect(DialedBack)
    assert found == DialedBack(host="45.9.0.10", reached=False)


async def test_who_came_through_its_relay_and_is_open_is_called_directly(
    autojump_clock: MockClock, internet: Internet
) -> None:
    await servers(internet, 3)
    target = await kept(internet, "target", home(1), 3)
    caller = await internet.add("caller", server(9))
    await hears(caller, target)
    await alone(caller, target)
    relayed = [it for it in target.mine().record.addresses if "p2p-circuit" in it]
    await caller.endpoint.connect(relayed[0], deadline_s=8.0)
    assert target.endpoint.is_relayed(caller.me)
    await until(lambda: not target.endpoint.is_relayed(caller.me), 60)
    await until(lambda: not caller.endpoint.lines(), 60)
    assert await asks(caller, target.me) == b"here"
    assert not caller.endpoint.is_relayed(target.me)
