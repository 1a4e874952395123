"""Cancel scopes whose deadline moves on while this process is starved. Trio; nothing is decided.

One instrument for each run of trio looks at the scheduler's figures after the loop has slept, and
before trio looks which deadlines have passed: so no scope ends for a time in which its own loop, or
the process that it waits for, was not let run.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import trio

from p2p.timeouts.slowdown import STRETCH_MAX, Reading, Slowdown

# The figures are read no more often than this: it costs some microseconds.
READ_EVERY_S = 0.2
# What a process that is waited for could have run and did not, so far, in seconds.
Starved = Callable[[], float]

_timeouts: trio.lowlevel.RunVar["_Timeouts | None"] = trio.lowlevel.RunVar("timeouts", None)


@dataclass(slots=True, eq=False)
class _Wait:
    """One scope; `starved` is of another process, where it is one that is waited for."""

    scope: trio.CancelScope
    since_at_s: float
    starved: Starved | None = None
    starved_s: float = 0.0
    moved_s: float = 0.0
    moved_s_max: float = float("inf")


@dataclass(slots=True, eq=False)
class _Timeouts(trio.abc.Instrument):
    read: Callable[[], Reading]
    slowdown: Slowdown
    waits: set[_Wait] = field(default_factory=set)
    # How many of them are for another process, whose figures are looked at besides.
    others: int = 0

    def after_io_wait(self, timeout: float) -> None:
        """Trio calls this after it has slept, before it ends the scopes whose time is up."""
        if trio.current_time() - self.slowdown.last.at_s >= READ_EVERY_S:
            self.look()

    def look(self) -> None:
        """Read the figures, and move every deadline by what was lost since the last time."""
        before_s = self.slowdown.last.at_s
        self.slowdown.read(self.read())
        now_at_s = self.slowdown.last.at_s
        if self.slowdown.stretch == 1.0 and not self.others:
            return
        for wait in self.waits:
            elapsed_s = now_at_s - max(before_s, wait.since_at_s)
            lost_s = self.slowdown.lost_s(max(0.0, elapsed_s))
            if wait.starved is not None:
                starved_s = wait.starved()
                lost_s = max(lost_s, min(elapsed_s, starved_s - wait.starved_s))
                wait.starved_s = starved_s
            lost_s = min(lost_s, wait.moved_s_max - wait.moved_s)
            if lost_s > 0.0:
                wait.moved_s += lost_s
                wait.scope.deadline += lost_s


@contextmanager
def open_timeouts(read: Callable[[], Reading]) -> Iterator[None]:
    """Make this run of trio's timeouts fair until the block ends. `at_s` is on trio's clock."""
    timeouts = _Timeouts(read, Slowdown(read()))
    _timeouts.set(timeouts)
    trio.lowlevel.add_instrument(timeouts)
    try:
        yield
    finally:
        trio.lowlevel.remove_instrument(timeouts)
        _timeouts.set(None)


@contextmanager
def move_on_after(seconds: float, *, starved: Starved | None = None) -> Iterator[trio.CancelScope]:
    """As trio's, for somebody who has to do something within `seconds` of a machine's time.

    `starved` says of another process how long it has not been let run.
    """
    with trio.move_on_after(seconds) as scope:
        with _stretching(scope, seconds, starved):
            yield scope


@contextmanager
def fail_after(seconds: float, *, starved: Starved | None = None) -> Iterator[trio.CancelScope]:
    """As trio's: trio.TooSlowError once `seconds` of a machine's time have passed."""
    with trio.fail_after(seconds) as scope:
        with _stretching(scope, seconds, starved):
            yield scope


@contextmanager
def stretch(scope: trio.CancelScope) -> Iterator[None]:
    """Have the deadline of `scope`, whatever it is set to meanwhile, move on while starved."""
    with _stretching(scope, float("inf"), None):
        yield


def stretched(seconds: float) -> float:
    """How long something may take now that takes up to `seconds` otherwise; for deadlines that
    are handed to others as numbers."""
    timeouts = _current()
    if timeouts is None:
        return seconds
    if trio.current_time() - timeouts.slowdown.last.at_s >= READ_EVERY_S:
        timeouts.look()
    return seconds * timeouts.slowdown.stretch


def _current() -> _Timeouts | None:
    try:
        return _timeouts.get()
    except RuntimeError:
        # Outside of trio nobody waits for anybody.
        return None


@contextmanager
def _stretching(scope: trio.CancelScope, seconds: float, starved: Starved | None) -> Iterator[None]:
    timeouts = _current()
    if timeouts is None:
        yield
        return
    wait = _Wait(
        scope,
        since_at_s=trio.current_time(),
        starved=starved,
        starved_s=0.0 if starved is None else starved(),
        moved_s_max=seconds * (STRETCH_MAX - 1),
    )
    timeouts.waits.add(wait)
    timeouts.others += starved is not None
    try:
        yield
    finally:
        timeouts.others -= starved is not None
        timeouts.waits.discard(wait)
