"""A port of the router's is asked for where it is needed, kept, believed late, and given back."""

import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from random import Random
from socket import AF_INET, SOCK_DGRAM
from urllib.parse import urlsplit

import pytest
import trio
from trio.testing import MockClock

from p2p import home_router
from p2p.home_router import HomeRouter
from p2p.port_mapping import (
    AGAIN_S,
    LIFETIME_S,
    MappedPort,
    MappingState,
    PortMapping,
    PortRouter,
    PortTakenError,
)
from p2p.reachability import CallBack, Reachability, Stranger
from p2p.router_messages import (
    NONCE_BYTES,
    pcp_request,
    pmp_request,
    read_pcp,
    read_pmp,
    read_pmp_address,
)
from p2p.router_search import location_of
from tests.p2p.transports import key_of
from wire.errors import BatonError, Malformed, Refused, Unreachable
from wire.kinds import RefusalCode

ME = key_of("me").peer
HOME = ("/ip4/192.168.1.5/tcp/4747/p2p/x", "/ip4/127.0.0.1/tcp/4747/p2p/x")
NONCE = bytes(range(NONCE_BYTES))
OUTSIDE = "45.1.2.3"


def pcp_answer(
    port: int = 4747, external: int = 4750, result: int = 0, nonce: bytes = NONCE
) -> bytes:
    head = bytes((2, 0x81, 0, result)) + (1800).to_bytes(4, "big") + bytes(16)
    inside = nonce + bytes((6, 0, 0, 0)) + port.to_bytes(2, "big") + external.to_bytes(2, "big")
    return head + inside + bytes(10) + b"\xff\xff" + socket.inet_aton(OUTSIDE)


def pmp_answer(port: int = 4747, external: int = 4750, result: int = 0) -> bytes:
    said = bytes((0, 0x82)) + result.to_bytes(2, "big") + bytes(4)
    return said + port.to_bytes(2, "big") + external.to_bytes(2, "big") + (900).to_bytes(4, "big")


def test_a_router_says_which_port_and_for_how_long() -> None:
    found = read_pcp(pcp_answer(), 4747, NONCE)
    assert (found.external_port, found.lifetime_s, found.host) == (4750, 1800, OUTSIDE)
    found = read_pmp(pmp_answer(), 4747)
    assert (found.external_port, found.lifetime_s, found.host) == (4750, 900, "")
    assert read_pmp_address(bytes((0, 0x80)) + bytes(6) + socket.inet_aton(OUTSIDE)) == OUTSIDE
    assert len(pcp_request("192.168.1.5", 4747, NONCE, 3600, 4747)) == 60
    assert len(pmp_request(4747, 3600, 4747)) == 12


def test_a_port_that_is_given_for_no_time_is_none() -> None:
    ended = pcp_answer()[:4] + bytes(4) + pcp_answer()[8:]
    with pytest.raises(Refused, match="no time"):
        read_pcp(ended, 4747, NONCE)
    with pytest.raises(Refused, match="no time"):
        read_pmp(pmp_answer()[:-4] + bytes(4), 4747)


def test_an_answer_to_something_else_is_none() -> None:
    for data in (
        *(pcp_answer()[:size] for size in (0, 3, 23, 59)),
        pcp_answer(port=4748),
        pcp_answer(nonce=bytes(NONCE_BYTES)),
        pcp_answer(external=0),
    ):
        with pytest.raises(Malformed):
            read_pcp(data, 4747, NONCE)
    for data in (*(pmp_answer()[:size] for size in (0, 3, 15)), pmp_answer(port=1), b"\0" * 16):
        with pytest.raises(Malformed):
            read_pmp(data, 4747)


def test_a_router_that_says_no_says_why() -> None:
    with pytest.raises(Refused, match="owner does not allow"):
        read_pcp(pcp_answer(result=2), 4747, NONCE)
    with pytest.raises(Refused, match="another version"):
        read_pcp(pmp_answer() + bytes(60), 4747, NONCE)
    with pytest.raises(Refused, match="error 77"):
        read_pmp(pmp_answer(result=77), 4747)


def test_any_bytes_are_an_answer_or_a_refusal() -> None:
    random = Random(17)
    for _ in range(3000):
        data = bytearray(random.choice((pcp_answer(), pmp_answer())))
        for _ in range(random.randrange(4)):
            data[random.randrange(len(data))] = random.randrange(256)
        for read in (lambda it: read_pcp(it, 4747, NONCE), lambda it: read_pmp(it, 4747)):
            try:
                assert 0 < read(bytes(data)).external_port < 65536
            except (Malformed, Refused):
                continue


