"""Multiaddrs as people write them: read, checked, and expanded to addresses that others can dial.

This module resolves no names and opens no connection; it only tries whether a port is free.
"""

import re
import socket
from dataclasses import dataclass

from multiaddr import Multiaddr  # type: ignore[import-untyped]
from multiaddr.exceptions import Error as MultiaddrError  # type: ignore[import-untyped]
from multiaddr.utils import get_thin_waist_addresses  # type: ignore[import-untyped]

from p2p.ip_address import CIRCUIT
from wire import limits
from wire.content import PeerId
from wire.errors import InputError, Malformed

_GOOD = "/ip4/192.0.2.7/tcp/4710/p2p/12D3KooW…"
_DIAL_TCP = (("ip4", "tcp"), ("ip6", "tcp"), ("dns", "tcp"), ("dns4", "tcp"), ("dns6", "tcp"))
_LISTEN_TCP = (("ip4", "tcp"), ("ip6", "tcp"))
_MEMORY = (("memory",), ("ip4", "tcp"))
# Only protocols that we use reach libp2p's parser: it accepts others (ip6zone, for one) and fails
# when they are read, and anybody may send an address.
_OURS = re.compile(r"(?:/(?:ip4|ip6|dns|dns4|dns6|tcp|memory)/[!-.0-~]+)+(?:/p2p/[0-9A-Za-z]+)?")


@dataclass(frozen=True, slots=True)
class Dialable:
    """An address in two parts: the place, and the peer that is expected there.

    With `relay` the place is the relay's, and the relay passes calls on to the peer.
    """

    where: Multiaddr
    peer: PeerId
    relay: "Dialable | None" = None


@dataclass(frozen=True, slots=True)
class Forms:
    """The forms of address that one transport takes."""

    dial: tuple[tuple[str, ...], ...]
    listen: tuple[tuple[str, ...], ...]
    example: str


TCP_FORMS = Forms(_DIAL_TCP, _LISTEN_TCP, "/ip4/0.0.0.0/tcp/4710")
MEMORY_FORMS = Forms(_MEMORY, _MEMORY, "/memory/0")


def read_dialable(text: str, forms: Forms) -> Dialable:
    """InputError unless `text` names a place this transport dials and the peer expected there."""
    if CIRCUIT in text and len(text) <= limits.ADDRESS_BYTES_MAX:
        return _read_relayed(text, forms)
    read = _read(text, "of a kind this peer does not dial", f"an address looks like {_GOOD}")
    if read.who is None:
        raise InputError(
            f"{text} does not name the peer that is there",
            todo=f"add its id at the end, as in {_GOOD}",
        )
    if read.names not in forms.dial:
        raise InputError(
            f"{text} is of a kind this peer does not dial", todo=f"use one like {_GOOD}"
        )
    return Dialable(read.where, _read_peer(read.who))


def _read_relayed(text: str, forms: Forms) -> Dialable:
    """The address of a peer behind a relay, which is the relay's own before CIRCUIT."""
    at_relay, _, behind = text.partition(CIRCUIT)
    head, _, who = behind.partition("/p2p/")
    relay = read_dialable(at_relay, forms)
    if head or not who:
        raise InputError(
            f"{text} does not name one relay and one peer behind it",
            todo=f"use one like {_GOOD}{CIRCUIT}/p2p/12D3KooW…",
        )
    return Dialable(relay.where, _read_peer(who), relay)


def _read_peer(text: str) -> PeerId:
    try:
        return PeerId.parse(text)
    except Malformed as error:
        raise InputError(str(error), todo="copy the id from the other peer once more") from error


def read_listenable(text: str, forms: Forms) -> Multiaddr:
    """InputError unless this transport can listen on `text`."""
    todo = f"an address to listen on looks like {forms.example}"
    read = _read(text, "one that cannot be listened on", todo)
    if read.who is not None or read.names not in forms.listen:
        raise InputError(f"{text} cannot be listened on", todo=todo)
    return read.where


def check_port_is_free(address: Multiaddr) -> None:
    """InputError if another program has the port: libp2p would share the port, and lose calls."""
    family = socket.AF_INET6 if "ip6" in address else socket.AF_INET
    host = str(address.value_for_protocol("ip6" if "ip6" in address else "ip4"))
    port = int(str(address.value_for_protocol("tcp")))
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
            # Two sockets may be bound to one port before either listens; only listening fails.
            probe.listen(1)
        except OSError as error:
            raise InputError(
                f"cannot listen on port {port} of {host}: {error.strerror}",
                todo="stop the program that uses the port, or choose another (0 finds a free one)",
            ) from error


def reachable(address: Multiaddr, me: PeerId) -> list[str]:
    """The address with our id; a wildcard becomes one address for each interface."""
    places = [str(address)]
    for wildcard, loopback in (("/ip4/0.0.0.0/", "/ip4/127.0.0.1/"), ("/ip6/::/", "/ip6/::1/")):
        if places[0].startswith(wildcard):
            # The loopback address comes last: it is of use on this machine only.
            here = places[0].replace(wildcard, loopback, 1)
            places = [*map(str, get_thin_waist_addresses(address)), here]
            break
    return [f"{place}/p2p/{me}" for place in dict.fromkeys(places)]


@dataclass(frozen=True, slots=True)
class _Read:
    """A multiaddr whose parts have been read; `who` is its /p2p part."""

    where: Multiaddr
    names: tuple[str, ...]
    who: str | None


def _read(text: str, other_kind: str, todo: str) -> _Read:
    if len(text) > limits.ADDRESS_BYTES_MAX or _OURS.fullmatch(text) is None:
        raise InputError(f"{text[:80]!r} is not an address, or {other_kind}", todo=todo)
    place, _, who = text.partition("/p2p/")
    try:
        # A Multiaddr is parsed when its parts are read, not when it is made: read them only here.
        whole, where = Multiaddr(text), Multiaddr(place)
        names = tuple(protocol.name for protocol in where.protocols())
        list(whole.items())
        str(where)
    except (MultiaddrError, ValueError) as error:
        raise InputError(f"{text!r} is not an address", todo=todo) from error
    return _Read(where, names, who or None)
