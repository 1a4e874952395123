"""A peer among peers: calls kept up, and one door for everything that is said.

The shell around `dialing`, `meeting` and `score`: it carries messages to those cores and does what
they say. What a message means for a task or a blob is for the handlers it is given.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import trio

from p2p.adverts import AdvertConfig, Herald, Offering, Seams
from p2p.dialing import Dial, Dialing
from p2p.meeting import Meetings, not_met
from p2p.reaching import connect, is_its_fault
from p2p.score import Offence, Scores, Standing
from p2p.streams import Exchange, Streams, open_streams
from p2p.talk import Talk, refusal_of
from p2p.transport import ConnectionDown, ConnectionEvent, ConnectionUp, Endpoint, Transport
from p2p.view import View
from wire import limits
from wire.advert import Advert
from wire.content import PeerId
from wire.conversation import Conversation, Speaker
from wire.errors import (
    BatonError,
    InputError,
    Refused,
    RemoteProtocolError,
    TransportError,
    Unreachable,
    WireError,
)
from wire.message import Hello, Message, Ping, Pong, Welcome
from wire.signed import Signed, open_signed
from wire.signing import SigningKey

Handler = Callable[[Talk, Message], Awaitable[None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class PeersConfig:
    """How a peer takes its place in a network."""

    network: str = "baton"
    bootstraps: tuple[str, ...] = ()
    listen: tuple[str, ...] = ("/ip4/0.0.0.0/tcp/0",)
    advert_ttl_s: int = 90
    ping_every_s: float = 10.0
    dial_deadline_s: float = 8.0


@dataclass(frozen=True, slots=True, kw_only=True)
class PeersStatistics:
    """Counts since the start."""

    adverts_heard: int
    adverts_refused: Mapping[str, int]
    talks_served: int
    talks_failed: int


@dataclass(slots=True)
class Peers:
    """The door to the others. Made by `open_peers`."""

    key: SigningKey
    config: PeersConfig
    seams: Seams
    herald: Herald
    view: View
    dialing: Dialing
    meetings: Meetings
    scores: Scores
    handlers: dict[type[Message], Handler]
    streams: Streams = field(init=False)
    problems: dict[str, str] = field(default_factory=dict)
    _served: int = 0
    _failed: int = 0
    _ended: BatonError | None = None

    @property
    def me(self) -> PeerId:
        return self.key.peer

    @property
    def endpoint(self) -> Endpoint:
        return self.streams.endpoint

    def connected(self) -> frozenset[PeerId]:
        return self.endpoint.connected()

    def statistics(self) -> PeersStatistics:
        return PeersStatistics(
            adverts_heard=self.herald.heard,
            adverts_refused=dict(self.herald.refused),
            talks_served=self._served,
            talks_failed=self._failed,
        )

    def standing(self, peer: PeerId) -> Standing:
        return self.scores.standing(peer, trio.current_time())

    def offended(self, peer: PeerId, offence: Offence) -> None:
        self.scores.note(peer, offence, trio.current_time())

    def answered_last_minute(self) -> tuple[int, int]:
        """Of how many connected peers how many saw and answered us in the last minute: (n, m)."""
        there = self.connected()
        return self.meetings.answered_within(there, trio.current_time(), 60.0), len(there)

    # Talking

    @asynccontextmanager
    async def talk(self, peer: PeerId, *, deadline_s: float) -> AsyncIterator[Talk]:
        """Open a conversation with `peer`, calling it first if need be.

        TransportError if it cannot be reached or falls silent, WireError or RemoteProtocolError
        if it says what it must not; each counts against it, and only against it. Time that ran
        out counts only if the peer had PATIENCE_S and has not said a word in this conversation.
        """
        since_s = trio.current_time()
        talk: Talk | None = None
        try:
            if peer not in self.endpoint.connected():
                await self._reach(peer, min(deadline_s, self.config.dial_deadline_s))
            async with self.streams.exchange(peer, deadline_s=deadline_s) as exchange:
                since_s = trio.current_time()
                talk = Talk(exchange, Conversation(Speaker.ASKER))
                yield talk
        except (WireError, RemoteProtocolError):
            self.offended(peer, Offence.MALFORMED)
            raise
        except TransportError as error:
            heard = talk is not None and talk.heard
            if is_its_fault(error, trio.current_time() - since_s, heard=heard):
                self.offended(peer, Offence.UNANSWERED)
            raise

    async def _reach(self, peer: PeerId, deadline_s: float) -> None:
        advert = self.view.advert_of(peer)
        addresses = advert.record.addresses if advert else self.dialing.addresses_of(peer)
        try:
            await connect(self.endpoint, peer, addresses, deadline_s)
        except Unreachable:
            self.view.forget(peer)
            raise

    async def serve(self, exchange: Exchange) -> None:
        """Answer one conversation that a peer opened. What it does wrong ends its stream alone."""
        talk = Talk(exchange, Conversation(Speaker.ANSWERER))
        if self.standing(talk.peer) is Standing.BANNED:
            # No further offence: honest software goes on calling, and bans are to end.
            banned = RemoteProtocolError("it is banned here for what it did")
            self.blame(talk.peer, banned)
            raise banned
        try:
            message = await talk.receive()
            handler = self.handlers.get(type(message), _not_yet)
            await handler(talk, message)
            self._served += 1
        except (WireError, RemoteProtocolError) as error:
            self.offended(talk.peer, Offence.MALFORMED)
            self.blame(talk.peer, error)
            raise
        except TransportError as error:
            self.blame(talk.peer, error)
            raise

    def blame(self, peer: PeerId, error: BatonError) -> None:
        """Count what a peer did wrong, and keep the latest for `status`."""
        self._failed += 1
        self._problem(str(peer), str(error))

    def _problem(self, about: str, line: str) -> None:
        """Keep the last problem with each of the latest few, for `status`."""
        self.problems.pop(about, None)
        self.problems[about] = line
        while len(self.problems) > 32:
            self.problems.pop(next(iter(self.problems)))

    # Meeting

    def _hello(self) -> Hello:
        return Hello(
            version=limits.PROTOCOL_VERSION,
            network=self.config.network,
            instance=self.meetings.instance,
            wall_ms=int(self.seams.wall_s() * 1000),
            wanted=limits.ADVERTS_PER_MESSAGE_MAX,
            advert=self.herald.advert(self.endpoint).raw,
        )

    async def _call(self, dial: Dial) -> PeerId:
        """Connect and meet; BatonError says why not."""
        deadline_s = self.config.dial_deadline_s
        try:
            if dial.peer is None:
                peer = await self.endpoint.connect(dial.addresses[0], deadline_s=deadline_s)
            else:
                peer = dial.peer
                await connect(self.endpoint, peer, dial.addresses, deadline_s)
            async with self.talk(peer, deadline_s=deadline_s) as talk:
                await talk.send(self._hello())
                welcome = await talk.expect(Welcome)
                adverts = [open_signed(raw, Advert) for raw in welcome.adverts]
                same = welcome.same_key
                other = None if same is None else open_signed(same, Advert)
        except (TransportError, WireError, RemoteProtocolError, Refused) as error:
            self.dialing.failed(dial, trio.current_time())
            self._problem(dial.addresses[0], str(error))
            raise
        self.dialing.succeeded(dial, peer)
        self.dialing.connected(peer)
        now_s = trio.current_time()
        self.meetings.answered(peer, now_s)
        self.meetings.clock(peer, welcome.wall_ms / 1000 - self.seams.wall_s())
        if other is not None:
            self.meetings.told_same_key(other, now_s)
        for advert in adverts:
            self.herald.take_in(advert)
        return peer

    async def on_hello(self, talk: Talk, message: Message) -> None:
        assert isinstance(message, Hello)
        ours = limits.PROTOCOL_VERSION
        why = ""
        if message.version != ours:
            why = f"you speak protocol version {message.version}, this network {ours}"
        elif message.network != self.config.network:
            why = f"this is the network {self.config.network!r}, not {message.network!r}"
        if why:
            await talk.send(refusal_of(Refused(why)))
            return
        advert = open_signed(message.advert, Advert)
        if advert.signer != talk.peer:
            raise RemoteProtocolError("its hello carries another peer's advert")
        other = self._other_start(talk.peer, message.instance)
        self.meetings.clock(talk.peer, message.wall_ms / 1000 - self.seams.wall_s())
        self.herald.take_in(advert)
        await talk.send(
            Welcome(
                version=ours,
                instance=self.meetings.instance,
                wall_ms=int(self.seams.wall_s() * 1000),
                same_key=other,
                peers=len(self.view) + 1,
                adverts=self.herald.batch_for(talk.peer, self.endpoint),
            )
        )

    async def on_ping(self, talk: Talk, message: Message) -> None:
        assert isinstance(message, Ping)
        await talk.send(Pong(same_key=self._other_start(talk.peer, message.instance)))

    def _other_start(self, peer: PeerId, instance: bytes) -> bytes | None:
        """The advert of another start of `peer`'s key, if that is the latest one known here."""
        known = self.view.advert_of(peer)
        return None if known is None or known.record.instance == instance else known.raw

    async def _ping(self, peer: PeerId) -> None:
        try:
            async with self.talk(peer, deadline_s=5.0) as talk:
                await talk.send(Ping(instance=self.meetings.instance))
                same = (await talk.expect(Pong)).same_key
                other = None if same is None else open_signed(same, Advert)
        except (TransportError, WireError, RemoteProtocolError, Refused) as error:
            self._problem(str(peer), str(error))
            return
        self.meetings.answered(peer, trio.current_time())
        if other is not None:
            self.on_same_key(other)

    def on_same_key(self, other: Signed[Advert]) -> None:
        """Our key may be in use elsewhere: say again that it is ours, or end."""
        self.herald.changed()
        try:
            self.meetings.told_same_key(other, trio.current_time())
        except InputError as error:
            self._ended = error

    # Keeping up

    async def join(self) -> None:
        """Meet one bootstrap or known peer; Unreachable, naming each tried, if none answers."""
        if not self.config.bootstraps:
            return
        troubles: list[BatonError] = []
        for address in self.config.bootstraps:
            try:
                await self._call(Dial(None, (address,)))
            except (TransportError, WireError, RemoteProtocolError, Refused) as error:
                troubles.append(error)
        for peer, addresses in list(self.dialing.known().items())[:16]:
            if len(troubles) < len(self.config.bootstraps):
                break
            try:
                await self._call(Dial(peer, addresses))
            except (TransportError, WireError, RemoteProtocolError, Refused):
                continue
            troubles = []
        if len(troubles) >= len(self.config.bootstraps):
            raise not_met(troubles)
        self.meetings.check_clock()

    async def keep_up_forever(self) -> None:
        async with trio.open_nursery() as calls:
            while True:
                now_s = trio.current_time()
                self.view.expire(self.seams.wall_s())
                for dial in self.dialing.due(now_s):
                    calls.start_soon(self._call_quietly, dial)
                await trio.sleep(0.5)

    async def _call_quietly(self, dial: Dial) -> None:
        try:
            await self._call(dial)
        except InputError as error:
            self._ended = error
        except (TransportError, WireError, RemoteProtocolError, Refused):
            # Kept as a problem; dialing waits and tries again.
            return

    async def ping_forever(self) -> None:
        while True:
            # Spread, so that a thousand peers started at once do not ping at once.
            await trio.sleep(self.config.ping_every_s * (0.5 + self.seams.random.random()))
            async with trio.open_nursery() as pings:
                for peer in self.connected():
                    # Two that banned each other would keep it up by asking and not answering.
                    if self.standing(peer) is not Standing.BANNED:
                        pings.start_soon(self._ping, peer)
            if self._ended is not None:
                raise self._ended

    def on_connection(self, event: ConnectionEvent) -> None:
        match event:
            case ConnectionUp(peer):
                self.dialing.connected(peer)
                self.view.near.add(peer)
            case ConnectionDown(peer):
                self.view.near.discard(peer)
                self.dialing.disconnected(peer, trio.current_time())
                # It may be gone for good; if not, its next advert says so.
                self.view.forget(peer)


