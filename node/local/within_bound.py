"""Tasks that may cost so much together: each waits until its part of what is left is free."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import trio

from node.asking.run import TaskRequest
from node.task.price_bound import PriceBound
from wire.amount import show_credits
from wire.errors import InputError

# What a task costs at most at the cheapest peers that ask for more than this, in millionths; None
# if nobody does.
PriceOf = Callable[[TaskRequest, int], Awaitable[int | None]]
# So many times as much may a task cost, where prices differ, as long as enough is left.
PRICE_HEADROOM = 4


class BoundReached(InputError):
    """What is left of the bound is too little for the next task, and nothing will come back."""


@dataclass(slots=True)
class Tried:
    """What one task was allowed to cost so far, and by whose price: nobody did it for that."""

    floor: int = -1
    price: int = -1
    held: int = 0


@dataclass(slots=True)
class WithinBound:
    """Gives tasks their parts of one bound.

    A part is for the cheapest peers. Who asks for little or nothing, and does no work, is no reason
    to ask nobody else: of a task that failed the next part is for those that ask for more.
    They are for `what`, and the next of them is `next_one`; `todo` is said where it is reached.
    """

    bound: PriceBound
    price_of: PriceOf
    what: str
    next_one: str
    todo: str = "allow more for all of it: --pay-max"
    _ended: trio.Event = field(default_factory=trio.Event)
    # What was held in vain for tasks, as long as none was done for a part of this.
    _floor: int = -1
    _works: bool = False

    @asynccontextmanager
    async def part(self, request: TaskRequest, tried: Tried | None = None) -> AsyncIterator[int]:
        """Hold what a task may cost while the block runs, which adds to `charged`; BoundReached."""
        tried = Tried() if tried is None else tried
        least, price = await self._prices(request, tried)
        while self.bound.left < price:
            if self.bound.held:
                await self._ended.wait()
            elif self.bound.left >= least:
                break
            else:
                raise BoundReached(
                    f"{show_credits(self.bound.left)} credits are left for {self.what}, and"
                    f" {self.next_one} costs up to {show_credits(least)}",
                    todo=self.todo,
                )
        try:
            with self.bound.holding(PRICE_HEADROOM * price) as held:
                tried.price, tried.held = price, held
                yield held
            self._works = True
        finally:
            self._ended.set()
            self._ended = trio.Event()

    async def _prices(self, request: TaskRequest, tried: Tried) -> tuple[int, int]:
        """What the cheapest peers ask for, and those whose price is tried now."""
        if not self.bound.most:
            return 0, 0
        least = await self.price_of(request, -1) or 0
        tried.floor = max(tried.floor, self._floor)
        dearer = None if tried.floor < 0 else await self.price_of(request, tried.floor)
        return least, least if dearer is None else max(least, dearer)

    async def goes_on(self, request: TaskRequest, tried: Tried) -> bool:
        """Whether others may be asked that ask for more than was held for a task that failed."""
        if not self.bound.most:
            return False
        floor = max(tried.floor, tried.price, tried.held)
        dearer = await self.price_of(request, floor)
        if dearer is None or dearer > self.bound.most - self.bound.charged:
            return False
        tried.floor = floor
        if not self._works:
            # Nobody did any for less: further ones need not try that again.
            self._floor = max(self._floor, floor)
        return True
