"""A request over HTTP that a voucher pays for: taken before the work, charged when it is over."""

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from node.gateway.http_exchange import Headers
from node.gateway.paywall import Paywall, ToldAnswer
from node.gateway.x402_documents import (
    RESPONSE,
    RESPONSE_V1,
    ClientPayment,
    PaymentOffer,
    encoded,
)
from node.paying.channels import EarningChannel
from node.paying.voucher_till import SentVoucher, VoucherDraw, VoucherRefused, VoucherTill
from wire.content import ContentId
from wire.errors import Malformed

# In the extensions of a 402: what is known of the payer's own channel.
CHANNEL = "channel"


@dataclass(slots=True, eq=False)
class VoucherPayment:
    """The payment of one request. `kept` is what it has paid for before, to be told again."""

    draw: VoucherDraw | None
    offer: PaymentOffer
    version: int
    id: bytes
    kept: ToldAnswer | None = None
    charged: int | None = None

    @property
    def most(self) -> int:
        """What the request may come to."""
        return self.offer.amount

    async def charge(self, amount: int, model: ContentId | None) -> None:
        """Charge a whole answer, before it is told; StoreError."""
        if self.draw is not None:
            self.charged = min(amount, self.most)
            await self.draw.charge(self.charged, model)

    def close(self, amount: int, model: ContentId | None) -> None:
        """The request is over: charge what was shown of it, if it was not charged before."""
        if self.draw is None or self.charged is not None:
            return
        if amount:
            self.draw.note(amount, model)
        else:
            self.draw.give_back()

    def receipt(self) -> Headers:
        """The header that says what was drawn; none before that is known."""
        if self.draw is None or self.charged is None:
            return []
        told = drawn(self.draw, self.charged, self.offer.network)
        name = RESPONSE if self.version == 2 else RESPONSE_V1
        return [(name.encode(), encoded(told).encode())]


async def take_voucher(
    wall: Paywall, payment: ClientPayment, offer: PaymentOffer, request: bytes
) -> VoucherPayment:
    """Have a voucher pay for this request; WireError, Refused or StoreError say why not."""
    assert wall.vouchers is not None
    if wrong := offer.difference(payment):
        raise Malformed(wrong)
    sent = SentVoucher.read(payment.payload)
    # Of one request: only who sends the very same again is told the same again.
    paid = ContentId.of(sent.id + request).digest
    try:
        draw = await wall.vouchers.draw(sent, offer.amount)
    except VoucherRefused as error:
        kept = wall.answers.get(paid) if error.used else None
        if kept is None:
            raise
        return VoucherPayment(None, offer, payment.version, paid, kept)
    return VoucherPayment(draw, offer, payment.version, paid)


def drawn(draw: VoucherDraw, amount: int, network: str) -> dict[str, Any]:
    """What a payer is told of a request that its voucher has paid for."""
    return {
        "success": True,
        "transaction": draw.sent.id.hex(),
        "network": network,
        "payer": str(draw.sent.payer),
        "amount": str(amount),
    }


def channel_told(channel: EarningChannel, *, used: bool) -> dict[str, Any]:
    """What a payer may have forgotten of its channel: its own highest voucher, and what it paid.

    `used`: the voucher that came has paid for a request before.
    """
    charged = str(channel.charged + channel.held)
    told: dict[str, Any] = {"name": channel.name.hex(), "charged": charged, "used": used}
    if channel.voucher:
        told["voucher"] = base64.b64encode(channel.voucher).decode()
    return {CHANNEL: told}


async def settle_voucher(
    till: VoucherTill, payment: ClientPayment, amount: int, network: str
) -> Mapping[str, Any]:
    """Have a voucher pay for a request to a server elsewhere; WireError, Refused or StoreError."""
    draw = await till.draw(SentVoucher.read(payment.payload), amount)
    await draw.charge(amount, None)
    return drawn(draw, amount, network)
