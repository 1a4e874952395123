"""One client that asks for one task and waits for its answer alone, in one wait."""

import math

import trio

from node.asking.run import TaskState
from node.task.events import Event
from wire.content import ContentId


class Follower:
    """Who waits for a task. A subclass says what it does with what it is told; it raises nothing.

    A class and no functions that are handed over: those would make a cycle for each task, which
    only the garbage collector takes apart.
    """

    __slots__ = ("_scope", "_until_at_s", "woken")

    def __init__(self) -> None:
        # Set when the task has ended, was not accepted, or is not to be waited for without a limit.
        self.woken = trio.Event()
        self._until_at_s = math.inf
        self._scope: trio.CancelScope | None = None

    def accepted(self, task: ContentId) -> None:
        """Called with the task's id once it is journaled."""

    def on_event(self, event: Event) -> None:
        """Called, after `accepted`, with all that happened and happens to the task."""

    def wait_until(self, at_s: float) -> None:
        """Wait no longer than this, by trio's clock; `math.inf`: for as long as it takes."""
        self._until_at_s = at_s
        if self._scope is not None:
            self._scope.deadline = at_s
        elif at_s < math.inf:
            self.woken.set()

    async def sees_end_of(self, run: TaskState) -> bool:
        """Whether a task ended before this follower waits no longer."""
        if run.has_ended:
            return True
        with trio.CancelScope(deadline=self._until_at_s) as self._scope:
            await run.until_ended()
        return run.has_ended

    def follow(self, run: TaskState) -> None:
        """Hear of a task that is journaled now."""
        self.accepted(run.task.id)
        for event in run.events:
            self.on_event(event)
        run.watchers.append(self.on_event)
        if run.has_ended:
            self.woken.set()
        run.waked = self.woken

    def leave(self, run: TaskState) -> None:
        """Hear no more of it."""
        if run.waked is self.woken:
            run.waked = None
            run.watchers.remove(self.on_event)
