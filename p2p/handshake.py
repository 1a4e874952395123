"""Meeting a peer: a Hello and its Welcome, or a refusal, which is read before anybody hangs up.

The shell around `meeting`; whom we have met is kept up with in `neighbours`. Several calls may end
at one peer at once (a bootstrap has several addresses, and is called by who joins and by who keeps
up): they are one greeting, and each hears what came of it. With one each, the first to be refused
would hang up while the others wait for their answer, which would then be a broken stream.
"""

from collections.abc import Awaitable, Callable
from copy import copy
from dataclasses import dataclass, field

import trio

from p2p.adverts import Advertiser
from p2p.anti_entropy import NEWS_TO_NEWCOMER_MAX, AntiEntropy
from p2p.connect import TROUBLES, connect
from p2p.connection_ages import ConnectionAges
from p2p.credentials import NotAMember
from p2p.dialing import Dial, Dialing
from p2p.handshake_log import HandshakeLog
from p2p.peer_rpc import PeerRpc
from p2p.timeouts import stretched
from p2p.transport import Endpoint
from p2p.typed_call import TypedCall, refusal_of
from p2p.view import View
from wire import limits
from wire.advert import Advert
from wire.content import PeerId
from wire.errors import BatonError, InputError, Refused, RemoteProtocolError
from wire.kinds import RefusalCode
from wire.latest import Latest
from wire.message import Hello, Message, Welcome
from wire.signed import Signed, open_signed

# Peers of which it is remembered what version they speak.
VERSIONS_KEPT = 1024
# What a call comes to: the Welcome, and the advert of another start of our key where one is known.
Answer = tuple[Welcome, Signed[Advert] | None]


@dataclass(slots=True)
class _Call:
    """A greeting under way, and what came of it; neither answer nor error if it was given up."""

    ended: trio.Event = field(default_factory=trio.Event)
    answer: Answer | None = None
    error: BatonError | None = None


