"""Messages of a standing order: one long conversation; tasks go out, and outcomes come back.

An asker opens an order at a peer to which it gives many tasks. Each task has a tag of its own on
the order, and exactly one outcome. Places are credit: each task takes one, and the peer gives it
back with the outcome, or later. Tasks and outcomes travel in bundles, as many as are ready.

Each record in a bundle is an envelope of its own, or, between peers that know it, a body of which
the signature comes once for all that were signed together (`wire.compact`). One that cannot be read
spoils no other; a signature that does not hold for the bodies under it ends the order.
"""

from dataclasses import dataclass
from typing import Annotated, ClassVar

from wire import limits
from wire.compact import BatchRoot, Travelling, check_places
from wire.errors import Malformed
from wire.kinds import Kind, RefusalCode
from wire.message_base import Message
from wire.receipt import Envelope
from wire.schema import Between, Inline, Int, Omitted, Reason, Record
from wire.segment import OptionalSegment

Tag = Int
Tags = Annotated[tuple[Tag, ...], Between(1, limits.BUNDLE_ITEMS_MAX)]
PlaceCount = Annotated[int, Between(1, limits.ORDER_PLACES_MAX)]
# Which root of its message a record is under, from 1, and its leaf; 0 and 0 for an envelope.
RootNumber = Annotated[int, Between(0, limits.BUNDLE_ITEMS_MAX), Omitted(0)]
LeafNumber = Annotated[int, Between(0, limits.BATCH_RECORDS_MAX - 1), Omitted(0)]
Roots = Annotated[tuple[BatchRoot, ...], Between(0, limits.BUNDLE_ITEMS_MAX), Omitted(())]
Lane = Annotated[bytes, Between(0, limits.LANE_BYTES_MAX), Omitted(b"")]
TaskBytes = Annotated[bytes, Between(1, limits.TASK_BYTES_MAX + limits.ENVELOPE_BYTES_MAX)]
OtherReceipts = Annotated[tuple[Envelope, ...], Between(0, limits.STAGES_MAX - 1), Omitted(())]


