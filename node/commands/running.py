"""Running a command in trio, fairly on a machine that has too much to do, and its memory."""

import ctypes
import gc
from collections.abc import Awaitable, Callable
from typing import TypeVar

import trio

from p2p.timeouts import Scheduler, open_timeouts

T = TypeVar("T")
# Objects more than there were, at which the collector looks through the new ones.
COLLECTED_OBJECTS = 10_000
RETURN_EVERY_S = 60.0
# The name that glibc's `mallopt` has for how many heaps there may be.
_HEAPS_MAX = -8


def run(work: Callable[[], Awaitable[T]]) -> T:
    """What `work` returns, or the error that it ends with."""

    async def fairly() -> T:
        with open_timeouts(Scheduler().read):
            return await work()

    return trio.run(fairly)


def collect_seldom() -> None:
    """Have garbage collected as fits a peer that is up.

    What is there by now stays as long as the peer: a collection that goes through all of it takes
    a tenth of a second, in which nobody is answered. And a bundle of tasks is some thousand objects
    that are gone again without being collected.
    """
    gc.freeze()
    gc.set_threshold(COLLECTED_OBJECTS, 10, 10)


def keep_one_heap() -> None:
    """Have all threads take memory from one place; to be called before there are others.

    By default glibc gives a thread a heap of its own, where whatever it made stays. Threads come
    and go here, what one made is let go of by another, and each of these heaps keeps pages that
    little lies on. They would allow several threads to allocate at the same moment, which Python's
    do not.
    """
    choose = getattr(ctypes.CDLL(None), "mallopt", None)
    if choose is not None:
        choose(_HEAPS_MAX, 1)


async def return_freed_memory() -> None:
    """Give memory that nothing uses any more back to the system, now and then, until cancelled.

    What became garbage after it had outlived two collections waits for one that goes through all
    objects, which a peer with little to do would have once in hours. `collect_seldom` has put aside
    what is there for good, so that takes some milliseconds. The C library keeps freed pages for
    what comes next, in ever more places between what is still used: a peer at work seems to grow
    for weeks, and one that was busy once stays as large as it was then. With 40 MiB that takes half
    a millisecond; only glibc has such a call.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim.argtypes = [ctypes.c_size_t]
    while True:
        await trio.sleep(RETURN_EVERY_S)
        gc.collect()
        if trim is not None:
            trim(0)
