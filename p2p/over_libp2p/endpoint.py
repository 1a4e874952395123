"""`p2p.transport` over a libp2p host: connections, streams and topics of one peer.

It decides nothing: the callers decide whom to dial, when to try again and what a message means.
"""

import math
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import trio
from libp2p.abc import INotifee
from libp2p.custom_types import TProtocol
from libp2p.host.exceptions import StreamFailure
from libp2p.peer.id import ID
from libp2p.pubsub.pb import rpc_pb2

from p2p.ip_address import host_of, is_loopback
from p2p.over_libp2p.addresses import Dialable, Forms, reachable, read_dialable
from p2p.over_libp2p.circuits import RELAY, RELAYED, Circuits, is_relayed
from p2p.over_libp2p.errors import contained, dialing, opening
from p2p.over_libp2p.gossip import SoundPubsub
from p2p.over_libp2p.host import ADDRESSES_S, SoundHost, libp2p_id, peer_of
from p2p.over_libp2p.inbox import Inbox
from p2p.over_libp2p.names import LookUp, resolved
from p2p.over_libp2p.punches import PUNCH, PUNCHED, Punches
from p2p.over_libp2p.stream import LibStream
from p2p.transport import (
    GOSSIP_BYTES_MAX,
    TOPIC_BYTES_MAX,
    Accept,
    ConnectionDown,
    ConnectionEvent,
    ConnectionUp,
    EndpointStatistics,
    Heard,
    Lined,
    Moved,
    RelayRules,
)
from wire.content import PeerId
from wire.errors import (
    Disconnected,
    InputError,
    LocalProtocolError,
    TransportError,
    Unreachable,
)

BATON = TProtocol("/baton/1")


