"""What an audit found, point by point and by part of what a receipt says. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum, StrEnum

from wire.content import PeerId
from wire.kinds import Level
from wire.receipt import Answer, Receipt, Verdict
from wire.signed import Signed
from wire.task import Task


class Status(Enum):
    """The result for one point, or for one part."""

    HOLDS = "holds"
    FAILS = "fails"
    # One verdict proves it wrong, and too few of the others looked at what it names.
    DISPUTED = "disputed"
    UNKNOWN = "cannot be known"


class ReceiptPart(StrEnum):
    """What a receipt is looked at for. Every report speaks of each of them."""

    SIGNATURES = "signatures"
    REQUEST = "request"
    MODEL = "model"
    INPUT = "input"
    OUTPUT = "output"
    SAMPLER = "sampler"
    REPLAY = "replay"
    SELECTION = "selection"
    VERDICTS = "verdicts"
    COST = "cost"
    LOG = "log"


_ALWAYS = frozenset({ReceiptPart.SIGNATURES, ReceiptPart.REQUEST})
_CHECKED = _ALWAYS | {ReceiptPart.SELECTION, ReceiptPart.VERDICTS}
# The parts that have to hold for a receipt to prove what its level says; no part may fail.
PROMISED: Mapping[Level, frozenset[ReceiptPart]] = {
    Level.SIGNED: _ALWAYS,
    Level.SPOT_CHECKED: _CHECKED,
    Level.REPLAYED: _CHECKED,
    Level.EXACT: _CHECKED,
    Level.ZERO_KNOWLEDGE: _CHECKED,
}

_NOT_LOOKED_AT = "it was not looked at: what was signed cannot be read, or was altered"


@dataclass(frozen=True, slots=True)
class Point:
    """One thing that was looked at."""

    status: Status
    what: str
    detail: str = ""
    part: ReceiptPart = ReceiptPart.SIGNATURES
    # Nobody can know it from any receipt, so the part may hold all the same.
    is_limit: bool = False


@dataclass(frozen=True, slots=True)
class PartResult:
    """What became of one part; `why` is its first point that fails or cannot be known."""

    status: Status
    why: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentFinding:
    """One segment of an answer: its units from `first` to before `end`, and who signed for them.

    `first_wrong` is the position of the first token that a verifier would have drawn otherwise, as
    far as that is known.
    """

    leg: int
    first: int
    end: int
    signer: PeerId
    status: Status
    detail: str
    first_wrong: int | None = None


@dataclass(slots=True)
class AuditReport:
    """The points in the order of checking; what could not be read is None or empty."""

    points: list[Point] = field(default_factory=list)
    answer: Signed[Answer] | None = None
    task: Signed[Task] | None = None
    receipts: list[Signed[Receipt]] = field(default_factory=list)
    verdicts: list[Signed[Verdict]] = field(default_factory=list)
    # What became of each part of a stream that several peers made.
    segments: list[SegmentFinding] = field(default_factory=list)
    # Whether the receipts are those of the task, in order: nothing is said of the legs otherwise.
    is_chain: bool = False

    @property
    def level(self) -> Level | None:
        """The level that the task asked for; None if the task cannot be read."""
        return None if self.task is None else self.task.record.checking.level

    @property
    def promised(self) -> frozenset[ReceiptPart]:
        """The parts that have to hold, by the task's level."""
        return _ALWAYS if self.level is None else PROMISED[self.level]

    @property
    def holds(self) -> bool:
        """Whether nothing fails or is disputed, and all holds that the level promises."""
        return bool(self.points) and self.first_bad is None

    @property
    def disputed(self) -> bool:
        """Whether a verdict names a wrong row, and it is not decided."""
        return any(it.status is Status.DISPUTED for it in self.points)

    @property
    def first_bad(self) -> Point | None:
        """The first point that fails, else that is disputed, else a promise not kept."""
        for status in (Status.FAILS, Status.DISPUTED):
            for point in self.points:
                if point.status is status:
                    return point
        for point in self.points:
            is_open = point.status is Status.UNKNOWN and not point.is_limit
            if is_open and point.part in self.promised:
                return point
        return None

    def note(self, part: ReceiptPart, good: bool | None, what: str, detail: str = "") -> None:
        """Add a point: what it is about, and whether it holds; None if that cannot be known."""
        status = Status.UNKNOWN if good is None else Status.HOLDS if good else Status.FAILS
        self.points.append(Point(status, what, detail, part))

    def note_dispute(self, what: str, detail: str) -> None:
        """Add a point that verdicts contradict each other about."""
        self.points.append(Point(Status.DISPUTED, what, detail, ReceiptPart.VERDICTS))

    def note_limit(self, part: ReceiptPart, what: str, detail: str = "") -> None:
        """Add what no receipt can prove."""
        self.points.append(Point(Status.UNKNOWN, what, detail, part, is_limit=True))

    def of_part(self, part: ReceiptPart) -> PartResult:
        """A part's result: the worst of its points, limits of all receipts left out."""
        points = [it for it in self.points if it.part is part and not it.is_limit]
        for status in (Status.FAILS, Status.DISPUTED, Status.UNKNOWN):
            for point in points:
                if point.status is status:
                    detail = f": {point.detail}" if point.detail else ""
                    return PartResult(status, f"{point.what}{detail}")
        if not points:
            return PartResult(
                Status.UNKNOWN,
                "it was not looked at: what was signed cannot be read, or was altered",
            )
        return PartResult(Status.HOLDS)
