"""Adverts out and in: what we have to offer now, signed and published; what others say, heard.

The shell around `p2p.view`: it signs, publishes and listens; the view decides what is believed.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from random import Random

import trio

from p2p.dialing import Dialing
from p2p.transport import Endpoint
from p2p.view import Hearing, View
from wire import limits
from wire.advert import Advert, ModelOffer
from wire.content import PeerId
from wire.errors import Oversize, WireError
from wire.signed import Signed, open_signed, sign
from wire.signing import SigningKey


@dataclass(frozen=True, slots=True, kw_only=True)
class Offering:
    """What this peer has to offer now; the node says it, adverts carry it."""

    roles: int = 0
    models: tuple[ModelOffer, ...] = ()
    free_slots: int = 0
    queue_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Seams:
    """What comes in from outside: wall clock in seconds, randomness, secret bytes."""

    wall_s: Callable[[], float]
    random: Random
    entropy: Callable[[int], bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class AdvertConfig:
    """How often a peer speaks of itself, and to whom."""

    network: str = "baton"
    # Three adverts per TTL: two may be lost before the network forgets us.
    ttl_s: int = 90
    # Urgent changes are told at once, but no more often than this.
    pause_s: float = 0.5

    @property
    def topic(self) -> str:
        return f"baton/1/{self.network}/adverts"


@dataclass(slots=True)
class Herald:
    """Speaks for one peer, and hears the others."""

    key: SigningKey
    instance: bytes
    config: AdvertConfig
    seams: Seams
    offering: Callable[[], Offering]
    view: View
    dialing: Dialing
    problem: Callable[[PeerId, WireError], None] = lambda _peer, _error: None
    same_key: Callable[[Signed[Advert]], None] = lambda _advert: None
    heard: int = 0
    refused: dict[str, int] = field(default_factory=dict)
    _seq: int = 0
    _changed: trio.Event = field(default_factory=trio.Event)

    def changed(self) -> None:
        """What we offer has changed: say so soon."""
        self._changed.set()

    def advert(self, endpoint: Endpoint, *, leaving: bool = False) -> Signed[Advert]:
        """What is to be said of this peer at this moment."""
        wall_s = self.seams.wall_s()
        self._seq = max(self._seq + 1, int(wall_s * 1000))
        offering = self.offering()
        advert = Advert(
            version=limits.PROTOCOL_VERSION,
            seq=self._seq,
            instance=self.instance,
            issued_at_s=int(wall_s),
            ttl_s=self.config.ttl_s,
            addresses=endpoint.addresses[: limits.ADVERT_ADDRESSES_MAX],
            roles=offering.roles,
            models=offering.models[: limits.ADVERT_MODELS_MAX],
            free_slots=offering.free_slots,
            queue_s=offering.queue_s,
            price=0,
            leaving=leaving,
        )
        return sign(_fitted(advert), self.key)

    async def speak_forever(self, endpoint: Endpoint) -> None:
        """Publish our advert three times per TTL, and soon after every change."""
        while True:
            self._changed = trio.Event()
            await endpoint.publish(self.config.topic, self.advert(endpoint).raw)
            await trio.sleep(self.config.pause_s)
            with trio.move_on_after(self.config.ttl_s / 3 - self.config.pause_s):
                await self._changed.wait()

    async def say_good_bye(self, endpoint: Endpoint) -> None:
        with trio.CancelScope(deadline=trio.current_time() + 1.0, shield=True):
            await endpoint.publish(self.config.topic, self.advert(endpoint, leaving=True).raw)
            # One heartbeat's worth for the message to go out.
            await trio.sleep(0.3)

    async def listen_forever(self, endpoint: Endpoint) -> None:
        subscription = await endpoint.subscribe(self.config.topic)
        async for message in subscription:
            try:
                self.take_in(open_signed(message.data, Advert))
            except WireError as error:
                self.problem(message.source, error)

    def take_in(self, advert: Signed[Advert]) -> Hearing:
        """Hear one advert, from wherever it came."""
        self.heard += 1
        hearing = self.view.hear(advert, self.seams.wall_s())
        match hearing:
            case Hearing.NEW | Hearing.NEWER:
                self.dialing.learn(advert.signer, advert.record.addresses)
            case Hearing.LEFT:
                self.dialing.left(advert.signer)
            case Hearing.SAME_KEY:
                self.same_key(advert)
            case Hearing.OLD | Hearing.MINE:
                pass
            case Hearing.EXPIRED | Hearing.CLOCK | Hearing.VERSION | Hearing.FULL:
                name = hearing.name.lower()
                self.refused[name] = self.refused.get(name, 0) + 1
        return hearing

    def batch_for(self, peer: PeerId, endpoint: Endpoint) -> tuple[bytes, ...]:
        """Our own advert first, then as many of the others' as fit, drawn anew each time."""
        others = [it.raw for it in self.view.living(self.seams.wall_s()) if it.signer != peer]
        room = limits.ADVERTS_PER_MESSAGE_MAX - 1
        if len(others) > room:
            others = self.seams.random.sample(others, room)
        return (self.advert(endpoint).raw, *others)


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