class LibEndpoint:
    """An `Endpoint`. Opened in `p2p.over_libp2p.transports`, and usable until it is closed."""

    def __init__(
        self, me: PeerId, host: SoundHost, forms: Forms, accept: Accept, look_up: LookUp
    ) -> None:
        self._me = me
        self._host = host
        self._swarm = host.get_network()
        self._forms = forms
        self._accept = accept
        self._look_up = look_up
        self._pubsub: SoundPubsub
        self._nursery: trio.Nursery
        self._inboxes: dict[str, list[Inbox]] = {}
        self._topics_lock = trio.Lock()
        self._watchers: list[Callable[[ConnectionEvent], None]] = []
        self._up: set[PeerId] = set()
        self._circuits = Circuits(self._swarm, self._open)
        self._punches = Punches(self._circuits, self._swarm, self._socket_of, self._local_port)
        self._dials: dict[PeerId, trio.Event] = {}
        self._addresses: tuple[str, ...] = ()
        self._addresses_until_at_s = -math.inf
        self._heard = self._heard_dropped = self._foreign_sources = 0

    def start(self, pubsub: SoundPubsub, nursery: trio.Nursery) -> None:
        """Begin to accept streams, in `nursery`."""
        self._pubsub = pubsub
        self._nursery = nursery
        self._host.set_stream_handler(BATON, self._on_stream)
        self._host.set_stream_handler(RELAY, self._on_asked_to_relay)
        self._host.set_stream_handler(RELAYED, self._on_relayed)
        self._host.set_stream_handler(PUNCH, self._on_asked_to_introduce)
        self._host.set_stream_handler(PUNCHED, self._on_introduced)
        self._swarm.register_notifee(_Changes(self._on_change))
        nursery.start_soon(self._swarm.watch_half_open)

    def stop(self) -> None:
        """End every subscription; iterating over one then ends."""
        for inbox in [one for several in self._inboxes.values() for one in several]:
            inbox.close()

    @property
    def me(self) -> PeerId:
        return self._me

    @property
    def addresses(self) -> tuple[str, ...]:
        # They are asked for with every leg, and interfaces come and go seldom.
        now_at_s = trio.current_time()
        if now_at_s >= self._addresses_until_at_s:
            found: dict[str, None] = {}
            for address in self._host.get_transport_addrs():
                found.update(dict.fromkeys(reachable(address, self._me)))
            self._addresses = tuple(found)
            self._addresses_until_at_s = now_at_s + ADDRESSES_S if found else now_at_s
        return self._addresses

    def set_relay_rules(self, rules: RelayRules) -> None:
        """Pass on for others, and be called through relays, as these rules say."""
        self._circuits.rules = rules

    async def connect(self, address: str, *, deadline_s: float) -> PeerId:
        target = read_dialable(address, self._forms)
        began_at_s = trio.current_time()
        places = await resolved(address, self._look_up, deadline_s)
        left_s = max(0.0, began_at_s + deadline_s - trio.current_time())
        await self.connect_peer(target.peer, places, deadline_s=left_s)
        return target.peer

    async def connect_peer(
        self, peer: PeerId, addresses: Sequence[str], *, deadline_s: float
    ) -> None:
        targets = [read_dialable(address, self._forms) for address in addresses]
        if peer == self._me:
            raise InputError(
                "a peer does not connect to itself", todo="give the address of another peer"
            )
        deadline_at_s = trio.current_time() + deadline_s
        trouble: TransportError = Unreachable(
            f"no address of {peer.short} is known", todo="give one, or wait for its next advert"
        )
        for left, target in zip(range(len(targets), 0, -1), targets, strict=True):
            if target.peer != peer:
                raise InputError(
                    f"{target.where} is the address of another peer than {peer}",
                    todo="give addresses of one and the same peer",
                )
            # A silent first address must leave time for the others.
            share_s = max(0.0, deadline_at_s - trio.current_time()) / left
            try:
                await self._dial(target, share_s)
            except TransportError as error:
                trouble = error
            else:
                return
        raise trouble

    async def _dial(self, target: Dialable, deadline_s: float) -> None:
        peer, where = target.peer, str(target.where)
        with dialing(where, deadline_s), trio.fail_after(deadline_s):
            while peer in self._dials:
                await self._dials[peer].wait()
            if self._connections(peer):
                return
            self._dials[peer] = trio.Event()
            try:
                await self._call(target, deadline_s)
            finally:
                self._dials.pop(peer).set()

    async def _call(self, target: Dialable, deadline_s: float) -> None:
        if target.peer == self._me:
            raise Unreachable("a peer is not called by itself, wherever others say they are")
        if (at := target.relay) is None:
            await self._swarm.dial_addr(target.where, libp2p_id(target.peer))
            return
        await self._dial(at, deadline_s)
        await self._circuits.dial(at.peer, target.peer, self._socket_of(at.peer), self._nursery)

    async def knock(self, address: str, *, deadline_s: float) -> None:
        target = read_dialable(address, self._forms)
        with dialing(str(target.where), deadline_s), trio.fail_after(deadline_s):
            if target.relay is None:
                await self._swarm.knock(target.where, libp2p_id(target.peer))
            else:
                await self._dial(target.relay, deadline_s)
                await self._circuits.knock(target.relay.peer, target.peer)

    def relayed(self) -> dict[PeerId, Moved]:
        return self._circuits.asked

    def lines(self) -> dict[PeerId, Lined]:
        return self._circuits.seen()

    async def punch(self, peer: PeerId, *, deadline_s: float) -> None:
        if (line := self.lines().get(peer)) is None:
            raise Disconnected(f"no relay passes on to {peer.short}")
        with dialing(f"punched {peer.short}", deadline_s), trio.fail_after(deadline_s):
            await self._punches.call(line.relay, peer)

    async def connect_beside(self, address: str, *, deadline_s: float) -> None:
        target = read_dialable(address, self._forms)
        with dialing(str(target.where), deadline_s), trio.fail_after(deadline_s):
            await self._call(target, deadline_s)

    def punched(self) -> frozenset[PeerId]:
        return frozenset(self._punches.peers())

    async def leave_line(self, peer: PeerId) -> None:
        for connection in self._connections(peer):
            if is_relayed(connection.muxed_conn):
                with contained("leaving a line"):
                    await connection.close()

    async def open_stream(self, peer: PeerId, *, deadline_s: float) -> LibStream:
        return await self._open(peer, BATON, deadline_s)

    async def _open(self, peer: PeerId, protocol: TProtocol, deadline_s: float) -> LibStream:
        if not self._connections(peer):
            raise Disconnected(f"not connected to {peer.short}", todo="connect first")
        with opening(peer, deadline_s), trio.fail_after(deadline_s):
            try:
                stream = await self._host.new_stream(libp2p_id(peer), [protocol])
            except StreamFailure as error:
                if not self._connections(peer):
                    raise
                raise Unreachable(
                    f"{peer.short} does not open a Baton stream",
                    todo="it may run another version, or have too many streams: try another peer",
                ) from error
        return LibStream(peer, stream)

    async def disconnect(self, peer: PeerId) -> None:
        with contained("disconnecting"):
            await self._swarm.close_peer(libp2p_id(peer))

    def connected(self) -> frozenset[PeerId]:
        """The peers to which at least one connection is open."""
        found = (peer_of(who) for who in self._swarm.connections)
        return frozenset(peer for peer in found if peer is not None and self._connections(peer))

    def is_connected(self, peer: PeerId) -> bool:
        """Whether at least one connection to the peer is open."""
        return bool(self._connections(peer))

    def is_relayed(self, peer: PeerId) -> bool:
        """Whether every connection to the peer is passed on by another peer."""
        several = self._connections(peer)
        return bool(several) and all(is_relayed(one.muxed_conn) for one in several)

    def remote_address(self, peer: PeerId) -> str | None:
        if (remote := self._socket_of(peer)) is not None:
            family = "ip6" if ":" in remote[0] else "ip4"
            return f"/{family}/{remote[0]}/tcp/{remote[1]}"
        for connection in self._connections(peer):
            for address in connection.get_transport_addresses():
                return str(address).partition("/p2p/")[0]
        return None

    def _socket_of(self, peer: PeerId) -> tuple[str, int] | None:
        """The IP address and port at the other end; at the relay's end if there is no other."""
        several = self._connections(peer)
        for connection in sorted(several, key=lambda it: is_relayed(it.muxed_conn)):
            remote: tuple[str, int] | None = connection.muxed_conn.get_remote_address()
            if remote is not None:
                return remote
        return None

    def watch(self, callback: Callable[[ConnectionEvent], None]) -> None:
        self._watchers.append(callback)

    async def subscribe(self, topic: str) -> Inbox:
        """An inbox of a topic's messages from now on; LocalProtocolError for a bad name."""
        _check_topic(topic)
        inbox = Inbox(topic, self._leave)
        async with self._topics_lock:
            self._inboxes.setdefault(topic, []).append(inbox)
            # libp2p returns the existing subscription if there is one.
            await self._pubsub.subscribe(topic)
        return inbox

    async def publish(self, topic: str, data: bytes) -> None:
        _check_topic(topic)
        if len(data) > GOSSIP_BYTES_MAX:
            raise LocalProtocolError(f"{len(data)} bytes of gossip, at most {GOSSIP_BYTES_MAX}")
        await self._pubsub.publish(topic, data)

    def statistics(self) -> EndpointStatistics:
        """What is open now, and what was refused or dropped since the endpoint was opened."""
        connections = self._swarm.get_connections()
        return EndpointStatistics(
            connections=len(connections),
            half_open=self._swarm.limiter.half_open,
            connections_refused=self._swarm.limiter.refused,
            connections_evicted=self._swarm.limiter.evicted + self._swarm.limiter.timed_out,
            streams_refused=sum(one.muxed_conn.streams_refused for one in connections),
            heard=self._heard,
            heard_dropped=self._heard_dropped,
            gossip_refused=self._pubsub.refused + self._foreign_sources,
            relayed_bytes=self._circuits.relayed_bytes(),
        )

    def deliver(self, message: rpc_pb2.Message) -> None:
        """Take one message from gossip. Never raises, because the sender chose every byte of it."""
        try:
            source = peer_of(ID(message.from_id))
        except (ValueError, TypeError):
            source = None
        if source is None:
            self._foreign_sources += 1
            return
        if source == self._me:
            return
        heard = Heard(source, message.data)
        self._heard += 1
        for inbox in self._inboxes.get(message.topicIDs[0], ()):
            if not inbox.offer(heard):
                self._heard_dropped += 1

    async def _leave(self, inbox: Inbox) -> None:
        async with self._topics_lock:
            several = self._inboxes.get(inbox.topic, [])
            if inbox in several:
                several.remove(inbox)
                if not several:
                    del self._inboxes[inbox.topic]
                    await self._pubsub.unsubscribe(inbox.topic)

    def _connections(self, peer: PeerId) -> list[Any]:
        several = self._swarm.connections.get(libp2p_id(peer), ())
        return [one for one in several if not one.is_closed and not one.muxed_conn.is_closed]

    async def _on_stream(self, stream: Any) -> None:
        await self._serve(stream, lambda it: self._accept(it.peer, it))

    async def _on_asked_to_relay(self, stream: Any) -> None:
        await self._serve(stream, self._circuits.pass_on)

    async def _on_relayed(self, stream: Any) -> None:
        await self._serve(stream, lambda it: self._circuits.take(it, self._socket_of(it.peer)))

    async def _on_asked_to_introduce(self, stream: Any) -> None:
        await self._serve(stream, self._punches.introduce)

    async def _on_introduced(self, stream: Any) -> None:
        await self._serve(stream, self._punches.take)

    def _local_port(self) -> int | None:
        """The TCP port on which others of the network call this peer; None if it is none."""
        hosts = ((host_of(it), it) for it in self.addresses)
        ports = (int(it.split("/")[4]) for host, it in hosts if host and not is_loopback(host))
        return next(ports, None)

    async def _serve(self, stream: Any, handler: Callable[[LibStream], Awaitable[None]]) -> None:
        peer = peer_of(stream.muxed_conn.peer_id)
        if peer is None:
            await stream.reset()
            return
        # The handler runs in our own task, so that its exceptions are not lost in libp2p.
        finished = trio.Event()
        self._nursery.start_soon(_serve_one, LibStream(peer, stream), handler, finished)
        await finished.wait()

    def _on_change(self, who: ID) -> None:
        peer = peer_of(who)
        if peer is None:
            return
        up = bool(self._connections(peer))
        if up == (peer in self._up):
            return
        (self._up.add if up else self._up.discard)(peer)
        event = ConnectionUp(peer) if up else ConnectionDown(peer)
        for callback in self._watchers:
            callback(event)


class _Changes(INotifee):  # type: ignore[misc]
    """Reports, of all of libp2p's notifications, only that a peer's connections have changed."""

    def __init__(self, changed: Callable[[ID], None]) -> None:
        self._changed = changed

    async def connected(self, _network: Any, conn: Any) -> None:
        self._changed(conn.muxed_conn.peer_id)

    async def disconnected(self, _network: Any, conn: Any) -> None:
        self._changed(conn.muxed_conn.peer_id)

    async def opened_stream(self, _network: Any, _stream: Any) -> None: ...
    async def closed_stream(self, _network: Any, _stream: Any) -> None: ...
    async def listen(self, _network: Any, _multiaddr: Any) -> None: ...
    async def listen_close(self, _network: Any, _multiaddr: Any) -> None: ...


async def _serve_one(
    stream: LibStream, handler: Callable[[LibStream], Awaitable[None]], finished: trio.Event
) -> None:
    try:
        await handler(stream)
    except TransportError:
        await stream.reset()
    finally:
        finished.set()


def _check_topic(topic: str) -> None:
    if not topic or len(topic.encode()) > TOPIC_BYTES_MAX:
        raise LocalProtocolError(f"a topic's name has 1 to {TOPIC_BYTES_MAX} bytes")
