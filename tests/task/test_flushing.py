"""A flush waits for those who add to it, and not for ever."""

import trio
from trio.testing import MockClock

from node.task.flushing import (
    ALONE_PASSES,
    PASSES_MAX,
    QUIET_PASSES,
    Flushing,
    Gathering,
    grown,
)


async def test_what_follows_from_what_came_is_waited_for(autojump_clock: MockClock) -> None:
    came: list[int] = []

    async def one_after_the_other() -> None:
        for number in range(10):
            came.append(number)
            for _ in range(3):
                await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(one_after_the_other)
        await trio.lowlevel.checkpoint()
        await grown(lambda: len(came), 100)
        assert len(came) == 10
    assert trio.current_time() == 0


async def test_one_that_follows_one_alone_waits_less_and_many_wait_as_before(
    autojump_clock: MockClock,
) -> None:
    gathering, came = Gathering(), list[int]()

    async def passes() -> int:
        """How often the loop goes round until a flush takes what came."""
        count, done = 0, False

        async def counted() -> None:
            nonlocal count
            while not done:
                await trio.lowlevel.checkpoint()
                count += 1

        async with trio.open_nursery() as nursery:
            nursery.start_soon(counted)
            await gathering.grown(lambda: len(came), 100)
            done = True
        return count

    came.append(1)
    assert await passes() >= QUIET_PASSES - 1
    # One after one alone, again and again.
    for _ in range(3):
        assert await passes() <= ALONE_PASSES + 1
    # Where there are more, all that follows is waited for, and so it is the next time.
    came.append(2)
    assert await passes() >= QUIET_PASSES - 1
    came.pop()
    assert await passes() >= QUIET_PASSES - 1
    assert await passes() <= ALONE_PASSES + 1


async def test_who_never_stops_holds_no_flush_up(autojump_clock: MockClock) -> None:
    came: list[None] = []

    async def for_ever() -> None:
        while True:
            came.append(None)
            await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(for_ever)
        await grown(lambda: len(came), 10_000)
        assert PASSES_MAX / 2 < len(came) <= 2 * PASSES_MAX
        await grown(lambda: len(came), len(came) + 5)
        assert len(came) < 3 * PASSES_MAX
        nursery.cancel_scope.cancel()


async def test_what_is_never_flushed_is_dropped_aloud() -> None:
    dropped: list[int] = []

    async def flush(items: list[int]) -> None:
        flushing.add(7)
        await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        flushing = Flushing(nursery, flush, 2, dropped.append)
        for number in range(3):
            flushing.add(number)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert dropped == [0, 1, 2, 7]
    assert len(flushing) == 0
