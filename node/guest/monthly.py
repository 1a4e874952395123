"""How many bytes moved in each month, kept over restarts. A pure core.

A clock that jumps to another month and back finds the sum that was there.
"""

from dataclasses import dataclass, field

MONTHS_KEPT = 4
# Of a month that was read from the disk; more than any machine moves.
BYTES_MAX = 1 << 60


@dataclass(slots=True)
class MonthlyTraffic:
    """Sums by month, as `2026-11`. `moved` is told the sum since this process began."""

    sums: dict[str, int] = field(default_factory=dict)
    _seen_bytes: int = 0

    def moved(self, total_bytes: int, month: str) -> int:
        """Count what moved since the last call to `month`; the sum of that month."""
        more = max(0, total_bytes - self._seen_bytes)
        self._seen_bytes = total_bytes
        self.sums[month] = min(BYTES_MAX, self.sums.get(month, 0) + more)
        while len(self.sums) > MONTHS_KEPT:
            del self.sums[min(it for it in self.sums if it != month)]
        return self.sums[month]

    @classmethod
    def of(cls, kept: object) -> "MonthlyTraffic":
        """From what was kept; what is no such table counts as none."""
        if not isinstance(kept, dict):
            return cls()
        sound = {
            month: size_bytes
            for month, size_bytes in kept.items()
            if type(month) is str and type(size_bytes) is int and 0 <= size_bytes <= BYTES_MAX
        }
        return cls(dict(sorted(sound.items())[-MONTHS_KEPT:]))
