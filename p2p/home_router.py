"""The router of this machine's network: asked by PCP and NAT-PMP, then by UPnP.

The only place where miniupnpc is imported. It waits in C for what the network says, so it is
called in a thread, one at a time.
"""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from socket import AF_INET, IP_MULTICAST_IF, IPPROTO_IP, SOCK_DGRAM, inet_aton
from typing import Any, TypeVar

import miniupnpc
import trio

from p2p.port_mapping import MappedPort, PortTakenError
from p2p.router_messages import (
    ANSWER_BYTES_MAX,
    NONCE_BYTES,
    PMP_ADDRESS_REQUEST,
    ROUTER_PORT,
    pcp_request,
    pmp_request,
    read_pcp,
    read_pmp,
    read_pmp_address,
)
from p2p.router_search import (
    SEARCH_BYTES_MAX,
    SEARCH_HOST,
    SEARCH_PORT,
    location_of,
    searches,
)
from p2p.routes import default_router
from wire.errors import Malformed, Refused, Unreachable
from wire.kinds import RefusalCode

T = TypeVar("T")
# Each question is sent again after a quarter of a second, then after twice as long.
FIRST_WAIT_S, ASKED_TIMES = 0.25, 4
UPNP_WAIT_S = 1.5
# Ports beside the wanted one that are tried where another machine has it.
PORTS_TRIED = 4


@dataclass(slots=True)
class HomeRouter:
    """Asks the router of the default route for ports. `entropy` gives so many random bytes."""

    entropy: Callable[[int], bytes]
    address: Callable[[], str | None] = default_router
    port: int = ROUTER_PORT
    search: tuple[str, int] = (SEARCH_HOST, SEARCH_PORT)
    # One for all requests: a router takes a renewal or an end from who has it alone.
    _nonce: bytes = b""
    _threads: trio.CapacityLimiter = field(default_factory=lambda: trio.CapacityLimiter(1))

    async def open_port(self, port: int, wanted: int, lifetime_s: int) -> MappedPort:
        """See `p2p.port_mapping.PortRouter`."""
        router = self._router()
        said: list[str] = []
        for way in (self._by_pcp, self._by_pmp, self._by_upnp):
            try:
                return await way(router, port, wanted, lifetime_s)
            except PortTakenError:
                raise
            except (Unreachable, Malformed, Refused) as error:
                if isinstance(error, Refused):
                    said.append(error.message)
        if said:
            raise Refused(said[-1], code=RefusalCode.NOT_WILLING)
        raise Unreachable(f"the router at {router} answers neither PCP, NAT-PMP nor UPnP")

    async def close_port(self, mapped: MappedPort) -> None:
        """See `p2p.port_mapping.PortRouter`."""
        router = self._router()
        if mapped.by == "UPnP":
            location = await self._location(router)
            await self._in_thread(lambda: _upnp_close(location, mapped))
        elif mapped.by == "PCP":
            host = await self._host_towards(router)
            end = pcp_request(host, mapped.port, self._nonce, 0, mapped.external_port)
            await self._asked(router, end, lambda it: it)
        else:
            await self._asked(router, pmp_request(mapped.port, 0, 0), lambda it: it)

    def _router(self) -> str:
        router = self.address()
        if router is None:
            raise Unreachable("there is no default router to ask for a port")
        return router

    async def _by_pcp(self, router: str, port: int, wanted: int, lifetime_s: int) -> MappedPort:
        self._nonce = nonce = self._nonce or self.entropy(NONCE_BYTES)
        host = await self._host_towards(router)
        request = pcp_request(host, port, nonce, lifetime_s, wanted)
        found = await self._asked(router, request, lambda it: read_pcp(it, port, nonce))
        return MappedPort(
            by="PCP",
            port=port,
            external_port=found.external_port,
            lifetime_s=found.lifetime_s,
            host=found.host,
        )

    async def _host_towards(self, router: str) -> str:
        """This machine's address from which packets to the router leave."""
        with _datagrams() as probe:
            # Connecting sends nothing.
            await _connected(probe, router, self.port)
            return str(probe.getsockname()[0])

    async def _by_pmp(self, router: str, port: int, wanted: int, lifetime_s: int) -> MappedPort:
        request = pmp_request(port, lifetime_s, wanted)
        found = await self._asked(router, request, lambda it: read_pmp(it, port))
        host = ""
        with suppress(Unreachable, Refused):
            # The port is open already, whether or not the router says where.
            host = await self._asked(router, PMP_ADDRESS_REQUEST, read_pmp_address)
        return MappedPort(
            by="NAT-PMP",
            port=port,
            external_port=found.external_port,
            lifetime_s=found.lifetime_s,
            host=host,
        )

    async def _asked(self, router: str, request: bytes, read: Callable[[bytes], T]) -> T:
        """The first answer that is one to this; Unreachable if none comes."""
        wait_s = FIRST_WAIT_S
        with _datagrams() as asking:
            # Connected, so that only what comes from the router is heard.
            await _connected(asking, router, self.port)
            for _ in range(ASKED_TIMES):
                try:
                    await asking.send(request)
                    with trio.move_on_after(wait_s):
                        while True:
                            try:
                                return read(await asking.recv(ANSWER_BYTES_MAX))
                            except Malformed:
                                # An answer to something else; the right one may still come.
                                await trio.lowlevel.checkpoint()
                except OSError as error:
                    # A router without the service says so by ICMP.
                    raise Unreachable(f"the router at {router} refuses to be asked") from error
                wait_s *= 2
        raise Unreachable(f"the router at {router} does not answer")

    async def _by_upnp(self, router: str, port: int, wanted: int, lifetime_s: int) -> MappedPort:
        tried = [wanted, *(self._any_port() for _ in range(PORTS_TRIED))]
        location = await self._location(router)
        return await self._in_thread(lambda: _upnp_open(location, port, tried, lifetime_s))

    async def _location(self, router: str) -> str:
        """Where the router describes itself; Unreachable if it answers no search.

        Others of the network may answer too, as often as they like: the library would fetch
        whatever URL they name.
        """
        host = await self._host_towards(router)
        with _datagrams() as asking, trio.move_on_after(UPNP_WAIT_S):
            try:
                asking.setsockopt(IPPROTO_IP, IP_MULTICAST_IF, inet_aton(host))
                for search in searches():
                    await asking.sendto(search, self.search)
                while True:
                    answer, sender = await asking.recvfrom(SEARCH_BYTES_MAX)
                    if (location := location_of(answer, sender[0], router)) is not None:
                        return location
            except OSError as error:
                raise Unreachable(f"no router can be searched for: {error.strerror}") from error
        raise Unreachable(f"the router at {router} answers no UPnP search")

    def _any_port(self) -> int:
        return 1024 + int.from_bytes(self.entropy(2), "big") % (65536 - 1024)

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await trio.to_thread.run_sync(
            work,
            # A router that never answers keeps a thread, not this peer.
            abandon_on_cancel=True,  # type: ignore[call-arg, unused-ignore]
            limiter=self._threads,
        )


