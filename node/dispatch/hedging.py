"""When a leg has taken so long that another peer is given it besides. A pure core.

The slowest one in a hundred is waited for by everybody who asks for a hundred things (Dean and
Barroso: "The Tail at Scale", 2013). What is long is learned from the legs before, and what it may
cost is bounded: work that is done twice is not there for others.
"""

from collections import deque
from dataclasses import dataclass, field

# Of so many legs, the slowest is the bound; before as many are known there is none.
LEGS_MIN, LEGS_KEPT = 100, 500
SLOWEST_SHARE = 0.01
# Sooner than this nobody is hedged, and a leg expected to be shorter is taken to be this long.
AFTER_S_MIN = 1.0
EXPECTED_S_MIN = 0.1
# Of a hundred legs so many may be done twice, and so many at once after a long calm.
HEDGED_SHARE = 0.02
HEDGES_AT_ONCE = 3.0
LEARN_EVERY = 20


@dataclass(slots=True)
class Hedging:
    """How much longer than expected legs take, and how many may still be hedged."""

    _ratios: deque[float] = field(default_factory=lambda: deque(maxlen=LEGS_KEPT))
    _bound: float | None = None
    _allowed: float = 0.0
    _legs: int = 0

    def delivered(self, took_s: float, expected_s: float) -> None:
        """A leg was done, as long after its offer."""
        self._ratios.append(took_s / max(EXPECTED_S_MIN, expected_s))
        self._allowed = min(HEDGES_AT_ONCE, self._allowed + HEDGED_SHARE)
        self._legs += 1
        if len(self._ratios) >= LEGS_MIN and self._legs % LEARN_EVERY == 0:
            slowest = sorted(self._ratios, reverse=True)
            self._bound = slowest[int(SLOWEST_SHARE * len(slowest))]

    def after_s(self, expected_s: float) -> float | None:
        """When a leg that was expected to take so long is worth a second peer; None: never."""
        if self._bound is None:
            return None
        return max(AFTER_S_MIN, self._bound * max(EXPECTED_S_MIN, expected_s))

    def spend(self) -> bool:
        """Whether one more leg may be hedged; it counts as done."""
        if self._allowed < 1.0:
            return False
        self._allowed -= 1.0
        return True
