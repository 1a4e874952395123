"""Adverts out and in: what we have to offer now, signed and told; what others say, heard.

The shell around `p2p.view` and `p2p.gossip_rate`: it signs, publishes and listens; the view decides
what is believed, the pace when we speak. Most adverts travel by swaps (see `p2p.neighbours`);
the topic is for what is urgent.
"""

from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass, field, replace
from random import Random

import trio

from p2p.anti_entropy import AntiEntropy
from p2p.dialing import Dialing
from p2p.duplicate_keys import DuplicateKeys
from p2p.gossip_rate import GossipRateLimit
from p2p.ip_address import may_call
from p2p.transport import Endpoint
from p2p.view import Hearing, View
from wire import limits
from wire.advert import Advert, ModelOffer
from wire.content import ContentId, PeerId
from wire.errors import Oversize, RemoteProtocolError, WireError
from wire.ownership import Ownership
from wire.signed import Envelope, Signed, sign
from wire.signing import SigningKey


@dataclass(frozen=True, slots=True, kw_only=True)
class Capacity:
    """What this peer has to offer now; the node says it, adverts carry it."""

    roles: int = 0
    models: tuple[ModelOffer, ...] = ()
    free_slots: int = 0
    queue_s: float = 0.0
    # What it asks for its work, and the most of its models; None and 0 where all is free.
    tariff: ContentId | None = None
    price: int = 0
    # What it has staked, in millionths of a credit.
    stake: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Environment:
    """What comes in from outside: wall clock in seconds, randomness, secret bytes."""

    wall_s: Callable[[], float]
    random: Random
    entropy: Callable[[int], bytes]


# A change is told at once, but changes no more often than this.
PAUSE_S = 0.5
# How often to look whether what we offer has become, or ceased to be, nothing.
LOOK_S = 2.0
# Adverts of a batch that are read in one go.
BATCH_AT_ONCE = 8


