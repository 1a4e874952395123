"""How often a peer publishes its advert, and how much it may send to the whole network at once.

Pure. This module bounds the cost of gossip. A message of the topic costs each of N peers a few
milliseconds, so the rate of all peers together is fixed, and each peer has an Nth of it, for urgent
messages. Everything else travels by swaps, whose cost is the number of adverts heard: as many as a
view holds in each period. So the period grows with the view. Beyond the size of a view it grows
slowly with the network, because an advert then has a longer way to go.
"""

import math
from dataclasses import dataclass

from p2p.token_bucket import TokenBucket
from wire import limits


@dataclass(frozen=True, slots=True, kw_only=True)
class GossipRateConfig:
    """Limits on the cost of gossip."""

    # Three adverts per TTL: two may be lost before the network forgets us.
    ttl_s: int = 90
    # Adverts heard a second: at a quarter of a millisecond each, below a tenth of a per cent.
    adverts_per_s: float = 2.5
    # Topic messages a second, of all peers together: at 4 ms each, below half a per cent of a core.
    urgent_per_s: float = 1.0
    urgent_burst: float = 3.0
    # In a network of up to so many peers, all of them may send an urgent message at once.
    small_network: int = 32
    # For each swap that we begin, another peer begins one with us on average.
    swap_s: float = 5.0


@dataclass(slots=True)
class GossipRateLimit:
    """The rates for one peer. `peers` is the estimated number of peers in the network."""

    config: GossipRateConfig
    view_max: int
    _bucket: TokenBucket | None = None

    def period_s(self, peers: int) -> float:
        """The time from one advert of ours to the next, in seconds."""
        least_s = self.config.ttl_s / 3
        heard_s = min(peers, self.view_max) / self.config.adverts_per_s
        way_s = least_s * math.sqrt(peers / 100)
        return min(max(least_s, heard_s, way_s), limits.ADVERT_TTL_S_MAX / 3)

    def ttl_s(self, peers: int) -> int:
        """How long an advert is valid, in seconds."""
        return min(limits.ADVERT_TTL_S_MAX, math.ceil(3 * self.period_s(peers)))

    def swap_every_s(self, peers: int) -> float:
        """The time from one swap of ours to the next, in seconds.

        If all peers fit one view, a swap brings only newer adverts. If not, each swap also brings
        another sample of the network, of the same size: then the time between swaps bounds how much
        is heard. Six swaps that we begin in each period, and as many that others begin, are enough.
        """
        swap_s = self.config.swap_s
        return max(swap_s, min(swap_s * peers / self.view_max, self.period_s(peers) / 6))

    def may_tell_all(self, peers: int, now_at_s: float) -> bool:
        """Take one of the messages that this peer may send to the whole network, if one is left.

        This is a token bucket. In a large network it starts empty: otherwise, if a thousand peers
        join at once, each would send a message to a thousand.
        """
        burst = max(1.0, self.config.urgent_burst * min(1.0, self.config.small_network / peers))
        per_s = self.config.urgent_per_s / peers
        if self._bucket is None:
            self._bucket = TokenBucket(burst, per_s)
            if peers > self.config.small_network:
                self._bucket.drain()
        self._bucket.burst, self._bucket.per_s = burst, per_s
        return self._bucket.take(now_at_s)
