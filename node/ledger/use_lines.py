"""What an epoch says of use: lines of what was redeemed, and who moved credits to whom. Pure."""

from collections.abc import Iterable, Iterator

from node.ledger.books import Draft
from wire.content import PeerId
from wire.ledger import AccountOrder, growth_of
from wire.signed import Signed
from wire.usage import UseLine

Transfer = tuple[PeerId, PeerId]


def lines_of(draft: Draft) -> tuple[UseLine, ...]:
    """The lines of a draft's epoch, in the order of payer and payee."""
    sums: dict[Transfer, tuple[int, int, int]] = {}
    for name, channel in draft.channels.items():
        before = draft.books.channels[name[0]].get(name)
        paid, tasks = (0, 0) if before is None else (before.paid, before.tasks)
        if channel.paid == paid:
            continue
        sides = (channel.payer, channel.payee)
        found = sums.get(sides, (0, 0, 0))
        growth = growth_of(channel.paid, channel.growth) - growth_of(paid, channel.growth)
        sums[sides] = (
            found[0] + channel.paid - paid,
            found[1] + growth,
            found[2] + channel.tasks - tasks,
        )
    return tuple(
        UseLine(payer=payer, payee=payee, paid=paid, growth=growth, tasks=min(2**62, tasks))
        for (payer, payee), (paid, growth, tasks) in sorted(sums.items())
    )


def transfers_of(orders: Iterable[Signed[AccountOrder]]) -> Iterator[Transfer]:
    """Who paid whom outside of channels."""
    for order in orders:
        for payment in order.record.pay:
            yield order.signer, payment.to
