"""Gossipsub that no peer can end, and that counts what it dropped.

Our reading loop replaces libp2p's: it reads in large steps, bounds every RPC before parsing, and
hands messages on in order instead of starting a task for each. A peer that breaks the rules is
disconnected. Signed address records are ignored: Baton has its own adverts.
"""

from collections import defaultdict, deque
from collections.abc import Callable
from typing import Any

import trio
from google.protobuf.message import DecodeError
from libp2p.custom_types import TProtocol
from libp2p.pubsub.gossipsub import GossipSub
from libp2p.pubsub.pb import rpc_pb2
from libp2p.pubsub.pubsub import Pubsub
from libp2p.pubsub.utils import safe_bytes_from_hex

from p2p.over_libp2p.errors import contained
from p2p.transport import GOSSIP_BYTES_MAX, TOPIC_BYTES_MAX
from wire.latest import Latest

_PROTOCOL = TProtocol("/meshsub/1.1.0")
_RPC_BYTES_MAX = 1 << 20
_READ_BYTES = 64 << 10
_SUBSCRIPTIONS_PER_RPC_MAX = 100
_SUBSCRIPTIONS_PER_PEER_MAX = 100
_CONTROLS_PER_RPC_MAX = 256
# As in other implementations; all that is recent here has far fewer ids, and fewer messages.
_IDS_PER_RPC_MAX = 5000
_MESSAGES_PER_RPC_MAX = 1000
_VARINT_BYTES_MAX = 4
_SEEN_TTL_S = 120
_SEEN_MAX = 65_536


class SeenMessages:
    """Message ids of the last two minutes; libp2p's own cache leaves a thread behind.

    When full it forgets the oldest: a message may then be delivered twice, never lost.
    """

    def __init__(self, ttl_s: float) -> None:
        self._ttl_s = ttl_s
        self._until_at_s: Latest[bytes, float] = Latest(_SEEN_MAX)

    def add(self, key: bytes) -> bool:
        now_at_s = trio.current_time()
        self._until_at_s[key] = now_at_s + self._ttl_s
        # The oldest ids are in front.
        while self._until_at_s and next(iter(self._until_at_s.values())) <= now_at_s:
            self._until_at_s.forget_oldest()
        return True

    def has(self, key: bytes) -> bool:
        """Whether a message with this key was seen within the time that keys are kept."""
        return self._until_at_s.get(key, 0.0) > trio.current_time()

    def length(self) -> int:
        return len(self._until_at_s)

    def stop(self) -> None:
        """Do nothing: libp2p calls this, but no task or thread runs here."""


# A complete mesh needs few repairs, and a thousand hosts may live in one process.
_HEARTBEAT_S = 1
_HEARTBEAT_AT_REST_S = 5
# How many messages all neighbours together may have us check and pass on: otherwise a peer that
# signs with fresh keys could keep every host busy, mostly with libp2p's work around a signature.
_MESSAGES_PER_S = 10.0
_MESSAGES_BURST = 200.0


