"""Whether a figure that was looked at many times grows, or only scatters. Pure.

The slope is the median of the slopes between all pairs of medians (Theil and Sen), so single spikes
do not move it; its noise is the interval that Kendall's test gives, in which 95 of 100 slopes of a
figure without any trend lie.
"""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise
from typing import Any

# Looks that follow each other resemble each other. Medians of so many stretches do so much less.
STRETCHES = 24
_NORMAL_95 = 1.96
# What the median of distances from a median is for a normal scatter of one.
_MAD_TO_DEVIATION = 1.4826


@dataclass(frozen=True, slots=True, kw_only=True)
class Trend:
    """A slope per second, between which limits it may lie, and how far single looks scatter."""

    slope: float
    low: float
    high: float
    scatter: float
    over_s: float

    @property
    def is_flat(self) -> bool:
        """Whether the slope is not above its noise, or what grew is less than one look scatters."""
        return self.low <= 0.0 or self.slope * self.over_s <= self.scatter

    def as_map(self, digits: int = 2) -> dict[str, Any]:
        """The slope by the hour."""
        return {
            "per_hour": round(self.slope * 3600.0, digits),
            "per_hour_low": round(self.low * 3600.0, digits),
            "per_hour_high": round(self.high * 3600.0, digits),
            "scatter": round(self.scatter, digits),
            "flat": self.is_flat,
        }


def trend_of(looks: Sequence[tuple[float, float]]) -> Trend:
    """The trend of (second, figure) pairs in the order of time; at least four of them."""
    assert len(looks) >= 4, len(looks)
    stretches = min(STRETCHES, len(looks))
    cuts = [round(it * len(looks) / stretches) for it in range(stretches + 1)]
    parts = [looks[begin:end] for begin, end in pairwise(cuts)]
    medians = [
        (statistics.median(at for at, _ in it), statistics.median(value for _, value in it))
        for it in parts
    ]
    slopes = sorted((b - a) / (later - at) for (at, a), (later, b) in combinations(medians, 2))
    count = len(medians)
    reach = _NORMAL_95 * math.sqrt(count * (count - 1) * (2 * count + 5) / 18)
    low = max(0, math.floor((len(slopes) - reach) / 2))
    slope = statistics.median(slopes)
    residuals = [value - slope * at for at, value in looks]
    middle = statistics.median(residuals)
    return Trend(
        slope=slope,
        low=slopes[low],
        high=slopes[len(slopes) - 1 - low],
        scatter=_MAD_TO_DEVIATION * statistics.median(abs(it - middle) for it in residuals),
        over_s=looks[-1][0] - looks[0][0],
    )
