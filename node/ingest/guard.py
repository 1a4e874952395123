"""The only way to a stranger's server: each resolved address is judged, and that one is dialled.

The connection is pinned: what was judged is what is connected to, and no name is looked up twice.
TLS still checks the server's certificate against the name. The door to httpcore's network side.
"""

import ipaddress
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import httpcore
import trio

from node.ingest.addresses import Address, dialled, why_not
from node.ingest.location import HostRules, Location, address_of
from p2p.name_lookup import OF_OWNER, OF_STRANGERS
from wire.content import PeerId
from wire.errors import InputError, Unreachable

# The text of every address of a host, as `getaddrinfo` has them.
Resolve = Callable[[str, int], Awaitable[Sequence[str]]]
RESOLVE_S = 10.0
ADDRESSES_MAX = 32
# So many addresses of one host are tried.
DIALLED_MAX = 3


async def resolve(host: str, port: int) -> Sequence[str]:
    """Ask the system for the addresses of a host that the owner named; Unreachable if none."""
    return await _resolved(OF_OWNER.look_up, host, port)


async def resolve_strange(asker: PeerId | None, place: str, host: str, port: int) -> Sequence[str]:
    """The same for one that a stranger named, whose name server may be slow on purpose.

    `place` is the network that the stranger is called from.
    """
    return await _resolved(partial(OF_STRANGERS.look_up, asker, place), host, port)


async def _resolved(look_up: Resolve, host: str, port: int) -> Sequence[str]:
    try:
        with trio.fail_after(RESOLVE_S):
            return await look_up(host, port)
    except trio.TooSlowError as error:
        raise Unreachable(f"nobody said within {RESOLVE_S:g} s where {host} is") from error
    except (OSError, UnicodeError) as error:
        raise Unreachable(f"{host} has no address: {error}") from error


@dataclass(frozen=True, slots=True)
class Network:
    """How servers are reached: a seam, so that tests need neither DNS nor a network.

    `resolve_strange` is for what strangers name; without it they share `resolve` with the owner.
    """

    resolve: Resolve
    backend: httpcore.AsyncNetworkBackend
    resolve_strange: Callable[[PeerId | None, str, str, int], Awaitable[Sequence[str]]] | None = (
        None
    )

    def for_stranger(self, asker: PeerId | None, place: str) -> "Network":
        """The same as a stranger has it: nothing that it names holds up the owner, or another."""
        strange = self.resolve_strange
        return self if strange is None else replace(self, resolve=partial(strange, asker, place))


def real_network() -> Network:
    """The system's names and its network."""
    return Network(resolve, httpcore.TrioBackend(), resolve_strange)


@dataclass(frozen=True, slots=True)
class Guard(httpcore.AsyncNetworkBackend):
    """Connects to the one location it was made for, and to nothing else."""

    location: Location
    rules: HostRules
    network: Network

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Connect to a judged address; InputError if one of the host's addresses is forbidden."""
        if (host, port) != (self.location.host, self.location.port):
            raise InputError(f"{host}:{port} is not where this fetch was to go")
        error: Exception | None = None
        for address in (await self._addresses())[:DIALLED_MAX]:
            try:
                return await self.network.backend.connect_tcp(
                    str(address), port, timeout, local_address, socket_options
                )
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as failed:
                error = failed
        assert error is not None, "a host has an address, or it was refused"
        raise error

    async def connect_unix_socket(
        self,
        path: str,
        timeout: float | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Refuse: no URL names a socket of this machine."""
        raise InputError("a fetch connects to no socket of this machine")

    async def sleep(self, seconds: float) -> None:
        await self.network.backend.sleep(seconds)

    async def _addresses(self) -> list[Address]:
        """The host's addresses; InputError unless the owner named the host or all are public.

        One forbidden address among public ones condemns the host: an honest one has none.
        """
        host, port = self.location.host, self.location.port
        literal = address_of(host)
        found = [str(literal)] if literal else await self.network.resolve(host, port)
        if not found:
            raise Unreachable(f"{host} has no address")
        addresses = [_read(it, host) for it in found[:ADDRESSES_MAX]]
        if not self.rules.names(self.location):
            for address in addresses:
                if why := why_not(address):
                    raise InputError(
                        f"{self.location.place} is not fetched: {address} is {why}",
                        todo=f"its owner can name {self.location.place} under allow"
                        " in fetching.toml",
                    )
        return list(dict.fromkeys(map(dialled, addresses)))


def _read(text: str, host: str) -> Address:
    try:
        return ipaddress.ip_address(text)
    except ValueError as error:
        raise Unreachable(f"{host} has {text[:60]!r} for an address") from error
