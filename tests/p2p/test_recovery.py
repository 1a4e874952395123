"""A peer at home serves again within half a minute of whatever happened to its network."""

from collections.abc import AsyncIterator
from itertools import pairwise
from random import Random

import pytest
import trio
from trio.testing import MockClock

from p2p.dialing import Dial, Dialing
from p2p.network_changes import Change
from p2p.over_libp2p import Site
from p2p.peers import Peers
from p2p.reachability import Reach
from tests.p2p.internet import Internet, asks, hears, home, kept, open_internet, server, servers
from tests.p2p.transports import key_of, until
from wire.errors import Refused, TransportError

AGAIN_S = 30.0


@pytest.fixture
async def internet() -> AsyncIterator[Internet]:
    async with open_internet() as opened:
        yield opened


async def served_again_s(asker: Peers, target: Peers) -> float:
    """How long until the target answers the asker over a new or a proven connection."""
    began_at_s = trio.current_time()
    with trio.fail_after(300):
        while True:
            try:
                await asks(asker, target.me, deadline_s=4.0)
            except (TransportError, Refused):
                await trio.sleep(0.5)
            else:
                return trio.current_time() - began_at_s


async def home_and_asker(internet: Internet) -> tuple[Peers, Peers]:
    """A peer at home with two relays, and an asker in another home, which asked it once."""
    await servers(internet, 2)
    target = await kept(internet, "target", home(1), 2)
    asker = await internet.add("asker", Site("192.168.1.2", home(2)))
    await hears(asker, target)
    assert await asks(asker, target.me) == b"here"
    return target, asker


async def test_another_wan_address(autojump_clock: MockClock, internet: Internet) -> None:
    target, asker = await home_and_asker(internet)
    began_at_s = trio.current_time()
    internet.cut_off("target")
    router = internet.memory.routers.sites[str(target.me)].router
    assert router is not None
    internet.memory.routers.renumber(router, "46.7.0.1")
    # A router knows nothing of flows that began at its old address, so all of these end.
    await until(lambda: not target.connected(), 20)
    internet.cut_off("target", cut=False)
    await served_again_s(asker, target)
    assert trio.current_time() < began_at_s + AGAIN_S
    await until(lambda: str(Change.BACK) in str(target.reach_map()["last_change"]), AGAIN_S)
    # Its relays are those again that just lost it.
    await until(lambda: len(target.relaying.held()) == 2, AGAIN_S)


async def test_an_open_port_at_another_wan_address_is_asked_for_again(
    autojump_clock: MockClock, internet: Internet
) -> None:
    await servers(internet, 3)
    router = home(1, forwards={4747: ("192.168.1.2", 4747)})
    target = await internet.add("target", Site("192.168.1.2", router))
    found = target.dialing_back.reachability
    await until(lambda: found.reach is Reach.MAPPED, 120)
    # Whoever was asked a minute ago is not asked again.
    await trio.sleep(66)
    assert list(found.confirmed) == ["/ip4/46.1.0.1/tcp/4747"]
    internet.cut_off("target")
    internet.memory.routers.renumber(router, "46.7.0.1")
    await until(lambda: not target.connected(), 20)
    internet.cut_off("target", cut=False)
    await until(lambda: list(found.confirmed) == ["/ip4/46.7.0.1/tcp/4747"], AGAIN_S)
    assert "/ip4/46.7.0.1/tcp/4747" in target.mine().record.addresses[0]


async def test_a_line_that_is_dead_for_minutes(
    autojump_clock: MockClock, internet: Internet
) -> None:
    target, asker = await home_and_asker(internet)
    internet.cut_off("target")
    await trio.sleep(90)
    assert not target.connected()
    internet.cut_off("target", cut=False)
    assert await served_again_s(asker, target) < AGAIN_S


async def test_a_sleep_of_ten_minutes(autojump_clock: MockClock, internet: Internet) -> None:
    """The others hung up on it meanwhile, and it still believes its connections."""
    target, asker = await home_and_asker(internet)
    internet.cut_off("target")
    for other in internet.peers.values():
        if other is not target:
            await other.endpoint.disconnect(target.me)
    before = target.connected()
    internet.set_forward_s["target"] += 600
    assert target.mine().record.expired(target.environment.wall_s()) is False
    # The others' clocks went on too.
    for name in internet.peers:
        internet.set_forward_s[name] = 600
    internet.cut_off("target", cut=False)
    assert before
    await until(lambda: "slept" in str(target.reach_map()["last_change"]), 5)
    assert await served_again_s(asker, target) < AGAIN_S


async def test_a_clock_that_is_set_right_is_believed(
    autojump_clock: MockClock, internet: Internet
) -> None:
    await internet.add("server", server(1))
    internet.set_forward_s["late"] = -7200
    late = await internet.add("late", server(2), join=False)
    await until(lambda: late.handshake_log.clock_wrong_s() is not None, 60)
    internet.set_forward_s["late"] = 0
    await until(lambda: late.handshake_log.clock_wrong_s() is None, 10)


def test_while_cut_off_nobody_is_given_up_and_each_is_called_every_few_seconds() -> None:
    dialing = Dialing(key_of("me").peer, Random(3))
    dialing.remember(key_of("other").peer, ("/ip4/45.1.0.1/tcp/1",))
    dialing.add_bootstrap("/dns4/home.example/tcp/1/p2p/any")
    dialing.cut_off = True
    calls: dict[str, list[float]] = {}
    for tenths in range(36_000):
        for dial in dialing.due(tenths / 10):
            calls.setdefault(dial.addresses[0], []).append(tenths / 10)
            dialing.failed(dial, tenths / 10)
    for at_s in calls.values():
        pauses = [later - before for before, later in pairwise(at_s)]
        assert max(pauses) <= 10.2
        assert at_s[-1] > 3580
    # Once anybody answers, whoever does not is left alone for longer again.
    dialing.cut_off = False
    other = Dial(key_of("other").peer, ("/ip4/45.1.0.1/tcp/1",))
    for _ in range(8):
        dialing.failed(other, 3600.0)
    assert other.peer not in {it.peer for it in dialing.due(3630.0)}
    dialing.hurry(3630.0)
    assert other.peer in {it.peer for it in dialing.due(3632.0)}
