"""Messages of many checks in one long conversation, as tasks have them in a standing order.

An asker that has many legs checked by one verifier opens an order of checks there. Each check has a
tag of its own on the order, and exactly one outcome: a signed verdict, or a refusal. Places, what
is withdrawn, and the end are as in an order of tasks (`wire.order`). Verdicts of checks that were
done together have one signature among them; each holds alone all the same (`wire.proof`).
"""

from dataclasses import dataclass
from typing import Annotated, ClassVar

from wire import limits
from wire.check_message import Check
from wire.errors import Malformed
from wire.kinds import Kind
from wire.message_base import Message
from wire.order import OrderRefusal, PlaceCount, Tag, each_once
from wire.receipt import Envelope
from wire.schema import Between, Record


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
