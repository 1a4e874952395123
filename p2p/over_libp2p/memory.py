"""Many hosts in one process: a network of buffers instead of sockets.

Connections are muxed from the start, so there is neither cipher nor yamux between two hosts;
everything else is the real libp2p. All that one host sends to another passes through
`MemoryNetwork.carry`.

Streams are bounded as yamux bounds them: a sender stops when the receiver's buffer is full. As with
yamux, a silent connection is pinged, and dropped when no answer arrives.
"""

import math
from collections import deque
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Self

import trio
from libp2p.abc import IListener, IMuxedConn, IMuxedStream, ITransport
from libp2p.connection_types import ConnectionType
from libp2p.peer.id import ID
from libp2p.stream_muxer.exceptions import (
    MuxedConnUnavailable,
    MuxedStreamClosed,
    MuxedStreamEOF,
    MuxedStreamReset,
)
from libp2p.transport.exceptions import OpenConnectionError
from multiaddr import Multiaddr  # type: ignore[import-untyped]

from p2p.over_libp2p.errors import WrongPeerThere, contained
from p2p.over_libp2p.memory_network import ListenerKey, MemoryNetwork, OutgoingCall
from p2p.over_libp2p.muxer import STREAMS_IN_MAX

_WINDOW_BYTES = 256 << 10
# As in yamux: further streams wait until one of these ends.
_STREAMS_OUT_MAX = 256
# A silent connection is pinged, and dropped within ten seconds, as over TCP. All connections are
# checked at the same moments, so that a process with thousands of them wakes once for all.
_LOOK_EVERY_S = 2.0
_PING_AFTER_S = 4.0
_DROP_AFTER_S = 8.0

Accepted = Callable[["MemoryConnection"], Awaitable[None]]


class MemoryStream(IMuxedStream):  # type: ignore[misc]
    """One end of a stream. The other end's acts arrive through `on_…` methods, which never wait."""

    def __init__(self, connection: "MemoryConnection", *, opened_here: bool) -> None:
        self.muxed_conn = connection
        self.opened_here = opened_here
        self.other: MemoryStream
        self.reset_received = False
        self._buffer = bytearray()
        self._window_bytes = _WINDOW_BYTES
        self._eaten_bytes = 0
        self._ended = False
        self._write_closed = False
        self._changed = trio.Event()

    async def read(self, n: int | None = None) -> bytes:
        if n is not None and n < 0:
            n = None
        while not self._buffer:
            if self.reset_received:
                raise MuxedStreamReset("the stream was reset")
            if self._ended:
                raise MuxedStreamEOF("the other side has closed")
            await self._changed.wait()
        size = len(self._buffer) if n is None else min(n, len(self._buffer))
        data = bytes(self._buffer[:size])
        del self._buffer[:size]
        self._eaten_bytes += size
        if self._eaten_bytes >= _WINDOW_BYTES // 2 and not self._ended:
            eaten, self._eaten_bytes = self._eaten_bytes, 0
            self._carry(0, partial(self.other.on_credit, eaten))
        return data

    async def write(self, data: bytes) -> None:
        sent = 0
        while sent < len(data):
            if self.reset_received:
                raise MuxedStreamReset("the stream was reset")
            if self._write_closed:
                raise MuxedStreamClosed("the stream is closed for writing")
            if not self._window_bytes:
                await self._changed.wait()
                continue
            size = min(self._window_bytes, len(data) - sent)
            self._window_bytes -= size
            piece = bytes(data[sent : sent + size])
            self._carry(size, partial(self.other.on_data, piece))
            sent += size
        await trio.lowlevel.checkpoint()

    async def close(self) -> None:
        if not self._write_closed:
            self._write_closed = True
            self._carry(0, self.other.on_end)
            self._change()
        await trio.lowlevel.checkpoint()

    async def reset(self) -> None:
        if not self.reset_received:
            self.drop()
            self._carry(0, self.other.drop)
        await trio.lowlevel.checkpoint()

    def drop(self) -> None:
        """End both directions at once; unread bytes are lost."""
        self.reset_received = True
        self._write_closed = True
        self._buffer.clear()
        self._change()

    @property
    def is_over(self) -> bool:
        return self.reset_received or (self._ended and self._write_closed)

    def set_deadline(self, ttl: int) -> None:
        raise NotImplementedError("deadlines are the caller's")

    def get_remote_address(self) -> None:
        return None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_reason: object) -> None:
        await self.close()

    def on_data(self, piece: bytes) -> None:
        if not self.reset_received:
            self._buffer += piece
            self._change()

    def on_credit(self, size_bytes: int) -> None:
        self._window_bytes += size_bytes
        self._change()

    def on_end(self) -> None:
        self._ended = True
        self._change()

    def _carry(self, size_bytes: int, deliver: Callable[[], None]) -> None:
        self.muxed_conn.carry(size_bytes, deliver)

    def _change(self) -> None:
        self._changed.set()
        self._changed = trio.Event()
        if self.is_over:
            self.muxed_conn.forget(self)


