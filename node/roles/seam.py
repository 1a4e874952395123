"""What a role promises to the leg server: to say at once what it will not do; to do the rest."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from node.engines.seam import Emit, Part
from wire.content import ContentId, PeerId
from wire.message import Progress
from wire.task import Stage

__all__ = ["Done", "Emit", "LegInput", "LegRole", "nowhere"]


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


class LegRole(Protocol):
    """A role that does legs of tasks."""

    def check(self, stage: Stage) -> None:
        """Refused, with the reason and a retry-after where waiting helps, if it will not."""
        ...

    def expected_s(self, stage: Stage) -> float:
        """How long the leg is likely to take from now."""
        ...

    async def do(self, stage: Stage, source: LegInput, emit: Emit) -> Done:
        """Do the leg. Refused, EngineError, StoreError, TransportError say why not."""
        ...


async def nowhere(piece: Part) -> None:
    """Where pieces go that nobody waits for: of a leg in between, or of one done again to check."""