@dataclass(slots=True)
class Advertiser:
    """Speaks for one peer, and hears the others."""

    key: SigningKey
    instance: bytes
    topic: str
    environment: Environment
    capacity: Callable[[], Capacity]
    view: View
    dialing: Dialing
    anti_entropy: AntiEntropy
    rate_limit: GossipRateLimit
    problem: Callable[[PeerId, WireError], None] = lambda _peer, _error: None
    same_key: Callable[[Signed[Advert]], None] = lambda _advert: None
    # Told whose advert is from the future by more than clocks may differ, and by how many seconds.
    from_future: Callable[[PeerId, float], None] = lambda _peer, _ahead_s: None
    # Whether a peer may play these roles, and which of its own this one says.
    allows: Callable[[PeerId, int], bool] = lambda _peer, _roles: True
    own_roles: Callable[[], int] = lambda: -1
    # Whether adverts are published to whoever listens; in a private network swaps carry them all.
    publishes: bool = True
    # The addresses that are said; None for all that are listened on.
    announced: Callable[[], tuple[str, ...]] | None = None
    # Whose this peer is, where that is to be known.
    ownership: Ownership | None = None
    duplicate_keys: DuplicateKeys = field(default_factory=DuplicateKeys)
    heard: int = 0
    told_all: int = 0
    refused: dict[str, int] = field(default_factory=dict)
    _seq: int = 0
    _mine: Signed[Advert] | None = None
    _met: trio.Event = field(default_factory=trio.Event)
    _changed: trio.Event = field(default_factory=trio.Event)

    def changed(self) -> None:
        """What we offer has changed: say so soon."""
        self._mine = None
        self._changed.set()

    def met(self) -> None:
        """Somebody is there to hear us."""
        self._met.set()

    def mine(self, endpoint: Endpoint) -> Signed[Advert]:
        """Our latest advert. A new one is made once in a period, and when something changes."""
        mine = self._mine
        if (
            mine is None
            or mine.record.addresses != self._addresses(endpoint)
            or self.environment.wall_s() >= mine.record.issued_at_s + mine.record.ttl_s / 3
        ):
            mine = self._mine = self.advert(endpoint)
        return mine

    def advert(self, endpoint: Endpoint, *, leaving: bool = False) -> Signed[Advert]:
        """What is to be said of this peer at this moment."""
        wall_s = self.environment.wall_s()
        self._seq = max(self._seq + 1, int(wall_s * 1000))
        capacity = self.capacity()
        advert = Advert(
            version=limits.PROTOCOL_VERSION,
            seq=self._seq,
            instance=self.instance,
            issued_at_s=int(wall_s),
            ttl_s=self.rate_limit.ttl_s(self.anti_entropy.peers()),
            addresses=self._addresses(endpoint),
            roles=capacity.roles & self.own_roles(),
            models=capacity.models[: limits.ADVERT_MODELS_MAX],
            free_slots=capacity.free_slots,
            queue_s=capacity.queue_s,
            price=capacity.price,
            leaving=leaving,
            tariffs=() if capacity.tariff is None else (capacity.tariff,),
            stake=capacity.stake,
        )
        return sign(_fitted(advert), self.key)

    def _addresses(self, endpoint: Endpoint) -> tuple[str, ...]:
        said = endpoint.addresses if self.announced is None else self.announced()
        if self.ownership is None:
            return said[: limits.ADVERT_ADDRESSES_MAX]
        return (*said[: limits.ADVERT_ADDRESSES_MAX - 1], self.ownership.address)

    async def speak_forever(self, endpoint: Endpoint) -> None:
        """Tell everybody what is urgent, as far as the network can bear it."""
        await self._met.wait()
        while True:
            self._changed = trio.Event()
            told = self.mine(endpoint)
            await self._tell_all(endpoint, told)
            await trio.sleep(PAUSE_S)
            while not self._changed.is_set() and not self._turned(told.record):
                with trio.move_on_after(LOOK_S):
                    await self._changed.wait()

    def _turned(self, told: Advert) -> bool:
        """Whether we are full and said otherwise, or the other way round."""
        if (told.free_slots > 0) is (self.capacity().free_slots > 0):
            return False
        self._mine = None
        return True

    async def _tell_all(self, endpoint: Endpoint, advert: Signed[Advert]) -> None:
        if self.publishes and self.rate_limit.may_tell_all(
            self.anti_entropy.peers(), trio.current_time()
        ):
            self.told_all += 1
            await endpoint.publish(self.topic, advert.raw)

    async def say_good_bye(self, endpoint: Endpoint) -> None:
        with trio.CancelScope(deadline=trio.current_time() + 1.0, shield=True):
            await self._tell_all(endpoint, self.advert(endpoint, leaving=True))
            # One heartbeat's worth for the message to go out.
            await trio.sleep(0.3)

    async def listen_forever(self, endpoint: Endpoint) -> None:
        subscription = await endpoint.subscribe(self.topic)
        async for message in subscription:
            try:
                self._take_in_envelope(Envelope.read(message.data, Advert), None)
            except WireError as error:
                self.problem(message.source, error)

    async def take_in_batch(
        self, raws: Sequence[bytes], introducer: PeerId, asked: Container[bytes] | None = None
    ) -> None:
        """Hear what a neighbour passed on; WireError if a part of it is no signed advert.

        `asked`: the keys of what it was asked for, if it was; anything else is refused.
        """
        envelopes = [Envelope.read(raw, Advert) for raw in raws]
        keys = [it.signer[: limits.DIGEST_KEY_BYTES] for it in envelopes]
        if asked is not None and not all(it in asked for it in keys):
            raise RemoteProtocolError("it swapped what was not asked for")
        for number, envelope in enumerate(envelopes):
            if number % BATCH_AT_ONCE == BATCH_AT_ONCE - 1:
                # A signature takes a tenth of a millisecond: others have their turn in between.
                await trio.lowlevel.checkpoint()
            self._take_in_envelope(envelope, introducer)

    def _take_in_envelope(self, envelope: Envelope[Advert], introducer: PeerId | None) -> None:
        """Hear what may be an advert; WireError if it is none.

        The signature is checked last: what would not be taken in costs no more than reading.
        """
        known = self.view.advert_of(envelope.signer)
        if known is not None and known.raw == envelope.raw:
            return
        claimed = envelope.claimed()
        if claimed.expired(self.environment.wall_s()) and not claimed.leaving:
            self.refused["expired"] = self.refused.get("expired", 0) + 1
        elif (
            known is None or claimed.seq >= known.record.seq or self._is_other_start(claimed, known)
        ):
            self.take_in(envelope.checked(claimed), introducer)

    def _is_other_start(self, claimed: Advert, known: Signed[Advert]) -> bool:
        """Whether it may be word of a second machine with the key of one we are connected to."""
        return (
            claimed.instance != known.record.instance
            and known.signer in self.view.connected
            and not self.duplicate_keys.knows(known.signer, claimed.instance)
        )

    def _learn(self, advert: Signed[Advert], introducer: PeerId | None) -> None:
        """Where it may be called: what its teller may say, and what was learned before."""
        nearest = self.view.origins.nearest(advert.signer, introducer)
        before = self.dialing.addresses_of(advert.signer)
        addresses = [it for it in advert.record.reached_at if it in before or may_call(it, nearest)]
        self.dialing.learn(advert.signer, tuple(addresses))

    def take_in(self, advert: Signed[Advert], introducer: PeerId | None = None) -> Hearing:
        """Hear one advert, from wherever it came."""
        self.heard += 1
        if not self.allows(advert.signer, advert.record.roles):
            self.refused["roles"] = self.refused.get("roles", 0) + 1
            return Hearing.OLD
        known = self.view.advert_of(advert.signer)
        wall_s = self.environment.wall_s()
        hearing = self.view.hear(advert, wall_s, introducer)
        match hearing:
            case Hearing.NEW | Hearing.NEWER:
                self._learn(advert, introducer)
            case Hearing.LEFT:
                self.dialing.left(advert.signer)
            case Hearing.SAME_KEY:
                self.same_key(advert)
            case Hearing.OLD | Hearing.MINE:
                pass
            case Hearing.EXPIRED | Hearing.CLOCK | Hearing.VERSION | Hearing.FULL:
                if hearing is Hearing.CLOCK:
                    self.from_future(advert.signer, advert.record.issued_at_s - wall_s)
                name = hearing.name.lower()
                self.refused[name] = self.refused.get(name, 0) + 1
        # Only who is connected asks, and keys cost nothing to those who are not.
        if advert.signer in self.view.connected and (hearing.changed or hearing is Hearing.OLD):
            self.duplicate_keys.hear(advert, known)
        return hearing


def _fitted(advert: Advert) -> Advert:
    """The advert without as many of its slowest models as it is too large for.

    Addresses stay: who cannot be called need not say what it runs.
    """
    while advert.models:
        try:
            advert.to_bytes()
        except Oversize:
            # Of equals the last one goes: what is offered first matters most.
            slowest = min(reversed(advert.models), key=lambda it: it.units_per_s)
            models = tuple(it for it in advert.models if it is not slowest)
            advert = replace(advert, models=models)
        else:
            break
    return advert
