"""What a role promises to the leg server: to refuse at once, or to do the leg."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from node.engines.interface import Emit, Part
from node.serving.queue_slot import QueueSlot
from wire.content import ContentId, PeerId
from wire.message import Progress
from wire.task import Stage

__all__ = ["Done", "Emit", "LegInput", "LegRole", "LegWork", "nowhere"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """The output of a leg, and its cost; `blobs` are content that the output names.

    `layers` is what other peers signed that ran layers of the model for it.
    """

    data: bytes
    units: int
    profile: str
    blobs: tuple[bytes, ...] = ()
    layers: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class LegInput:
    """The input of a leg: its bytes, and the peers likely to have the content that it names.

    `resume` is what another peer streamed of it before it failed.
    """

    id: ContentId | None
    data: bytes | None
    holders: Sequence[PeerId]
    deadline_s: float
    resume: Progress | None = None
    # The leg's place in the role's queue; None for a leg that is done again to check it.
    place: QueueSlot | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LegWork:
    """A leg to be done: for which asker, offered by whom, how much, in what time."""

    stage: Stage
    asker: PeerId
    by: PeerId
    units: int
    left_s: float
    # Which of the asker's own legs it takes turns with.
    lane: bytes = b""


class LegRole(Protocol):
    """A role that does legs of tasks."""

    def quote(self, work: LegWork) -> float:
        """Seconds until it would be done; Refused, with when to ask again, if it would not."""
        ...

    def admit(self, work: LegWork) -> QueueSlot:
        """Take a leg that will be done in time, until `dequeue`; Refused as for a quote."""
        ...

    def dequeue(self, place: QueueSlot) -> None:
        """Remove a leg that is done or no longer wanted; a second call does nothing."""
        ...

    async def do(self, stage: Stage, source: LegInput, emit: Emit) -> Done:
        """Do the leg; Refused, EngineError, StoreError or TransportError if it fails."""
        ...


async def nowhere(piece: Part) -> None:
    """Drop a piece that nobody waits for: of a middle leg, or of a leg done again to check it."""
