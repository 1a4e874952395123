"""Messages of checks: one alone, or many in one long conversation, as tasks in a standing order.

An asker that has many legs checked by one verifier opens an order of checks there. Each check has a
tag of its own on the order, and exactly one outcome: a signed verdict, or a refusal. Places, what
is withdrawn, and the end are as in an order of tasks (`wire.order`). Verdicts of checks that were
done together have one signature among them; each holds alone all the same (`wire.proof`).
"""

from dataclasses import dataclass
from typing import Annotated, ClassVar

from wire import limits
from wire.errors import Malformed
from wire.kinds import Kind
from wire.message_base import Message
from wire.order import OrderRefusal, PlaceCount, Tag, TaskBytes, each_once
from wire.receipt import Envelope
from wire.schema import Between, Digest, Inline, Omitted, Record, Row

Envelopes = Annotated[tuple[Envelope, ...], Between(0, limits.STAGES_MAX)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Check(Message):
    """The client asks a verifier it has drawn: here is the secret, check this receipt.

    `part` of `parts`, counted from 1, is what the verifier recomputes (`wire.lottery`), and `rows`
    besides, because another verdict disputes them. With no parts, as peers before PARTS_VERSION
    ask, the verifier's own key draws its rows.
    """

    KIND: ClassVar[Kind] = Kind.CHECK
    task: TaskBytes
    receipts: Envelopes
    secret: Digest
    input: Inline | None
    output: Inline | None
    deadline_ms: Annotated[int, Between(1, limits.DEADLINE_S_MAX * 1000)]
    part: Annotated[int, Between(0, limits.VERIFIERS_MAX), Omitted(0)] = 0
    parts: Annotated[int, Between(0, limits.VERIFIERS_MAX), Omitted(0)] = 0
    rows: Annotated[tuple[Row, ...], Between(0, limits.SAMPLE_MAX), Omitted(())] = ()

    def check(self) -> None:
        """Malformed unless the part is one of the parts, and rows are in order, each once."""
        if not min(1, self.parts) <= self.part <= self.parts:
            raise Malformed(f"part {self.part} of {self.parts} is none")
        if tuple(sorted(set(self.rows))) != self.rows or (self.rows and not self.parts):
            raise Malformed("rows stand in order, each once, beside a part")


@dataclass(frozen=True, slots=True, kw_only=True)
class VerdictReply(Message):
    """The verifier's signed verdict."""

    KIND: ClassVar[Kind] = Kind.FINDING
    verdict: Envelope


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenChecks(Message):
    """An asker would like to have many legs checked; `checks` is how many at once it could use."""

    KIND: ClassVar[Kind] = Kind.OPEN_CHECKS
    checks: PlaceCount


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderedCheck(Record):
    """One check on an order."""

    tag: Tag
    asked: Check


@dataclass(frozen=True, slots=True, kw_only=True)
class Checks(Message):
    """Legs for the verifier to check, each for one place."""

    KIND: ClassVar[Kind] = Kind.CHECKS
    items: Annotated[tuple[OrderedCheck, ...], Between(1, limits.CHECKS_PER_MESSAGE_MAX)]

    def check(self) -> None:
        """Malformed if two checks have one tag."""
        each_once([it.tag for it in self.items])


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckOutcome(Record):
    """The end of one check: a signed verdict, or why there is none."""

    tag: Tag
    verdict: Envelope | None
    refusal: OrderRefusal | None

    def check(self) -> None:
        """Malformed unless it is either a verdict or a refusal."""
        if (self.verdict is None) is (self.refusal is None):
            raise Malformed("a check ends with a verdict or with a refusal")


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdicts(Message):
    """What became of checks. `places` are given back: as many more checks may be sent."""

    KIND: ClassVar[Kind] = Kind.VERDICTS
    items: Annotated[tuple[CheckOutcome, ...], Between(1, limits.BUNDLE_ITEMS_MAX)]
    places: Annotated[int, Between(0, limits.ORDER_PLACES_MAX)]

    def check(self) -> None:
        """Malformed if a check ends twice."""
        each_once([it.tag for it in self.items])
