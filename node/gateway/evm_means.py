"""Payments in dollars on a network of Ethereum's kind, made by a facilitator."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from node.gateway.evm_payment import EXACT, UPTO, is_address, read_evm
from node.gateway.facilitator import Facilitator, SettlementOutcome
from node.gateway.x402_documents import ClientPayment, PaymentOffer, PaymentProof
from node.gateway_config import TOKENS, EvmPay


@dataclass(frozen=True, slots=True)
class EvmMeans:
    """Offers what the facilitator supports; a credit counts as one dollar, with six decimals."""

    pay: EvmPay
    facilitator: Facilitator

    async def offers(self, amount: int, timeout_s: int) -> Sequence[PaymentOffer]:
        """See `PaymentMeans`. What takes no more than was signed stands first."""
        found = []
        asset, name, version = TOKENS[self.pay.network]
        for kind in await self.facilitator.supported():
            if kind.get("network") != self.pay.network or kind.get("x402Version") != 2:
                continue
            more = kind.get("extra")
            address = more.get("facilitatorAddress") if isinstance(more, dict) else None
            extra = {"name": name, "version": version}
            if kind.get("scheme") == UPTO and isinstance(address, str) and is_address(address):
                extra |= {"assetTransferMethod": "permit2", "facilitatorAddress": address}
            elif kind.get("scheme") != EXACT:
                continue
            found.append(
                PaymentOffer(
                    scheme=str(kind["scheme"]),
                    network=self.pay.network,
                    asset=asset,
                    amount=amount,
                    pay_to=self.pay.pay_to,
                    timeout_s=timeout_s,
                    extra=extra,
                )
            )
        return sorted(found, key=lambda it: it.scheme)

    def read(
        self, payment: ClientPayment, offer: PaymentOffer, wall_s: float, needs_s: int
    ) -> PaymentProof:
        """See `PaymentMeans`."""
        return read_evm(payment, offer, wall_s, needs_s)

    async def verify(self, document: Mapping[str, Any], payer: str) -> str:
        """See `PaymentMeans`."""
        return await self.facilitator.verify(document, payer)

    async def settle_payment(
        self, document: Mapping[str, Any], payer: str, amount: int, *, again: bool
    ) -> SettlementOutcome:
        """See `PaymentMeans`: of a payment up to an amount, the amount that is asked for."""
        asked = dict(document["paymentRequirements"])
        if asked["scheme"] == UPTO:
            asked["amount"] = str(amount)
        request = {**document, "paymentRequirements": asked}
        return await self.facilitator.settle_payment(request, payer, again=again)