async def _not_yet(talk: Talk, _: Message) -> None:
    await talk.send(refusal_of(Refused("this peer is starting", retry_after_s=1.0)))


@asynccontextmanager
async def open_peers(
    transport: Transport,
    key: SigningKey,
    config: PeersConfig,
    seams: Seams,
    offering: Callable[[], Offering],
) -> AsyncIterator[Peers]:
    """Take part in a network for as long as the block runs; `await peers.join()` to meet it."""
    instance = seams.entropy(8)
    view = View(key.peer, instance)
    dialing = Dialing(key.peer, seams.random)
    for address in config.bootstraps:
        dialing.add_bootstrap(address)
    about = AdvertConfig(network=config.network, ttl_s=config.advert_ttl_s)
    peers = Peers(
        key,
        config,
        seams,
        herald=Herald(key, instance, about, seams, offering, view, dialing),
        view=view,
        dialing=dialing,
        meetings=Meetings(key.peer, instance, trio.current_time(), seams.wall_s()),
        scores=Scores(),
        handlers={},
    )
    peers.herald.problem = peers.blame
    peers.herald.same_key = peers.on_same_key
    peers.handlers |= {Hello: peers.on_hello, Ping: peers.on_ping}
    async with open_streams(transport, key, config.listen, serve=peers.serve) as streams:
        peers.streams = streams
        streams.endpoint.watch(peers.on_connection)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(peers.herald.listen_forever, streams.endpoint)
            nursery.start_soon(peers.herald.speak_forever, streams.endpoint)
            nursery.start_soon(peers.keep_up_forever)
            nursery.start_soon(peers.ping_forever)
            try:
                yield peers
                await peers.herald.say_good_bye(streams.endpoint)
            finally:
                nursery.cancel_scope.cancel()
