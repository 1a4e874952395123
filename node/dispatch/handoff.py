"""What is handed from peer to peer, and what comes back."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace

from node.engines.interface import Part
from node.paying.bill import Bill
from wire.content import PeerId
from wire.message import Progress
from wire.receipt import Receipt
from wire.segment import Segment, end_of
from wire.signed import Signed
from wire.task import Stage, Task


@dataclass(frozen=True, slots=True, kw_only=True)
class Handoff:
    """What is handed on: the task, its receipts so far, the input if small, peers not to ask."""

    task: Signed[Task]
    receipts: tuple[Signed[Receipt], ...] = ()
    input: bytes | None = None
    units: int = 1
    # What another peer streamed of the last leg before it failed, and what is signed of that.
    resume: Progress | None = None
    segments: tuple[Signed[Segment], ...] = ()
    avoid: frozenset[PeerId] = frozenset()
    # Peers that a later leg is not to be given to: its asker cannot pay them as it is offered.
    unpayable: Callable[[], frozenset[PeerId]] = frozenset
    # Which of the asker's own tasks it takes turns with.
    lane: bytes = b""
    # The only peers that may be asked for its first leg; empty for any. It is not sent on.
    only: frozenset[PeerId] = frozenset()
    # What its asker pays; None where nothing may be asked. It is not sent on.
    bill: Bill | None = None

    def may_go_to(self, peer: PeerId) -> bool:
        """Whether a peer is one of those that may be asked."""
        return not self.only or peer in self.only

    @property
    def stage(self) -> int:
        return len(self.receipts)

    @property
    def is_last(self) -> bool:
        return self.stage + 1 == len(self.task.record.stages)

    @property
    def is_alone(self) -> bool:
        """Whether it is the only leg of its task: no peer between its signer and the asker."""
        return len(self.task.record.stages) == 1

    @property
    def begun_units(self) -> int:
        """How much of the last leg others answer for, or were seen to show where nobody signed."""
        if self.segments:
            return end_of(self.segments)
        return 0 if self.resume is None else self.resume.units

    def going_on(self, resume: Progress | None, segments: tuple[Signed[Segment], ...]) -> "Handoff":
        """As it is, after what another peer streamed."""
        if self.resume is None and resume is None:
            return self
        return replace(self, resume=resume, segments=segments)

    @property
    def is_own(self) -> bool:
        """Whether the asker's own peer hands it on, and not a holder in the middle."""
        return not self.receipts

    @property
    def leg(self) -> Stage:
        return self.task.record.stages[len(self.receipts)]

    @property
    def price_left(self) -> int:
        """What a peer may ask for its first leg, which its asker pays."""
        return 0 if self.bill is None else max(0, self.bill.left - self.bill.reserved)

    @property
    def is_paid(self) -> bool:
        """Whether more than one peer that does it may cost more: its asker pays."""
        return self.bill is not None or self.task.record.price_max > 0

    def share_of_time(self, *, others: bool) -> float:
        """The share of the remaining time that one peer may take.

        A peer that takes a leg and falls silent must leave time for another, if there is one; the
        more legs are left, the longer its own failovers may take.
        """
        legs = len(self.task.record.stages) - self.stage
        return legs / (legs + 1) if others else 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class LegResult:
    """Every leg's receipt, and the last leg's output and input if they came inline."""

    receipts: tuple[Signed[Receipt], ...]
    output: bytes | None
    source: bytes | None


Relay = Callable[[Part], Awaitable[None]]
