"""With how many threads a pass is run: with as many as took the least time lately. Pure.

Threads that share a pass wait for each other, and on a machine that has other work they wait for
its turn too: then one thread alone is faster. Nobody can tell but by trying.
"""

from collections import Counter
from dataclasses import dataclass, field

# One pass of so many is run in the other way, to see whether it is better by now.
TRIED_EVERY = 32
# Each way is begun with so many. The first of them finds nothing in the caches: it does not count.
FIRST = 4
# How much of what is known one more pass is, where it took longer. One that took less is taken at
# its word: what was slow before may have been the machine's other work.
SHARE = 0.25


@dataclass(slots=True)
class ThreadChoice:
    """Of passes that take about the same time; each has a choice of its own."""

    _took_s: dict[int, float] = field(default_factory=dict)
    _runs: Counter[int] = field(default_factory=Counter)
    _passes: int = 0

    def next(self, most: int) -> int:
        """How many threads the next pass has, of at most so many."""
        if most <= 1:
            return 1
        self._passes += 1
        for threads in (most, 1):
            if self._runs[threads] < FIRST:
                return threads
        together = self._took_s[most] < self._took_s[1]
        if self._passes % TRIED_EVERY == 0:
            together = not together
        return most if together else 1

    def took(self, threads: int, seconds: float) -> None:
        """A pass of so many threads took so long."""
        self._runs[threads] += 1
        if self._runs[threads] == 1:
            return
        before = self._took_s.get(threads, seconds)
        self._took_s[threads] = min(seconds, before + SHARE * (seconds - before))
