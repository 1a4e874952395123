"""Whether something on the way ends connections after a fixed time, told by their ages. Pure.

Routers and carriers forget connections after some time, and then each ends at the same age, which
no peer that dies or leaves would bring about.
"""

from collections import deque
from dataclasses import dataclass, field
from statistics import median

from wire.content import PeerId

# So many that broke at different times, of the latest.
NEEDED, KEPT = 5, 16
# What breaks together had one cause, such as a router that was restarted.
TOGETHER_S = 5.0
# Who hangs up sooner than this does not want to talk; no network forgets so soon.
AGE_S_MIN = 20.0
# Ages differ by when each end notices.
SPREAD_SHARE, SPREAD_S = 0.05, 3.0


@dataclass(slots=True)
class ConnectionAges:
    """Feed it connections that this peer began: others may hang up at whatever age they like."""

    _since_at_s: dict[PeerId, float] = field(default_factory=dict)
    _last_at_s: float = float("-inf")
    _ages_s: deque[float] = field(default_factory=lambda: deque(maxlen=KEPT))

    def begun(self, peer: PeerId, now_at_s: float) -> None:
        """A connection to `peer` stands."""
        self._since_at_s.setdefault(peer, now_at_s)

    def ended(self, peer: PeerId, now_at_s: float, *, broke: bool) -> None:
        """The connection to `peer` is gone; `broke` unless one of the two hung up on purpose."""
        began_at_s = self._since_at_s.pop(peer, None)
        if began_at_s is None or not broke:
            return
        apart = now_at_s > self._last_at_s + TOGETHER_S
        self._last_at_s = now_at_s
        if apart and now_at_s - began_at_s >= AGE_S_MIN:
            self._ages_s.append(now_at_s - began_at_s)

    def cut_after_s(self) -> float | None:
        """The age at which nearly all of the latest connections broke; None if there is none."""
        if len(self._ages_s) < NEEDED:
            return None
        usual_s = median(self._ages_s)
        within_s = max(SPREAD_S, usual_s * SPREAD_SHARE)
        alike = sum(abs(it - usual_s) <= within_s for it in self._ages_s)
        return usual_s if alike * 5 >= len(self._ages_s) * 4 else None
