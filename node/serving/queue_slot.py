"""A job that is to be done, and its place in the queue. Pure."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto

from wire.content import PeerId
from wire.errors import Refused


@dataclass(frozen=True, slots=True, kw_only=True)
class QueuedJob:
    """A job to be done for `asker`: its units, how long it takes, when it has to be done.

    `cost_s` is the job's share of the time of an engine that does several jobs at once, `alone_s`
    how long it takes on an engine with no other job. If the work is not known, both are estimates,
    and `least` is the part of them that it takes at least: a job is refused for its deadline only
    if not even this part fits.
    """

    asker: PeerId
    units: int
    cost_s: float
    left_s: float
    alone_s: float = 0.0
    least: float = 1.0
    # Which of the asker's own jobs it takes turns with.
    lane: bytes = b""


@dataclass(frozen=True, slots=True)
class Now:
    """The engine at this moment: how long its queue takes, how many more jobs it accepts."""

    busy_s: float
    room: int
    now_at_s: float


class SlotStage(Enum):
    """How far a job that was not given up has come."""

    AWAITING_INPUT = auto()
    # Everything it needs is here.
    READY = auto()
    BEGUN = auto()
    # The result is fixed; the place is free once it is dequeued.
    DONE = auto()


@dataclass(frozen=True, slots=True)
class GivenUp:
    """The job ended without a result, and why."""

    refusal: Refused


@dataclass(slots=True, eq=False)
class QueueSlot:
    """One job's place, from when it was taken until it is done. `until_at_s` is its deadline."""

    asker: PeerId
    units: int
    cost_s: float
    expected_s: float
    until_at_s: float
    # The part of its cost that has to fit before its deadline.
    least: float = 1.0
    # Its start tag in virtual time, and its number among all jobs that came.
    start: float = 0.0
    number: int = 0
    # Who offered it, and the lane of its asker that it is in.
    by: PeerId | None = None
    lane: bytes = b""
    stage: SlotStage | GivenUp = SlotStage.AWAITING_INPUT
    # Called when the job is given up.
    on_refusal: Callable[[], None] | None = None

    @property
    def least_s(self) -> float:
        """Seconds of the engine that the job takes at least."""
        return self.cost_s * self.least

    @property
    def ready(self) -> bool:
        """Whether the job waits only for the engine."""
        return self.stage is SlotStage.READY

    @property
    def refusal(self) -> Refused | None:
        """Why it was given up; None if it was not."""
        return self.stage.refusal if isinstance(self.stage, GivenUp) else None

    @property
    def order(self) -> tuple[float, int]:
        return self.start, self.number
