"""Places shared out among those who ask: nobody has a second one while others wait for a first.

It bounds nothing but the places: whoever lets somebody wait here bounds how many do.
"""

from collections import Counter
from dataclasses import dataclass, field

import trio

from wire.content import PeerId


@dataclass(slots=True, eq=False)
class _Waiting:
    asker: PeerId


@dataclass(slots=True)
class FairSemaphore:
    """`free` places; each that is entered has to be left by the same asker."""

    free: int
    _taken: Counter[PeerId] = field(default_factory=Counter)
    _waiting: list[_Waiting] = field(default_factory=list)
    _changed: trio.Event = field(default_factory=trio.Event)

    async def enqueue(self, asker: PeerId) -> None:
        """Wait for a place: of those who wait, whoever has the fewest is next, then the first."""
        mine = _Waiting(asker)
        self._waiting.append(mine)
        try:
            while not self.free or self._next() is not mine:
                await self._changed.wait()
            self.free -= 1
            self._taken[asker] += 1
        finally:
            self._waiting.remove(mine)
            self._wake()

    def dequeue(self, asker: PeerId) -> None:
        """Give one place of an asker back; the next in turn goes on."""
        self.free += 1
        self._taken -= Counter((asker,))
        self._wake()

    def _next(self) -> _Waiting:
        return min(self._waiting, key=lambda it: self._taken[it.asker])

    def _wake(self) -> None:
        self._changed.set()
        self._changed = trio.Event()
