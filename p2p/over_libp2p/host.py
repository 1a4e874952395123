"""A libp2p host without libp2p's dangerous parts and leaks.

It offers only noise, learns nothing from identify, and dials nobody on its own.
`p2p.connection_limiter` decides how long connections without a finished handshake are kept.
"""

import math
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import trio
from libp2p.abc import IMuxedConn
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.crypto.x25519 import create_new_key_pair as create_x25519_key_pair
from libp2p.custom_types import TProtocol
from libp2p.host.basic_host import BasicHost
from libp2p.host.ping import ID as PING_ID
from libp2p.host.ping import PingService
from libp2p.identity.identify.identify import ID as IDENTIFY_ID
from libp2p.identity.identify.identify import identify_handler_for
from libp2p.network.config import ConnectionConfig, RetryConfig
from libp2p.network.connection.raw_connection import RawConnection
from libp2p.network.swarm import Swarm
from libp2p.peer.id import ID
from libp2p.peer.peerstore import PeerStore
from libp2p.protocol_muxer.exceptions import MultiselectClientError, MultiselectError
from libp2p.protocol_muxer.multiselect_client import MultiselectClient
from libp2p.security.noise.transport import PROTOCOL_ID as NOISE_ID
from libp2p.security.noise.transport import Transport as Noise
from libp2p.stream_muxer.yamux.yamux import PROTOCOL_ID as YAMUX_ID
from libp2p.transport.exceptions import MuxerUpgradeFailure
from libp2p.transport.upgrader import TransportUpgrader
from multiaddr import Multiaddr  # type: ignore[import-untyped]

from p2p import timeouts
from p2p.connection_limiter import ConnectionLimiter, HalfOpen, LoopClock
from p2p.over_libp2p.errors import contained, shaking_hands
from p2p.over_libp2p.muxer import SoundYamux
from wire.content import PeerId
from wire.errors import Malformed
from wire.signing import SigningKey

CONNECTIONS_MAX = 2000
# For handshakes that we begin; for those of others the connection limiter is stricter.
HANDSHAKE_DEADLINE_S = 8.0
# How often half-open connections are looked at.
_LOOK_S = 0.25
NEGOTIATION_DEADLINE_S = 5.0
_CLOSE_DEADLINE_S = 5.0
_FAIR = frozenset(
    f"{way}_{what}_timeout"
    for way in ("inbound", "outbound")
    for what in ("upgrade", "stream_protocol_negotiation")
)
# What libp2p notifies of and nobody listens for.
UNHEARD = frozenset({"opened_stream", "closed_stream"})
# How old the addresses may be that libp2p tells others; our own adverts are never old.
ADDRESSES_S = 5.0


