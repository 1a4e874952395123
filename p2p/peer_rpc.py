"""The door to other peers: conversations with them, and what each has done wrong in one.

What a message means is for the handlers; whose fault it is when a conversation fails is decided
here, and it costs only the one whose fault it is.
"""

from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field

import trio

from p2p.adverts import Environment
from p2p.connect import PATIENCE_S, NotCalled, connect, free, is_its_fault
from p2p.credentials import Credentials
from p2p.dialing import Dialing
from p2p.ip_address import Scope, may_call
from p2p.notes import Notes
from p2p.score import Offence, Scores, Standing
from p2p.streams import Call, Streams
from p2p.timeouts import stretched
from p2p.transport import Endpoint
from p2p.typed_call import TypedCall, refusal_of
from p2p.view import View
from wire.content import PeerId
from wire.conversation import CallProtocol, Speaker
from wire.counting import counted
from wire.errors import (
    BatonError,
    Refused,
    RemoteProtocolError,
    TooSlow,
    TransportError,
    Unreachable,
    WireError,
)
from wire.kinds import RefusalCode
from wire.membership import ClaimInvite, RevokedNews
from wire.message import Hello, Message, encode
from wire.signing import SigningKey

Handler = Callable[[TypedCall, Message], Awaitable[None]]
# The last problem with each of the latest few is kept.
PROBLEMS_KEPT = 32
_BANNED = refusal_of(Refused("you are banned here for what you did", code=RefusalCode.BANNED))
_NO_MEMBER = refusal_of(
    Refused("this is a private network: show your membership first", code=RefusalCode.STRANGER)
)
# What is answered in a private network to whoever has shown no membership.
_OF_ANYBODY = (Hello, ClaimInvite)


