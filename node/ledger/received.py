"""What an account was paid, as the orders of ended epochs show it. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from wire.content import PeerId
from wire.ledger import AccountOrder, order_digest
from wire.signed import Signed


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