class SoundGossip(GossipSub):  # type: ignore[misc]
    """The router: mesh, heartbeat, and the lazy push, which libp2p omits after a prune."""

    def __init__(self) -> None:
        super().__init__(
            protocols=[_PROTOCOL],
            # The paper's degree (arXiv 2007.02754, 6 in 4..12).
            degree=6,
            degree_low=4,
            degree_high=12,
            # The default heartbeat is two minutes; adaptive gossip changes it to thirty seconds.
            heartbeat_interval=_HEARTBEAT_S,
            adaptive_gossip_enabled=False,
            # libp2p's spam protection would silently drop our own messages beyond ten a second.
            spam_protection_enabled=False,
            eclipse_protection_enabled=False,
            prune_back_off=10,
        )
        # No score has a weight here: all are zero and are kept for ever, and by them libp2p grafts
        # two more neighbours at each heartbeat, until everybody sends all to twice as many.
        self.scorer = None
        # When each message was passed on: libp2p forgets it only where it adapts its degree.
        self.recent_message_deliveries: Any = defaultdict(lambda: deque(maxlen=0))
        # Of the recent messages, those that each peer asked for and was given.
        self._given: dict[Any, set[Any]] = {}

    async def heartbeat(self) -> None:
        while True:
            with contained("a gossip heartbeat"):
                await super().heartbeat()
            await trio.sleep(_HEARTBEAT_S)

    def mesh_heartbeat(self) -> Any:
        thin = any(len(peers) < self.degree_low for peers in self.mesh.values())
        self.heartbeat_interval = _HEARTBEAT_S if thin else _HEARTBEAT_AT_REST_S
        return super().mesh_heartbeat()

    def remove_peer(self, peer_id: Any) -> None:
        super().remove_peer(peer_id)
        # libp2p keeps the pause of a peer that was pruned until this one comes back to it.
        for pauses in self.back_off.values():
            pauses.pop(peer_id, None)
        self._given.pop(peer_id, None)

    async def handle_iwant(self, iwant_msg: Any, sender_peer_id: Any) -> None:
        """Give each peer a message once: libp2p copies it as often as it is named."""
        recent = self.mcache.msgs
        given = self._given.get(sender_peer_id, set()) & recent.keys()
        named = {safe_bytes_from_hex(it): it for it in iwant_msg.messageIDs}
        fresh = [it for it in named if it in recent and it not in given]
        if fresh:
            self._given[sender_peer_id] = given.union(fresh)
            asked = rpc_pb2.ControlIWant(messageIDs=[named[it] for it in fresh])
            await super().handle_iwant(asked, sender_peer_id)

    async def send_recent_messages(self, peer_id: Any, topic: str) -> None:
        """Do nothing: a new neighbour learns what it has missed by a swap."""

    async def flush_pending_messages(self, peer_id: Any) -> None:
        with contained("messages that waited for a peer"):
            await super().flush_pending_messages(peer_id)

    async def on_peer_subscribed(self, peer_id: Any, topic: str) -> None:
        with contained("a new subscriber"):
            await super().on_peer_subscribed(peer_id, topic)

    def gossip_heartbeat(self) -> Any:
        """Announce our messages to peers outside the mesh, also to those that were just pruned."""
        told = super().gossip_heartbeat()
        for topic, mesh in self.mesh.items():
            recent = self.mcache.window(topic)
            if not recent:
                continue
            outside = [
                peer
                for peer in self.pubsub.peer_topics.get(topic, ())
                if peer not in mesh and self._is_gossipsub_peer(peer)
            ]
            for peer in self.select_from_minus(max(self.degree, len(outside) // 4), outside, ()):
                told[peer][topic] = list(recent)
        return told

    def _check_equivocation(self, _message: Any) -> bool:
        # libp2p keeps a thousand whole messages for ever to find two with one number. Our adverts
        # have a sequence number of their own, so a second one is only old.
        return True


class SoundPubsub(Pubsub):  # type: ignore[misc]
    """The service around the router. `deliver` gets each message once, after its signature."""

    seen_messages: Any

    def __init__(
        self, host: Any, router: SoundGossip, *, first_number: int, deliver: Callable[[Any], None]
    ) -> None:
        super().__init__(
            host,
            router,
            strict_signing=True,
            max_subscriptions_per_rpc=_SUBSCRIPTIONS_PER_RPC_MAX,
            max_subscriptions_per_peer=_SUBSCRIPTIONS_PER_PEER_MAX,
            max_inbound_rpc_size=_RPC_BYTES_MAX,
        )
        # Numbers must go on rising after a restart, or new messages look like old ones.
        self.counter = first_number
        self.seen_messages.stop()
        self.seen_messages = SeenMessages(_SEEN_TTL_S)
        self.refused = 0
        self._deliver = deliver
        self._allowance = _MESSAGES_BURST
        self._allowed_at_s = 0.0

    async def continuously_read_stream(self, stream: Any) -> None:
        """Read until the stream or service ends. A peer that breaks the rules is disconnected."""
        peer_id = stream.muxed_conn.peer_id
        broken = True
        with contained("a gossip stream"):
            try:
                await self._read_messages(stream, peer_id)
                broken = False
            except (DecodeError, ValueError):
                self.refused += 1
                await self.host.disconnect(peer_id)
        if broken:
            with contained("a gossip stream's end"):
                await stream.reset()

    async def _read_messages(self, stream: Any, peer_id: Any) -> None:
        buffer = bytearray()
        while self.manager.is_running:
            header = _length_at_front(buffer)
            while header is None or len(buffer) < sum(header):
                chunk = await stream.read(_READ_BYTES)
                if not chunk:
                    return
                buffer += chunk
                header = _length_at_front(buffer)
            skip, size = header
            message = rpc_pb2.RPC()
            message.ParseFromString(bytes(buffer[skip : skip + size]))
            del buffer[: skip + size]
            await self._take(peer_id, message)

    def _bound(self, control: Any) -> None:
        """Leave of it what is about our topics; ValueError if it is too much."""
        naming = (control.ihave, control.iwant, control.idontwant)
        topical = (control.ihave, control.graft, control.prune)
        if max(map(len, (*naming, *topical))) > _CONTROLS_PER_RPC_MAX:
            raise ValueError("too much control in one message")
        if sum(len(it.messageIDs) for several in naming for it in several) > _IDS_PER_RPC_MAX:
            raise ValueError("too many messages are named in one")
        # libp2p keeps something for each topic that is named, known or not.
        for several in topical:
            ours = [it for it in several if it.topicID in self.topic_ids]
            del several[:]
            several.extend(ours)
        # It would call whoever it is told of here, wherever that is said to be.
        for prune in control.prune:
            prune.ClearField("peers")

    async def _take(self, peer_id: Any, message: Any) -> None:
        if len(message.publish) > _MESSAGES_PER_RPC_MAX:
            raise ValueError("too many messages in one")
        for one in message.publish:
            if self._is_subscribed_to_msg(one) and self.manager.is_running:
                await self.push_msg(peer_id, one)
        if len(message.subscriptions) > self.max_subscriptions_per_rpc:
            raise ValueError("too many subscriptions in one message")
        for one in message.subscriptions:
            if len(one.topicid) > TOPIC_BYTES_MAX:
                raise ValueError("the name of a topic is too long")
            self.handle_subscription(peer_id, one)
        if message.HasField("control"):
            control = message.control
            message.ClearField("senderRecord")
            self._bound(control)
            with contained("a gossip control message"):
                await self.router.handle_rpc(message, peer_id)

    async def push_msg(self, msg_forwarder: Any, msg: Any) -> None:
        if len(msg.data) > GOSSIP_BYTES_MAX or len(msg.topicIDs) != 1:
            self.refused += 1
            return
        if not self.seen_messages.has(self._msg_id_constructor(msg)) and not self._is_allowed():
            self.refused += 1
            return
        # A malformed key inside a message raises; the peer that passed it on is not to blame.
        with contained("a gossip message"):
            await super().push_msg(msg_forwarder, msg)

    def _is_allowed(self) -> bool:
        """Whether one more message may be checked; refused adverts arrive by a swap instead."""
        now_at_s = trio.current_time()
        gained = (now_at_s - self._allowed_at_s) * _MESSAGES_PER_S
        self._allowance, self._allowed_at_s = (
            min(_MESSAGES_BURST, self._allowance + gained),
            now_at_s,
        )
        if self._allowance < 1.0:
            return False
        self._allowance -= 1.0
        return True

    def notify_subscriptions(self, publish_message: Any) -> None:
        self._deliver(publish_message)

    async def _replay_recent_messages(self, peer_id: Any, topic: str) -> None:
        with contained("replaying messages"):
            await super()._replay_recent_messages(peer_id, topic)

    async def _handle_new_peer(self, peer_id: Any) -> None:
        """Greet a peer; topics that we subscribed to meanwhile are announced after the greeting."""
        known = peer_id in self.peers
        before = set(self.topic_ids)
        await super()._handle_new_peer(peer_id)
        queue = self.peer_queues.get(peer_id)
        if known or queue is None:
            return
        for topic in set(self.topic_ids) - before:
            packet, announce = self._build_announce_rpc(topic, subscribe=True)
            self._enqueue_or_retry_announce(peer_id, queue, packet, announce)


def _length_at_front(buffer: bytearray) -> tuple[int, int] | None:
    """How many bytes the length takes, and the length; None while it is incomplete."""
    size = 0
    for index, byte in enumerate(buffer[:_VARINT_BYTES_MAX]):
        size |= (byte & 0x7F) << (7 * index)
        if not byte & 0x80:
            if size > _RPC_BYTES_MAX:
                raise ValueError("a gossip message is too long")
            return index + 1, size
    if len(buffer) >= _VARINT_BYTES_MAX:
        raise ValueError("a gossip message is too long")
    return None