class SoundSwarm(Swarm):  # type: ignore[misc]
    """The connections of a host."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.limiter = ConnectionLimiter()
        self._clock = LoopClock(_LOOK_S)
        self._streams: dict[int, _Watched] = {}
        self._arrived = trio.Event()

    async def watch_half_open(self) -> None:
        """Close half-open connections that are over their time, until cancelled."""
        while True:
            if not self._streams:
                self._arrived = trio.Event()
                await self._arrived.wait()
            for place in self.limiter.overdue(self._clock.tick(trio.current_time())):
                self._drop(place)
            await trio.sleep(_LOOK_S)

    async def add_conn(self, muxed_conn: IMuxedConn, direction: str = "unknown") -> Any:
        # Who moved to another network calls anew, and nothing has told us that its old connections
        # are dead: what waits on those would wait for seconds.
        for other in self.connections.get(muxed_conn.peer_id, ()):
            if isinstance(other.muxed_conn, SoundYamux) and other.muxed_conn is not muxed_conn:
                other.muxed_conn.prove()
        return await super().add_conn(muxed_conn, direction)

    async def _handle_inbound_connection(self, read_write_closer: Any, maddr: Any) -> None:
        # This replaces libp2p's handler, which never freed its slot and kept the socket of every
        # connection that ever arrived.
        if isinstance(read_write_closer, IMuxedConn):
            with contained("an inbound connection"):
                await self.add_conn(read_write_closer, direction="inbound")
                await read_write_closer.event_closed.wait()
            return
        host, now_at_s = note_address(read_write_closer), trio.current_time()
        place, evicted = self.limiter.arrived(host, now_at_s, self._clock.ran_s)
        if evicted is not None:
            self._drop(evicted)
        if place is None:
            with contained("refusing a connection"):
                await read_write_closer.close()
            return
        watched = _Watched(read_write_closer, self, place)
        self._streams[place.number] = watched
        self._arrived.set()
        muxed = None
        try:
            with contained("an inbound handshake"):
                muxed = await self._upgrade(watched, maddr)
        finally:
            self.limiter.ended(place)
            del self._streams[place.number]
        if muxed is None:
            with contained("an inbound handshake's end"):
                await read_write_closer.close()
            return
        # The listener closes the socket when this returns.
        await muxed.event_closed.wait()

    async def _upgrade(self, watched: "_Watched", maddr: Any) -> Any:
        with watched.scope, timeouts.fail_after(HANDSHAKE_DEADLINE_S):
            raw = RawConnection(watched, False)
            muxed = await self.upgrade_inbound_raw_conn(raw, maddr)
            # The handshake is over: reads no longer go through `_Watched`.
            raw.stream = watched.stream
            return muxed

    async def _notify(self, method: str, *arguments: Any) -> None:
        # Nobody here listens for streams (a test looks at each notifee), and to tell them so libp2p
        # starts a task for each, twice in the life of every stream, at both ends.
        if method not in UNHEARD:
            await super()._notify(method, *arguments)

    async def knock(self, where: Any, who: ID) -> None:
        """Connect to `who` anew and part at once; raises whatever libp2p does where it fails."""
        transport = self.transport_manager.transport_for_dialing(where)
        raw = await transport.dial(Multiaddr(f"{where}/p2p/{who}"))
        try:
            if not isinstance(raw, IMuxedConn):
                with shaking_hands():
                    await self.upgrader.upgrade_security(raw, True, who)
        finally:
            with contained("a knock's end"), trio.CancelScope(shield=True):
                await raw.close()

    def heard(self, place: HalfOpen) -> None:
        """Note that bytes arrived over a half-open connection."""
        self.limiter.heard(place, self._clock.ran_s)

    def _drop(self, place: HalfOpen) -> None:
        self._streams[place.number].scope.cancel()

    def _best_connection(self, connections: list[Any]) -> Any:
        # Of two with as many streams libp2p takes the one at the higher address in memory, which is
        # another one in each run; this takes the older one, and first one that no relay pays for.
        def rank(connection: Any) -> tuple[bool, bool, int]:
            in_doubt, relayed = (
                getattr(connection.muxed_conn, it, False) for it in ("in_doubt", "is_relayed")
            )
            return not in_doubt, not relayed, len(connection.get_streams())

        return max(connections, key=rank)

    def _schedule_auto_connect(self) -> None:
        # The callers decide whom to dial, from the view.
        return

    async def close(self) -> None:
        """Close everything; all connections concurrently, since each takes a fifth of a second."""
        async with trio.open_nursery() as nursery:
            for connection in self.get_connections():
                nursery.start_soon(self._close_one, connection)
        await super().close()

    async def _close_one(self, connection: Any) -> None:
        with contained("closing a connection"), trio.move_on_after(_CLOSE_DEADLINE_S):
            await connection.close()


class FairLimits(ConnectionConfig):  # type: ignore[misc]
    """libp2p's limits; those in seconds are stretched while this machine is starved."""

    def __getattribute__(self, name: str) -> Any:
        value = super().__getattribute__(name)
        return timeouts.stretched(value) if name in _FAIR else value


class _Watched:
    """The socket of a half-open connection, as libp2p reads it: it reports when bytes arrive."""

    def __init__(self, stream: Any, swarm: SoundSwarm, place: HalfOpen) -> None:
        self.stream = stream
        self.scope = trio.CancelScope()
        self._swarm = swarm
        self._place = place

    async def read(self, n: int | None = None) -> bytes:
        data: bytes = await self.stream.read(n)
        if data:
            self._swarm.heard(self._place)
        return data

    async def write(self, data: bytes) -> None:
        await self.stream.write(data)

    async def close(self) -> None:
        await self.stream.close()

    def get_remote_address(self) -> Any:
        return self.stream.get_remote_address()


class _Patient(MultiselectClient):  # type: ignore[misc]
    """Negotiates until its caller's deadline: libp2p's own would be taken for another program."""

    async def select_one_of(self, protocols: Any, communicator: Any, *_timeout: float) -> Any:
        return await super().select_one_of(protocols, communicator, math.inf)


