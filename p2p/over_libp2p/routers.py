"""The routers of a simulated internet: who gets through to whom, and where each is seen.

Pure. A host stands at an IP address, alone or behind a router, and a router may stand behind one of
its carrier. Calls go out through any router. Into a router's network they come only on a port that
it passes on; else it drops them without a word, or refuses them.
"""

import ipaddress
from dataclasses import dataclass, field


@dataclass(slots=True, eq=False)
class Router:
    """`wan` is its outer IP address; `carrier` is the router behind which it stands itself.

    `forwards` are the ports that it passes on, each to a place inside. A symmetric one gives every
    call that goes out another outer port; the others keep the port that the caller has.
    """

    wan: str
    carrier: "Router | None" = None
    refuses: bool = False
    symmetric: bool = False
    forwards: dict[int, tuple[str, int]] = field(default_factory=dict)

    def seen(self) -> str:
        """The IP address that the internet sees."""
        return self.wan if self.carrier is None else self.carrier.seen()

    def keeps_ports(self) -> bool:
        """Whether the internet sees the port from which a call behind it comes."""
        return not self.symmetric and (self.carrier is None or self.carrier.keeps_ports())


@dataclass(frozen=True, slots=True)
class Site:
    """Where a host stands."""

    host: str
    router: Router | None = None

    def seen(self) -> str:
        """The IP address that the internet sees."""
        return self.host if self.router is None else self.router.seen()


# What a listener is found under: the router whose network it is in, its IP address and its port.
Place = tuple[Router | None, str, int]


class NoWay(Exception):
    """A call gets nowhere; `refused` says that the caller is told so."""

    def __init__(self, *, refused: bool) -> None:
        super().__init__("no way there")
        self.refused = refused


@dataclass(slots=True)
class Routers:
    """Where every host of a simulated internet stands, by its name."""

    sites: dict[str, Site] = field(default_factory=dict)
    _by_wan: dict[str, Router] = field(default_factory=dict)

    def put(self, name: str, site: Site) -> None:
        """The host stands there from now on."""
        self.sites[name] = site
        router = site.router
        while router is not None:
            self._by_wan[router.wan] = router
            router = router.carrier

    def renumber(self, router: Router, wan: str) -> None:
        """Its provider gives the router another outer IP address."""
        del self._by_wan[router.wan]
        router.wan = wan
        self._by_wan[wan] = router

    def own(self, name: str, port: int) -> Place:
        """What a listener of this host on this port is found under."""
        site = self.sites[name]
        return site.router, site.host, port

    def seen_from(self, name: str, port: int) -> tuple[str, int] | None:
        """Where the internet sees a call from this port of a host; None if nobody can tell."""
        router = self.sites[name].router
        told = router is None or router.keeps_ports()
        return (self.sites[name].seen(), port) if told else None

    def is_refused(self, host: str) -> bool:
        """Whether the router there refuses the calls that it does not let in."""
        router = self._by_wan.get(host)
        return router is not None and router.refuses

    def way(self, name: str, host: str, port: int) -> tuple[Place, str]:
        """Where a call of this host to this address arrives, and which IP address it comes from.

        NoWay if it does not get there. Whether anybody listens there is not known here.
        """
        site = self.sites[name]
        router, seen = site.router, site.host
        while router is not None and not _is_global(host):
            # A private address is one of the nearest network that has it.
            if router.carrier is None or _same_network(host, site.host):
                return (router, host, port), seen
            router, seen = router.carrier, router.wan
        target = self._by_wan.get(host)
        if target is None:
            return (None, host, port), site.seen()
        while port in target.forwards:
            inside, port = target.forwards[port]
            behind = self._by_wan.get(inside)
            if behind is None or behind.carrier is not target:
                return (target, inside, port), site.seen()
            target = behind
        raise NoWay(refused=target.refuses)


def _is_global(host: str) -> bool:
    return ipaddress.ip_address(host).is_global


def _same_network(host: str, other: str) -> bool:
    return host.rpartition(".")[0] == other.rpartition(".")[0]
