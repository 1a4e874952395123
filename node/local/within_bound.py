"""Tasks that may cost so much together: each waits until its part of what is left is free."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import trio

from node.asking.run import TaskRequest
from node.task.price_bound import PriceBound
from wire.amount import show_credits
from wire.errors import InputError

# What a task costs at most at the cheapest peers, in millionths.
PriceOf = Callable[[TaskRequest], Awaitable[int]]
# So many times as much may a task cost, where prices differ, as long as enough is left.
PRICE_HEADROOM = 4


class BoundReached(InputError):
    """What is left of the bound is too little for the next task, and nothing will come back."""


@dataclass(slots=True)
class WithinBound:
    """Gives tasks their parts of one bound.

    They are for `what`, and the next of them is `next_one`; `todo` is said where it is reached.
    """

    bound: PriceBound
    price_of: PriceOf
    what: str
    next_one: str
    todo: str = "allow more for all of it: --pay-max"
    _ended: trio.Event = field(default_factory=trio.Event)

    @asynccontextmanager
    async def part(self, request: TaskRequest) -> AsyncIterator[int]:
        """Hold what a task may cost while the block runs, which adds to `charged`; BoundReached."""
        least = await self.price_of(request) if self.bound.most else 0
        while self.bound.left < least:
            if not self.bound.held:
                raise BoundReached(
                    f"{show_credits(self.bound.left)} credits are left for {self.what}, and"
                    f" {self.next_one} costs up to {show_credits(least)}",
                    todo=self.todo,
                )
            await self._ended.wait()
        try:
            with self.bound.holding(PRICE_HEADROOM * least) as held:
                yield held
        finally:
            self._ended.set()
            self._ended = trio.Event()