@dataclass(slots=True, kw_only=True)
class PeerRpc:
    """Conversations in both directions."""

    key: SigningKey
    environment: Environment
    view: View
    dialing: Dialing
    dial_deadline_s: float
    scores: Scores = field(default_factory=Scores)
    # What strangers said of peers' work: it counts for whom work is given to, and for nothing else.
    doubts: Scores = field(default_factory=Scores)
    handlers: dict[type[Message], Handler] = field(default_factory=dict)
    streams: Streams = field(init=False)
    notes: Notes = field(default_factory=lambda: Notes(PROBLEMS_KEPT, trio.current_time))
    # Conversations under way with each, and when the last one began or ended.
    in_calls: Counter[PeerId] = field(default_factory=Counter)
    used_at_s: dict[PeerId, float] = field(default_factory=dict)
    # What a relay asks for what it passes on for us, by its id in text: cheap ones are used first.
    relay_cost: Callable[[str], float] = free
    served: int = 0
    failed: int = 0
    # In a private network: who has shown a membership, and how memberships are exchanged.
    credentials: Credentials | None = None
    greet: Callable[[PeerId, float], Awaitable[object]] | None = None

    @property
    def me(self) -> PeerId:
        return self.key.peer

    @property
    def endpoint(self) -> Endpoint:
        return self.streams.endpoint

    def connected(self) -> frozenset[PeerId]:
        """The peers to which a connection stands."""
        return self.endpoint.connected()

    def standing(self, peer: PeerId) -> Standing:
        """How a peer is regarded here now, by what it did."""
        return self.scores.standing(peer, trio.current_time())

    def standing_at_work(self, peer: PeerId) -> Standing:
        """As `standing`, but who is in doubt is not a good one to give work to."""
        now_at_s = trio.current_time()
        standing = self.scores.standing(peer, now_at_s)
        if standing is Standing.GOOD:
            return self.doubts.standing(peer, now_at_s)
        return standing

    def doubted(self, peer: PeerId) -> None:
        """Count that strangers rejected a peer's work, which may be their lie."""
        if peer != self.me:
            self.doubts.note(peer, Offence.DOUBTED, trio.current_time())

    def offended(self, peer: PeerId, offence: Offence) -> None:
        """Count an offence of a peer against its standing; our own peer never has any."""
        # Neither what others have us do nor their verdicts may turn us against ourselves.
        if peer == self.me:
            return
        self.scores.note(peer, offence, trio.current_time())

    @asynccontextmanager
    async def call(
        self, peer: PeerId, *, deadline_s: float, unproven: bool = False
    ) -> AsyncIterator[TypedCall]:
        """Open a conversation with `peer`, calling it first if need be; it may be ourselves.

        In a private network memberships are exchanged first, unless it may be `unproven`.

        TransportError if it cannot be reached or falls silent, WireError or RemoteProtocolError
        if it says what it must not; each counts against it, and only against it. Time that ran
        out counts only if the peer had PATIENCE_S and has not said a word in this conversation.
        """
        since_at_s = trio.current_time()
        call: TypedCall | None = None
        try:
            with self._in_use(peer):
                await self.reach(peer, deadline_s=deadline_s)
                if not unproven:
                    await self._prove(peer, deadline_s)
                async with self.streams.call(peer, deadline_s=deadline_s) as channel:
                    since_at_s = trio.current_time()
                    call = TypedCall(channel, CallProtocol(Speaker.ASKER))
                    yield call
        except (WireError, RemoteProtocolError):
            self.offended(peer, Offence.MALFORMED)
            raise
        except Refused as error:
            if self.credentials is not None and error.code is RefusalCode.STRANGER:
                # It may have forgotten what we showed it: next time we show it again.
                self.credentials.proven.pop(peer, None)
            raise
        except TransportError as error:
            heard = call is not None and call.heard
            if is_its_fault(error, trio.current_time() - since_at_s, heard=heard):
                self.offended(peer, Offence.UNANSWERED)
            raise

    async def _prove(self, peer: PeerId, deadline_s: float) -> None:
        """In a private network: nothing is said to whoever has shown no membership."""
        credentials = self.credentials
        if credentials is None or peer == self.me or self._is_member(peer):
            return
        if self.greet is not None:
            await self.greet(peer, deadline_s)
        if not self._is_member(peer):
            raise Refused(f"{peer.short} has shown no membership", code=RefusalCode.STRANGER)

    def _is_member(self, peer: PeerId) -> bool:
        """Whether `peer` may be spoken to: in an open network everybody may."""
        credentials = self.credentials
        return (
            credentials is None
            or peer == self.me
            or credentials.admits(peer, self.environment.wall_s())
        )

    def _may_say(self, peer: PeerId, message: Message) -> bool:
        """Whether this is answered: in a private network to members, and joining to anybody."""
        if isinstance(message, _OF_ANYBODY) or self._is_member(peer):
            return True
        # Who is a member no more may ask why.
        credentials = self.credentials
        asks_why = isinstance(message, RevokedNews)
        return asks_why and credentials is not None and credentials.is_cut_off(peer)

    async def reach(self, peer: PeerId, *, deadline_s: float) -> None:
        """Have a connection to `peer`; TransportError if it is not reached."""
        if peer != self.me and not self.endpoint.is_connected(peer):
            await self._reach(peer, min(deadline_s, stretched(self.dial_deadline_s)))

    def to_call(self, peer: PeerId) -> tuple[str, ...]:
        """Where `peer` may be called now; what its advert says is a stranger's word."""
        advert = self.view.advert_of(peer)
        said = advert.record.reached_at if advert else ()
        return self.dialing.to_call(
            peer, tuple(it for it in said if may_call(it, Scope.GLOBAL)), trio.current_time()
        )

    async def _reach(self, peer: PeerId, deadline_s: float) -> None:
        addresses = self.to_call(peer)
        if not addresses and (advert := self.view.advert_of(peer)) and advert.record.reached_at:
            raise NotCalled(f"{peer.short} is not called where it is said to be, for now")
        try:
            await connect(self.endpoint, peer, addresses, deadline_s, self.relay_cost)
        except Unreachable as error:
            self.dialing.unreachable(addresses, trio.current_time(), error)
            self.view.forget(peer)
            raise
        except TooSlow:
            # Not where a client left it no time.
            if deadline_s >= stretched(PATIENCE_S):
                self.dialing.unreachable(addresses, trio.current_time())
                self.view.forget(peer)
            raise

    async def serve(self, channel: Call) -> None:
        """Answer one conversation that a peer opened. What it does wrong ends its stream alone."""
        call = TypedCall(channel, CallProtocol(Speaker.ANSWERER))
        try:
            with self._in_use(call.peer):
                if self.standing(call.peer) is Standing.BANNED:
                    # No further offence: honest software goes on calling, and bans are to end.
                    # What it says is not even read, so that it costs nothing.
                    await channel.receive()
                    await channel.send(encode(_BANNED))
                else:
                    message = await call.receive()
                    if self._may_say(call.peer, message):
                        await self.handlers.get(type(message), _not_yet)(call, message)
                    else:
                        await call.send(_NO_MEMBER)
            self.served += 1
        except (WireError, RemoteProtocolError) as error:
            self.offended(call.peer, Offence.MALFORMED)
            self.blame(call.peer, error)
            raise
        except TransportError as error:
            self.blame(call.peer, error)
            raise

    def blame(self, peer: PeerId, error: BatonError) -> None:
        """Count what a peer did wrong, and keep the latest for `status`."""
        self.failed += 1
        self.note_problem(str(peer), str(error))

    def note_problem(self, about: str, line: str) -> None:
        """Keep the last problem with each of the latest few, for `status`."""
        self.notes.note(line, about)

    @property
    def problems(self) -> dict[str, str]:
        """The last problem with each of the latest few, in words."""
        return self.notes.lines()

    @contextmanager
    def _in_use(self, peer: PeerId) -> Iterator[None]:
        with counted(self.in_calls, peer):
            try:
                yield
            finally:
                if self.endpoint.is_connected(peer):
                    self.used_at_s[peer] = trio.current_time()


async def _not_yet(call: TypedCall, _: Message) -> None:
    await call.send(refusal_of(Refused("this peer is starting", retry_after_s=1.0)))