@dataclass(slots=True)
class Handshake:
    """Who belongs to our network, and who is somebody else with our key."""

    rpc: PeerRpc
    network: str
    advertiser: Advertiser
    handshake_log: HandshakeLog
    # The version of a Welcome: an older peer's is less.
    speaks: int = limits.SPOKEN_VERSION
    ended: BatonError | None = None
    # Why nobody was met at the start, in words, until somebody is.
    unmet: str = ""
    # In a private network: asks whom we called to admit us, if we are no member yet.
    claim: Callable[[PeerId, float], Awaitable[None]] | None = None
    # In a private network: asks whoever takes us for no member why.
    ask_why: Callable[[PeerId], Awaitable[None]] | None = None
    connection_ages: ConnectionAges = field(default_factory=ConnectionAges)
    # Whom we called ourselves: whoever calls us, and however many, these stay.
    _ours: dict[PeerId, None] = field(default_factory=dict)
    # Who is about to close its connection, and is not dead; and since when.
    _parting: dict[PeerId, float] = field(default_factory=dict)
    # Connected, and of another network or version for all that is known: nothing is swapped. Who
    # neither parts nor is being greeted has not answered our Hello, and is greeted again.
    _strange: set[PeerId] = field(default_factory=set)
    _calls: dict[PeerId, _Call] = field(default_factory=dict)
    # What each said in its last Welcome: which start of it, and which version it speaks.
    _versions: Latest[PeerId, tuple[bytes, int]] = field(
        default_factory=lambda: Latest(VERSIONS_KEPT)
    )

    @property
    def endpoint(self) -> Endpoint:
        return self.rpc.endpoint

    @property
    def view(self) -> View:
        return self.rpc.view

    @property
    def dialing(self) -> Dialing:
        return self.rpc.dialing

    @property
    def anti_entropy(self) -> AntiEntropy:
        return self.advertiser.anti_entropy

    def hello(self) -> Hello:
        membership, invite = self._shown()
        return Hello(
            version=limits.PROTOCOL_VERSION,
            network=self.network,
            instance=self.handshake_log.instance,
            wall_ms=int(self.rpc.environment.wall_s() * 1000),
            wanted=self.anti_entropy.wanted_at_hello(),
            advert=self.advertiser.mine(self.endpoint).raw,
            membership=membership,
            invite=invite,
        )

    def _shown(self) -> tuple[bytes, bytes]:
        return (b"", b"") if self.rpc.credentials is None else self.rpc.credentials.shown()

    async def call(self, dial: Dial) -> PeerId:
        """Connect and meet; BatonError says why not."""
        deadline_s = stretched(self.rpc.dial_deadline_s)
        try:
            if dial.peer is None:
                peer = await self.endpoint.connect(dial.addresses[0], deadline_s=deadline_s)
            else:
                peer = dial.peer
                cost = self.rpc.relay_cost
                await connect(self.endpoint, peer, dial.addresses, deadline_s, cost)
            # Whom we chose ourselves may tell us of more than whoever chose us.
            self.view.origins.called.add(peer)
            if self.claim is not None:
                await self.claim(peer, deadline_s)
            welcome, other = await self.greeted(peer, deadline_s)
        except TROUBLES as error:
            self._note_refusal(dial, error)
            self.dialing.failed(dial, trio.current_time(), error)
            self.rpc.note_problem(dial.addresses[0], str(error))
            raise
        self.anti_entropy.told_peers = self.anti_entropy.told_peers or welcome.peers
        self.dialing.succeeded(dial, peer)
        self.dialing.connected(peer)
        self.view.meet(peer)
        self.unmet = ""
        if self.rpc.credentials is not None:
            self.rpc.credentials.problem = self.rpc.credentials.own_end()
        self._ours[peer] = None
        self.connection_ages.begun(peer, trio.current_time())
        self.anti_entropy.believed.add(peer)
        self._answered(peer)
        skew_s = welcome.wall_ms / 1000 - self.rpc.environment.wall_s()
        self.handshake_log.clock(peer, skew_s, called=True)
        if other is not None:
            self._told_of(other)
        return peer

    def _note_refusal(self, dial: Dial, error: BatonError) -> None:
        """In a private network: why we are taken for no member, for `status`.

        It is the word of whoever was called, who may be a stranger: only the owner's list is sure.
        """
        credentials = self.rpc.credentials
        if (
            credentials is not None
            and isinstance(error, Refused)
            and not isinstance(error, NotAMember)
        ):
            who = dial.addresses[0] if dial.peer is None else dial.peer.short
            credentials.problem = credentials.own_end() or f"{who} says: {error.message}"

    async def greeted(self, peer: PeerId, deadline_s: float) -> Answer:
        """What `peer` answers to our Hello, be it us who says it or another call of ours."""
        while (other := self._calls.get(peer)) is not None:
            await other.ended.wait()
            if other.answer is not None:
                return other.answer
            if other.error is not None:
                raise copy(other.error)
        call = self._calls[peer] = _Call()
        self._strange.add(peer)
        try:
            call.answer = await self._greet(peer, deadline_s)
        except TROUBLES as error:
            call.error = error
            if isinstance(error, Refused):
                if self.ask_why is not None and error.code is RefusalCode.STRANGER:
                    await self.ask_why(peer)
                await self.endpoint.disconnect(peer)
            raise
        finally:
            # Also a greeting that is given up leaves a connection, and nobody knows to whom.
            if call.answer is not None or not self.endpoint.is_connected(peer):
                self._strange.discard(peer)
            del self._calls[peer]
            call.ended.set()
        return call.answer

    async def _greet(self, peer: PeerId, deadline_s: float) -> Answer:
        async with self.rpc.call(peer, deadline_s=deadline_s, unproven=True) as typed_call:
            await typed_call.send(self.hello())
            welcome = await typed_call.expect(Welcome)
            try:
                self._prove(peer, welcome.membership, welcome.invite)
            except Refused as error:
                raise NotAMember.named(peer, error) from error
            self._versions[peer] = (welcome.instance, welcome.version)
            await self.advertiser.take_in_batch(welcome.adverts, peer)
            same = welcome.same_key
            return welcome, None if same is None else open_signed(same, Advert)

    async def version_of(self, peer: PeerId, *, deadline_s: float) -> int:
        """The version that a peer speaks; it is greeted if it has not said. One of TROUBLES."""
        if peer == self.rpc.me:
            return self.speaks
        if (told := self._versions.get(peer)) is not None:
            return told[1]
        # It may say meanwhile that it began anew, and is not in the table then.
        return (await self._greet(peer, deadline_s))[0].version

    def told_versions(self) -> list[int]:
        """The versions that connected peers said they speak."""
        told = (self._versions.get(it) for it in self.endpoint.connected())
        return [it[1] for it in told if it is not None]

    def known_version(self, peer: PeerId) -> int:
        """The version that a peer is known to speak; the first one if it has not said."""
        if peer == self.rpc.me:
            return self.speaks
        return self._versions.get(peer, (b"", limits.PROTOCOL_VERSION))[1]

    async def on_hello(self, typed_call: TypedCall, message: Message) -> None:
        assert isinstance(message, Hello)
        ours = limits.PROTOCOL_VERSION
        why = ""
        if message.version != ours:
            why = f"you speak protocol version {message.version}, this network {ours}"
        elif message.network != self.network:
            why = f"this is the network {self.network!r}, not {message.network!r}"
            if self.rpc.credentials is not None:
                why = "this is a private network: ask its owner for an invite"
        else:
            why = self._why_no_member(typed_call.peer, message)
        if why:
            if typed_call.peer in self.view.connected:
                self._strange.add(typed_call.peer)
                # It hangs up when it has read why. If it does not we do, and not before.
                self._parting.setdefault(typed_call.peer, trio.current_time())
            refusal = refusal_of(Refused(why, code=RefusalCode.STRANGER))
            if message.version < limits.CODES_VERSION:
                await typed_call.refuse_uncoded(refusal)
            else:
                await typed_call.send(refusal)
            return
        if typed_call.peer in self._strange:
            self._strange.discard(typed_call.peer)
            self._parting.pop(typed_call.peer, None)
        if self._versions.get(typed_call.peer, (b"", 0))[0] != message.instance:
            # Another start of it may speak another version.
            self._versions.pop(typed_call.peer, None)
        advert = self._own_advert(typed_call, message.advert)
        other = self._other_start(typed_call.peer, message.instance)
        membership, invite = self._shown()
        wall_s = self.rpc.environment.wall_s()
        self.handshake_log.clock(typed_call.peer, message.wall_ms / 1000 - wall_s, called=False)
        self.advertiser.take_in(advert, typed_call.peer)
        self.view.meet(typed_call.peer)
        self.unmet = ""
        wanted = min(message.wanted, NEWS_TO_NEWCOMER_MAX)
        others = self.anti_entropy.some(wanted, typed_call.peer, wall_s)
        await typed_call.send(
            Welcome(
                version=self.speaks,
                instance=self.handshake_log.instance,
                wall_ms=int(wall_s * 1000),
                same_key=other,
                peers=self.anti_entropy.peers(),
                adverts=(self.advertiser.mine(self.endpoint).raw, *(it.raw for it in others)),
                membership=membership,
                invite=invite,
            )
        )
        self.advertiser.met()

    def _why_no_member(self, peer: PeerId, message: Hello) -> str:
        """In a private network: why whoever says Hello is no member; empty if it is one."""
        try:
            self._prove(peer, message.membership, message.invite)
        except Refused as error:
            return error.message
        return ""

    def _prove(self, peer: PeerId, membership: bytes, invite: bytes) -> None:
        """In a private network: note that `peer` is a member; Refused if it is none."""
        credentials = self.rpc.credentials
        if credentials is None:
            return
        credentials.proven.pop(peer, None)
        found = credentials.judge(peer, membership, invite, self.rpc.environment.wall_s())
        if self.endpoint.is_connected(peer):
            credentials.proven[peer] = found

    def _own_advert(self, typed_call: TypedCall, raw: bytes) -> Signed[Advert]:
        advert = open_signed(raw, Advert)
        if advert.signer != typed_call.peer:
            raise RemoteProtocolError("it speaks with another peer's advert")
        return advert

    def _answered(self, peer: PeerId) -> None:
        self.handshake_log.answered(peer, trio.current_time())
        self.advertiser.met()

    # One key on two machines

    def _other_start(self, peer: PeerId, instance: bytes) -> bytes | None:
        """The latest advert of another start of `peer`'s key that is known here."""
        known = self.view.advert_of(peer)
        if known is None or known.record.instance == instance:
            known = self.advertiser.duplicate_keys.other(
                peer, instance, self.rpc.environment.wall_s()
            )
        return None if known is None else known.raw

    def _told_same_key(self, raw: bytes | None) -> None:
        if raw is not None:
            self.on_same_key(open_signed(raw, Advert))

    def on_same_key(self, other: Signed[Advert]) -> None:
        """Our key may be in use elsewhere: say again that it is ours, or end."""
        try:
            self._told_of(other)
        except InputError as error:
            self.ended = error

    def _told_of(self, other: Signed[Advert]) -> None:
        if self.handshake_log.told_same_key(other, trio.current_time()):
            self.advertiser.changed()
