"""How much slower this process runs than it would alone: worked out from the scheduler's figures.

A pure core: it is told what was read, and does nothing itself. Two things count. Where the process
spent much of the time waiting for a processor, how long it waited for each second that it ran. And
the machine's load for each processor, since a process that mostly sleeps does not notice how slow
the one is that it waits for.
"""

from dataclasses import dataclass

# A fixed timeout is long enough for a machine that is this much slower than one with nothing to do.
SLACK = 3.0
# A timeout never lasts longer than this many times its length.
STRETCH_MAX = 200.0
# Below this share of the time spent waiting for a processor, waiting is no more than taking turns.
WAITED_SHARE_MIN = 0.2
# Readings count half after so long: a machine that is free again is noticed within seconds.
HALF_LIFE_S = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What the system says at one moment; seconds since any fixed beginning.

    `ran_s` is what the process ran, `waited_s` what it could have run and did not. `load` is how
    many processes want each of the machine's processors.
    """

    at_s: float
    ran_s: float
    waited_s: float
    load: float


@dataclass(slots=True)
class Slowdown:
    """Follows the readings of one process."""

    last: Reading
    _elapsed_s: float = 0.0
    _ran_s: float = 0.0
    _waited_s: float = 0.0

    def read(self, now: Reading) -> None:
        """Take the next reading."""
        elapsed_s = max(0.0, now.at_s - self.last.at_s)
        kept = 0.5 ** (elapsed_s / HALF_LIFE_S)
        self._elapsed_s = self._elapsed_s * kept + elapsed_s
        self._ran_s = self._ran_s * kept + max(0.0, now.ran_s - self.last.ran_s)
        self._waited_s = self._waited_s * kept + max(0.0, now.waited_s - self.last.waited_s)
        self.last = now

    @property
    def slowdown(self) -> float:
        """How many times longer things take than on a machine with nothing else to do."""
        own = 1.0
        if self._waited_s > WAITED_SHARE_MIN * self._elapsed_s:
            # A process that hardly ran says little of how long its work would take.
            ran_s = max(self._ran_s, self._elapsed_s / 1000)
            own = (ran_s + self._waited_s) / ran_s
        return max(1.0, own, self.last.load)

    @property
    def stretch(self) -> float:
        """How many times its length a timeout lasts at present: 1 to `STRETCH_MAX`."""
        return min(STRETCH_MAX, max(1.0, self.slowdown / SLACK))

    def lost_s(self, elapsed_s: float) -> float:
        """How much of the last `elapsed_s` does not count against whoever is waited for."""
        return elapsed_s * (1.0 - 1.0 / self.stretch)
