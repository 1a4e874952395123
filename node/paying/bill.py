"""What one task costs its asker: what peers work on by which prices, and what was charged. Pure.

All charges together are never more than the task's `price_max`.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from node.paying.pricing import cost_of_leg, cost_of_part
from wire import limits
from wire.content import ContentId, PeerId
from wire.receipt import Receipt
from wire.segment import Segment
from wire.signed import Envelope, Signed
from wire.tariff import Charge, ChargeKind, Tariff
from wire.task import Stage

# Of what a task may cost, verdicts on answers that are not accepted come to this part at most.
REJECTED_PART = 2
# What a model has worked for.
WORKED = (ChargeKind.LEG, ChargeKind.PART)


@dataclass(slots=True)
class Held:
    """A leg at one peer: by which tariff, and how much of it was shown.

    `begun` tokens were shown by others before it; `need` is held for it, in millionths.
    """

    tariff: Signed[Tariff]
    number: int
    stage: Stage
    need: int = 0
    begun: int = 0
    shown: int = 0
    # Of those that it has shown, so many are signed for; None if it signs with its receipt alone.
    signed: int | None = None
    # What it may come to, by what was known of its input when it was given, in millionths.
    most: int | None = None

    @property
    def shown_cost(self) -> int:
        """What the tokens that were shown cost."""
        if not self.shown:
            return 0
        return cost_of_part(self.tariff.record, self.stage, self.shown)


class Booking(NamedTuple):
    """How an account with a peer changes: what is held, what was shown, what was charged.

    `model` is the one that worked for what was charged, if one did.
    """

    held: int = 0
    shown: int = 0
    charged: int = 0
    tasks: int = 0
    model: ContentId | None = None


Book = Callable[[PeerId, Booking], None]


@dataclass(slots=True)
class Bill:
    """The bill of one task. `book` hears of every change."""

    price_max: int
    charges: list[Charge] = field(default_factory=list)
    # Kept back for the legs after the first, which others give on.
    reserved: int = 0
    book: Book = lambda _peer, _booking: None
    _held: dict[PeerId, Held] = field(default_factory=dict)
    # The models of the legs that were charged.
    _models: dict[int, ContentId | None] = field(default_factory=dict)
    # All charges so far, in millionths.
    charged: int = field(default=0, init=False)

    @property
    def so_far(self) -> int:
        """All charges, and what was shown of legs that go on, in millionths."""
        shown = sum(it.shown_cost for it in self._held.values())
        return min(self.price_max, self.charged + shown)

    @property
    def left(self) -> int:
        """What further charges may come to."""
        return self.price_max - self.charged

    def note_given(self, peer: PeerId, held: Held) -> None:
        """Note that a peer has a leg."""
        self.drop(peer)
        self._held[peer] = held
        self.book(peer, Booking(held=held.need))

    def show(self, peer: PeerId, until: int) -> None:
        """Note that a peer has streamed its leg up to this token."""
        held = self._held.get(peer)
        if held is None or until - held.begun <= held.shown:
            return
        before = held.shown_cost
        held.shown = until - held.begun
        more = held.shown_cost - before
        self.book(peer, Booking(held=more, shown=more))

    def sign(self, peer: PeerId, until: int) -> None:
        """Note that a peer has signed its stream up to this token: it is paid for no others."""
        held = self._held.get(peer)
        if held is not None:
            held.signed = max(0, until - held.begun)

    def drop(self, peer: PeerId) -> None:
        """Pay a peer nothing for what it has of the task."""
        if (held := self._held.pop(peer, None)) is not None:
            self._charge(peer, held, ChargeKind.PART, 0, 0)

    def part(self, peer: PeerId) -> int:
        """Charge what a peer had shown of a leg that it did not finish; how much that is."""
        held = self._held.pop(peer, None)
        if held is None:
            return 0
        # What nobody signed for is signed for, and paid to, who goes on.
        units = held.shown if held.signed is None else min(held.shown, held.signed)
        amount = cost_of_part(held.tariff.record, held.stage, units)
        return self._charge(peer, held, ChargeKind.PART, units, amount)

    def close(self) -> None:
        """The task has ended: whoever still works on it is charged for what was shown."""
        for peer in list(self._held):
            self.part(peer)

    def void_parts(self, since: int = 0) -> None:
        """What was streamed of a leg turned out wrong: nobody is charged for it.

        Whoever has the leg now makes its tokens from `since` on.
        """
        for held in self._held.values():
            held.begun = min(held.begun, since)
        for charge in [it for it in self.charges if it.kind is ChargeKind.PART]:
            self.charges.remove(charge)
            self.charged -= charge.amount
            model = self._models.get(charge.stage)
            booking = Booking(charged=-charge.amount, tasks=-1, model=model)
            self.book(payee_of(charge), booking)

    def leg(
        self, peer: PeerId, receipt: Receipt, source: bytes | None, output: bytes | None
    ) -> int:
        """Charge a leg whose answer was accepted; how much that is."""
        held = self._held.pop(peer, None)
        if held is None:
            return 0
        by, begun = held.tariff.record, begun_of(receipt, held.begun)
        amount = cost_of_leg(by, held.stage, receipt, source, output, begun)
        if held.most is not None:
            amount = min(amount, held.most)
        return self._charge(peer, held, ChargeKind.LEG, begun, amount)

    def check(
        self, tariff: Signed[Tariff], number: int, stage: Stage, *, accepted: bool = True
    ) -> int:
        """Charge a verdict, whichever way it went; how much that is.

        Those on answers that are not accepted come to a part of what the task may cost at most, so
        that enough is left for another attempt.
        """
        price, kind = tariff.record.verdict, ChargeKind.CHECK
        if not accepted:
            kind = ChargeKind.REJECTED
            before = sum(it.amount for it in self.charges if it.kind is kind)
            price = price if before + price <= self.price_max // REJECTED_PART else 0
        return self._charge(tariff.signer, Held(tariff, number, stage), kind, 0, price)

    def _charge(self, peer: PeerId, held: Held, kind: ChargeKind, units: int, amount: int) -> int:
        shown = held.shown_cost
        amount = min(amount, self.left)
        if amount <= 0 or len(self.charges) >= limits.CHARGES_MAX:
            self.book(peer, Booking(held=-held.need - shown, shown=-shown))
            return 0
        model = held.stage.model if kind in WORKED else None
        if model is not None:
            self._models[held.number] = model
        self.book(peer, Booking(-held.need - shown, -shown, amount, 1, model))
        self.charged += amount
        self.charges.append(
            Charge(tariff=held.tariff.raw, stage=held.number, kind=kind, units=units, amount=amount)
        )
        return amount


def begun_of(receipt: Receipt, shown: int) -> int:
    """Up to where others are paid for a stream: what they signed, else what they had shown."""
    if not receipt.segments:
        return shown
    # The chain that the receipt is in was checked.
    return Envelope.read(receipt.segments[-1], Segment).claimed().end


def payee_of(charge: Charge) -> PeerId:
    """Whom a charge of our own is paid to: its tariff was checked when it came."""
    return Envelope.read(charge.tariff, Tariff).signer


def bill_of(price_max: int) -> Bill | None:
    """The bill of a task that may cost so much; None for one that may cost nothing."""
    return Bill(price_max) if price_max else None
