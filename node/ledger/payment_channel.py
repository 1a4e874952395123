"""Channels as the ledger keeps them, and who has which part of what is redeemed. Pure.

A voucher says which part of its total was for which model. What it adds to the total is divided:
the fund has its growth share, authors of registered models have theirs, the payee has the rest.
"""

import hashlib
import struct
from collections.abc import Mapping
from typing import NamedTuple

from node.ledger.model_registry import registered
from wire.content import ContentId, PeerId
from wire.ledger import GROWTH_MILLIONTHS, Voucher, growth_of

MILLION = 1_000_000
_CHANNEL_ROW = struct.Struct(">32s32s32sQQQQI")
_AMOUNT = struct.Struct(">Q")


class PaymentChannel(NamedTuple):
    """A deposit that only `payee` may take from, up to the end of the epoch `expiry`.

    One that is closed stays until the epoch ends: an order that topped it up may still be on its
    way to some members, and has to mean the same to all.
    """

    payer: PeerId
    payee: PeerId
    deposit: int
    paid: int
    expiry: int
    closed: bool = False
    # For how many tasks, by the last voucher that was redeemed.
    tasks: int = 0
    # Of what is redeemed so many millionths go to the fund, as it was when the channel was opened.
    growth: int = GROWTH_MILLIONTHS
    # What of `paid` was for which model, in order of the models.
    models: tuple[tuple[ContentId, int], ...] = ()

    @property
    def locked(self) -> int:
        """What is in it, for the payee to redeem or the payer to have back."""
        return 0 if self.closed else self.deposit - self.paid

    def after(self, voucher: Voucher) -> "PaymentChannel":
        """The channel once this voucher is redeemed.

        A voucher promises ahead for work that has no model yet, so later it may name more than it
        adds: then the rest is counted when more is redeemed, and nobody is charged twice.
        """
        left, models = voucher.total - self.paid, dict(self.models)
        for part in voucher.models:
            before = models.get(part.model, 0)
            if more := min(left, max(0, part.amount - before)):
                models[part.model] = before + more
                left -= more
        return self._replace(
            paid=voucher.total,
            tasks=max(self.tasks, voucher.tasks),
            models=tuple(sorted(models.items())),
        )

    def row(self, name: bytes) -> bytes:
        """What a digest of channels is made of."""
        found = _CHANNEL_ROW.pack(name, *self[:5], self.tasks, self.growth)
        return found + b"".join(model + _AMOUNT.pack(paid) for model, paid in self.models)


class AuthorPart(NamedTuple):
    """What the author of a model has of what was redeemed for it."""

    model: ContentId
    author: PeerId
    amount: int


def shares_of(
    before: PaymentChannel, after: PaymentChannel, rows: Mapping[bytes, bytes]
) -> tuple[int, list[AuthorPart]]:
    """What the fund, and what authors, have of what was redeemed between these two.

    It follows from the totals, so that it is the same however often a payee redeems. `rows` are
    those of the last checkpoint, which say whose models are.
    """
    growth = growth_of(after.paid, after.growth) - growth_of(before.paid, before.growth)
    counted, shares = dict(before.models), []
    for model, paid in after.models:
        row = registered(rows, model)
        if row is not None:
            earlier = counted.get(model, 0)
            amount = paid * row.share // MILLION - earlier * row.share // MILLION
            shares.append(AuthorPart(model, row.author, amount))
    return growth, [it for it in shares if it.amount]


def channel_name(order: bytes, number: int) -> bytes:
    """The 32 bytes that name the channel which the opening `number` of an order makes."""
    return hashlib.sha256(b"baton/1/channel\0" + order + bytes((number,))).digest()
