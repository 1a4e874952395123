"""Payments in credits: by vouchers of a channel to this peer, or by transfers that are settled.

A transfer is made before the request, and shown with its payer's word what it is for. It pays for
one, and if that fails for the next.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import trio

from node.apps.subscriptions import Subscriptions
from node.gateway.facilitator import PaymentFailed, PaymentMade, SettlementOutcome
from node.gateway.x402_documents import ClientPayment, PaymentOffer, PaymentProof
from node.ledger.following import LedgerFollower
from node.ledger.received import PaidTotal
from node.ledger.wallet import Wallet
from node.paying.settled_orders import read_shown
from node.paying.voucher_till import VoucherTill
from store import Row
from wire import limits
from wire.errors import BatonError, Malformed
from wire.ledger import AccountOrder, order_digest
from wire.payment_claim import BATCH, CREDITS, EXACT, bytes_in, check_claim, network_name
from wire.signed import Signed
from wire.signing import SIGNATURE_BYTES

# Transfers of this epoch and of so many before are taken.
EPOCHS_BACK = 2
LOOK_EVERY_S = 5.0
SUBSCRIBED = "this transfer has paid for a subscription: make another one"


@dataclass(slots=True)
class CreditMeans:
    """Takes transfers to the account of this peer."""

    wallet: Wallet
    # What counts as paid for periods of this peer's apps, and so for no request.
    subscriptions: Subscriptions
    follower: LedgerFollower
    # Knows which epoch runs by what is looked up here.
    vouchers: VoucherTill
    _epoch: int = -1
    _looked_at_s: float = float("-inf")

    @property
    def network(self) -> str:
        """The network's name among those of x402."""
        return network_name(self.wallet.genesis.id)

    async def offers(self, amount: int, timeout_s: int) -> Sequence[PaymentOffer]:
        """See `PaymentMeans`; none while too few members of the ledger answer."""
        if trio.current_time() >= self._looked_at_s + LOOK_EVERY_S:
            try:
                self._epoch = max(self._epoch, (await self.wallet.look()).epoch)
            except BatonError:
                return ()
            self._looked_at_s = trio.current_time()
            channels = self.vouchers.channels
            channels.epoch = max(channels.epoch, self._epoch)
        # The first that a client knows is what it takes: a voucher is settled by nobody's waiting.
        return tuple(
            PaymentOffer(
                scheme=scheme,
                network=self.network,
                asset=CREDITS,
                amount=amount,
                pay_to=str(self.wallet.key.peer),
                timeout_s=timeout_s,
            )
            for scheme in (BATCH, EXACT)
        )

    def read(
        self, payment: ClientPayment, offer: PaymentOffer, wall_s: float, needs_s: int
    ) -> PaymentProof:
        """See `PaymentMeans`."""
        genesis = self.wallet.genesis
        try:
            shown = read_shown(_settlement(payment.payload))
            order, digest = shown.order, order_digest(shown.order)
            if not self._epoch - EPOCHS_BACK <= order.record.epoch <= self._epoch + 1:
                raise Malformed("the transfer is of an epoch that is long over")
            paid = sum(it.amount for it in order.record.pay if str(it.to) == offer.pay_to)
            if not paid:
                raise Malformed("the order pays nothing to this account")
            shown.check(genesis.id, self.wallet.committees.of(order.record.epoch))
            check_claim(order.signer, digest, bytes_in(payment.payload, "claim", SIGNATURE_BYTES))
        except BatonError as error:
            raise Malformed(error.message) from error
        said = self.network.encode() + digest + offer.pay_to.encode()
        return PaymentProof(
            id=hashlib.sha256(b"baton/1/x402\0" + said).digest(),
            payer=str(order.signer),
            amount=paid,
            # Until then its epoch is long over.
            until_wall_s=int(wall_s) + (2 * EPOCHS_BACK + 4) * genesis.epoch_s,
        )

    async def verify(self, document: Mapping[str, Any], payer: str) -> str:
        """See `PaymentMeans`: all else was checked when it was read."""
        order = _order_of(document)
        paid = self._counted(order)
        if paid is None or self.subscriptions.left_of(order.signer, paid) >= self._paid_by(order):
            return ""
        return SUBSCRIBED

    async def settle_payment(
        self, document: Mapping[str, Any], payer: str, amount: int, *, again: bool
    ) -> SettlementOutcome:
        """See `PaymentMeans`: it is settled."""
        if await self.take(document):
            return PaymentMade(order_digest(_order_of(document)).hex())
        return PaymentFailed(SUBSCRIBED)

    async def take(self, document: Mapping[str, Any], also: Sequence[Row] = ()) -> bool:
        """Have a transfer pay for no period from now on; False if it has paid for one by now.

        `also` is kept in the same commit: of the two none is there without the other.
        """
        order = _order_of(document)
        amount, counted = self._paid_by(order), self._counted(order)
        digest = order_digest(order)
        return await self.subscriptions.take_for_request(
            order.signer, digest, amount, counted, also
        )

    def _counted(self, order: Signed[AccountOrder]) -> PaidTotal | None:
        """What the account has paid by orders of ended epochs; None if this one is of none."""
        if order.record.epoch >= self.follower.replica.epoch:
            return None
        return self.follower.received.total(order.signer)

    def _paid_by(self, order: Signed[AccountOrder]) -> int:
        me = self.wallet.key.peer
        return sum(it.amount for it in order.record.pay if it.to == me)


def _order_of(document: Mapping[str, Any]) -> Signed[AccountOrder]:
    return read_shown(_settlement(document["paymentPayload"]["payload"])).order


def _settlement(payload: Mapping[str, Any]) -> bytes:
    return bytes_in(payload, "settlement", limits.SETTLEMENT_BYTES_MAX)
