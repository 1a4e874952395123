"""What an asker knows of one standing order: its credit, and the tasks that have not ended. Pure.

Whatever the other side says that does not fit is an error of its own.
"""

from dataclasses import dataclass, field
from typing import Generic, TypeVar

from wire import limits
from wire.errors import RemoteProtocolError

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderFigures:
    """Standing orders at one moment: how many, what went by them, and how much credit is in use.

    `tasks` were sent in `bundles` since the start; `in_use` of the places now have a task, and
    `free` have none.
    """

    open: int
    tasks: int
    bundles: int
    in_use: int
    free: int

    def as_map(self) -> dict[str, float]:
        """The figures, and the tasks in a bundle on average; 0 where there was none."""
        each = round(self.tasks / self.bundles, 1) if self.bundles else 0.0
        return {
            "open": self.open,
            "tasks": self.tasks,
            "tasks_per_bundle": each,
            "places_in_use": self.in_use,
            "places_free": self.free,
        }


@dataclass(slots=True)
class OrderTags(Generic[T]):
    """The tags of one order. Each is given to one task, and ends once."""

    # How many tasks may be sent now.
    credit: int = 0
    # How many were sent so far; the next tag.
    sent: int = 0
    # Tasks that were sent and have not ended; None for one that nobody waits for any more.
    _open: dict[int, T | None] = field(default_factory=dict)

    @property
    def unended(self) -> int:
        """Tasks that were sent and have not ended."""
        return len(self._open)

    @property
    def waited_for(self) -> list[T]:
        """Those of them that somebody waits for, in the order in which they were sent."""
        return [it for it in self._open.values() if it is not None]

    def credited(self, places: int) -> None:
        """Note places that the peer gave; RemoteProtocolError for more than an order may have."""
        if self.credit + len(self._open) + places > limits.ORDER_PLACES_MAX:
            raise RemoteProtocolError("more places than a standing order may have")
        self.credit += places

    def give(self, task: T) -> int:
        """The tag under which a task is sent now, for one place."""
        assert self.credit > 0
        self.credit -= 1
        tag, self.sent = self.sent, self.sent + 1
        self._open[tag] = task
        return tag

    def withdraw(self, tag: int) -> bool:
        """Note that nobody waits for a task any more; whether it has not ended yet."""
        if tag not in self._open:
            return False
        self._open[tag] = None
        return True

    def task_of(self, tag: int) -> T | None:
        """The task that goes on under a tag; None if nobody waits for it any more."""
        if tag not in self._open:
            ended = 0 <= tag < self.sent
            what = "that has ended" if ended else "that was never sent"
            raise RemoteProtocolError(f"it spoke of a task {what}")
        return self._open[tag]

    def ended(self, tag: int) -> T | None:
        """As `task_of`, of a task that has ended."""
        task = self.task_of(tag)
        del self._open[tag]
        return task
