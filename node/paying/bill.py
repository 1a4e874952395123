"""What one task costs its asker: what peers work on by which prices, and what was charged. Pure.

All charges together are never more than the task's `price_max`.
"""

from dataclasses import dataclass, field

from node.paying.pricing import cost_of_leg, cost_of_part
from wire import limits
from wire.content import PeerId
from wire.receipt import Receipt
from wire.signed import Signed
from wire.tariff import Charge, ChargeKind, Tariff
from wire.task import Stage


@dataclass(slots=True)
class Held:
    """A leg at one peer: by which tariff, and how much of it was shown.

    `begun` tokens were shown by others before it.
    """

    tariff: Signed[Tariff]
    stage: int
    begun: int = 0
    shown: int = 0


@dataclass(slots=True)
class Bill:
    """The bill of one task."""

    price_max: int
    charges: list[Charge] = field(default_factory=list)
    held: dict[PeerId, Held] = field(default_factory=dict)

    @property
    def charged(self) -> int:
        """All charges so far, in millionths."""
        return sum(it.amount for it in self.charges)

    @property
    def left(self) -> int:
        """What further charges may come to."""
        return self.price_max - self.charged

    def show(self, peer: PeerId, until: int) -> None:
        """Note that a peer has streamed its leg up to this token."""
        held = self.held.get(peer)
        if held is not None:
            held.shown = max(held.shown, until - held.begun)

    def void_parts(self) -> None:
        """What was streamed of a leg turned out wrong: nobody is charged for it."""
        self.charges = [it for it in self.charges if it.kind is not ChargeKind.PART]

    def part(self, peer: PeerId, stage: Stage) -> int:
        """Charge what a peer had shown of a leg that it did not finish; how much that is."""
        held = self.held.pop(peer, None)
        if held is None or not held.shown:
            return 0
        amount = cost_of_part(held.tariff.record, stage, held.shown)
        return self._charge(held, ChargeKind.PART, held.shown, amount)

    def leg(
        self,
        peer: PeerId,
        stage: Stage,
        receipt: Receipt,
        source: bytes | None,
        output: bytes | None,
    ) -> int:
        """Charge a leg whose answer was accepted; how much that is."""
        held = self.held.pop(peer, None)
        if held is None:
            return 0
        amount = cost_of_leg(held.tariff.record, stage, receipt, source, output, held.begun)
        return self._charge(held, ChargeKind.LEG, held.begun, amount)

    def check(self, tariff: Signed[Tariff], stage: int) -> int:
        """Charge a verdict, whichever way it went; how much that is."""
        return self._charge(Held(tariff, stage), ChargeKind.CHECK, 0, tariff.record.verdict)

    def _charge(self, held: Held, kind: ChargeKind, units: int, amount: int) -> int:
        amount = min(amount, self.left)
        if amount <= 0 or len(self.charges) >= limits.CHARGES_MAX:
            return 0
        raw = held.tariff.raw
        self.charges.append(
            Charge(tariff=raw, stage=held.stage, kind=kind, units=units, amount=amount)
        )
        return amount


def bill_of(price_max: int) -> Bill | None:
    """The bill of a task that may cost so much; None for one that may cost nothing."""
    return Bill(price_max) if price_max else None
