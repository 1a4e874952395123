"""Direct connections between peers behind routers: both call each other at once, by a relay's word.

A router lets in what answers a call that went out. So the asker and the peer that is kept call each
other from the ports on which they listen, each where their common relay sees the other, and each
router takes the other's call for an answer. The asker's call goes out first and the kept peer's
follows at the asker's word, so whichever router lets a call in, the asker began the connection.

Where the other is, nobody says but the relay, which the kept peer chose itself; whom a peer calls
so, and how often, is for the rules to say (`p2p.transport.RelayRules`).
"""

import ipaddress
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import trio
from libp2p.abc import IMuxedConn
from libp2p.custom_types import TProtocol
from libp2p.network.connection.raw_connection import RawConnection
from multiaddr import Multiaddr  # type: ignore[import-untyped]

from p2p import timeouts
from p2p.ip_address import is_public
from p2p.over_libp2p.circuits import HEADER_S, ONWARD_S, Circuits, exactly, say
from p2p.over_libp2p.errors import WrongPeerThere, contained, shaking_hands
from p2p.over_libp2p.host import HANDSHAKE_DEADLINE_S, SoundSwarm, libp2p_id, peer_of
from p2p.over_libp2p.stream import LibStream
from p2p.transport import RelayAnswer
from wire.content import PeerId
from wire.errors import Malformed, TransportError, Unreachable

# Asked of a relay; asked by a relay.
PUNCH = TProtocol("/baton/punch/1")
PUNCHED = TProtocol("/baton/punched/1")

_PORT = struct.Struct("!H")
_PLACE = struct.Struct("!16sH")
_KEY_BYTES = 32
# No service that a stranger may have us call is below this.
PORT_MIN = 1024
# So long the asker's call is under way before the other one begins.
_FIRST_S = 0.02
_CALL_S = 4.0
# A router may refuse a call that came too early; the next one may meet the other's.
_TRIES, _AGAIN_S = 5, 0.1


# A socket, or, in memory, a connection that is muxed already; None where nobody answered.
Called = Any


@dataclass(frozen=True, slots=True)
class SeenPlace:
    """Where a relay sees a peer, and the port on which it listens."""

    host: str
    port: int

    def to_bytes(self) -> bytes:
        """16 bytes of an IPv6 address, which an IPv4 address may be in, and the port."""
        address = ipaddress.ip_address(self.host)
        if address.version == 4:
            address = ipaddress.IPv6Address(f"::ffff:{address}")
        return _PLACE.pack(address.packed, self.port)

    @classmethod
    def read(cls, data: bytes) -> "SeenPlace":
        """Any bytes of the right length are a place; whether to call there is another question."""
        packed, port = _PLACE.unpack(data)
        address = ipaddress.IPv6Address(packed)
        return cls(str(address.ipv4_mapped or address), port)


def is_callable(place: SeenPlace) -> bool:
    """Whether a peer calls there on the word of a relay."""
    return place.port >= PORT_MIN and is_public(place.host)