def _datagrams() -> trio.socket.SocketType:
    try:
        return trio.socket.socket(AF_INET, SOCK_DGRAM)
    except OSError as error:
        # Others may hold all that this process may open.
        raise Unreachable(f"the router cannot be asked: {error.strerror}") from error


async def _connected(asking: trio.socket.SocketType, router: str, port: int) -> None:
    try:
        await asking.connect((router, port))
    except OSError as error:
        raise Unreachable(f"the router at {router} cannot be asked: {error.strerror}") from error


def _upnp(location: str) -> Any:
    """The router that describes itself there; Unreachable if none does."""
    found = miniupnpc.UPnP()
    if not _said(found.selectigd, location):
        raise Unreachable("no router answers UPnP")
    return found


def _upnp_open(location: str, port: int, tried: list[int], lifetime_s: int) -> MappedPort:
    router = _upnp(location)
    own = router.lanaddr
    for external in tried:
        before = _said(router.getspecificportmapping, external, "TCP")
        if before is not None and (before[0], int(before[1])) != (own, port):
            # Another machine's, or another program's of this one.
            continue
        _said(router.addportmapping, external, "TCP", own, port, "baton", "", lifetime_s)
        # A router may say yes to a port that another machine has: what it does is read back.
        after = _said(router.getspecificportmapping, external, "TCP")
        if after is None:
            raise Refused("the router passes no port on by UPnP", code=RefusalCode.NOT_WILLING)
        if (after[0], int(after[1])) == (own, port):
            host = str(_said(router.externalipaddress) or "")[:45]
            return MappedPort(
                by="UPnP", port=port, external_port=external, lifetime_s=lifetime_s, host=host
            )
    raise PortTakenError(
        f"port {tried[0]} and {len(tried) - 1} others of the router are another machine's",
        code=RefusalCode.NOT_WILLING,
    )


def _upnp_close(location: str, mapped: MappedPort) -> None:
    router = _upnp(location)
    now = _said(router.getspecificportmapping, mapped.external_port, "TCP")
    if now is not None and (now[0], int(now[1])) == (router.lanaddr, mapped.port):
        # The router may have given it to another machine since.
        _said(router.deleteportmapping, mapped.external_port, "TCP")


def _said(ask: Callable[..., Any], *arguments: object) -> Any:
    """What the library says; None where it raises, which it does for whatever a router answers."""
    try:
        return ask(*arguments)
    except Exception:  # noqa: BLE001 - the reason stands in tests/tidy
        return None