@dataclass
class FakeRouter:
    """A router of a test: what it says to the next questions, and what it was asked."""

    says: Callable[[int, int], MappedPort]
    asked: list[tuple[int, int]] = field(default_factory=list)
    closed: list[int] = field(default_factory=list)

    async def open_port(self, port: int, wanted: int, lifetime_s: int) -> MappedPort:
        assert lifetime_s == LIFETIME_S
        self.asked.append((port, wanted))
        await trio.lowlevel.checkpoint()
        return self.says(port, wanted)

    async def close_port(self, mapped: MappedPort) -> None:
        await trio.lowlevel.checkpoint()
        self.closed.append(mapped.external_port)


def yes(port: int, wanted: int) -> MappedPort:
    return MappedPort(by="PCP", port=port, external_port=wanted, lifetime_s=LIFETIME_S)


def no(error: BatonError) -> Callable[[int, int], MappedPort]:
    def says(_port: int, _wanted: int) -> MappedPort:
        raise error

    return says


@dataclass
class Home:
    mapping: PortMapping
    router: FakeRouter
    listening: tuple[str, ...] = HOME
    met: bool = True

    @property
    def reachability(self) -> Reachability:
        return self.mapping.reachability

    def called_back(self, reached: bool) -> None:
        """Three strangers say what they found."""
        strangers = [Stranger(key_of(str(it)).peer, f"45.{it}.0.1") for it in (1, 2, 3)]
        answers = [CallBack(it, OUTSIDE, reached) for it in strangers]
        self.reachability.judge(answers, trio.current_time())


@asynccontextmanager
async def home(says: Callable[[int, int], MappedPort] = yes) -> AsyncIterator[Home]:
    reachability = Reachability(ME, Random(1))
    router = FakeRouter(says)
    found = Home(
        PortMapping(router, reachability, lambda: found.listening, lambda: found.met), router
    )
    reachability.to_ask((), HOME, 0.0)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(found.mapping.run_forever)
        yield found
        nursery.cancel_scope.cancel()


async def test_a_port_is_kept_and_given_back(autojump_clock: MockClock) -> None:
    async with home() as found:
        await trio.sleep(5)
        assert found.router.asked == [(4747, 4747)]
        assert found.mapping.as_map()["state"] == "made"
        found.called_back(reached=True)
        assert list(found.reachability.confirmed) == [f"/ip4/{OUTSIDE}/tcp/4747"]
        await trio.sleep(3 * LIFETIME_S)
        # Half an hour after the first, and so on.
        assert 6 <= len(found.router.asked) <= 7
    assert found.router.closed == [4747]


async def test_another_port_of_the_routers_is_the_one_that_strangers_call(
    autojump_clock: MockClock,
) -> None:
    async with home(lambda port, wanted: replace(yes(port, wanted), external_port=5000)) as found:
        found.called_back(reached=False)
        await trio.sleep(5)
        assert found.reachability.port() == 5000
        found.called_back(reached=True)
        assert list(found.reachability.confirmed) == [f"/ip4/{OUTSIDE}/tcp/5000"]
        assert found.reachability.local_port() == 4747


async def test_nobody_is_asked_where_nothing_is_needed(autojump_clock: MockClock) -> None:
    async with home() as found:
        found.met = False
        await trio.sleep(100)
        found.met, found.listening = True, (f"/ip4/{OUTSIDE}/tcp/4747", *HOME)
        await trio.sleep(100)
        found.listening = HOME[1:]
        await trio.sleep(100)
        found.listening = HOME
        found.called_back(reached=True)
        await trio.sleep(100)
        assert found.router.asked == []
        assert found.mapping.state is MappingState.NOT_NEEDED
    assert found.router.closed == []


async def test_a_router_whose_port_nobody_gets_through_is_not_believed(
    autojump_clock: MockClock,
) -> None:
    async with home(lambda port, wanted: replace(yes(port, wanted), external_port=5000)) as found:
        await trio.sleep(5)
        found.called_back(reached=False)
        await trio.sleep(5)
        assert found.mapping.state is MappingState.MADE
        found.called_back(reached=False)
        await trio.sleep(5)
        assert found.mapping.state is MappingState.DEAD
        assert "nobody outside got through" in found.mapping.why
        assert (found.router.closed, found.reachability.port()) == ([5000], 4747)
        await trio.sleep(LIFETIME_S)
        assert len(found.router.asked) == 2


@pytest.mark.parametrize(
    ("error", "state"),
    [
        (Unreachable("nothing"), MappingState.SILENT),
        (Refused("no", code=RefusalCode.NOT_WILLING), MappingState.REFUSED),
        (PortTakenError("theirs", code=RefusalCode.NOT_WILLING), MappingState.TAKEN),
        (Malformed("nonsense"), MappingState.REFUSED),
    ],
)
async def test_a_router_that_does_not_is_asked_again_seldom(
    autojump_clock: MockClock, error: BatonError, state: MappingState
) -> None:
    async with home(no(error)) as found:
        await trio.sleep(AGAIN_S / 2)
        assert (found.mapping.state, len(found.router.asked)) == (state, 1)
        assert found.mapping.why
        found.router.says = yes
        await trio.sleep(AGAIN_S)
        assert (found.mapping.state, len(found.router.asked)) == (MappingState.MADE, 2)
    assert found.router.closed == [4747]


