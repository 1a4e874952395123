"""Places shared among askers: no asker gets a second one while another waits for its first.

It bounds only the places: the caller bounds how many wait.
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
    """`free` places; the asker that took one has to give it back."""

    free: int
    _taken: Counter[PeerId] = field(default_factory=Counter)
    _waiting: list[_Waiting] = field(default_factory=list)
    _changed: trio.Event = field(default_factory=trio.Event)

    async def enqueue(self, asker: PeerId) -> None:
        """Wait for a place: the asker with the fewest places is next, then the first that came."""
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
