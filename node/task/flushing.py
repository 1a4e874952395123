"""When a flush takes what there is: once those who were adding to it have run."""

from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import trio

T = TypeVar("T")

# Passes of the loop in which nothing came until it is said that nothing more comes now, and the
# most passes that a flush waits. What is added takes some passes each from one to the next.
QUIET_PASSES = 4
PASSES_MAX = 64


async def grown(size: Callable[[], int], enough: int) -> None:
    """Let everybody run who adds to something, while `size` grows and is less than `enough`.

    It takes no time of the clock, and ends though they never stop.
    """
    quiet, before = 0, size()
    for _ in range(PASSES_MAX):
        await trio.lowlevel.checkpoint()
        now = size()
        quiet = 0 if now > before else quiet + 1
        if quiet >= QUIET_PASSES or now >= enough:
            return
        before = now


@dataclass(slots=True)
class Flushing(Generic[T]):
    """Gives `flush` what was added, as much at once as came together, one flush after the other.

    Whoever adds bounds how much may wait. A flush raises nothing: it tells each item its error.
    """

    nursery: trio.Nursery
    flush: Callable[[list[T]], Awaitable[None]]
    items_max: int
    flushes: int = 0
    _waiting: deque[T] = field(default_factory=deque)
    _running: bool = False

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, item: T) -> None:
        """Have `item` in one of the next flushes."""
        self._waiting.append(item)
        if not self._running:
            self._running = True
            self.nursery.start_soon(self._run)

    async def _run(self) -> None:
        try:
            while self._waiting:
                await grown(self.__len__, self.items_max)
                count = min(len(self._waiting), self.items_max)
                self.flushes += 1
                await self.flush([self._waiting.popleft() for _ in range(count)])
        finally:
            self._running = False
