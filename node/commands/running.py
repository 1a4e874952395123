"""Running a command in trio, with timeouts that are fair on a machine that has too much to do."""

from collections.abc import Awaitable, Callable
from typing import TypeVar

import trio

from p2p.timeouts import Scheduler, open_timeouts

T = TypeVar("T")


def run(work: Callable[[], Awaitable[T]]) -> T:
    """What `work` returns, or the error that it ends with."""

    async def fairly() -> T:
        with open_timeouts(Scheduler().read):
            return await work()

    return trio.run(fairly)
