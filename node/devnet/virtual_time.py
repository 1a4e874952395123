"""Virtual time, and runs that are the same for the same seed.

`virtual_time` is trio's clock that jumps, and stands while a thread works for the loop.
`repeatable` takes out of a run what differs from one run to the next: trio's choice of which task
goes first, and the system's time and chance where libp2p asks for them. Hashes of text are the
fourth thing: they differ between two processes unless Python is started with PYTHONHASHSEED, as
`devnet` does.
"""

import math
import random
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import trio
from trio._core import _run as scheduler
from trio.testing import MockClock

from p2p.over_libp2p.repeatable import ForThisThread, repeatable_library
from store.group_commit import AtWork, Committer


class _Holds(AtWork):
    """Stops the clock while threads are at work."""

    def __init__(self, clock: MockClock) -> None:
        self._clock = clock
        self._at_work = 0
        self._thread = threading.get_ident()

    def changed(self, change: int) -> None:
        # Another thread may run a loop of its own, by the clock of the system.
        if threading.get_ident() != self._thread:
            return
        self._at_work += change
        self._clock.autojump_threshold = math.inf if self._at_work else 0


@contextmanager
def virtual_time() -> Iterator[MockClock]:
    """A clock for `trio.run` that jumps whenever no task can run and no thread works for one.

    A task that waits for a thread cannot run: on a busy machine hours would pass while a thread
    reads a file. Threads that may be abandoned, which stand for what never comes back, do not hold
    the clock. One at a time in a process.
    """
    clock = MockClock(autojump_threshold=0)
    # It only jumps. What it would work out of the system's clock for each of millions of questions
    # is where the last jump led.
    clock.current_time = partial(getattr, clock, "_virtual_base")  # type: ignore[method-assign]
    holds = _Holds(clock)
    in_thread, before = trio.to_thread.run_sync, Committer.at_work

    async def run_sync(function: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        if options.get("abandon_on_cancel"):
            return await in_thread(function, *arguments, **options)
        holds.changed(1)
        try:
            return await in_thread(function, *arguments, **options)
        finally:
            holds.changed(-1)

    trio.to_thread.run_sync = run_sync  # type: ignore[assignment]
    # The thread that commits serves the store as long as it is open: its groups are what counts.
    Committer.at_work = holds
    try:
        yield clock
    finally:
        trio.to_thread.run_sync, Committer.at_work = in_thread, before


@contextmanager
def repeatable(seed: int, wall_s: Callable[[], float]) -> Iterator[None]:
    """Make what runs in the block depend on `seed` alone, as far as no thread and socket is used.

    `wall_s` is the wall clock of the simulation, in seconds.
    """
    # Trio has no public name for this. It is what trio itself does for Hypothesis, whose examples
    # have to be the same each time; a test fails once trio does it otherwise.
    before = scheduler._ALLOW_DETERMINISTIC_SCHEDULING, scheduler._r
    scheduler._ALLOW_DETERMINISTIC_SCHEDULING = True  # type: ignore[misc]
    # A loop in another thread draws too, whenever it wakes.
    scheduler._r = ForThisThread(random.Random(seed), scheduler._r)  # type: ignore[assignment]
    try:
        with repeatable_library(wall_s, seed):
            yield
    finally:
        scheduler._ALLOW_DETERMINISTIC_SCHEDULING, scheduler._r = before  # type: ignore[misc]
