"""How often a peer speaks of itself, and what may be told to everybody at once.

A pure core, and where the cost of gossip is bounded. A message of a topic costs each of N peers a
few milliseconds, so what all of them may say together is fixed and each has an Nth of it: that is
for what is urgent. Everything else travels by swaps, and there the cost is that of adverts heard:
as many as a view holds in each period. So the period grows with the view, and beyond that slowly
with the network, for the longer way that an advert has to go in it.
"""

import math
from dataclasses import dataclass

from wire import limits


@dataclass(frozen=True, slots=True, kw_only=True)
class GossipRateConfig:
    """What gossip may cost."""

    # Three adverts per TTL: two may be lost before the network forgets us.
    ttl_s: int = 90
    # Adverts heard: at a quarter of a millisecond each, less than a tenth of a per cent of a core.
    adverts_per_s: float = 2.5
    # Messages of the topic, of all peers together: at 4 ms each, less than half a per cent.
    urgent_per_s: float = 1.0
    urgent_burst: float = 3.0
    # Up to so many peers, what is urgent may be told at once by all of them.
    small_network: int = 32
    # One swap of ours, and on average one of others with us.
    swap_s: float = 5.0


@dataclass(slots=True)
class GossipRateLimit:
    """`peers` are how many there are in the network, as far as is known."""

    config: GossipRateConfig
    view_max: int
    _tokens: float | None = None
    _at_s: float = 0.0

    def period_s(self, peers: int) -> float:
        """From one advert of ours to the next."""
        least_s = self.config.ttl_s / 3
        heard_s = min(peers, self.view_max) / self.config.adverts_per_s
        way_s = least_s * math.sqrt(peers / 100)
        return min(max(least_s, heard_s, way_s), limits.ADVERT_TTL_S_MAX / 3)

    def ttl_s(self, peers: int) -> int:
        """How long an advert holds."""
        return min(limits.ADVERT_TTL_S_MAX, math.ceil(3 * self.period_s(peers)))

    def swap_every_s(self, peers: int) -> float:
        """From one swap of ours to the next.

        Where all fit one view, a swap brings what is newer. Where they do not it brings other
        samples of the network too, as many each time: then the time between swaps bounds what is
        heard. Six of ours in each period, and as many of others with us, bring enough.
        """
        swap_s = self.config.swap_s
        return max(swap_s, min(swap_s * peers / self.view_max, self.period_s(peers) / 6))

    def may_tell_all(self, peers: int, now_at_s: float) -> bool:
        """Take one of the messages that this peer may have the whole network hear, if it has one.

        A token bucket; in a large network it starts empty, or a thousand that join at once would
        each have to be heard by a thousand.
        """
        burst = max(1.0, self.config.urgent_burst * min(1.0, self.config.small_network / peers))
        if self._tokens is None:
            self._tokens = burst if peers <= self.config.small_network else 0.0
        else:
            self._tokens += (now_at_s - self._at_s) * self.config.urgent_per_s / peers
        self._at_s = now_at_s
        self._tokens = min(burst, self._tokens)
        if self._tokens < 1.0:
            return False
        self._tokens -= 1.0
        return True
