"""How often each API key may ask: a token bucket for each. A pure core."""

from dataclasses import dataclass, field

from p2p.token_bucket import TokenBucket
from wire.latest import Latest

NAMES_MAX = 4096


@dataclass(slots=True)
class Allowance:
    """What each name has left."""

    _buckets: Latest[str, TokenBucket] = field(default_factory=lambda: Latest(NAMES_MAX))

    def take(self, name: str, per_minute: int, now_at_s: float) -> float:
        """0 if one more request is allowed now, else how long to wait for it."""
        # All that a minute allows may come at once; each second then gives its share back.
        burst, per_s = float(per_minute), per_minute / 60
        bucket = self._buckets[name] = self._buckets.get(name) or TokenBucket(burst, per_s)
        # The owner may have changed it since.
        bucket.burst, bucket.per_s = burst, per_s
        return 0.0 if bucket.take(now_at_s) else bucket.wait_s(now_at_s)
