"""Load that does not wait for answers, and latencies counted from when each task was due.

A client that sends the next task only after the last answer stops measuring while the network
stalls (coordinated omission). Here the times at which tasks are due are drawn beforehand, and a
latency begins at that time, even if the task is sent later.
"""

import bisect
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from random import Random

from wire.errors import InputError

RATE_MAX = 10_000.0
PERCENTILES = (50.0, 75.0, 90.0, 95.0, 99.0, 99.9, 100.0)
_RATE = re.compile(r"(\d*\.?\d+)\s*(?:/\s*(s|sec|second|min|m|h))?")
_PER_S = {None: 1.0, "s": 1.0, "sec": 1.0, "second": 1.0, "min": 60.0, "m": 60.0, "h": 3600.0}


def rate_of(text: str) -> float:
    """`10/s`, `90/min` or `10` as tasks a second; InputError for anything else, and for zero."""
    match = _RATE.fullmatch(text.strip())
    if match is None:
        raise InputError(f"{text[:40]!r} is not a rate", todo="for example 10/s or 90/min")
    rate = float(match[1]) / _PER_S[match[2]]
    if not 0 < rate <= RATE_MAX:
        raise InputError(
            f"{text!r} is not a possible rate",
            todo=f"give more than 0/s and at most {RATE_MAX:.0f}/s",
        )
    return rate


def moments(rate: float, seconds: float, random: Random) -> Iterator[float]:
    """When tasks are due: a Poisson process of `rate` a second, from 0 to `seconds`."""
    at_s = 0.0
    while True:
        at_s += random.expovariate(rate)
        if at_s >= seconds:
            return
        yield at_s


@dataclass(slots=True)
class Latencies:
    """Every latency that was noted, in seconds, sorted."""

    _sorted_s: list[float] = field(default_factory=list)

    def note(self, latency_s: float) -> None:
        """Add the latency of one answer, in seconds."""
        bisect.insort(self._sorted_s, latency_s)

    def __len__(self) -> int:
        return len(self._sorted_s)

    def percentile_s(self, percent: float) -> float | None:
        """The smallest latency that `percent` of all do not exceed; None if none was noted."""
        if not self._sorted_s:
            return None
        place = math.ceil(percent / 100 * len(self._sorted_s)) - 1
        return self._sorted_s[max(0, place)]

    def table(self) -> list[dict[str, float]]:
        """Rows of a percentile, its latency, and how many tasks took no longer."""
        rows = []
        for percent in PERCENTILES:
            value_s = self.percentile_s(percent)
            if value_s is not None:
                count = bisect.bisect_right(self._sorted_s, value_s)
                rows.append({"percent": percent, "latency_s": value_s, "count": count})
        return rows
