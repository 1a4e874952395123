"""What an account was paid, as the orders of ended epochs show it. Pure."""

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from node.ledger.model_registry import registered
from wire.content import ContentId, PeerId
from wire.ledger import AccountOrder, order_digest
from wire.signed import Signed
from wire.usage import UseLine

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
class AuthorIncome:
    """What an account had as a model's author in one epoch, of what `payee` redeemed."""

    epoch: int
    payee: PeerId
    model: ContentId
    amount: int

    def to_map(self) -> dict[str, Any]:
        """For people and programs."""
        return {
            "epoch": self.epoch,
            "from": str(self.payee),
            "model": str(self.model),
            "amount": self.amount,
        }


def income_of(
    account: PeerId, epoch: int, lines: Iterable[UseLine], rows: Mapping[bytes, bytes]
) -> list[AuthorIncome]:
    """What an account has in an epoch as an author; `rows` say whose models were as it began."""
    found: dict[tuple[PeerId, ContentId], int] = {}
    for line in lines:
        for use in line.models:
            row = registered(rows, use.model)
            if use.author and row is not None and row.author == account:
                key = line.payee, use.model
                found[key] = found.get(key, 0) + use.author
    return [AuthorIncome(epoch, *key, amount) for key, amount in sorted(found.items())]


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
    # The latest that it had as an author.
    income: deque[AuthorIncome] = field(default_factory=lambda: deque(maxlen=LATEST_MAX))
    _totals: dict[PeerId, PaidTotal] = field(default_factory=dict)

    def add(self, received: Iterable[Received]) -> None:
        """Note payments of the next epoch."""
        for payment in received:
            amount = self.total(payment.payer).amount + payment.amount
            self._totals[payment.payer] = PaidTotal(amount, payment.epoch)
            self.latest.append(payment)

    def add_income(self, income: Iterable[AuthorIncome]) -> None:
        """Note what it had in the next epoch as an author."""
        self.income.extend(income)

    def total(self, payer: PeerId) -> PaidTotal:
        """All that one account has paid."""
        return self._totals.get(payer, PaidTotal())
