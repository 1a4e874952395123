"""What a role promises to the leg server: to say at once what it will not do; to do the rest."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from node.engines.interface import Emit, Part
from node.serving.admission import QueueSlot
from wire.content import ContentId, PeerId
from wire.message import Progress
from wire.task import Stage

__all__ = ["Done", "Emit", "LegInput", "LegRole", "LegWork", "nowhere"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """The output of a leg, and what it took; `blobs` are what it names, kept together with it."""

    data: bytes
    units: int
    profile: str
    blobs: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class LegInput:
    """What reaches a leg: the bytes, and who is likely to have what they refer to by content.

    `resume` is what another peer streamed of it before it failed.
    """

    id: ContentId | None
    data: bytes | None
    holders: Sequence[PeerId]
    deadline_s: float
    resume: Progress | None = None
    # Where the leg stands in the role's queue; a leg that is done again to check it, nowhere.
    place: QueueSlot | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LegWork:
    """A leg that somebody would have done: for whom, by whose offer, how much, in what time."""

    stage: Stage
    asker: PeerId
    by: PeerId
    units: int
    left_s: float


class LegRole(Protocol):
    """A role that does legs of tasks."""

    def quote(self, work: LegWork) -> float:
        """Seconds until it would be done; Refused, with when to ask again, if it would not."""
        ...

    def admit(self, work: LegWork) -> QueueSlot:
        """Take a leg that will be done in time, until `dequeue`; Refused as for a quote."""
        ...

    def dequeue(self, place: QueueSlot) -> None:
        """The leg is done, or is not wanted any more; saying so again does nothing."""
        ...

    async def do(self, stage: Stage, source: LegInput, emit: Emit) -> Done:
        """Do the leg. Refused, EngineError, StoreError, TransportError say why not."""
        ...


async def nowhere(piece: Part) -> None:
    """Where pieces go that nobody waits for: of a leg in between, or of one done again to check."""
