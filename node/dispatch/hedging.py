"""When a leg has taken so long that it is also given to another peer. A pure core.

A request with a hundred parts waits for the slowest of them (Dean and Barroso: "The Tail at Scale",
2013). How long is too long is learned from earlier legs. How many legs are hedged is bounded,
because work that is done twice takes capacity from others.
"""

from collections import deque
from dataclasses import dataclass, field

# The bound is the slowest 1 % of the legs kept; there is none before LEGS_MIN legs are known.
LEGS_MIN, LEGS_KEPT = 100, 500
SLOWEST_SHARE = 0.01
# No leg is hedged sooner than this, and a leg expected to be shorter is taken to be this long.
AFTER_S_MIN = 1.0
EXPECTED_S_MIN = 0.1
# The share of legs that may be done twice, and how many at once after a time without hedges.
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
        """Note that a leg was done `took_s` after its offer."""
        self._ratios.append(took_s / max(EXPECTED_S_MIN, expected_s))
        self._allowed = min(HEDGES_AT_ONCE, self._allowed + HEDGED_SHARE)
        self._legs += 1
        if len(self._ratios) >= LEGS_MIN and self._legs % LEARN_EVERY == 0:
            slowest = sorted(self._ratios, reverse=True)
            self._bound = slowest[int(SLOWEST_SHARE * len(slowest))]

    def after_s(self, expected_s: float) -> float | None:
        """Seconds after which a leg expected to take `expected_s` is hedged; None for never."""
        if self._bound is None:
            return None
        return max(AFTER_S_MIN, self._bound * max(EXPECTED_S_MIN, expected_s))

    def spend(self) -> bool:
        """Whether one more leg may be hedged; if so, it is counted."""
        if self._allowed < 1.0:
            return False
        self._allowed -= 1.0
        return True
