"""What an account was paid, as the orders of ended epochs show it. Pure."""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from wire.content import PeerId
from wire.ledger import AccountOrder, order_digest
from wire.signed import Signed

# The latest payments that are kept one by one, to be shown.
LATEST_MAX = 1000


@dataclass(frozen=True, slots=True)
class Received:
    """One payment to an account; the amount is in millionths."""

    epoch: int
    payer: PeerId
    amount: int
    # The order that paid it, and that order's number in the payer's account.
    order: bytes
    sequence: int

    def to_map(self) -> dict[str, Any]:
        """For people and programs."""
        return {
            "epoch": self.epoch,
            "from": str(self.payer),
            "amount": self.amount,
            "order": self.order.hex(),
            "sequence": self.sequence,
        }


def received_by(account: PeerId, orders: Iterable[Signed[AccountOrder]]) -> list[Received]:
    """The payments to an account in some orders, in an order that does not depend on theirs."""
    found = []
    for order in orders:
        record = order.record
        amount = sum(it.amount for it in record.pay if it.to == account)
        if amount:
            digest = order_digest(order)
            found.append(Received(record.epoch, order.signer, amount, digest, record.sequence))
    return sorted(found, key=lambda it: (it.payer, it.sequence))


@dataclass(frozen=True, slots=True)
class PaidTotal:
    """All that one account has paid another, in millionths, and the epoch of its last payment."""

    amount: int = 0
    epoch: int = -1


@dataclass(slots=True)
class ReceivedPayments:
    """What an account was paid since the ledger began: the latest payments, and each payer's total.

    Others' payments push out what is shown, and no total: there are at most as many totals as
    accounts, each of which whoever follows the ledger has in memory already.
    """

    latest: deque[Received] = field(default_factory=lambda: deque(maxlen=LATEST_MAX))
    _totals: dict[PeerId, PaidTotal] = field(default_factory=dict)

    def add(self, received: Iterable[Received]) -> None:
        """Note payments of the next epoch."""
        for payment in received:
            amount = self.total(payment.payer).amount + payment.amount
            self._totals[payment.payer] = PaidTotal(amount, payment.epoch)
            self.latest.append(payment)

    def total(self, payer: PeerId) -> PaidTotal:
        """All that one account has paid."""
        return self._totals.get(payer, PaidTotal())
