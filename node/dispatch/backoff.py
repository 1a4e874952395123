"""Patience with peers that say they are busy: their advice counts, within our own bounds.

A pure core. Whoever refuses again and again is asked ever more rarely, and after those who were not
asked yet: "retry at once" said for ever would cost the asker its whole deadline.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from wire.content import PeerId

PAUSE_S_MIN = 0.25
PAUSE_S_MAX = 30.0


@dataclass(slots=True)
class Backoff:
    """Who refused how often for one task, and when each may be asked again."""

    _refusals: dict[PeerId, int] = field(default_factory=dict)
    _until_at_s: dict[PeerId, float] = field(default_factory=dict)

    def refused(self, peer: PeerId, retry_after_s: float, now_at_s: float) -> None:
        """`peer` is busy and advises when to ask again."""
        times = self._refusals[peer] = self._refusals.get(peer, 0) + 1
        pause_s = max(retry_after_s, PAUSE_S_MIN * 2.0 ** min(times - 1, 16))
        self._until_at_s[peer] = now_at_s + min(PAUSE_S_MAX, pause_s)

    def ready(self, peers: Sequence[PeerId], now_at_s: float) -> list[PeerId]:
        """Those who may be asked now: who refused least first, else in the order given."""
        waiting = [it for it in peers if self._until_at_s.get(it, 0.0) <= now_at_s]
        return sorted(waiting, key=lambda peer: self._refusals.get(peer, 0))

    def best(self, peers: Sequence[PeerId], now_at_s: float) -> list[PeerId]:
        """Of those who may be asked now, the ones who refused least."""
        ready = self.ready(peers, now_at_s)
        return [it for it in ready if self._refusals.get(it) == self._refusals.get(ready[0])]
