"""When a flush takes what there is: once those who were adding to it have run."""

from collections.abc import Callable

import trio

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
