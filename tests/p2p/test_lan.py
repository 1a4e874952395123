"""Peers of one local network find each other; what is told there is a hint, and never more."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from random import Random

import pytest
import trio
from trio.testing import MockClock

from p2p import lan
from p2p.adverts import Capacity, Environment
from p2p.dialing import Dialing
from p2p.lan import REMEMBERED_MAX, LanSession
from p2p.lan_peers import LanRecord, hint_of, network_hash, said_of, told_addresses
from p2p.lan_zeroconf import NAME_BYTES_MAX, NAMES_KEPT, ServiceStateChange, ZeroconfLan, _Session
from p2p.over_libp2p import MemoryNetwork, MemoryTransport, Router, Site
from p2p.peers import Peers, PeersConfig, Surroundings, open_peers
from tests.p2p.internet import asks, hears, kept, open_internet, servers
from tests.p2p.keepers import START_S
from tests.p2p.transports import key_of, until
from wire.errors import TransportError

ME, OTHER = key_of("me").peer, key_of("other").peer
HOME = "192.168.1.7"


def record(
    *hosts: str, port: int = 4747, said: dict[str, str] | None = None, **changed: str
) -> LanRecord:
    told = said_of(OTHER, "net") | changed if said is None else said
    return LanRecord(hosts or (HOME,), port, {k.encode(): v.encode() for k, v in told.items()})


@dataclass(slots=True)
class Cable:
    """A local network in memory: each session hears what the others tell."""

    sessions: list["CableSession"] = field(default_factory=list)
    opened: int = 0
    broken: bool = False

    @asynccontextmanager
    async def open(
        self, name: str, addresses: tuple[str, ...], said: dict[str, str]
    ) -> AsyncIterator[LanSession]:
        if self.broken:
            raise TransportError("no multicast here")
        self.opened += 1
        hosts = tuple(it.split("/")[2] for it in addresses)
        own = record(*hosts, port=int(addresses[0].split("/")[4]), said=said)
        session = CableSession(own, [it.own for it in self.sessions])
        for other in self.sessions:
            other.waiting.append(own)
        self.sessions.append(session)
        try:
            yield session
        finally:
            self.sessions.remove(session)


@dataclass(slots=True)
class CableSession:
    own: LanRecord
    waiting: list[LanRecord]
    records: int = 0

    def heard(self) -> list[LanRecord]:
        found, self.waiting = self.waiting, []
        return found

    def remembered(self) -> int:
        return self.records


@asynccontextmanager
async def opened(
    memory: MemoryNetwork, cable: Cable, name: str, site: Site, network: str = "net"
) -> AsyncIterator[Peers]:
    key, random = key_of(name), Random(name)
    memory.routers.put(str(key.peer), site)
    ahead_s = START_S - trio.current_time()
    environment = Environment(
        wall_s=lambda: ahead_s + trio.current_time(), random=random, entropy=random.randbytes
    )
    config = PeersConfig(network=network, listen=(f"/ip4/{site.host}/tcp/4747",))
    transport = MemoryTransport(memory, wall_ns=lambda: 1)
    around = Surroundings(lan=cable)
    async with open_peers(transport, key, config, environment, Capacity, None, around) as peers:
        await peers.join()
        yield peers


async def test_two_peers_of_one_home_find_each_other_with_no_argument(
    autojump_clock: MockClock,
) -> None:
    memory, cable, router = MemoryNetwork(), Cable(), Router("46.1.0.1")
    async with (
        opened(memory, cable, "one", Site("192.168.1.2", router)) as one,
        opened(memory, cable, "two", Site("192.168.1.3", router)) as two,
        opened(memory, cable, "three", Site("192.168.1.4", router), "another") as three,
    ):
        await until(lambda: one.view.advert_of(two.me) is not None, 60)
        await until(lambda: two.view.advert_of(one.me) is not None, 60)
        await trio.sleep(10)
        assert not three.connected()
        assert one.lan is not None
        assert one.lan.as_map()["found"] == [str(two.me)]


async def test_whoever_floods_is_followed_seldom_and_then_not_heard_for_a_while(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lan, "FLOODED_S", 12.0)
    memory, cable, router = MemoryNetwork(), Cable(), Router("46.1.0.1")
    async with opened(memory, cable, "one", Site("192.168.1.2", router)) as one:
        await until(lambda: bool(cable.sessions), 30)
        assert one.lan is not None
        for number in range(2000):
            said = said_of(key_of(str(number)).peer, "net") if number < 60 else {"id": "x" * 99}
            cable.sessions[0].waiting.append(record(said=said))
        await until(lambda: one.lan.dropped > 40, 30)  # type: ignore[union-attr]
        assert len(one.dialing.known()) <= 20
        cable.sessions[0].records = REMEMBERED_MAX + 1
        await until(lambda: not cable.sessions, 10)
        await trio.sleep(6.0)
        assert cable.opened == 1
        await until(lambda: cable.opened == 2, 30)


async def test_where_the_local_network_cannot_be_spoken_to_the_peer_runs_without_it(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lan, "AGAIN_S", 4.0)
    memory, cable = MemoryNetwork(), Cable(broken=True)
    async with opened(memory, cable, "one", Site("192.168.1.2", Router("46.1.0.1"))) as one:
        await until(lambda: "local network" in one.problems, 10)
        cable.broken = False
        await until(lambda: cable.opened == 1, 120)


def test_only_addresses_of_the_local_network_are_taken_from_a_record() -> None:
    hint = hint_of(record("45.1.0.9", "127.0.0.1", "0.0.0.0", "nonsense", HOME), ME, "net")
    assert hint is not None
    assert hint.addresses == (f"/ip4/{HOME}/tcp/4747/p2p/{OTHER}",)
    many = hint_of(record(*(f"192.168.1.{it}" for it in range(200))), ME, "net")
    assert many is not None
    assert len(many.addresses) == 4


@pytest.mark.parametrize(
    "wrong",
    [
        record(said={}),
        record(id=str(ME)),
        record(id="nobody"),
        record(id="x" * 10_000),
        record(net=network_hash("another")),
        record(net="x" * 10_000),
        record(port=0),
        record(port=70_000),
        record("45.1.0.9"),
        LanRecord((), 4747, {b"id": None, b"net": b"\xff"}),
    ],
)
def test_a_record_of_others_or_of_nonsense_is_no_hint(wrong: LanRecord) -> None:
    assert hint_of(wrong, ME, "net") is None


def test_a_hint_displaces_nothing_that_is_known_of_a_peer() -> None:
    dialing = Dialing(ME, Random(1))
    before = ("/ip4/45.1.0.9/tcp/4747",)
    dialing.remember(OTHER, before)
    dialing.suggest(OTHER, ("/ip4/192.168.1.66/tcp/1", *before))
    assert dialing.addresses_of(OTHER) == (*before, "/ip4/192.168.1.66/tcp/1")
    for number in range(50):
        dialing.suggest(OTHER, (f"/ip4/192.168.1.{number}/tcp/1",))
    assert dialing.addresses_of(OTHER)[0] == before[0]
    assert len(dialing.addresses_of(OTHER)) == 4


def test_a_peer_tells_where_packets_leave_and_never_of_its_loopback() -> None:
    addresses = tuple(
        f"/ip4/{it}/tcp/4747" for it in ("127.0.0.1", "172.17.0.1", "192.168.1.2", "45.1.0.9")
    )
    assert told_addresses(addresses, ("192.168.1.2",)) == (addresses[2],)
    assert told_addresses(addresses, ()) == addresses[1:]
    assert told_addresses(addresses[:1], ("192.168.1.2",)) == ()


def test_names_that_are_heard_are_bounded_and_looked_up_one_by_one() -> None:
    session = _Session(None, "own")  # type: ignore[arg-type]

    def heard(name: str, change: ServiceStateChange = ServiceStateChange.Added) -> None:
        session.on_change(None, "type", name, change)  # type: ignore[arg-type]

    heard("own")
    heard("x" * 10_000)
    heard("gone", ServiceStateChange.Removed)
    assert not session.names
    for number in range(10 * NAMES_KEPT):
        heard(str(number))
    assert len(session.names) == NAMES_KEPT
    assert NAME_BYTES_MAX < 10_000


async def test_one_that_has_no_address_for_it_says_so() -> None:
    with pytest.raises(TransportError, match="IPv4"):
        async with ZeroconfLan().open("name", ("/ip6/fe80::1/tcp/1",), {}):
            raise AssertionError


async def test_two_of_one_home_that_met_through_a_relay_need_it_no_more(
    autojump_clock: MockClock,
) -> None:
    cable = Cable(broken=True)
    async with open_internet() as internet:
        await servers(internet, 2)
        router = Router("46.1.0.1")
        one = await kept(internet, "one", router, 2, lan=cable)
        two = await internet.add("two", Site("192.168.1.3", router), lan=cable)
        await hears(two, one)
        assert await asks(two, one.me) == b"here"
        assert two.endpoint.is_relayed(one.me)
        cable.broken = False
        # A line that is in use is never idle, so it does not end by itself.
        for _ in range(30):
            await trio.sleep(5)
            assert await asks(two, one.me) == b"here"
        assert not two.endpoint.lines()
        assert not one.endpoint.lines()
        assert "192.168.1" in str(two.endpoint.remote_address(one.me))
