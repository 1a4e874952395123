"""/x402/supported, /verify, /settle: payments in credits, checked and taken for servers elsewhere.

A transfer settles once: a server that did not hear the answer is told so when it asks again, and
has the transfer by then. Vouchers are taken to the account of this peer, whose owner's servers they
are: it redeems them by itself.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter, Request

from node.gateway.credit_means import SUBSCRIBED, CreditMeans
from node.gateway.payment_journal import ELSEWHERE, PaymentRow, PaymentState
from node.gateway.paywall import Paywall
from node.gateway.voucher_payment import settle_voucher
from node.gateway.x402_documents import (
    ClientPayment,
    PaymentOffer,
    PaymentProof,
    read_object,
)
from node.gateway.x402_requirements import PAYLOAD, TOO_LITTLE, USED, PaymentFault, required
from node.paying.voucher_till import SentVoucher, VoucherRefused, VoucherTill
from wire.errors import BatonError, Refused, Unreachable, WireError
from wire.payment_claim import BATCH, network_name

DEADLINE_S = 60
VERSIONS = (2, 1)


@dataclass(slots=True)
class CreditFacilitator:
    """What x402's servers ask of a facilitator, in credits."""

    paywall: Paywall
    means: CreditMeans

    @property
    def network(self) -> str:
        """The network in whose credits payments are taken."""
        return network_name(self._vouchers.channels.wallet.genesis.id)

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
        return (await self._proof(payment, offer)).payer

    async def take(self, body: Mapping[str, Any]) -> Mapping[str, Any]:
        """Take a payment; WireError or Refused says why it cannot be taken."""
        payment, offer = await self._asked(body)
        if offer.scheme == BATCH:
            return await settle_voucher(self._vouchers, payment, offer.amount, offer.network)
        proof = await self._proof(payment, offer)
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
        entered = self.paywall.journal.enter(row, self.paywall.wall_s())
        try:
            # From this commit on it pays for no request, and for no subscription of an app here.
            if not await self.means.take(_document(payment), [entered]):
                raise PaymentFault(USED, SUBSCRIBED)
        except BatonError:
            del self.paywall.journal.rows[row.id]
            raise
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
        return required(body, offers)

    async def _proof(self, payment: ClientPayment, offer: PaymentOffer) -> PaymentProof:
        paywall = self.paywall
        proof = self.means.read(payment, offer, paywall.wall_s(), 0)
        if proof.amount < offer.amount:
            words = f"{proof.amount} is paid, and {offer.amount} asked for"
            raise PaymentFault(TOO_LITTLE, words)
        if proof.id in paywall.journal.rows or proof.id in paywall.working:
            raise PaymentFault(USED, "this transfer has paid for a request")
        if why := await self.means.verify(_document(payment), proof.payer):
            raise PaymentFault(USED, why)
        return proof


def _reason_of(error: BatonError) -> str:
    """x402's word for what is wrong with a payment."""
    if isinstance(error, PaymentFault):
        return error.reason
    if isinstance(error, VoucherRefused):
        return USED if error.used else TOO_LITTLE
    return PAYLOAD


def _document(payment: ClientPayment) -> dict[str, Any]:
    return {"paymentPayload": {"payload": payment.payload}}


def x402_router(paywall: Paywall, means: CreditMeans) -> APIRouter:
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
            told = {"invalidReason": _reason_of(error), "invalidMessage": error.message}
            return {"isValid": False, **told}
        return {"isValid": True, "payer": payer}

    @router.post("/settle")
    async def settle(request: Request) -> Mapping[str, Any]:
        try:
            return await own.take(read_object(await request.body(), "the body"))
        except (WireError, Refused) as error:
            told = {"success": False, "transaction": "", "network": own.network}
            return told | {"errorReason": _reason_of(error), "errorMessage": error.message}

    return router
