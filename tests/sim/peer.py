"""One simulated peer: Baton's own pure cores, and the invariants that must always hold for them.

Every advert heard and every swap is checked at once. The facts for these checks are kept apart from
the cores: which peer was forgotten with which number, and when an advert really ends.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random

from p2p.anti_entropy import AntiEntropy
from p2p.dialing import Dial, Dialing, DialingConfig
from p2p.gossip_rate import GossipRateConfig, GossipRateLimit
from p2p.handshake_log import HandshakeLog
from p2p.view import Hearing, View
from p2p.view_entry import ViewParts, parts_of
from tests.sim.population import START_WALL_S, Offer, address_of
from wire import limits
from wire.advert import Advert
from wire.content import ContentId, PeerId
from wire.signed import Signed

# The bytes around a signed record.
_ENVELOPE_BYTES = 110
_NO_ID = ContentId.of(b"")
# Connections are closed at the next look, so for a moment there are more than a peer keeps.
_CONNECTIONS_MAX = 256


class Broken(Exception):
    """An invariant that must always hold did not hold."""


@dataclass(frozen=True, slots=True)
class Made(Signed[Advert]):
    """An advert and what views compute from it: once for all views, as they are in one process."""

    parts: ViewParts


def _parts_of(heard: Signed[Advert]) -> ViewParts:
    return heard.parts if isinstance(heard, Made) else parts_of(heard)


@dataclass(slots=True, eq=False)
class Peer:
    """A peer by number. Each start is a new life: calls meant for an earlier one are void."""

    number: int
    key: PeerId
    offer: Offer
    random: Random
    known_max: int
    skew_s: float = 0.0
    flooding: bool = False
    # For a peer that floods: how many made-up keys it keeps; 0 if its keys are new each time.
    made_up: int = 0
    up: bool = False
    frozen: bool = False
    life: int = 0
    quick_swaps: int = 0
    view: View = field(init=False)
    swapping: AntiEntropy = field(init=False)
    pace: GossipRateLimit = field(init=False)
    dialing: Dialing = field(init=False)
    meetings: HandshakeLog = field(init=False)
    # The peers that it is connected to, in the order of last use, with each connection's number.
    neighbours: dict[PeerId, int] = field(default_factory=dict)
    calls: dict[int, Dial] = field(default_factory=dict)
    # The calls that arrived while it slept.
    held: list[tuple[object, ...]] = field(default_factory=list)
    heard: int = 0
    made: int = 0
    # When its last advert ends everywhere, in true time.
    ends_s: float = 0.0
    addresses: tuple[str, ...] = ()
    _forgotten: dict[PeerId, int] = field(default_factory=dict)
    _mine: Signed[Advert] | None = None
    _seq: int = 0
    _raw: bytes = b""

    def start(self, now_at_s: float, bootstraps: Sequence[str]) -> None:
        """Begin a life: only the key and the known addresses are left of the last one."""
        known = self.dialing.known() if self.life else {}
        self.addresses = self.addresses or (address_of(self.number, self.key),)
        self.life += 1
        self.up, self.frozen, self._mine = True, False, None
        self.quick_swaps = 5
        self.view = View(self.key, self.instance, parts_of=_parts_of)
        self.swapping = AntiEntropy(self.view, self.random)
        self.pace = GossipRateLimit(GossipRateConfig(), self.view.config.adverts_max)
        self.dialing = Dialing(self.key, self.random, DialingConfig(known_max=self.known_max))
        self.meetings = HandshakeLog(self.key, self.instance, now_at_s, self.wall_s(now_at_s))
        self.neighbours, self.calls, self.held = {}, {}, []
        self._forgotten = {}
        for address in bootstraps:
            self.dialing.add_bootstrap(address)
        for peer, addresses in known.items():
            self.dialing.learn(peer, addresses)

    @property
    def instance(self) -> bytes:
        return self.life.to_bytes(8, "big")

    @property
    def awake(self) -> bool:
        return self.up and not self.frozen

    def wall_s(self, now_at_s: float) -> float:
        return START_WALL_S + now_at_s + self.skew_s

    def mine(self, now_at_s: float) -> Signed[Advert]:
        """Its advert, as in `p2p.adverts.Herald`: renewed after a third of the last one's time."""
        mine, wall_s = self._mine, self.wall_s(now_at_s)
        if mine is None or wall_s >= mine.record.issued_at_s + mine.record.ttl_s / 3:
            mine = self._speak(now_at_s, self.pace.ttl_s(self.swapping.peers()))
        return mine

    def spoke(self, before_s: float, ttl_s: int) -> Signed[Advert]:
        """The advert that it made a while ago, for a swarm that begins warm."""
        return self._speak(-before_s, ttl_s)

    def _speak(self, now_at_s: float, ttl_s: int) -> Signed[Advert]:
        mine = self._mine = self._advert(self.wall_s(now_at_s), ttl_s, leaving=False)
        # The time is rounded down to the second.
        self.ends_s = max(self.ends_s, now_at_s + self.skew_s + ttl_s)
        return mine

    def good_bye(self, now_at_s: float) -> Signed[Advert]:
        ttl_s = self.pace.ttl_s(self.swapping.peers())
        return self._advert(self.wall_s(now_at_s), ttl_s, leaving=True)

    def _advert(self, wall_s: float, ttl_s: int, *, leaving: bool) -> Signed[Advert]:
        self._seq = max(self._seq + 1, int(wall_s * 1000))
        self.made += 1
        record = Advert(
            version=limits.PROTOCOL_VERSION,
            seq=self._seq,
            instance=self.instance,
            issued_at_s=int(wall_s),
            ttl_s=ttl_s,
            addresses=self.addresses,
            roles=self.offer.roles,
            models=self.offer.models,
            free_slots=4,
            queue_s=0.0,
            price=0,
            leaving=leaving,
        )
        if len(self._raw) == 0:
            # Nothing here reads the bytes of an advert: only their number is right.
            self._raw = bytes(len(record.to_bytes()) + _ENVELOPE_BYTES)
        parts = parts_of(Signed(record, self.key, self._raw, _NO_ID))
        return Made(record, self.key, self._raw, _NO_ID, parts)

    def hear(
        self, adverts: Sequence[Signed[Advert]], introducer: PeerId | None, now_at_s: float
    ) -> int:
        """Take in adverts from another peer; returns how many of them changed the view."""
        view, wall_s, changed = self.view, self.wall_s(now_at_s), 0
        for heard in adverts:
            before = view.advert_of(heard.signer)
            if introducer == heard.signer:
                view.meet(introducer)
            if before is heard:
                continue
            self.heard += 1
            hearing = view.hear(heard, wall_s, introducer)
            if hearing is Hearing.NEW or hearing is Hearing.NEWER:
                changed += 1
                self.dialing.learn(heard.signer, heard.record.addresses)
                if introducer == heard.signer:
                    # By its own advert a peer may always come back.
                    self._forgotten.pop(introducer, None)
                self._check_heard(heard, before, wall_s)
            elif hearing is Hearing.LEFT:
                changed += 1
                self.dialing.left(heard.signer)
                self._forgotten[heard.signer] = heard.record.seq
        return changed

    def _check_heard(
        self, heard: Signed[Advert], before: Signed[Advert] | None, wall_s: float
    ) -> None:
        seq, record = heard.record.seq, heard.record
        if before is not None and seq <= before.record.seq:
            raise Broken(
                f"peer {self.number}: a number went back from {before.record.seq} to {seq}"
            )
        if seq <= self._forgotten.get(heard.signer, -1):
            raise Broken(f"peer {self.number} has learned again what it had forgotten")
        if wall_s >= record.issued_at_s + record.ttl_s or record.leaving:
            raise Broken(f"peer {self.number} has taken in an advert that had ended")
        if len(self.view) > self.view.config.adverts_max:
            raise Broken(f"peer {self.number}: its view has {len(self.view)} adverts")

    def forget(self, peer: PeerId) -> None:
        """Forget a peer whose connection broke without a good-bye."""
        known = self.view.advert_of(peer)
        if known is not None:
            self._forgotten[peer] = known.record.seq
            # Keep no more than Baton promises to remember.
            while len(self._forgotten) > self.view.config.remembered_max // 2:
                del self._forgotten[next(iter(self._forgotten))]
        self.view.forget(peer)

    def expire(self, now_at_s: float) -> None:
        """Forget adverts that have ended."""
        self.view.expire(self.wall_s(now_at_s))
        if len(self.neighbours) > _CONNECTIONS_MAX:
            raise Broken(f"peer {self.number} has {len(self.neighbours)} connections")
