"""What an epoch says of use: lines of what was redeemed, and who moved credits to whom. Pure."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from node.ledger.books import Draft
from node.ledger.payment_channel import PaymentChannel, shares_of
from wire import limits
from wire.content import ContentId, PeerId
from wire.ledger import AccountOrder
from wire.signed import Signed
from wire.usage import ModelUse, UseLine

Transfer = tuple[PeerId, PeerId]


@dataclass(slots=True)
class _Sums:
    """What one account redeemed of another; of each model, what it and its author got."""

    paid: int = 0
    growth: int = 0
    tasks: int = 0
    models: dict[ContentId, tuple[int, int]] = field(default_factory=dict)

    def add(
        self, before: PaymentChannel, after: PaymentChannel, rows: Mapping[bytes, bytes]
    ) -> None:
        growth, shares = shares_of(before, after, rows)
        self.paid += after.paid - before.paid
        self.growth += growth
        self.tasks += after.tasks - before.tasks
        counted = dict(before.models)
        authors = {it.model: it.amount for it in shares}
        for model, paid in after.models:
            if more := paid - counted.get(model, 0):
                known = self.models.get(model, (0, 0))
                self.models[model] = (known[0] + more, known[1] + authors.get(model, 0))

    def line(self, payer: PeerId, payee: PeerId) -> UseLine:
        """All of it, with the models of which most was redeemed."""
        most = sorted(self.models.items(), key=lambda it: (-it[1][0], it[0]))
        models = sorted(most[: limits.LINE_MODELS_MAX])
        return UseLine(
            payer=payer,
            payee=payee,
            paid=self.paid,
            growth=self.growth,
            tasks=min(2**62, self.tasks),
            models=tuple(ModelUse(model=it, paid=paid, author=of) for it, (paid, of) in models),
        )


def lines_of(draft: Draft) -> tuple[UseLine, ...]:
    """The lines of a draft's epoch, in the order of payer and payee."""
    sums: dict[Transfer, _Sums] = {}
    for before, channel in _redeemed(draft):
        sides = (channel.payer, channel.payee)
        sums.setdefault(sides, _Sums()).add(before, channel, draft.books.motions.rows)
    return tuple(it.line(payer, payee) for (payer, payee), it in sorted(sums.items()))


def _redeemed(draft: Draft) -> Iterator[tuple[PaymentChannel, PaymentChannel]]:
    """The channels of which something was redeemed, before and after."""
    for name, channel in draft.channels.items():
        before = draft.books.channels[name[0]].get(name)
        if before is None:
            before = channel._replace(paid=0, tasks=0, models=())
        if channel.paid != before.paid:
            yield before, channel


def moved_in(draft: Draft, orders: Iterable[Signed[AccountOrder]]) -> tuple[Transfer, ...]:
    """Between whom credits moved in a draft's epoch, but from a payer to its payee.

    What an author has of what is redeemed came from the payer, as if that had paid it.
    """
    rows = draft.books.motions.rows
    authored = {
        (after.payer, share.author)
        for before, after in _redeemed(draft)
        for share in shares_of(before, after, rows)[1]
    }
    return (*transfers_of(orders), *sorted(authored))


def transfers_of(orders: Iterable[Signed[AccountOrder]]) -> Iterator[Transfer]:
    """Who paid whom outside of channels."""
    for order in orders:
        for payment in order.record.pay:
            yield order.signer, payment.to