@dataclass(frozen=True, slots=True, kw_only=True)
class Open(Message):
    """An asker would like to give many tasks; `wanted` is how many at once it could use.

    `speaks` is the version that it speaks, from BUNDLES_VERSION on; else 0.
    """

    KIND: ClassVar[Kind] = Kind.OPEN
    wanted: PlaceCount
    speaks: Annotated[int, Between(0, 2**16), Omitted(0)] = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened(Message):
    """The order stands, and the asker may have so many tasks here at first."""

    KIND: ClassVar[Kind] = Kind.OPENED
    places: PlaceCount


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderItem(Record):
    """One task: as in an Offer, `deadline_ms` is the time left, `units` a guess.

    Tasks of one `lane` take turns with those of the asker's other lanes. `receipts` are those of
    the legs that are done: the last of them is signed by who opened the order. Without any, the
    task is its own. Only from LEGS_VERSION on has a task more than one leg, or one of another role
    than INFER.
    """

    tag: Tag
    task: TaskBytes
    input: Inline | None
    deadline_ms: Annotated[int, Between(1, limits.DEADLINE_S_MAX * 1000)]
    units: Int
    root: RootNumber = 0
    leaf: LeafNumber = 0
    lane: Lane = b""
    receipts: OtherReceipts = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle(Message):
    """Tasks for the peer, each for one place."""

    KIND: ClassVar[Kind] = Kind.BUNDLE
    items: Annotated[tuple[OrderItem, ...], Between(1, limits.BUNDLE_ITEMS_MAX)]
    roots: Roots = ()

    def check(self) -> None:
        """Malformed if two tasks have one tag, or one is under a root that is not here."""
        each_once([it.tag for it in self.items])
        if self.roots or any(it.root or it.leaf for it in self.items):
            check_places(self.roots, self.travelling)

    @property
    def travelling(self) -> list[Travelling]:
        """The tasks, as they travel."""
        return [Travelling(it.task, it.root, it.leaf) for it in self.items]


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderRefusal(Record):
    """Why one task has no result here; as in a Refuse."""

    code: Annotated[int, Between(0, 2**16 - 1)]
    reason: Reason
    retry_after_ms: Int | None

    @property
    def cause(self) -> RefusalCode:
        """The code if it is known here, else OTHER."""
        return RefusalCode.read(self.code)


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskOutcome(Record):
    """The end of one task: its receipt, with the output inline when small; or a refusal.

    Of a task of several legs, `receipt` is that of the leg that was given, `later` are those of the
    legs after it, and `output` is the last one's; `source` is that one's input, as in a Result, and
    empty if it is large or not known.
    """

    tag: Tag
    receipt: Envelope | None
    output: Inline | None
    refusal: OrderRefusal | None
    root: RootNumber = 0
    leaf: LeafNumber = 0
    later: OtherReceipts = ()
    source: Annotated[bytes, Between(0, limits.INLINE_BYTES_MAX), Omitted(b"")] = b""

    def check(self) -> None:
        """Malformed unless it is either a receipt or a refusal."""
        if (self.receipt is None) is (self.refusal is None):
            raise Malformed("an outcome is either a receipt or a refusal")
        if self.receipt is None and self.output is not None:
            raise Malformed("an output without a receipt")
        if self.receipt is None and self.root:
            raise Malformed("a root without a receipt")
        if (self.later or self.source) and self.receipt is None:
            raise Malformed("what came after a leg without its receipt")


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderPiece(Record):
    """A part of the output of one task, as a Piece is of a leg's."""

    tag: Tag
    position: Int
    units: Annotated[int, Between(1, 2**31)]
    data: Inline
    segment: OptionalSegment = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcomes(Message):
    """What became of tasks, and parts of outputs that are under way.

    `places` are given back: as many more tasks may be sent.
    """

    KIND: ClassVar[Kind] = Kind.OUTCOMES
    items: Annotated[tuple[TaskOutcome, ...], Between(0, limits.BUNDLE_ITEMS_MAX)]
    pieces: Annotated[tuple[OrderPiece, ...], Between(0, limits.BUNDLE_ITEMS_MAX)]
    places: Annotated[int, Between(0, limits.ORDER_PLACES_MAX)]
    roots: Roots = ()

    def check(self) -> None:
        """Malformed if a task ends twice, if nothing is told, or if a root is not here."""
        each_once([it.tag for it in self.items])
        if not self.items and not self.pieces:
            raise Malformed("outcomes of nothing")
        if self.roots or any(it.root or it.leaf for it in self.items):
            check_places(self.roots, self.travelling)

    @property
    def travelling(self) -> list[Travelling]:
        """The receipts of those that have one, in order, as they travel."""
        return [
            Travelling(it.receipt, it.root, it.leaf) for it in self.items if it.receipt is not None
        ]


@dataclass(frozen=True, slots=True, kw_only=True)
class Places(Message):
    """The asker may have so many tasks more here."""

    KIND: ClassVar[Kind] = Kind.PLACES
    more: PlaceCount


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken(Message):
    """Tasks that were taken and are not done at once. Others have their outcome before long."""

    KIND: ClassVar[Kind] = Kind.TAKEN
    tags: Tags


@dataclass(frozen=True, slots=True, kw_only=True)
class Withdraw(Message):
    """The asker does not wait for these tasks any longer. Each has its outcome all the same."""

    KIND: ClassVar[Kind] = Kind.WITHDRAW
    unwanted: Tags


@dataclass(frozen=True, slots=True, kw_only=True)
class Close(Message):
    """The asker ends the order, and has the outcomes of all `tasks` that it sent."""

    KIND: ClassVar[Kind] = Kind.CLOSE
    tasks: Int


def each_once(tags: list[int]) -> None:
    """Malformed if a tag is there twice."""
    if len(set(tags)) != len(tags):
        raise Malformed("a bundle names a tag twice")
