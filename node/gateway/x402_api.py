"""/x402/supported, /verify, /settle: payments in credits, checked and taken for servers elsewhere.

A transfer settles once: a server that did not hear the answer is told so when it asks again, and
has the transfer by then. Vouchers are taken to the account of this peer, whose owner's servers they
are: it redeems them by itself.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from fastapi import APIRouter, Request

from node.gateway.payment_journal import ELSEWHERE, PaymentRow, PaymentState
from node.gateway.paywall import PaymentMeans, Paywall
from node.gateway.voucher_payment import settle_voucher
from node.gateway.x402_documents import (
    ClientPayment,
    PaymentOffer,
    PaymentProof,
    payment_in,
    read_amount,
    read_object,
)
from node.paying.voucher_till import SentVoucher, VoucherTill
from wire.errors import Malformed, Refused, Unreachable, WireError
from wire.payment_claim import BATCH

USED = "transfer_already_used"
DEADLINE_S = 60
VERSIONS = (2, 1)


@dataclass(slots=True)
class CreditFacilitator:
    """What x402's servers ask of a facilitator, in credits."""

    paywall: Paywall
    means: PaymentMeans

    async def supported(self) -> dict[str, Any]:
        """What payments are taken, and to whose account vouchers have to be."""
        offers = await self.means.offers(1, DEADLINE_S)
        kinds = [
            {"x402Version": version, "scheme": it.scheme, "network": it.network}
            for version in VERSIONS
            for it in offers
        ]
        return {
            "kinds": kinds,
            "extensions": [],
            "signers": {it.network: [it.pay_to] for it in offers},
        }

    async def verify(self, body: Mapping[str, Any]) -> str:
        """Who pays; WireError or Refused says why a payment is not valid."""
        payment, offer = await self._asked(body)
        if offer.scheme == BATCH:
            sent = SentVoucher.read(payment.payload)
            await self._vouchers.look(sent, offer.amount)
            return str(sent.payer)
        return self._proof(payment, offer).payer

    async def take(self, body: Mapping[str, Any]) -> Mapping[str, Any]:
        """Take a payment; WireError or Refused says why it cannot be taken."""
        payment, offer = await self._asked(body)
        if offer.scheme == BATCH:
            return await settle_voucher(self._vouchers, payment, offer.amount, offer.network)
        proof = self._proof(payment, offer)
        row = PaymentRow(
            id=proof.id,
            state=PaymentState.SETTLED,
            request=ELSEWHERE,
            payer=proof.payer,
            network=offer.network,
            scheme=offer.scheme,
            version=payment.version,
            amount=proof.amount,
            until_wall_s=proof.until_wall_s,
            document={},
        )
        await self.paywall.journal.keep(row, self.paywall.wall_s())
        return {
            "success": True,
            "transaction": proof.id.hex(),
            "network": offer.network,
            "payer": proof.payer,
            "amount": str(proof.amount),
        }

    @property
    def _vouchers(self) -> VoucherTill:
        assert self.paywall.vouchers is not None
        return self.paywall.vouchers

    async def _asked(self, body: Mapping[str, Any]) -> tuple[ClientPayment, PaymentOffer]:
        offers = await self.means.offers(1, DEADLINE_S)
        if not offers:
            raise Unreachable("too few members of the ledger answer")
        return _asked(body, offers)

    def _proof(self, payment: ClientPayment, offer: PaymentOffer) -> PaymentProof:
        paywall = self.paywall
        proof = self.means.read(payment, offer, paywall.wall_s(), 0)
        if proof.amount < offer.amount:
            raise Malformed(f"{proof.amount} is paid, and {offer.amount} asked for")
        if proof.id in paywall.journal.rows or proof.id in paywall.working:
            raise Malformed(USED)
        return proof


def x402_router(paywall: Paywall, means: PaymentMeans) -> APIRouter:
    """The endpoints of a facilitator, as x402's servers ask them."""
    router = APIRouter(prefix="/x402", include_in_schema=False)
    own = CreditFacilitator(paywall, means)

    @router.get("/supported")
    async def supported() -> dict[str, Any]:
        return await own.supported()

    @router.post("/verify")
    async def verify(request: Request) -> dict[str, Any]:
        try:
            payer = await own.verify(read_object(await request.body(), "the body"))
        except (WireError, Refused) as error:
            return {"isValid": False, "invalidReason": error.message}
        return {"isValid": True, "payer": payer}

    @router.post("/settle")
    async def settle(request: Request) -> Mapping[str, Any]:
        try:
            return await own.take(read_object(await request.body(), "the body"))
        except (WireError, Refused) as error:
            told: dict[str, Any] = {"success": False, "transaction": "", "network": ""}
            return told | {"errorReason": error.message}

    return router


def _asked(
    body: Mapping[str, Any], offers: Sequence[PaymentOffer]
) -> tuple[ClientPayment, PaymentOffer]:
    """The payment, and what it is to be for; Malformed unless it is in this network's credits."""
    payload, wanted = body.get("paymentPayload"), body.get("paymentRequirements")
    if not isinstance(payload, dict) or not isinstance(wanted, dict):
        raise Malformed("a payload and requirements are to be sent")
    version = 1 if payload.get("x402Version") == 1 else 2
    payment = payment_in(payload, "the payload", version)
    amount = read_amount(wanted.get("amount" if version == 2 else "maxAmountRequired"))
    named = (wanted.get("scheme"), wanted.get("network"))
    found = next((it for it in offers if (it.scheme, it.network) == named), None)
    if found is None:
        there = ", ".join(it.scheme for it in offers)
        raise Malformed(f"only {there} on {offers[0].network} is settled here")
    pay_to = wanted.get("payTo")
    if amount is None or not isinstance(pay_to, str) or not found.is_for(payment):
        raise Malformed("invalid_payment_requirements")
    if found.scheme == BATCH and pay_to != found.pay_to:
        raise Malformed(
            f"invalid_payment_requirements: vouchers are taken to {found.pay_to} here, and no other"
            " account: have its own peer take them"
        )
    return payment, replace(found, amount=amount, pay_to=pay_to)
