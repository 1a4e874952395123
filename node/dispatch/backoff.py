"""When to ask a busy peer again: by its own advice, within our bounds.

A pure core. A peer that refuses repeatedly is asked more and more rarely, and after those who were
not asked yet: a peer that always says "retry at once" would cost the asker its whole deadline.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from wire.content import PeerId

PAUSE_S_MIN = 0.25
PAUSE_S_MAX = 30.0


@dataclass(slots=True)
class Backoff:
    """How often each peer refused one task, and when it may be asked again."""

    _refusals: dict[PeerId, int] = field(default_factory=dict)
    _until_at_s: dict[PeerId, float] = field(default_factory=dict)

    def refused(self, peer: PeerId, retry_after_s: float, now_at_s: float) -> None:
        """`peer` is busy and advises when to ask again."""
        times = self._refusals[peer] = self._refusals.get(peer, 0) + 1
        pause_s = max(retry_after_s, PAUSE_S_MIN * 2.0 ** min(times - 1, 16))
        self._until_at_s[peer] = now_at_s + min(PAUSE_S_MAX, pause_s)

    def ready(self, peers: Sequence[PeerId], now_at_s: float) -> list[PeerId]:
        """The peers that may be asked now; fewest refusals first, else in the given order."""
        waiting = [it for it in peers if self._until_at_s.get(it, 0.0) <= now_at_s]
        return sorted(waiting, key=lambda peer: self._refusals.get(peer, 0))

    def best(self, peers: Sequence[PeerId], now_at_s: float) -> list[PeerId]:
        """Of the peers that may be asked now, those that refused least."""
        ready = self.ready(peers, now_at_s)
        return [it for it in ready if self._refusals.get(it) == self._refusals.get(ready[0])]