class MemoryConnection(IMuxedConn):  # type: ignore[misc]
    """One end of a connection."""

    # The end that dialled sets this.
    is_initiator = False

    def __init__(self, network: MemoryNetwork, me: ID, peer: ID, remote: Multiaddr) -> None:
        self.peer_id = peer
        self.event_started = trio.Event()
        self.event_closed = trio.Event()
        self.on_close: Callable[[], Awaitable[None]] | None = None
        self.other: MemoryConnection
        self.streams_refused = 0
        self.answered = trio.Event()
        self._network = network
        # The ids in text are kept, because every packet names them.
        self._names = (str(me), str(peer))
        self._heard_at_s = trio.current_time()
        self._remote = remote
        self._streams: dict[MemoryStream, None] = {}
        self._incoming: deque[MemoryStream] = deque()
        self._arrived = trio.Event()
        self._room = trio.Semaphore(_STREAMS_OUT_MAX)

    @property
    def is_established(self) -> bool:
        return self.event_started.is_set() and not self.event_closed.is_set()

    @property
    def is_closed(self) -> bool:
        return self.event_closed.is_set()

    def carry(self, size_bytes: int, deliver: Callable[[], None]) -> None:
        source, target = self._names
        self._network.carry(source, target, size_bytes, partial(self.other.hear, deliver))

    def hear(self, deliver: Callable[[], None]) -> None:
        self._heard_at_s = trio.current_time()
        deliver()

    async def start(self) -> None:
        self.event_started.set()
        while not self.event_closed.is_set():
            with trio.move_on_at(self._next_look_at_s()):
                await self.event_closed.wait()
            self._keep_alive(trio.current_time() - self._heard_at_s)
        if self.on_close is not None:
            with contained("a memory connection's end"):
                await self.on_close()

    def _next_look_at_s(self) -> float:
        """The first moment of those common to all at which this connection may need a ping."""
        due = math.ceil((self._heard_at_s + _PING_AFTER_S) / _LOOK_EVERY_S)
        return _LOOK_EVERY_S * max(due, math.floor(trio.current_time() / _LOOK_EVERY_S) + 1)

    def _keep_alive(self, silent_s: float) -> None:
        if silent_s >= _DROP_AFTER_S:
            self.drop()
            self.carry(0, self.other.drop)
        elif silent_s >= _PING_AFTER_S and not self.event_closed.is_set():
            self.carry(0, self.other.on_ping)

    def on_ping(self) -> None:
        if not self.event_closed.is_set():
            self.carry(0, lambda: None)

    async def close(self) -> None:
        if not self.event_closed.is_set():
            self.drop()
            self.carry(0, self.other.drop)
        await trio.lowlevel.checkpoint()

    def drop(self) -> None:
        """End the connection at once, with every stream."""
        self.event_closed.set()
        self.answered.set()
        for stream in tuple(self._streams):
            stream.drop()
        self._arrived.set()

    async def open_stream(self) -> MemoryStream:
        await self._room.acquire()
        if self.event_closed.is_set():
            self._room.release()
            raise MuxedConnUnavailable("the connection is closed")
        mine = MemoryStream(self, opened_here=True)
        theirs = MemoryStream(self.other, opened_here=False)
        mine.other, theirs.other = theirs, mine
        self._streams[mine] = None
        self.carry(0, partial(self.other.on_stream, theirs))
        return mine

    async def accept_stream(self) -> MemoryStream:
        while not self._incoming:
            if self.event_closed.is_set():
                raise MuxedConnUnavailable("the connection is closed")
            self._arrived = trio.Event()
            await self._arrived.wait()
        return self._incoming.popleft()

    def forget(self, stream: MemoryStream) -> None:
        if stream in self._streams:
            del self._streams[stream]
            if stream.opened_here:
                self._room.release()

    def on_stream(self, stream: MemoryStream) -> None:
        inbound = sum(not one.opened_here for one in self._streams)
        if self.event_closed.is_set() or inbound >= STREAMS_IN_MAX:
            self.streams_refused += 1
            stream.drop()
            self.carry(0, stream.other.drop)
            return
        self._streams[stream] = None
        self._incoming.append(stream)
        self._arrived.set()

    def get_transport_addresses(self) -> list[Multiaddr]:
        return [self._remote]

    def get_remote_address(self) -> tuple[str, int] | None:
        if "ip4" not in self._remote:
            return None
        host, port = (str(self._remote.value_for_protocol(it)) for it in ("ip4", "tcp"))
        return host, int(port)

    def get_connection_type(self) -> ConnectionType:
        return ConnectionType.DIRECT


