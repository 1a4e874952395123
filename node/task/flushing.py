"""When a flush takes what there is: once those who were adding to it have run."""

from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

import trio

from wire.errors import BatonError, StoreError, WireError


class InBytes(Protocol):
    """What a commit has so many bytes of."""

    @property
    def size_bytes(self) -> int: ...


T = TypeVar("T")
S = TypeVar("S", bound=InBytes)
R = TypeVar("R")

# Passes of the loop in which nothing came until it is said that nothing more comes now, and the
# most passes that a flush waits. What is added takes some passes each from one to the next.
QUIET_PASSES = 4
PASSES_MAX = 64
# As many where the last one came alone: this one most likely does too, and each pass costs the loop
# as much as it.
ALONE_PASSES = 2


@dataclass(slots=True)
class Gathering:
    """The flushes of one place, which remembers whether the last one was of one item alone."""

    was_alone: bool = False

    async def grown(self, size: Callable[[], int], enough: int) -> None:
        """As the function of this name, and not as patient with one that follows one alone."""
        alone = self.was_alone and size() <= 1
        await grown(size, enough, ALONE_PASSES if alone else QUIET_PASSES)
        self.was_alone = size() <= 1


async def grown(size: Callable[[], int], enough: int, enough_quiet: int = QUIET_PASSES) -> None:
    """Let everybody run who adds to something, while `size` grows and is less than `enough`.

    It takes no time of the clock, and ends though they never stop.
    """
    quiet, before = 0, size()
    for _ in range(PASSES_MAX):
        await trio.lowlevel.checkpoint()
        now = size()
        quiet += 1
        if now > before:
            quiet, enough_quiet = 0, QUIET_PASSES
        if quiet >= enough_quiet or now >= enough:
            return
        before = now


def in_parts(items: Iterable[S], bytes_max: int) -> Iterator[list[S]]:
    """The items in order, in parts of at most `bytes_max`; one that is larger is a part alone."""
    some: list[S] = []
    size_bytes = 0
    for item in items:
        size_bytes += item.size_bytes
        if some and size_bytes > bytes_max:
            yield some
            some, size_bytes = [], item.size_bytes
        some.append(item)
    if some:
        yield some


async def keep_each(
    items: list[S],
    keep: Callable[[list[S]], Awaitable[Sequence[R]]],
    kept: Callable[[S, R], None],
    failed: Callable[[S, BatonError], None],
) -> None:
    """Have `keep` make all durable at once; where it cannot, each alone. Each is told what came.

    One may be too large, by itself or for the room that is left; the others are not.
    """
    try:
        found = await keep(items)
    except (StoreError, WireError) as error:
        if len(items) == 1:
            failed(items[0], error)
            return
        for item in items:
            await keep_each([item], keep, kept, failed)
        return
    for item, result in zip(items, found, strict=True):
        kept(item, result)


@dataclass(slots=True)
class Flushing(Generic[T]):
    """Gives `flush` what was added, as much at once as came together, one flush after the other.

    Whoever adds bounds how much may wait. A flush raises nothing: it tells each item its error.
    `dropped` hears of what is never flushed, or was not to the end, because the nursery ended.
    """

    nursery: trio.Nursery
    flush: Callable[[list[T]], Awaitable[None]]
    items_max: int
    dropped: Callable[[T], None] = lambda _item: None
    flushes: int = 0
    _waiting: deque[T] = field(default_factory=deque)
    _running: bool = False
    _gathering: Gathering = field(default_factory=Gathering)

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, item: T) -> None:
        """Have `item` in one of the next flushes."""
        self._waiting.append(item)
        if not self._running:
            self._running = True
            self.nursery.start_soon(self._run)

    async def _run(self) -> None:
        items: list[T] = []
        try:
            while self._waiting:
                await self._gathering.grown(self.__len__, self.items_max)
                count = min(len(self._waiting), self.items_max)
                self.flushes += 1
                items = [self._waiting.popleft() for _ in range(count)]
                await self.flush(items)
                items = []
        finally:
            self._running = False
            for item in [*items, *self._waiting]:
                self.dropped(item)
            self._waiting.clear()