class Punches:
    """The punched connections of one host, and what it does as a relay for those of others."""

    def __init__(
        self,
        circuits: Circuits,
        swarm: SoundSwarm,
        socket_of: Callable[[PeerId], tuple[str, int] | None],
        own_port: Callable[[], int | None],
    ) -> None:
        # A test of loopback addresses sets another one.
        self.is_callable: Callable[[SeenPlace], bool] = is_callable
        self._circuits = circuits
        self._swarm = swarm
        self._socket_of = socket_of
        self._own_port = own_port
        self._made: list[IMuxedConn] = []

    def peers(self) -> Iterator[PeerId]:
        """Who is connected so."""
        self._made = [it for it in self._made if not it.is_closed]
        for muxed in self._made:
            peer = peer_of(muxed.peer_id)
            if peer is not None:
                yield peer

    # At the asker

    async def call(self, relay: PeerId, peer: PeerId) -> None:
        """Have a direct connection to `peer`, which `relay` keeps; Unreachable says why not."""
        port = self._port()
        stream = await self._circuits.open_stream(relay, PUNCH, HEADER_S)
        try:
            await stream.write(bytes(peer) + _PORT.pack(port))
            code = await exactly(stream, 1)
            if code[0] != RelayAnswer.THROUGH:
                raise Unreachable(
                    f"{peer.short} is not called directly: {RelayAnswer.words(code[0])}"
                )
            place = SeenPlace.read(await exactly(stream, _PLACE.size))
            if not self.is_callable(place):
                raise Unreachable(f"{relay.short} sees {peer.short} where nobody is called")
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_say_go, stream)
                socket = await self._called(port, place)
        finally:
            await stream.reset()
        if socket is None:
            raise Unreachable(f"no router let the call to {place.host} in")
        with shaking_hands():
            self._made.append(await self._begin(socket, peer))

    async def _begin(self, socket: Called, peer: PeerId) -> IMuxedConn:
        """Shake hands as who calls; raises whatever libp2p does if it is another."""
        if not isinstance(socket, IMuxedConn):
            raw = RawConnection(socket, True)
            found = await self._swarm.upgrade_outbound_raw_conn(raw, libp2p_id(peer))
            muxed: IMuxedConn = found.muxed_conn
            return muxed
        if peer_of(socket.peer_id) != peer:
            await socket.close()
            raise WrongPeerThere(f"peer ID mismatch: {socket.peer_id} called")
        await self._swarm.add_conn(socket, direction="outbound")
        return socket

    def _port(self) -> int:
        port = self._own_port()
        if port is None:
            raise Unreachable("this peer listens for its own machine alone")
        return port

    async def _called(self, port: int, place: SeenPlace) -> Called:
        """Call from the port there, a few times; None if nobody is reached."""
        where = Multiaddr(f"/ip{6 if ':' in place.host else 4}/{place.host}/tcp/{place.port}")
        transport = self._swarm.transport_manager.transport_for_dialing(where)
        if transport is None:
            return None
        with trio.move_on_after(_CALL_S):
            for _ in range(_TRIES):
                try:
                    return await transport.call_from(port, place.host, place.port)
                except OSError:
                    await trio.sleep(_AGAIN_S)
        return None

    # At the relay

    async def introduce(self, asking: LibStream) -> None:
        """Tell two peers where the other is, and when to call."""
        rules, wanted, port = self._circuits.rules, None, 0
        with timeouts.move_on_after(HEADER_S):
            wanted = _peer(await exactly(asking, _KEY_BYTES))
            (port,) = _PORT.unpack(await exactly(asking, _PORT.size))
        if rules is None or wanted is None or not port:
            await say(asking, RelayAnswer.NOT_KEPT)
            return
        answer = rules.admit(asking.peer, wanted)
        if answer is not RelayAnswer.THROUGH:
            await say(asking, answer)
            return
        try:
            with timeouts.move_on_after(ONWARD_S):
                await self._introduce(asking, wanted, port)
        finally:
            rules.ended(asking.peer, wanted, None)
            await asking.reset()

    async def _introduce(self, asking: LibStream, wanted: PeerId, port: int) -> None:
        one, other = self._socket_of(asking.peer), self._socket_of(wanted)
        # Behind one router they find each other there, and few routers pass such calls on.
        if one is None or other is None or one[0] == other[0]:
            await say(asking, RelayAnswer.NOT_KEPT)
            return
        onward: LibStream | None = None
        try:
            onward = await self._circuits.open_stream(wanted, PUNCHED, HEADER_S)
            await onward.write(bytes(asking.peer) + SeenPlace(one[0], port).to_bytes())
            code = await exactly(onward, 1)
            if code[0] != RelayAnswer.THROUGH:
                await say(asking, RelayAnswer.FULL)
                return
            (other_port,) = _PORT.unpack(await exactly(onward, _PORT.size))
            await asking.write(code + SeenPlace(other[0], other_port).to_bytes())
            await onward.write(await exactly(asking, 1))
            # The other end reads it before the stream ends.
            await exactly(onward, 1)
        except TransportError:
            return
        finally:
            if onward is not None:
                await onward.reset()

    # At the peer that is kept

    async def take(self, stream: LibStream) -> None:
        """Call the peer that a relay of ours names, where the relay sees it, at its word."""
        socket = asker = None
        with timeouts.move_on_after(ONWARD_S):
            asker = _peer(await exactly(stream, _KEY_BYTES))
            place = SeenPlace.read(await exactly(stream, _PLACE.size))
            socket = None if asker is None else await self._meet(stream, asker, place)
        await stream.reset()
        if socket is not None and asker is not None:
            await self._answer(socket, asker)

    async def _meet(self, stream: LibStream, asker: PeerId, place: SeenPlace) -> Called:
        """Call the asker at its word, if the rules allow it; None if nobody was reached."""
        rules, port = self._circuits.rules, self._own_port()
        if (
            rules is None
            or port is None
            or not self.is_callable(place)
            or not rules.takes(stream.peer)
        ):
            await say(stream, RelayAnswer.NOT_KEPT)
            return None
        try:
            if not rules.may_punch(asker):
                await say(stream, RelayAnswer.FULL)
                return None
            await stream.write(bytes([RelayAnswer.THROUGH]) + _PORT.pack(port))
            await exactly(stream, 1)
            return await self._called(port, place)
        finally:
            rules.left(stream.peer)

    async def _answer(self, socket: Called, asker: PeerId) -> None:
        """Shake hands as who was called, whoever it is: its key is proven in it."""
        muxed = None
        with contained("a punched handshake"), timeouts.move_on_after(HANDSHAKE_DEADLINE_S):
            if isinstance(socket, IMuxedConn):
                await self._swarm.add_conn(socket, direction="inbound")
                muxed = socket
            else:
                raw = RawConnection(socket, False)
                muxed = await self._swarm.upgrade_inbound_raw_conn(raw, _NOWHERE)
        if muxed is None:
            with contained("a punched call's end"):
                await socket.close()
        elif peer_of(muxed.peer_id) == asker:
            self._made.append(muxed)


_NOWHERE = Multiaddr("/memory/0")


def _peer(data: bytes) -> PeerId | None:
    try:
        return PeerId(data)
    except Malformed:
        return None


async def _say_go(stream: LibStream) -> None:
    await trio.sleep(_FIRST_S)
    # If the relay is gone the other end never calls, and our own call ends by itself.
    with contained("the word to call"):
        await stream.write(b"\1")
