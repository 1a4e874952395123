"""The two transports, TCP and memory, and the order in which an endpoint opens and closes."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import trio
from libp2p.peer.id import ID
from multiaddr import Multiaddr  # type: ignore[import-untyped]

from p2p.over_libp2p.addresses import (
    MEMORY_FORMS,
    TCP_FORMS,
    Forms,
    check_port_is_free,
    read_listenable,
)
from p2p.over_libp2p.endpoint import LibEndpoint
from p2p.over_libp2p.errors import unwrapped
from p2p.over_libp2p.gossip import SoundGossip, SoundPubsub
from p2p.over_libp2p.host import SoundHost, build_host
from p2p.over_libp2p.memory import MemoryMuxedTransport
from p2p.over_libp2p.memory_network import MemoryNetwork
from p2p.over_libp2p.names import LookUp, look_up
from p2p.over_libp2p.services import running
from p2p.over_libp2p.tcp import SoundTcp
from p2p.traffic import Traffic
from p2p.transport import Accept, Endpoint
from wire.errors import InputError
from wire.signing import SigningKey

_CLOSE_DEADLINE_S = 10.0
_BACKLOG = 1024


class TcpTransport:
    """TCP, noise and yamux. `wall_ns` numbers gossip messages, and must never go back.

    `look_up` finds the addresses of a host name. `traffic` is of all that is opened here together.
    """

    def __init__(
        self,
        *,
        wall_ns: Callable[[], int],
        look_up: LookUp = look_up,
        traffic: Traffic | None = None,
    ) -> None:
        self._wall_ns = wall_ns
        self._look_up = look_up
        self._traffic = Traffic() if traffic is None else traffic

    def open(
        self, key: SigningKey, listen: Sequence[str], *, accept: Accept
    ) -> AbstractAsyncContextManager[Endpoint]:
        places = [read_listenable(text, TCP_FORMS) for text in listen]
        for place in places:
            check_port_is_free(place)
        host = build_host(key, lambda _me: SoundTcp(self._traffic))
        return _opened(key, host, places, TCP_FORMS, (self._wall_ns(), accept, self._look_up))


class MemoryTransport:
    """A transport between peers of one process, in one `MemoryNetwork`."""

    def __init__(self, network: MemoryNetwork, *, wall_ns: Callable[[], int]) -> None:
        self._network = network
        self._wall_ns = wall_ns

    def open(
        self, key: SigningKey, listen: Sequence[str], *, accept: Accept
    ) -> AbstractAsyncContextManager[Endpoint]:
        places = [read_listenable(text, MEMORY_FORMS) for text in listen]

        def muxed(me: ID) -> MemoryMuxedTransport:
            return MemoryMuxedTransport(self._network, me)

        host = build_host(key, muxed)
        return _opened(key, host, places, MEMORY_FORMS, (self._wall_ns(), accept, look_up))


@asynccontextmanager
async def _opened(
    key: SigningKey,
    host: SoundHost,
    places: Sequence[Multiaddr],
    forms: Forms,
    rest: tuple[int, Accept, LookUp],
) -> AsyncIterator[Endpoint]:
    first_number, accept, finds = rest
    swarm = host.get_network()
    router = SoundGossip()
    endpoint = LibEndpoint(key.peer, host, forms, accept, finds)
    pubsub = SoundPubsub(host, router, first_number=first_number, deliver=endpoint.deliver)
    with unwrapped():
        async with (
            running(swarm),
            running(pubsub),
            running(router),
        ):
            try:
                await pubsub.wait_until_ready()
                await swarm.auto_connector.stop()
                async with trio.open_nursery() as nursery:
                    endpoint.start(pubsub, nursery)
                    await _listen(swarm, places)
                    yield endpoint
                    nursery.cancel_scope.cancel()
            finally:
                endpoint.stop()
                # Close while gossip still runs: a message for an ended service would end all.
                with trio.CancelScope(shield=True), trio.move_on_after(_CLOSE_DEADLINE_S):
                    await host.close()


async def _listen(swarm: Any, places: Sequence[Multiaddr]) -> None:
    await swarm.listen(*places)
    for place in places:
        if str(place) not in swarm.listeners:
            raise InputError(
                f"cannot listen on {place}", todo="it is taken, or not this machine's: try another"
            )
    for listener in swarm.listeners.values():
        for one in getattr(listener, "listeners", ()):
            # libp2p lets the system queue 128 connections: a burst of strangers while our loop is
            # busy would make the system drop the connections of everybody else.
            one.socket.listen(_BACKLOG)
