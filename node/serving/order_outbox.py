"""What a standing order has still to tell its asker, and how it is cut into messages. Pure.

Pieces of a task that has ended are not told: its outcome has the whole output.
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

from node.engines.interface import Part
from wire import limits
from wire.bundling import cut
from wire.compact import compact
from wire.content import PeerId
from wire.message import Message
from wire.order import OrderPiece, OrderRefusal, Outcomes, Places, Taken, TaskOutcome
from wire.receipt import Receipt
from wire.signed import Signed

# Untold pieces of all tasks of one order; above this, whoever makes them waits.
PIECES_BYTES_MAX = 256 << 10


@dataclass(frozen=True, slots=True)
class EndedLeg:
    """How the task under a tag ended: with its receipt, and the output when small; or refused.

    `later` are the receipts of the legs after the one that was given, `source` the last one's input
    if it is small.
    """

    tag: int
    receipt: Signed[Receipt] | None
    output: bytes | None
    refusal: OrderRefusal | None
    later: tuple[Signed[Receipt], ...] = ()
    source: bytes | None = None

    @property
    def size_bytes(self) -> int:
        """What it takes in a message, at most."""
        receipts = () if self.receipt is None else (self.receipt, *self.later)
        inline_bytes = len(self.output or b"") + len(self.source or b"")
        return sum(len(it.raw) for it in receipts) + inline_bytes


@dataclass(slots=True)
class OrderOutbox:
    """Outcomes, pieces and tags of taken tasks that were not sent yet, in order.

    `signer` is this peer, if receipts may travel under one signature.
    """

    signer: PeerId | None = None
    _outcomes: deque[EndedLeg] = field(default_factory=deque)
    # By tag: the pieces of one task, joined where one continues the other.
    _pieces: dict[int, list[Part]] = field(default_factory=dict)
    _taken: dict[int, None] = field(default_factory=dict)
    _pieces_bytes: int = 0

    def __len__(self) -> int:
        return len(self._outcomes) + len(self._pieces) + len(self._taken)

    @property
    def is_full(self) -> bool:
        """Whether who makes pieces has to wait until some were sent."""
        return self._pieces_bytes > PIECES_BYTES_MAX

    def took(self, tag: int) -> None:
        """Tell that a task was taken."""
        self._taken[tag] = None

    def add_piece(self, tag: int, part: Part) -> None:
        """Tell a part of the output of a task that goes on."""
        parts = self._pieces.setdefault(tag, [])
        last = parts[-1] if parts else None
        self._pieces_bytes += len(part.data)
        if (
            last is not None
            # What was signed is told at the end of a piece.
            and not last.segment
            and last.position + last.units == part.position
            and len(last.data) + len(part.data) <= limits.INLINE_BYTES_MAX
        ):
            parts[-1] = Part(
                last.position, last.units + part.units, last.data + part.data, part.segment
            )
        else:
            parts.append(part)

    def ended(self, outcome: EndedLeg) -> None:
        """Tell how a task ended."""
        self._taken.pop(outcome.tag, None)
        if outcome.refusal is None and outcome.output is not None:
            dropped = self._pieces.pop(outcome.tag, [])
            self._pieces_bytes -= sum(len(it.data) for it in dropped)
        self._outcomes.append(outcome)

    def drain(self, places: int) -> Iterator[Message]:
        """The messages that tell all of it, and give `places` back."""
        taken, self._taken = list(self._taken), {}
        for at in range(0, len(taken), limits.BUNDLE_ITEMS_MAX):
            yield Taken(tags=tuple(taken[at : at + limits.BUNDLE_ITEMS_MAX]))
        # A piece is never told after the outcome of its task.
        pieces = [
            OrderPiece(
                tag=tag,
                position=part.position,
                units=part.units,
                data=part.data,
                segment=part.segment,
            )
            for tag, parts in self._pieces.items()
            for part in parts
        ]
        self._pieces, self._pieces_bytes = {}, 0
        for some in cut((it, len(it.data)) for it in pieces):
            yield Outcomes(items=(), pieces=tuple(some), places=0)
        outcomes = list(self._outcomes)
        self._outcomes.clear()
        for ended in cut((it, it.size_bytes) for it in outcomes):
            yield self._outcomes_of(ended, places)
            places = 0
        if places:
            yield Places(more=places)

    def _outcomes_of(self, ended: list[EndedLeg], places: int) -> Outcomes:
        receipts = [it.receipt for it in ended if it.receipt is not None]
        roots, travelling = compact(receipts, self.signer)
        of = iter(travelling)
        items = []
        for one in ended:
            data, root, leaf = next(of) if one.receipt is not None else (None, 0, 0)
            items.append(
                TaskOutcome(
                    tag=one.tag,
                    receipt=data,
                    output=one.output,
                    refusal=one.refusal,
                    root=root,
                    leaf=leaf,
                    later=tuple(it.raw for it in one.later),
                    source=one.source or b"",
                )
            )
        return Outcomes(items=tuple(items), pieces=(), places=places, roots=roots)
