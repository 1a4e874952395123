"""A job that waits in the engine: how it ends, and how often it is tried."""

from collections.abc import Iterable
from dataclasses import dataclass, field

import trio

from wire.content import ContentId
from wire.errors import BatonError, EngineError

# What was under way when a worker died is tried once more, by itself.
TRIES_MAX = 2


@dataclass(slots=True, eq=False, kw_only=True)
class PendingJob:
    """One job of one model. `tries` came to nothing since it last got further."""

    model: ContentId
    tries: int = 0
    failure: BatonError | None = None
    ended: trio.Event = field(default_factory=trio.Event)

    @property
    def over(self) -> bool:
        """Whether it has its answer, or failed."""
        return self.ended.is_set()

    def fail(self, error: BatonError) -> None:
        """It ends with `error`; whoever waits for it raises that."""
        self.failure = error
        self.ended.set()

    def came_to_nothing(self, error: EngineError) -> None:
        """A try failed: there is one more, or it was the last."""
        self.tries += 1
        if self.tries >= TRIES_MAX:
            self.give_up(error)

    def give_up(self, error: EngineError) -> None:
        """Fail with an error that several jobs share: each raises one of its own."""
        self.fail(type(error)(error.message, todo=error.todo, code=error.code))


def fail_all(
    jobs: Iterable[PendingJob], model: ContentId, kind: type[BatonError], message: str
) -> None:
    """End every job of a model that has not ended."""
    for job in jobs:
        if job.model == model and not job.over:
            job.fail(kind(message))
