"""How far the load under way in this worker is, told to the engine as it goes on."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

MILLION = 1_000_000
# More often than that nobody looks.
EVERY_S = 0.05


@dataclass(slots=True)
class LoadProgress:
    """`report` takes millionths. Shares are of the part that is done now (`part`)."""

    report: Callable[[int], None]
    _begin: float = 0.0
    _end: float = 1.0
    _told_at_s: float = float("-inf")

    def at(self, share: float) -> None:
        """So much of this part is done, from 0 to 1: a sign of life in any case."""
        now_at_s = time.monotonic()
        if now_at_s - self._told_at_s >= EVERY_S:
            self._told_at_s = now_at_s
            done = self._begin + (self._end - self._begin) * min(1.0, max(0.0, share))
            self.report(int(done * MILLION))

    @contextmanager
    def part(self, begin: float, end: float) -> Iterator[None]:
        """What is done within takes the load from one share of this part to another."""
        before = self._begin, self._end
        size = self._end - self._begin
        self._begin, self._end = before[0] + begin * size, before[0] + end * size
        try:
            self.at(0.0)
            yield
            self.at(1.0)
        finally:
            self._begin, self._end = before
