"""What peers of one local network tell each other of themselves, unsigned, and what of it counts.

Pure. Anybody there can say anything, so a record is no more than a hint where to call: only
addresses of the local network are taken from it, so that nobody aims our calls elsewhere, and
whoever answers there has to prove its key and to say Hello like everybody.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from p2p.ip_address import Scope, host_of, scope_of
from wire import limits
from wire.content import PeerId
from wire.errors import Malformed

SERVICE = "_baton._udp.local."
ADDRESSES_MAX = 4
# The names of a record's parts, and how long a value may be.
_PEER, _NETWORK, _VERSION = "id", "net", "v"
_VALUE_BYTES_MAX = 64


@dataclass(frozen=True, slots=True)
class LanRecord:
    """One record as it was heard: the hosts and the port, and what it says besides."""

    hosts: tuple[str, ...]
    port: int
    said: Mapping[bytes, bytes | None]


@dataclass(frozen=True, slots=True)
class LanHint:
    """A peer of our network that may be at these multiaddrs."""

    peer: PeerId
    addresses: tuple[str, ...]


def network_hash(network: str) -> str:
    """What tells networks apart without naming them."""
    return hashlib.sha256(b"baton/1/lan\0" + network.encode()).hexdigest()[:16]


def said_of(me: PeerId, network: str) -> dict[str, str]:
    """What this peer says of itself."""
    return {
        _PEER: str(me),
        _NETWORK: network_hash(network),
        _VERSION: str(limits.SPOKEN_VERSION),
    }


def told_addresses(addresses: Sequence[str], ways_out: Sequence[str]) -> tuple[str, ...]:
    """Of our multiaddrs those that others of the local network can call.

    Those by which packets leave come first, and if there are any, no others count: bridges of
    containers and virtual machines have addresses too, which nobody else reaches.
    """
    near = [it for it in addresses if host_of(it) and scope_of(host_of(it)) is not Scope.LOOPBACK]
    leaving = [it for it in near if host_of(it) in ways_out]
    return tuple((leaving or near)[:ADDRESSES_MAX])


def hint_of(record: LanRecord, me: PeerId, network: str) -> LanHint | None:
    """The peer that a record tells of; None for another network's, our own, and for nonsense."""
    if _text(record.said, _NETWORK) != network_hash(network) or not 0 < record.port < 2**16:
        return None
    try:
        peer = PeerId.parse(_text(record.said, _PEER))
    except Malformed:
        return None
    if peer == me:
        return None
    near = [it for it in record.hosts[:_HOSTS_LOOKED_AT] if scope_of(it) is Scope.PRIVATE]
    addresses = tuple(
        f"/{'ip6' if ':' in it else 'ip4'}/{it}/tcp/{record.port}/p2p/{peer}"
        for it in near[:ADDRESSES_MAX]
    )
    return LanHint(peer, addresses) if addresses else None


_HOSTS_LOOKED_AT = 16


def _text(said: Mapping[bytes, bytes | None], name: str) -> str:
    value = said.get(name.encode()) or b""
    if len(value) > _VALUE_BYTES_MAX:
        return ""
    return value.decode("ascii", errors="replace")
