"""Runs work for several items at once; one plain error is raised instead of a group."""

from collections.abc import Awaitable, Callable, Iterable
from operator import length_hint
from typing import TypeVar

import trio

from wire.errors import BatonError

T = TypeVar("T")


async def gather(
    work: Callable[[T], Awaitable[None]], items: Iterable[T], *, at_once: int = 8
) -> None:
    """Run `work` for every item, `at_once` at a time.

    The first BatonError cancels the rest and is raised itself; a bug propagates as a group.
    """
    left = iter(items)
    failures: list[BatonError] = []

    async def one_after_another(scope: trio.CancelScope) -> None:
        for item in left:
            try:
                await work(item)
            except BatonError as error:
                failures.append(error)
                scope.cancel()

    async with trio.open_nursery() as nursery:
        # No more than there are items, where that is known.
        for _ in range(min(at_once, length_hint(items, at_once))):
            nursery.start_soon(one_after_another, nursery.cancel_scope)
    if failures:
        raise failures[0]
