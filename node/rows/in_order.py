"""Work on what is read, some at once, with the results taken in the order of reading."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import trio

from wire.errors import BatonError

T = TypeVar("T")
R = TypeVar("R")


@dataclass(slots=True, eq=False)
class _Item(Generic[T, R]):
    """What was read, or why nothing more can be; and what came of it."""

    read: T | None = None
    result: R | None = None
    error: BatonError | None = None
    ended: trio.Event = field(default_factory=trio.Event)


async def in_order(
    read: Callable[[], T | None],
    work: Callable[[T], Awaitable[R]],
    take: Callable[[T, R], Awaitable[None]],
    *,
    window: int,
) -> None:
    """Call `work` for all that `read` gives, until None, and `take` for each result in order.

    `read` runs in a thread. At most `window` results wait, so memory is bounded. A BatonError of
    `read` or `work` is raised after everything before it was taken; the rest is cancelled.
    """
    send, receive = trio.open_memory_channel[_Item[T, R]](window)
    failed: BatonError | None = None

    async def one(item: _Item[T, R]) -> None:
        assert item.read is not None
        try:
            item.result = await work(item.read)
        except BatonError as error:
            item.error = error
        item.ended.set()

    async def read_on(nursery: trio.Nursery) -> None:
        async with send:
            while True:
                item = _Item[T, R]()
                try:
                    item.read = await trio.to_thread.run_sync(read)
                except BatonError as error:
                    item.error = error
                    item.ended.set()
                if item.read is None and item.error is None:
                    return
                await send.send(item)
                if item.error is not None:
                    return
                nursery.start_soon(one, item)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read_on, nursery)
        async for item in receive:
            await item.ended.wait()
            try:
                if item.error is not None:
                    raise item.error
                assert item.read is not None
                assert item.result is not None
                await take(item.read, item.result)
            except BatonError as error:
                failed = error
                nursery.cancel_scope.cancel()
                break
    if failed is not None:
        raise failed