class MemoryListener(IListener):  # type: ignore[misc]
    """Accepts connections for a host. Its tasks run in the swarm's own nursery."""

    def __init__(self, network: MemoryNetwork, me: ID, accepted: Accepted) -> None:
        self.me = me
        self.background_nursery: trio.Nursery | None = None
        self._network = network
        self._accepted = accepted
        self._places: dict[ListenerKey, Multiaddr] = {}

    async def listen(self, maddr: Multiaddr) -> None:
        key, place = self._network.bind(maddr, self)
        self._places[key] = place
        await trio.lowlevel.checkpoint()

    def get_addrs(self) -> tuple[Multiaddr, ...]:
        return tuple(self._places.values())

    async def close(self) -> None:
        for key in self._places:
            self._network.release(key)
        self._places.clear()
        await trio.lowlevel.checkpoint()

    def arrive(self, connection: MemoryConnection) -> None:
        """Take a connection that a peer dialled; drop it if the host or its nursery is closing."""
        try:
            if self.background_nursery is None or not self._places:
                raise RuntimeError("not listening")
            self.background_nursery.start_soon(self._accept, connection)
            connection.carry(0, connection.other.answered.set)
        except RuntimeError:
            connection.drop()
            connection.carry(0, connection.other.drop)

    async def _accept(self, connection: MemoryConnection) -> None:
        with contained("an inbound memory connection"):
            await self._accepted(connection)


class MemoryMuxedTransport(ITransport):  # type: ignore[misc]
    """What a host needs to dial and to listen in a `MemoryNetwork`."""

    provides_native_muxing = True

    def __init__(self, network: MemoryNetwork, me: ID) -> None:
        self._network = network
        self._me = me

    async def dial(self, maddr: Multiaddr) -> MemoryConnection:
        listener, seen = await self._network.listener_at(self._me, maddr)
        if str(maddr.value_for_protocol("p2p")) != listener.me.to_base58():
            raise WrongPeerThere(f"peer ID mismatch: {listener.me} is at {maddr}")
        here = MemoryConnection(self._network, self._me, listener.me, maddr)
        here.is_initiator = True
        there = MemoryConnection(self._network, listener.me, self._me, seen)
        here.other, there.other = there, here
        here.carry(0, lambda: listener.arrive(there))
        try:
            await here.answered.wait()
        except trio.Cancelled:
            here.drop()
            here.carry(0, there.drop)
            raise
        if here.is_closed:
            raise OpenConnectionError(f"{maddr} does not accept the connection")
        return here

    async def call_from(self, own_port: int, host: str, port: int) -> MemoryConnection:
        """Be connected to whoever calls this peer from there at the same time, as over TCP.

        Waits without an end if nobody does; OSError if that is refused.
        """
        network = self._network
        with network.calling(self._me, own_port, (host, port)) as (mine, other):
            if other is not None:
                return self._met(mine, other)
            try:
                await mine.met.wait()
            except trio.Cancelled:
                if mine.connection is not None:
                    await mine.connection.close()
                raise
            connection: MemoryConnection = mine.connection
            return connection

    def _met(self, mine: OutgoingCall, other: OutgoingCall) -> MemoryConnection:
        network = self._network
        here = MemoryConnection(network, self._me, other.caller, _place(mine.to))
        there = MemoryConnection(network, other.caller, self._me, _place(other.to))
        here.other, there.other = there, here
        # Who called first began.
        there.is_initiator = True
        other.connection = there
        here.carry(0, other.met.set)
        return here

    def create_listener(self, handler_function: Any) -> MemoryListener:
        return MemoryListener(self._network, self._me, handler_function)

    def can_dial(self, maddr: Multiaddr) -> bool:
        return "memory" in maddr or "ip4" in maddr

    def can_listen(self, maddr: Multiaddr) -> bool:
        return self.can_dial(maddr)

    def protocols(self) -> list[str]:
        return ["memory", "tcp"]


def _place(where: tuple[str, int]) -> Multiaddr:
    return Multiaddr(f"/ip4/{where[0]}/tcp/{where[1]}")
