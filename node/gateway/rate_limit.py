"""How often a key may ask: a bucket that fills evenly. A pure core."""

from dataclasses import dataclass, field

from wire.latest import Latest

NAMES_MAX = 4096


@dataclass(slots=True)
class _Bucket:
    left: float
    at_s: float


@dataclass(slots=True)
class Allowance:
    """What each name has left."""

    _buckets: Latest[str, _Bucket] = field(default_factory=lambda: Latest(NAMES_MAX))

    def take(self, name: str, per_minute: int, now_at_s: float) -> float:
        """0 if one more request is allowed now, else how long to wait for it."""
        # All that a minute allows may come at once; each second then gives its share back.
        most = float(per_minute)
        bucket = self._buckets[name] = self._buckets.get(name) or _Bucket(most, now_at_s)
        rate = per_minute / 60
        bucket.left = min(most, bucket.left + (now_at_s - bucket.at_s) * rate)
        bucket.at_s = now_at_s
        if bucket.left < 1.0:
            return (1.0 - bucket.left) / rate
        bucket.left -= 1.0
        return 0.0
