"""What several tasks may cost together: each holds its part while it is under way. Pure."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass(slots=True)
class PriceBound:
    """At most `most` millionths; `charged` is what tasks that have ended came to."""

    most: int
    charged: int = 0
    held: int = 0

    @property
    def left(self) -> int:
        """What further tasks may cost."""
        return max(0, self.most - self.charged - self.held)

    def add(self, charged: int) -> None:
        """Count what something came to."""
        self.charged += charged

    @contextmanager
    def holding(self, amount: int) -> Iterator[int]:
        """Hold so much for a task, or what is left; how much that is."""
        amount = min(amount, self.left)
        self.held += amount
        try:
            yield amount
        finally:
            self.held -= amount


def part_of_fetches(most: int, fetches: int, *, then: bool) -> int:
    """What each of so many fetches may cost; with `then` as much at least is left for a model."""
    return most // max(1, fetches + then)
