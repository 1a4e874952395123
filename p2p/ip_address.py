"""What an address says of where it leads: how near that is, and whose it may be.

Pure. Whoever can send from one address of a provider's customer can mostly send from all of them,
so strangers are counted by the prefix that one customer is given: /24 of IPv4, /56 of IPv6.
Loopback and private addresses are counted one by one: behind a prefix of those stand the machines
of one owner, or all peers of a demo, and nobody far away can send from them.
"""

import ipaddress
from collections.abc import Sequence
from enum import IntEnum
from functools import lru_cache

IPV4_PREFIX_BITS = 24
IPV6_PREFIX_BITS = 56

# Between the address of a relay and the peer that is behind it.
CIRCUIT = "/p2p-circuit"

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address
# Of carriers that share one public address among their customers (RFC 6598); nobody's to dial.
_SHARED = ipaddress.ip_network("100.64.0.0/10")

# Behind these a router, or the system, calls the IPv4 address that is in it: NAT64, and ::a.b.c.d.
_IPV4_LAST = (ipaddress.ip_network("64:ff9b::/96"), ipaddress.ip_network("::/96"))
_OWN_NAT64 = ipaddress.ip_network("64:ff9b:1::/48")


class Scope(IntEnum):
    """How far away an address may be; a greater one reaches less far."""

    GLOBAL = 0
    PRIVATE = 1
    LOOPBACK = 2


def host_of(address: str) -> str:
    """The host of a multiaddr: an IP address, or a name; "" where it has neither."""
    parts = address.split("/")
    return parts[2] if len(parts) > 2 and parts[1] in _HOSTED else ""


def place_of(address: str) -> str:
    """A multiaddr without the peer that is expected there: transport, host and port.

    Behind a relay each peer is at a place of its own.
    """
    return address if is_relayed(address) else address.partition("/p2p/")[0]


def is_relayed(address: str) -> bool:
    """Whether a multiaddr is of a peer to which a relay passes calls on."""
    return CIRCUIT in address


def relay_of(address: str) -> str:
    """The id of the relay in a multiaddr, in text; "" where there is none."""
    at_relay, circuit, _ = address.partition(CIRCUIT)
    return at_relay.rpartition("/p2p/")[2] if circuit else ""


def is_name(address: str) -> bool:
    """Whether the host of this multiaddr has to be looked up."""
    return address.startswith(("/dns/", "/dns4/", "/dns6/"))


def is_public(host: str) -> bool:
    """Whether `host` is an IP address of the open internet."""
    return _parsed(host) is not None and scope_of(host) is Scope.GLOBAL


@lru_cache(maxsize=4096)
def network_of(host: str) -> str:
    """The large network that `host` is of, /16 or /32: one company has most of one."""
    address = _parsed(host)
    if address is None:
        return host
    bits = 16 if address.version == 4 else 32
    return str(ipaddress.ip_network(f"{address}/{bits}", strict=False))


def is_shared(host: str) -> bool:
    """Whether `host` is an IP address that a carrier shares among its customers."""
    address = _parsed(host)
    return isinstance(address, ipaddress.IPv4Address) and address in _SHARED


def is_loopback(host: str) -> bool:
    """Whether `host` is an IP address of this machine alone."""
    address = _parsed(host)
    return address is not None and address.is_loopback


@lru_cache(maxsize=4096)
def scope_of(host: str) -> Scope:
    """How far `host` may be away. What is no IP address counts as global."""
    address = _parsed(host)
    if address is None:
        return Scope.GLOBAL
    # Where nothing is meant, 0.0.0.0, systems dial their own loopback.
    if address.is_loopback or address.is_unspecified:
        return Scope.LOOPBACK
    if isinstance(address, ipaddress.IPv6Address):
        if address.is_site_local or address in _OWN_NAT64:
            return Scope.PRIVATE
        inside = int(address) & 0xFFFF_FFFF if any(address in it for it in _IPV4_LAST) else None
        if inside is None and address.sixtofour is not None:
            inside = int(address.sixtofour)
        if inside is not None:
            return scope_of(str(ipaddress.IPv4Address(inside)))
    if is_shared(host):
        return Scope.PRIVATE
    return Scope.GLOBAL if address.is_global and not address.is_multicast else Scope.PRIVATE


def may_call(address: str, nearest: Scope) -> bool:
    """Whether a multiaddr from an advert may be called, where its teller was met at `nearest`.

    Else adverts would aim our calls at this machine's and this network's own services. Names are
    passed over: no peer announces one, and what it stands for is only known when it is looked up.
    """
    return not is_name(address) and scope_of(host_of(address)) <= nearest


def for_neighbours(addresses: Sequence[str], outgoing: Sequence[str]) -> str:
    """Of a peer's multiaddrs the one that another machine would most likely reach; "" for none.

    `outgoing` are this machine's IP addresses on the ways by which its packets leave. Bridges of
    containers and of virtual machines have addresses too, which nobody else reaches: one of a way
    out comes first, then global ones, private ones, those of one link, and loopback ones.
    """

    def rank(address: str) -> int:
        host = _parsed(host_of(address))
        if host is None:
            return 2
        if host.is_loopback or host.is_unspecified:
            return 5
        if host.is_link_local:
            return 4
        if str(host) in outgoing:
            return 0
        return 1 if scope_of(str(host)) is Scope.GLOBAL else 3

    return min(addresses, key=rank, default="")


@lru_cache(maxsize=4096)
def prefix_of(host: str) -> str:
    """What strangers at `host` are counted by; `host` itself where that is no public address."""
    address = _parsed(host)
    if address is None or scope_of(host) is not Scope.GLOBAL:
        return host
    bits = IPV4_PREFIX_BITS if address.version == 4 else IPV6_PREFIX_BITS
    return str(ipaddress.ip_network(f"{address}/{bits}", strict=False))


_HOSTED = ("ip4", "ip6", "dns", "dns4", "dns6")


@lru_cache(maxsize=4096)
def _parsed(host: str) -> _Address | None:
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address
