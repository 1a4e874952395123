"""What peers were seen to take when they worked for us: it counts for more than what they say.

A pure core: a little of the latest, for the latest peers, believed less as it grows old. Every leg
is measured, however short, or who is only asked for short ones could claim any speed for ever.
"""

from dataclasses import dataclass, field

from wire.content import ContentId, PeerId
from wire.latest import Latest

KEPT_MAX = 1000
# A leg that is done sooner tells less: it was on its way for as long.
TELLING_S = 0.1
# No less than this part of what a leg took was work, however long the way is said to be.
WORK_SHARE_MIN = 0.1
# How much one more leg counts beside those before it, and all of them beside the advert. Guesses.
WEIGHT = 0.3
TRUST_MAX = 0.9
HALF_LIFE_S = 120.0

Key = tuple[PeerId, ContentId | None]


@dataclass(frozen=True, slots=True)
class _Speed:
    unit_s: float
    at_s: float
    # From 0 to 1: how much the legs so far tell.
    telling: float


@dataclass(slots=True)
class Measured:
    """Seconds for a unit of work and for a word there and back, by peer."""

    _speeds: Latest[Key, _Speed] = field(default_factory=lambda: Latest(KEPT_MAX))
    _round_trips: Latest[PeerId, float] = field(default_factory=lambda: Latest(KEPT_MAX))
    _did: Latest[Key, None] = field(default_factory=lambda: Latest(KEPT_MAX))

    def delivered(
        self, peer: PeerId, model: ContentId | None, units: int, took_s: float, now_at_s: float
    ) -> None:
        """`peer` did so much in so long, as seen from here."""
        telling = min(1.0, took_s / TELLING_S)
        work_s = max(WORK_SHARE_MIN * took_s, took_s - self._round_trips.get(peer, 0.0))
        unit_s = work_s / max(1, units)
        before = self._speeds.get((peer, model))
        if before is not None:
            weight = telling * max(WEIGHT, 1.0 - before.telling)
            unit_s = before.unit_s + weight * (unit_s - before.unit_s)
            telling = max(telling, before.telling)
        self._speeds[peer, model] = _Speed(unit_s, now_at_s, telling)
        self.did(peer, model)

    def outrun(
        self, peer: PeerId, model: ContentId | None, units: int, took_s: float, now_at_s: float
    ) -> None:
        """`peer` was not done with so much after so long, when another was: it takes longer."""
        unit_s, before = took_s / max(1, units), self._speeds.get((peer, model))
        if before is not None:
            unit_s = max(unit_s, before.unit_s)
        self._speeds[peer, model] = _Speed(unit_s, now_at_s, 1.0)

    def did(self, peer: PeerId, model: ContentId | None) -> None:
        """`peer` did a leg for us, of whatever size."""
        self._did[peer, model] = None

    def has_delivered(self, peer: PeerId, model: ContentId | None) -> bool:
        """Whether it did such a leg for us, among the latest."""
        return (peer, model) in self._did

    def observed(
        self, peer: PeerId, model: ContentId | None, now_at_s: float
    ) -> tuple[float, float] | None:
        """Seconds for a unit, and how far that is to be trusted beside the advert, from 0 to 1."""
        speed = self._speeds.get((peer, model))
        if speed is None:
            return None
        return speed.unit_s, float(TRUST_MAX * 0.5 ** ((now_at_s - speed.at_s) / HALF_LIFE_S))

    def answered(self, peer: PeerId, round_trip_s: float) -> None:
        """Note how long the peer took to answer a short question, in seconds."""
        before = self._round_trips.get(peer, round_trip_s)
        self._round_trips[peer] = before + WEIGHT * (round_trip_s - before)

    def round_trip_s(self, peer: PeerId) -> float:
        """0 for a peer that was never asked: it is as good as any until then."""
        return self._round_trips.get(peer, 0.0)
