"""A network of buffers instead of sockets: who listens where, and each packet on its way.

Hosts listen under `/memory/<number>`, or, in an internet with routers, at IP addresses. All that
one host sends to another passes through `MemoryNetwork.carry`: override that one method to
simulate a bad network.
"""

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import trio
from libp2p.peer.id import ID
from libp2p.transport.exceptions import OpenConnectionError
from multiaddr import Multiaddr  # type: ignore[import-untyped]

from p2p.over_libp2p.routers import NoWay, Place, Routers

_FIRST_FREE = 1_000_000
# From which a dialler is seen to call.
_PORTS = range(32_768, 61_000)

# A number, or a place in a simulated internet.
ListenerKey = str | Place


class Listening(Protocol):
    """Who accepts connections at a place."""

    me: ID

    def arrive(self, connection: Any) -> None:
        """Take a connection that a peer dialled."""


@dataclass(slots=True, eq=False)
class OutgoingCall:
    """A call from a port on which the caller listens: the caller's router lets its answer in.

    `seen` is where it comes from for the other end, None if the router gave it a port of its own.
    """

    caller: ID
    seen: tuple[str, int] | None
    to: tuple[str, int]
    # This end of the connection, once the other end has called at the same time.
    connection: Any = None
    met: trio.Event = field(default_factory=trio.Event)


class MemoryNetwork:
    """The listeners by address. One object is one network; two networks share nothing.

    Hosts of an internet with `routers` listen at IP addresses instead of numbers.
    """

    def __init__(self, routers: Routers | None = None) -> None:
        self.routers = Routers() if routers is None else routers
        self._listeners: dict[ListenerKey, Listening] = {}
        self._numbers = itertools.count(_FIRST_FREE)
        self._ports = itertools.cycle(_PORTS)
        self._calls: list[OutgoingCall] = []

    def carry(self, source: str, target: str, size_bytes: int, deliver: Callable[[], None]) -> None:
        """Carry one packet from one host to the other; both are libp2p peer ids in text.

        `deliver` must be called at most once, and for one pair of hosts in the order of carrying.
        A packet that never arrives leaves its connection hanging, as a cut wire would. Calls come
        from within the loop, and must neither wait nor raise.
        """
        del source, target, size_bytes
        deliver()

    def bind(self, wanted: Multiaddr, listener: Listening) -> tuple[ListenerKey, Multiaddr]:
        """Listen at a place; 0 means any free number. OpenConnectionError if it is taken."""
        key: ListenerKey
        if "memory" in wanted:
            number = str(wanted.value_for_protocol("memory"))
            key = str(next(self._numbers)) if number == "0" else number
            wanted = Multiaddr(f"/memory/{key}")
        else:
            host, port = _host_and_port(wanted)
            key = self.routers.own(str(listener.me), port)
            if key[1] != host:
                raise OpenConnectionError(f"{listener.me} does not stand at {host}")
        if key in self._listeners:
            raise OpenConnectionError(f"{wanted} is taken")
        self._listeners[key] = listener
        return key, wanted

    def release(self, key: ListenerKey) -> None:
        self._listeners.pop(key, None)

    async def listener_at(self, source: ID, place: Multiaddr) -> tuple[Listening, Multiaddr]:
        """Who listens there for this host, and where the listener sees the caller.

        OpenConnectionError if nobody does; a call that a router drops waits without an end.
        """
        key: ListenerKey
        if "memory" in place:
            # The caller has no address: over TCP, too, its port says nothing about the peer.
            key, seen = str(place.value_for_protocol("memory")), "/memory/0"
        else:
            try:
                key, host = self.routers.way(str(source), *_host_and_port(place))
            except NoWay as error:
                if not error.refused:
                    await trio.sleep_forever()
                raise OpenConnectionError(f"{place} refuses") from error
            seen = f"/ip4/{host}/tcp/{next(self._ports)}"
        listener = self._listeners.get(key)
        if listener is None:
            raise OpenConnectionError(f"nobody listens on {place}")
        return listener, Multiaddr(seen)

    @contextmanager
    def calling(
        self, caller: ID, port: int, to: tuple[str, int]
    ) -> Iterator[tuple[OutgoingCall, OutgoingCall | None]]:
        """Call from this port; gives the call, and that of the other end if it calls us now.

        ConnectionRefusedError if it does not, and the router there says so.
        """
        mine = OutgoingCall(caller, self.routers.seen_from(str(caller), port), to)
        other = next((it for it in self._calls if (it.to, it.seen) == (mine.seen, mine.to)), None)
        if other is None and self.routers.is_refused(to[0]):
            raise ConnectionRefusedError(f"{to[0]} refuses")
        self._calls.append(mine)
        try:
            yield mine, other
        finally:
            self._calls.remove(mine)


def _host_and_port(place: Multiaddr) -> tuple[str, int]:
    return str(place.value_for_protocol("ip4")), int(str(place.value_for_protocol("tcp")))