async def test_another_port_of_this_machine_is_asked_for_anew(autojump_clock: MockClock) -> None:
    async with home() as found:
        await trio.sleep(5)
        found.listening = ("/ip4/192.168.7.5/tcp/4748/p2p/x",)
        found.reachability.to_ask((), found.listening, trio.current_time())
        await trio.sleep(5)
        assert found.router.asked == [(4747, 4747), (4748, 4748)]
        assert found.router.closed == [4747]


@asynccontextmanager
async def speaking(*answers: bytes) -> AsyncIterator[tuple[HomeRouter, list[bytes]]]:
    """A router at a real socket of this machine, which says these to each question."""
    heard: list[bytes] = []
    with trio.socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as own:
        await own.bind(("127.0.0.1", 0))

        async def answer() -> None:
            while True:
                data, asker = await own.recvfrom(2000)
                heard.append(data)
                for said in answers:
                    await own.sendto(said, asker)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(answer)
            port = own.getsockname()[1]
            yield HomeRouter(lambda count: NONCE[:count], lambda: "127.0.0.1", port), heard
            nursery.cancel_scope.cancel()


async def test_pcp_is_spoken_first_and_what_else_comes_is_passed_over() -> None:
    async with speaking(b"", b"\xff" * 1000, pcp_answer(port=1), pcp_answer()) as (router, heard):
        found = await router.open_port(4747, 4747, LIFETIME_S)
        assert (found.by, found.external_port, found.host) == ("PCP", 4750, OUTSIDE)
        assert heard[0][:2] == b"\x02\x01"
        await router.close_port(found)
        assert int.from_bytes(heard[-1][4:8], "big") == 0


async def test_a_router_that_knows_no_pcp_is_asked_by_nat_pmp() -> None:
    address = bytes((0, 0x80)) + bytes(6) + socket.inet_aton(OUTSIDE)
    older = bytes((0, 0x81, 0, 1)) + bytes(4)
    async with speaking(older, pmp_answer(), address) as (router, _heard):
        found = await router.open_port(4747, 4747, LIFETIME_S)
        assert (found.by, found.external_port, found.host) == ("NAT-PMP", 4750, OUTSIDE)


async def check_router(router: PortRouter) -> None:
    """What every router does, the test's and the real one."""
    first = await router.open_port(4747, 4747, LIFETIME_S)
    assert (first.port, bool(first.by)) == (4747, True)
    assert 0 < first.external_port < 65536
    assert 0 < first.lifetime_s <= LIFETIME_S
    again = await router.open_port(4747, first.external_port, LIFETIME_S)
    assert again.external_port == first.external_port
    await router.close_port(again)


async def test_the_routers_of_these_tests_do_what_real_ones_do() -> None:
    await check_router(FakeRouter(yes))
    async with speaking(pcp_answer()) as (router, _heard):
        await check_router(router)


async def test_a_router_that_is_silent_is_unreachable(autojump_clock: MockClock) -> None:
    async with home(no(Unreachable("silent"))) as found:
        with pytest.raises(Unreachable):
            await found.router.open_port(4747, 4747, LIFETIME_S)
    nowhere = HomeRouter(lambda count: NONCE[:count], lambda: None)
    with pytest.raises(Unreachable, match="no default router"):
        await nowhere.open_port(4747, 4747, LIFETIME_S)


async def test_a_router_that_gives_a_port_and_tells_no_address_has_given_it() -> None:
    """Whoever went on to another protocol would leave the port open, and not know of it."""
    older = bytes((0, 0x81, 0, 1)) + bytes(4)
    no_address = bytes((0, 0x80, 0, 3)) + bytes(8)
    async with speaking(older, pmp_answer(), no_address) as (router, _heard):
        found = await router.open_port(4747, 4747, LIFETIME_S)
        assert (found.by, found.external_port, found.host) == ("NAT-PMP", 4750, "")


