"""How much of something bounded each API key may hold, so that none of them can take it all.

A pure core. A key may hold as much as is left free for the others: alone a half, with one other a
third each, and so on. So there is always something free for a key that has nothing yet. Where there
is only one caller it may hold everything.
"""

from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass(slots=True)
class Shares:
    """Who holds how much of `total`. `is_sole` says whether there is only one caller."""

    total: int
    is_sole: Callable[[], bool]
    held: dict[bytes, int] = field(default_factory=dict)
    used: int = 0

    def take(self, owner: bytes, amount: int = 1) -> bool:
        """Whether `owner` gets so much more."""
        free = self.total - self.used - amount
        mine = self.held.get(owner, 0) + amount
        if free < 0 or not (self.is_sole() or mine <= max(free, amount)):
            return False
        self.held[owner] = mine
        self.used += amount
        return True

    def held_by(self, owner: bytes) -> int:
        return self.held.get(owner, 0)

    def give_back(self, owner: bytes, amount: int = 1) -> None:
        """Return what was taken."""
        left = self.held[owner] - amount
        self.used -= amount
        if left:
            self.held[owner] = left
        else:
            del self.held[owner]
