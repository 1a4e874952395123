"""Calling each other back: whether our addresses are true, and others' asked to find out.

The shell around `p2p.reachability`. A stranger that is asked calls the IP address at which it sees
the asker, over a new connection, and tells whether the asker's key answered. It never calls any
other address, and each asker once a minute.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import trio

from p2p.adverts import Advertiser
from p2p.connect import TROUBLES
from p2p.handshake import Handshake
from p2p.ip_address import CIRCUIT, host_of, is_public, is_relayed, prefix_of
from p2p.peer_rpc import PeerRpc
from p2p.port_mapping import PortMapping, PortRouter
from p2p.reachability import CallBack, Reach, Reachability, Stranger
from p2p.score import Standing
from p2p.timeouts import stretched
from p2p.token_bucket import TokenBucket, TokenBuckets
from p2p.transport import ConnectionDown, ConnectionEvent, ConnectionUp
from p2p.typed_call import TypedCall, refusal_of
from wire import limits
from wire.content import PeerId
from wire.errors import Refused, TransportError
from wire.kinds import RefusalCode
from wire.message import Message
from wire.reach import DialBack, DialedBack

LOOK_S = 1.0
DIAL_DEADLINE_S = 5.0
ASK_DEADLINE_S = 8.0
PER_ASKER_S = 60.0
# Neighbours behind one router ask in turn, and all that ask together cost no more than this.
PER_NETWORK_BURST = 4.0
DIALS_AT_ONCE = 4
DIALS_BURST, DIALS_PER_S = 16.0, 1.0


@dataclass(slots=True)
class DialingBack:
    """Asks strangers to call this peer back, and does the same for others."""

    rpc: PeerRpc
    handshake: Handshake
    advertiser: Advertiser
    reachability: Reachability
    # The addresses at which others keep a connection to us open; none yet.
    kept: Callable[[], tuple[str, ...]] = tuple
    # What keeps a port of the router's for us; None where none is asked.
    mapping: PortMapping | None = None
    asked: int = 0
    dialed: int = 0
    refused: int = 0
    # The IP addresses of the connected, as we see them.
    _hosts: dict[PeerId, str] = field(default_factory=dict)
    # Who does not know the question, or does not answer it.
    _unable: set[PeerId] = field(default_factory=set)
    _per_asker: TokenBuckets = field(
        default_factory=lambda: TokenBuckets(burst=1.0, per_s=1.0 / PER_ASKER_S)
    )
    _per_network: TokenBuckets = field(
        default_factory=lambda: TokenBuckets(PER_NETWORK_BURST, PER_NETWORK_BURST / PER_ASKER_S)
    )
    _all: TokenBucket = field(default_factory=lambda: TokenBucket(DIALS_BURST, DIALS_PER_S))
    _at_once: trio.CapacityLimiter = field(
        default_factory=lambda: trio.CapacityLimiter(DIALS_AT_ONCE)
    )

    def on_connection(self, event: ConnectionEvent) -> None:
        """Note where each connected peer is."""
        match event:
            case ConnectionUp(peer):
                self._hosts[peer] = host_of(self.rpc.endpoint.remote_address(peer) or "")
            case ConnectionDown(peer):
                self._hosts.pop(peer, None)
                self._unable.discard(peer)

    def announced(self) -> tuple[str, ...]:
        """The addresses that our advert says."""
        return self.reachability.announced(
            self.rpc.endpoint.addresses,
            self.kept(),
            self.rpc.view.origins.scopes.values(),
            far=self._has_strangers(),
        )

    def strangers(self) -> list[Stranger]:
        """Who can be asked: across the internet, and not known to be unable."""
        return [
            Stranger(peer, host)
            for peer, host in self._hosts.items()
            if is_public(host) and peer not in self._unable
        ]

    def _has_strangers(self) -> bool:
        # Asked for with every swap and leg.
        return any(is_public(it) and peer not in self._unable for peer, it in self._hosts.items())

    # Asking

    async def map_forever(self, router: PortRouter) -> None:
        """Have the router pass a port on for as long as it is needed, until cancelled."""
        self.mapping = PortMapping(
            router,
            self.reachability,
            listening=lambda: self.rpc.endpoint.addresses,
            strangers=self._has_strangers,
        )
        await self.mapping.run_forever()

    async def ask_forever(self) -> None:
        """Find out how others reach us, again and again, until cancelled."""
        while True:
            now_at_s = trio.current_time()
            listening = self.rpc.endpoint.addresses
            if self.reachability.is_due(listening, now_at_s):
                asked = self.reachability.to_ask(self.able(), listening, now_at_s)
                if asked:
                    await self._ask(asked)
            self.conclude()
            await trio.sleep(LOOK_S)

    def is_called(self) -> bool:
        """Whether strangers can call this peer, as far as is known."""
        return self.reachability.reach in (Reach.OPEN, Reach.MAPPED)

    def conclude(self) -> None:
        """What is known has changed: say so in the advert."""
        kept = bool(self.kept())
        if self.reachability.conclude(self._has_strangers(), kept, trio.current_time()):
            self.advertiser.changed()

    def able(self) -> list[Stranger]:
        """Who can be asked now."""
        return [it for it in self.strangers() if self._may_ask(it.peer)]

    def _may_ask(self, peer: PeerId) -> bool:
        endpoint = self.rpc.endpoint
        banned = self.rpc.standing(peer) is Standing.BANNED
        return endpoint.is_connected(peer) and not endpoint.is_relayed(peer) and not banned

    async def _ask(self, asked: tuple[Stranger, ...]) -> None:
        port = self.reachability.port()
        assert port is not None, "without a port nobody is asked"
        answers: list[CallBack] = []
        async with trio.open_nursery() as nursery:
            for stranger in asked:
                nursery.start_soon(self._ask_one, stranger, port, answers)
        if self.reachability.port() != port:
            # What they found is about a port that is called no more.
            return
        before = self.reachability.confirmed
        self.reachability.judge(answers, trio.current_time())
        if self.reachability.confirmed != before:
            self.advertiser.changed()

    async def _ask_one(self, stranger: Stranger, port: int, answers: list[CallBack]) -> None:
        peer = stranger.peer
        deadline_s = stretched(ASK_DEADLINE_S)
        try:
            version = await self.handshake.version_of(peer, deadline_s=deadline_s)
            if version < limits.REACH_VERSION:
                self._unable.add(peer)
                return
            self.asked += 1
            async with self.rpc.call(peer, deadline_s=deadline_s) as call:
                await call.send(DialBack(port=port))
                answer = await call.expect(DialedBack)
        except Refused as error:
            # One that is busy, or was asked just now, may be asked later.
            if error.retry_after_s is None:
                self._unable.add(peer)
            else:
                now_at_s = trio.current_time()
                self.reachability.was_busy(peer, error.retry_after_s, now_at_s)
        except TROUBLES as error:
            self.rpc.note_problem(str(peer), str(error))
        else:
            if is_public(answer.host):
                answers.append(CallBack(stranger, answer.host, answer.reached))

    def ask_anew(self) -> None:
        """This machine's network has changed: strangers and the router are asked at once."""
        self.reachability.ask_anew()
        if self.mapping is not None:
            self.mapping.ask_anew()

    # Being asked

    async def on_dial_back(self, call: TypedCall, message: Message) -> None:
        """Call the asker at the address at which it is seen, and tell whether it answers."""
        assert isinstance(message, DialBack)
        try:
            through = self._through(call.peer, message.relay)
            host = self._admitted(call.peer, "relay " if through else "")
        except Refused as error:
            self.refused += 1
            await call.send(refusal_of(error))
            return
        family = "ip6" if ":" in host else "ip4"
        address = through or f"/{family}/{host}/tcp/{message.port}/p2p/{call.peer}"
        self.dialed += 1
        async with self._at_once:
            try:
                await self.rpc.endpoint.knock(address, deadline_s=stretched(DIAL_DEADLINE_S))
                reached = True
            except TransportError:
                reached = False
        await call.send(DialedBack(host=host, reached=reached))

    def _through(self, asker: PeerId, relays: tuple[PeerId, ...]) -> str:
        """Where the asker is called through a relay; "" for none, Refused if it is not known."""
        if not relays:
            return ""
        advert = self.rpc.view.advert_of(relays[0])
        said = () if advert is None else advert.record.reached_at
        for address in said:
            if is_public(host_of(address)) and not is_relayed(address):
                return f"{address}{CIRCUIT}/p2p/{asker}"
        raise Refused("this relay is not known here", code=RefusalCode.NOT_FOUND)

    def _admitted(self, asker: PeerId, kind: str) -> str:
        """Where the asker is called; Refused if it is not. Each `kind` of call has its own rate."""
        # As it is now: what was noted may be where a relay is, through which it came first.
        host = host_of(self.rpc.endpoint.remote_address(asker) or "")
        if not is_public(host) or self.rpc.endpoint.is_relayed(asker):
            raise Refused(
                "you are not seen across the internet from here", code=RefusalCode.NOT_WILLING
            )
        now_at_s = trio.current_time()
        busy = Refused(
            "you were called back a moment ago", retry_after_s=PER_ASKER_S, code=RefusalCode.BUSY
        )
        if self._at_once.available_tokens < 1 or self._all.tokens(now_at_s) < 1.0:
            raise Refused(
                "too many ask to be called back",
                retry_after_s=DIAL_DEADLINE_S,
                code=RefusalCode.BUSY,
            )
        if not self._per_asker.take(f"{kind}{asker}", now_at_s):
            raise busy
        if not self._per_network.take(f"{kind}{prefix_of(host)}", now_at_s):
            raise busy
        self._all.take(now_at_s)
        return host

    # Telling

    def as_map(self) -> dict[str, object]:
        """How others reach this peer, for `status`."""
        found = self.reachability
        now_at_s = trio.current_time()
        since_at_s = now_at_s if found.since_at_s is None else found.since_at_s
        confirmed_at_s = found.confirmed_at_s
        confirmed_by = dict.fromkeys(peer for by in found.confirmed.values() for peer in by)
        return {
            "how": found.reach.value,
            "since_s": round(now_at_s - since_at_s, 1),
            "addresses": list(self.announced()),
            "confirmed_s_ago": (
                None if confirmed_at_s is None else round(now_at_s - confirmed_at_s, 1)
            ),
            "confirmed_by": [str(it) for it in confirmed_by],
            "seen_at": list(found.seen_hosts),
            "asked": self.asked,
            "called_back": self.dialed,
            "mapping": None if self.mapping is None else self.mapping.as_map(),
        }


__all__ = ["DialingBack", "Reach"]