async def test_a_machine_that_can_open_no_more_asks_no_router(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def full(*_: object) -> None:
        raise OSError(24, "Too many open files")

    router = HomeRouter(lambda count: NONCE[:count], lambda: "127.0.0.1", 9)
    monkeypatch.setattr(home_router.trio.socket, "socket", full)
    monkeypatch.setattr(home_router, "_upnp_open", full)
    with pytest.raises(Unreachable):
        await router._by_pcp("127.0.0.1", 4747, 4747, LIFETIME_S)
    with pytest.raises(Unreachable):
        await router._by_pmp("127.0.0.1", 4747, 4747, LIFETIME_S)


DESCRIBED = "http://127.0.0.1:1/rootDesc.xml"


async def described(_router: HomeRouter, _address: str) -> str:
    await trio.lowlevel.checkpoint()
    return DESCRIBED


def search_answer(location: str, head: str = "HTTP/1.1 200 OK") -> bytes:
    return f"{head}\r\nST: any\r\nLocation: {location}\r\n\r\n".encode()


def test_only_the_default_router_is_followed_to_its_own_address() -> None:
    good = "http://192.168.1.1:5000/rootDesc.xml"
    assert location_of(search_answer(good), "192.168.1.1", "192.168.1.1") == good
    assert location_of(search_answer(good), "192.168.1.66", "192.168.1.1") is None
    for bad in (
        "http://192.168.1.66:5000/rootDesc.xml",
        "http://10.0.0.1/",
        "http://router.example/rootDesc.xml",
        "http://192.168.1.1@10.0.0.1/",
        "http://192.168.1.1:5000:1/",
        "http://192.168.1.1:99999/",
        "http://192.168.1.1:0/",
        "https://192.168.1.1/",
        "file:///etc/passwd",
        "http://192.168.1.1/" + "a" * 600,
        "http://192.168.1.1/\x00",
        "",
    ):
        assert location_of(search_answer(bad), "192.168.1.1", "192.168.1.1") is None, bad
    late = search_answer(good, "HTTP/1.1 404 No")
    assert location_of(late, "192.168.1.1", "192.168.1.1") is None
    assert location_of(search_answer(good) + b"x" * 4096, "192.168.1.1", "192.168.1.1") is None


def test_any_bytes_lead_nowhere_or_to_the_router() -> None:
    random = Random(23)
    for _ in range(3000):
        data = bytearray(search_answer("http://192.168.1.1:5000/rootDesc.xml"))
        for _ in range(random.randrange(1, 6)):
            data[random.randrange(len(data))] = random.randrange(256)
        found = location_of(bytes(data), "192.168.1.1", "192.168.1.1")
        assert found is None or urlsplit(found).hostname == "192.168.1.1"


async def test_what_others_of_the_network_answer_is_not_fetched(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An answer that leads elsewhere comes first, and the router's own is taken."""
    fetched: list[str] = []

    def noted(location: str) -> None:
        fetched.append(location)
        raise Unreachable("only noted")

    monkeypatch.setattr(home_router, "_upnp", noted)
    with trio.socket.socket(AF_INET, SOCK_DGRAM) as network:
        await network.bind(("127.0.0.1", 0))
        place = network.getsockname()
        router = HomeRouter(lambda count: NONCE[:count], lambda: "127.0.0.1", 9, search=place)

        async def answer() -> None:
            _, asker = await network.recvfrom(2048)
            for location in ("http://10.0.0.1/x", "http://127.0.0.1:1/rootDesc.xml"):
                await network.sendto(search_answer(location), asker)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(answer)
            with pytest.raises(Unreachable):
                await router._by_upnp("127.0.0.1", 4747, 4747, LIFETIME_S)
    assert fetched == [DESCRIBED]


class _UpnpRouter:
    """What the library says of a router; `ports` has whose each of its ports is."""

    lanaddr = "192.168.1.5"

    def __init__(self, ports: dict[int, tuple[str, int]]) -> None:
        self.ports = ports

    def getspecificportmapping(self, external: int, _: str) -> tuple[str, int] | None:
        return self.ports.get(external)

    def addportmapping(self, external: int, _: str, host: str, port: int, *rest: object) -> bool:
        self.ports[external] = (host, port)
        return True

    def deleteportmapping(self, external: int, _: str) -> bool:
        del self.ports[external]
        return True

    def externalipaddress(self) -> str:
        return OUTSIDE


async def test_no_port_of_another_program_or_machine_is_taken_or_given_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    others = {4747: ("192.168.1.5", 6881), 5000: ("192.168.1.9", 4747)}
    upnp = _UpnpRouter(dict(others))
    monkeypatch.setattr(home_router, "_upnp", lambda _location: upnp)
    found = home_router._upnp_open(DESCRIBED, 4747, [4747, 5000, 5001], LIFETIME_S)
    assert found.external_port == 5001
    assert others.items() <= upnp.ports.items()
    # The router has given it to another machine since.
    upnp.ports[5001] = ("192.168.1.9", 4747)
    router = HomeRouter(lambda count: NONCE[:count], lambda: "127.0.0.1", 9)
    monkeypatch.setattr(HomeRouter, "_location", described)
    await router.close_port(found)
    assert upnp.ports[5001] == ("192.168.1.9", 4747)
    upnp.ports[5001] = ("192.168.1.5", 4747)
    await router.close_port(found)
    assert upnp.ports == others