class SoundUpgrader(TransportUpgrader):  # type: ignore[misc]
    """Makes a muxed connection from a socket; libp2p's own class does not accept our yamux."""

    def __init__(self, **protocols: Any) -> None:
        super().__init__(**protocols)
        for it in (self.security_multistream, self.muxer_multistream):
            it._selector.multiselect_client = _Patient()

    async def upgrade_connection(self, conn: Any, peer_id: ID) -> SoundYamux:
        try:
            await self.muxer_multistream.select_transport(conn)
        except (MultiselectError, MultiselectClientError) as error:
            raise MuxerUpgradeFailure("the other side does not speak yamux") from error
        return SoundYamux(conn, peer_id)


class SoundHost(BasicHost):  # type: ignore[misc]
    """Protocols and streams above a `SoundSwarm`."""

    def __init__(self, swarm: SoundSwarm) -> None:
        self._addresses: list[Any] = []
        self._addresses_until_at_s = 0.0
        super().__init__(
            swarm,
            default_protocols=OrderedDict({TProtocol("/baton/none"): _refuse}),
            disable_identify_address_discovery=True,
        )
        self.remove_stream_handler(TProtocol("/baton/none"))
        # Others may identify and ping us; what they say of themselves by identify is ignored.
        identify = identify_handler_for(self, use_varint_format=True)
        self.set_stream_handler(IDENTIFY_ID, identify)
        self.set_stream_handler(PING_ID, PingService(self).handle_ping)
        swarm.set_stream_handler(self._guarded_stream)

    def get_addrs(self) -> list[Any]:
        """Our addresses, cached: libp2p computes them for every message, and they change seldom."""
        now_at_s = trio.current_time()
        if now_at_s >= self._addresses_until_at_s:
            self._addresses = super().get_addrs()
            self._addresses_until_at_s = now_at_s + ADDRESSES_S if self._addresses else now_at_s
        return list(self._addresses)

    def _schedule_identify(self, *_whom: Any, **_why: Any) -> None:
        # Addresses come from signed adverts, and each stream names the protocol it speaks.
        return

    async def _push_identify_to_all_peers(self) -> None:
        return

    async def _guarded_stream(self, stream: Any) -> None:
        finished = False
        with contained("a stream"):
            await self._swarm_stream_handler(stream)
            finished = True
        if not finished:
            with contained("a stream's end"):
                await stream.reset()


def build_host(key: SigningKey, make_transport: Callable[[ID], Any]) -> SoundHost:
    """A host with this key over one transport; it neither runs nor listens yet."""
    pair = create_new_key_pair(key.seed)
    who = ID.from_pubkey(pair.public_key)
    peerstore = PeerStore()
    peerstore.add_key_pair(who, pair)
    noise = Noise(pair, noise_privkey=create_x25519_key_pair().private_key)
    upgrader = SoundUpgrader(
        secure_transports_by_protocol={NOISE_ID: noise},
        muxer_transports_by_protocol={TProtocol(YAMUX_ID): SoundYamux},
    )
    limits = FairLimits(
        min_connections=0,
        low_watermark=0,
        high_watermark=CONNECTIONS_MAX,
        max_connections=CONNECTIONS_MAX,
        inbound_upgrade_timeout=HANDSHAKE_DEADLINE_S,
        outbound_upgrade_timeout=HANDSHAKE_DEADLINE_S,
        inbound_stream_protocol_negotiation_timeout=NEGOTIATION_DEADLINE_S,
        outbound_stream_protocol_negotiation_timeout=NEGOTIATION_DEADLINE_S,
    )
    # One attempt at a time: the callers decide when and where to try again.
    retry = RetryConfig(max_retries=0)
    swarm = SoundSwarm(who, peerstore, upgrader, [make_transport(who)], retry, limits)
    return SoundHost(swarm)


def peer_of(who: ID) -> PeerId | None:
    """Our id for a libp2p id; None for a key that is not Ed25519."""
    try:
        return PeerId.from_multihash(who.to_bytes())
    except Malformed:
        return None


def libp2p_id(peer: PeerId) -> ID:
    """The libp2p id for our id."""
    return ID(peer.multihash)


def note_address(stream: Any) -> str:
    """The IP address at the other end of a TCP stream of libp2p; "" if the connection is closed.

    The stream keeps the address from then on: libp2p by itself finds no IPv6 address.
    """
    try:
        host, port = stream.stream.socket.getpeername()[:2]
    except OSError:
        return ""
    stream._cached_remote_address = (host, port)
    return str(host)


async def _refuse(stream: Any) -> None:
    await stream.reset()
