"""How long peers took when they worked for us: this counts for more than what they say.

A pure core: a moving average for the latest peers, trusted less as it grows old. Every leg is
measured, however short: else a peer that gets only short ones could claim any speed for ever.
"""

from dataclasses import dataclass, field

from wire.content import ContentId, PeerId
from wire.latest import Latest

KEPT_MAX = 1000
# A leg that is done sooner says less about speed: most of its time may be the network's.
TELLING_S = 0.1
# At least this share of a leg's time counts as work, however long its round trip was.
WORK_SHARE_MIN = 0.1
# The weight of one more leg against the earlier ones, and of all legs against the advert. Guesses.
WEIGHT = 0.3
TRUST_MAX = 0.9
HALF_LIFE_S = 120.0

Key = tuple[PeerId, ContentId | None]


@dataclass(frozen=True, slots=True)
class _Speed:
    unit_s: float
    at_s: float
    # From 0 to 1: how far the legs so far are to be trusted.
    telling: float


@dataclass(slots=True)
class Measured:
    """Seconds for a unit of work and for a round trip, by peer."""

    _speeds: Latest[Key, _Speed] = field(default_factory=lambda: Latest(KEPT_MAX))
    _round_trips: Latest[PeerId, float] = field(default_factory=lambda: Latest(KEPT_MAX))
    _did: Latest[Key, None] = field(default_factory=lambda: Latest(KEPT_MAX))

    def delivered(
        self, peer: PeerId, model: ContentId | None, units: int, took_s: float, now_at_s: float
    ) -> None:
        """Note that `peer` did `units` of work in `took_s`, as measured here."""
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
        """Note that `peer` was not done after `took_s`, when another was: it takes longer."""
        unit_s, before = took_s / max(1, units), self._speeds.get((peer, model))
        if before is not None:
            unit_s = max(unit_s, before.unit_s)
        self._speeds[peer, model] = _Speed(unit_s, now_at_s, 1.0)

    def did(self, peer: PeerId, model: ContentId | None) -> None:
        """Note that `peer` did a leg for us, of any size."""
        self._did[peer, model] = None

    def has_delivered(self, peer: PeerId, model: ContentId | None) -> bool:
        """Whether `peer` is among the latest that did such a leg for us."""
        return (peer, model) in self._did

    def observed(
        self, peer: PeerId, model: ContentId | None, now_at_s: float
    ) -> tuple[float, float] | None:
        """Seconds for a unit, and how far to trust that against the advert, from 0 to 1."""
        speed = self._speeds.get((peer, model))
        if speed is None:
            return None
        return speed.unit_s, float(TRUST_MAX * 0.5 ** ((now_at_s - speed.at_s) / HALF_LIFE_S))

    def units_per_s(self, peer: PeerId, model: ContentId | None) -> float | None:
        """Units of work a second, as measured here; None for a peer that was not measured."""
        speed = self._speeds.get((peer, model))
        return None if speed is None or speed.unit_s <= 0 else 1 / speed.unit_s

    def answered(self, peer: PeerId, round_trip_s: float) -> None:
        """Note how long the peer took to answer a short question, in seconds."""
        before = self._round_trips.get(peer, round_trip_s)
        self._round_trips[peer] = before + WEIGHT * (round_trip_s - before)

    def round_trip_s(self, peer: PeerId) -> float:
        """The round trip; 0 for a peer that was never asked, so that it is not ranked last."""
        return self._round_trips.get(peer, 0.0)
