"""A libp2p host with what is dangerous taken out, and what leaks stopped.

It offers noise and nothing else, learns nothing from identify, dials nobody on its own, and gives
a connection that has not yet shown who it is a few seconds and one of few places.
"""

from collections import Counter, OrderedDict
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
from libp2p.security.noise.transport import PROTOCOL_ID as NOISE_ID
from libp2p.security.noise.transport import Transport as Noise
from libp2p.stream_muxer.yamux.yamux import PROTOCOL_ID as YAMUX_ID
from libp2p.transport.exceptions import MuxerUpgradeFailure
from libp2p.transport.upgrader import TransportUpgrader

from p2p.over_libp2p.errors import contained
from p2p.over_libp2p.muxer import SoundYamux
from wire.content import PeerId
from wire.counting import counted
from wire.errors import Malformed
from wire.signing import SigningKey

CONNECTIONS_MAX = 2000
# A handshake takes milliseconds and one round trip; these places are for strangers.
HALF_OPEN_MAX = 256
HALF_OPEN_PER_ADDRESS_MAX = 64
HANDSHAKE_DEADLINE_S = 5.0
NEGOTIATION_DEADLINE_S = 5.0
_CLOSE_DEADLINE_S = 5.0
# For so long what libp2p tells others of our addresses may be old; our own adverts are not.
ADDRESSES_S = 10.0


class SoundSwarm(Swarm):  # type: ignore[misc]
    """The connections of a host."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.half_open: Counter[str] = Counter()
        self.connections_refused = 0

    async def _handle_inbound_connection(self, read_write_closer: Any, maddr: Any) -> None:
        # Takes the place of a handler that never gave its slot back and kept the socket of
        # every connection that ever came.
        remote = read_write_closer.get_remote_address()
        place = str(remote[0]) if remote else ""
        crowded = remote is not None and self.half_open[place] >= HALF_OPEN_PER_ADDRESS_MAX
        if crowded or self.half_open.total() >= HALF_OPEN_MAX:
            self.connections_refused += 1
            with contained("refusing a connection"):
                await read_write_closer.close()
            return
        muxed = None
        with counted(self.half_open, place), contained("an inbound handshake"):
            muxed = await self._upgrade(read_write_closer, maddr)
        if muxed is None:
            with contained("an inbound handshake's end"):
                await read_write_closer.close()
            return
        # The listener closes the socket when this returns.
        await muxed.event_closed.wait()

    async def _upgrade(self, read_write_closer: Any, maddr: Any) -> Any:
        if isinstance(read_write_closer, IMuxedConn):
            await self.add_conn(read_write_closer, direction="inbound")
            return read_write_closer
        with trio.fail_after(HANDSHAKE_DEADLINE_S):
            return await self.upgrade_inbound_raw_conn(
                RawConnection(read_write_closer, False), maddr
            )

    def _schedule_auto_connect(self) -> None:
        # Whom to dial is decided above, from the view.
        return

    async def close(self) -> None:
        """Close everything; the connections at once, since each takes a fifth of a second."""
        async with trio.open_nursery() as nursery:
            for connection in self.get_connections():
                nursery.start_soon(self._close_one, connection)
        await super().close()

    async def _close_one(self, connection: Any) -> None:
        with contained("closing a connection"), trio.move_on_after(_CLOSE_DEADLINE_S):
            await connection.close()


class SoundUpgrader(TransportUpgrader):  # type: ignore[misc]
    """From a socket to a muxed connection; libp2p's own would not take our yamux."""

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
        self._addresses_until_s = 0.0
        super().__init__(
            swarm,
            default_protocols=OrderedDict({TProtocol("/baton/none"): _refuse}),
            disable_identify_address_discovery=True,
        )
        self.remove_stream_handler(TProtocol("/baton/none"))
        # Others may ask who we are and whether we live; nobody may tell us about itself.
        identify = identify_handler_for(self, use_varint_format=True)
        self.set_stream_handler(IDENTIFY_ID, identify)
        self.set_stream_handler(PING_ID, PingService(self).handle_ping)
        swarm.set_stream_handler(self._guarded_stream)

    def get_addrs(self) -> list[Any]:
        """As libp2p's, which works them out for every message; they change seldom."""
        now_s = trio.current_time()
        if now_s >= self._addresses_until_s:
            self._addresses = super().get_addrs()
            self._addresses_until_s = now_s + ADDRESSES_S if self._addresses else now_s
        return list(self._addresses)

    def _schedule_identify(self, *_whom: Any, **_why: Any) -> None:
        # Addresses come from signed adverts, and a stream says itself which protocol it speaks.
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
    """A host of this key over one transport; nothing runs and nothing listens yet."""
    pair = create_new_key_pair(key.seed)
    who = ID.from_pubkey(pair.public_key)
    peerstore = PeerStore()
    peerstore.add_key_pair(who, pair)
    noise = Noise(pair, noise_privkey=create_x25519_key_pair().private_key)
    upgrader = SoundUpgrader(
        secure_transports_by_protocol={NOISE_ID: noise},
        muxer_transports_by_protocol={TProtocol(YAMUX_ID): SoundYamux},
    )
    limits = ConnectionConfig(
        min_connections=0,
        low_watermark=0,
        high_watermark=CONNECTIONS_MAX,
        max_connections=CONNECTIONS_MAX,
        inbound_upgrade_timeout=HANDSHAKE_DEADLINE_S,
        outbound_upgrade_timeout=HANDSHAKE_DEADLINE_S,
        inbound_stream_protocol_negotiation_timeout=NEGOTIATION_DEADLINE_S,
        outbound_stream_protocol_negotiation_timeout=NEGOTIATION_DEADLINE_S,
    )
    # One attempt at a time: when and where to try again is decided above.
    retry = RetryConfig(max_retries=0)
    swarm = SoundSwarm(who, peerstore, upgrader, [make_transport(who)], retry, limits)
    return SoundHost(swarm)


def peer_of(who: ID) -> PeerId | None:
    """Our id for theirs; None for a key that is not Ed25519."""
    try:
        return PeerId.from_multihash(who.to_bytes())
    except Malformed:
        return None


def libp2p_id(peer: PeerId) -> ID:
    """Their id for ours."""
    return ID(peer.multihash)


async def _refuse(stream: Any) -> None:
    await stream.reset()
