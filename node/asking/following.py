"""One client that asks for one task and waits for its answer alone, in one wait."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import trio

from node.asking.run import TaskState
from node.task.events import EventSink
from wire.content import ContentId


@dataclass(slots=True)
class Follower:
    """Who waits for a task. What it is given raises nothing.

    `accepted` is called with the task's id once it is journaled. From then on `on_event` hears all
    that happened and happens to the task.
    """

    accepted: Callable[[ContentId], None]
    on_event: EventSink
    # Set when the task has ended, was not accepted, or is not to be waited for without a limit.
    woken: trio.Event = field(default_factory=trio.Event)
    _until_at_s: float = math.inf
    _scope: trio.CancelScope | None = None

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
