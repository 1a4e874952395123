"""/x402/supported, /verify, /settle: payments in credits, checked and taken for servers elsewhere.

A transfer settles once: a server that did not hear the answer is told so when it asks again, and
has the transfer by then.
"""

from collections.abc import Mapping
from typing import Any

from fastapi import APIRouter, Request

from node.gateway.payment_journal import ELSEWHERE, PaymentRow, PaymentState
from node.gateway.paywall import PaymentMeans, Paywall
from node.gateway.x402_documents import (
    ClientPayment,
    PaymentOffer,
    PaymentProof,
    payment_in,
    read_amount,
    read_object,
)
from wire.errors import Malformed, Unreachable

USED = "transfer_already_used"
DEADLINE_S = 60


def x402_router(paywall: Paywall, means: PaymentMeans) -> APIRouter:
    """The endpoints of a facilitator, as x402's servers ask them."""
    router = APIRouter(prefix="/x402", include_in_schema=False)

    async def read(request: Request) -> tuple[PaymentOffer, PaymentProof]:
        body = read_object(await request.body(), "the body")
        own = next(iter(await means.offers(1, DEADLINE_S)), None)
        if own is None:
            raise Unreachable("too few members of the ledger answer")
        payment, offer = _asked(body, own)
        proof = means.read(payment, offer, paywall.wall_s(), 0)
        if proof.amount < offer.amount:
            raise Malformed(f"{proof.amount} is paid, and {offer.amount} asked for")
        if proof.id in paywall.journal.rows or proof.id in paywall.working:
            raise Malformed(USED)
        return offer, proof

    @router.get("/supported")
    async def supported() -> dict[str, Any]:
        offers = await means.offers(1, DEADLINE_S)
        kinds = [{"x402Version": 2, "scheme": it.scheme, "network": it.network} for it in offers]
        return {"kinds": kinds, "extensions": [], "signers": {}}

    @router.post("/verify")
    async def verify(request: Request) -> dict[str, Any]:
        try:
            _, proof = await read(request)
        except Malformed as error:
            return {"isValid": False, "invalidReason": error.message}
        return {"isValid": True, "payer": proof.payer}

    @router.post("/settle")
    async def settle(request: Request) -> dict[str, Any]:
        told: dict[str, Any] = {"success": False, "transaction": "", "network": ""}
        try:
            offer, proof = await read(request)
        except Malformed as error:
            return told | {"errorReason": error.message}
        row = PaymentRow(
            id=proof.id,
            state=PaymentState.SETTLED,
            request=ELSEWHERE,
            payer=proof.payer,
            network=offer.network,
            scheme=offer.scheme,
            version=2,
            amount=proof.amount,
            until_wall_s=proof.until_wall_s,
            document={},
        )
        await paywall.journal.keep(row, paywall.wall_s())
        more = {"payer": proof.payer, "amount": str(proof.amount), "network": offer.network}
        return told | more | {"success": True, "transaction": proof.id.hex()}

    return router


def _asked(body: Mapping[str, Any], own: PaymentOffer) -> tuple[ClientPayment, PaymentOffer]:
    """The payment, and what it is to be for; Malformed unless it is in this network's credits."""
    payload, wanted = body.get("paymentPayload"), body.get("paymentRequirements")
    if not isinstance(payload, dict) or not isinstance(wanted, dict):
        raise Malformed("a payload and requirements are to be sent")
    payment, amount = payment_in(payload, "the payload", 2), read_amount(wanted.get("amount"))
    pay_to = wanted.get("payTo")
    if (wanted.get("scheme"), wanted.get("network")) != (own.scheme, own.network):
        raise Malformed(f"only {own.scheme} on {own.network} is settled here")
    if amount is None or not isinstance(pay_to, str) or not own.is_for(payment):
        raise Malformed("invalid_payment_requirements")
    offer = PaymentOffer(
        scheme=own.scheme,
        network=own.network,
        asset=own.asset,
        amount=amount,
        pay_to=pay_to,
        timeout_s=own.timeout_s,
    )
    return payment, offer
