"""What orders of an account took out of others' channels, told from their vouchers."""

from collections.abc import Iterable

from node.ledger.wallet import Ordered, OrderState
from wire.ledger import Voucher
from wire.signed import Envelope


def redeemed_by(orders: Iterable[Ordered]) -> dict[int, int]:
    """What each settled order redeemed, by its number, in millionths.

    `orders` are the oldest first. A voucher counts from the one that was redeemed before it, so of
    a channel that was redeemed before the first of them nothing is known: it is left out.
    """
    found: dict[int, int] = {}
    before: dict[bytes, int] = {}
    is_whole = None
    for ordered in orders:
        record = ordered.order.record
        if is_whole is None:
            is_whole = not record.sequence
        if ordered.state is not OrderState.SETTLED:
            continue
        for one in record.redeem:
            if one.voucher is None:
                continue
            # This peer checked it before it ordered.
            total = Envelope.read(one.voucher, Voucher).claimed().total
            known = before.get(one.channel, 0 if is_whole else None)
            before[one.channel] = total
            if known is not None:
                found[record.sequence] = found.get(record.sequence, 0) + max(0, total - known)
    return found
