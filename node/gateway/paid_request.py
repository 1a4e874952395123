"""One request that comes with a payment, or is told how to pay: from its price to its receipt."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import trio

from node.asking.answers import Answered
from node.asking.run import TaskRequest
from node.gateway.errors import ErrorDetail, HttpError
from node.gateway.facilitator import PaymentFailed, PaymentMade, SettlementOutcome
from node.gateway.http_exchange import Exchange, Headers
from node.gateway.payment_faults import UNKNOWN_AGAIN_S, fault, unchecked, worded
from node.gateway.payment_journal import PaymentRow, PaymentState
from node.gateway.paywall import Paywall, ToldAnswer
from node.gateway.spending import PaidTask, Purse
from node.gateway.voucher_payment import VoucherPayment, channel_told, take_voucher
from node.gateway.x402_documents import (
    REQUIRED,
    RESPONSE,
    RESPONSE_V1,
    ClientPayment,
    PaymentOffer,
    PaymentProof,
    encoded,
    name_v1,
    required_body,
    required_header,
)
from node.paying.voucher_till import VoucherRefused
from wire.content import ContentId
from wire.errors import BatonError, Malformed, Refused, WireError
from wire.payment_claim import BATCH

# An offer holds for the request's deadline, and so much longer for its payment.
SETTLING_S = 60
UPTO = "upto"


@dataclass(slots=True, eq=False)
class PaidRequest:
    """The purse of one request, and the gate that its answer goes through."""

    wall: Paywall
    payment: ClientPayment | None
    url: str
    # Of the target and the body.
    digest: bytes
    owner: bytes
    row: PaymentRow | None = None
    voucher: VoucherPayment | None = None
    _expected: list[TaskRequest] = field(default_factory=list)
    _tasks: dict[int, PaidTask] = field(default_factory=dict)
    _spent: int = 0
    _opening: trio.Lock = field(default_factory=trio.Lock)
    _is_open: bool = False
    _is_again: bool = False
    _holds: str = ""
    _kept: ToldAnswer | None = None
    _settled: SettlementOutcome | None = None
    _shown: bool = False
    # Whether the beginning of an answer, or of an error, was given to be sent.
    _is_told: bool = False
    _scope: trio.CancelScope = field(default_factory=trio.CancelScope)

    async def run(
        self, exchange: Exchange, answer: Callable[[], Awaitable[None]], purse: Purse | None = None
    ) -> None:
        """Answer the request with this as its purse, or with one that wraps it."""
        self.wall.purses.open(self.owner, purse or self)
        exchange.gate = self
        try:
            with self._scope:
                await answer()
        finally:
            self.wall.purses.close(self.owner)
            self._close()

    # The purse

    def expect(self, request: TaskRequest) -> None:
        """See `Purse`."""
        self._expected.append(request)

    async def begin(self, request: TaskRequest) -> PaidTask:
        """See `Purse`: the first task pays for all of them."""
        async with self._opening:
            if not self._is_open:
                await self._open()
                self._is_open = True
        found = self._tasks.get(id(request))
        if found is None:
            raise HttpError(fault(402, "a task that was not in the price", "not_paid"))
        return found

    def end(self, task: PaidTask, answered: Answered | None) -> None:
        """See `Purse`."""
        self._spent += task.comes_to(self.wall.prices, answered)

    @property
    def amount(self) -> int | None:
        """See `Purse`: what its tasks came to, where the payment is by that, else all of it."""
        if self.voucher is not None:
            return min(self._spent, self.voucher.most)
        if self.row is None:
            return None
        return min(self._spent, self.row.amount) if self.row.scheme == UPTO else self.row.amount

    async def _open(self) -> None:
        most, deadline_s = 0, 1
        for request in self._expected:
            price = await self.wall.prices.most(request)
            self._tasks[id(request)] = PaidTask(request, price)
            most += price.most
            deadline_s = max(deadline_s, request.deadline_s)
        if most:
            await self._pay(most, deadline_s)

    async def _pay(self, most: int, deadline_s: int) -> None:
        """Take the payment for so much; HttpError says what is wrong with it, or how to pay."""
        offers = await self._offers(most, deadline_s)
        payment = self.payment
        if payment is None:
            raise self._required("a payment is needed", offers)
        offer = next((it for it in offers if it.is_for(payment)), None)
        if offer is None:
            words = f"invalid_payment_requirements: {payment.scheme} on {payment.network}"
            raise self._required(f"{words} is not offered", offers)
        if not payment.is_for_url(self.url):
            words = f"invalid_payment_requirements: the payment is for {payment.resource}"
            raise self._required(f"{words}, and this is {self.url}", offers)
        if offer.scheme == BATCH:
            await self._take_voucher(payment, offer, offers)
            return
        means = self.wall.means[offer.network.partition(":")[0]]
        try:
            proof = means.read(payment, offer, self.wall.wall_s(), 0)
            if await self._is_known(proof):
                return
            if (wrong := offer.difference(payment)) or proof.amount < offer.amount:
                raise Malformed(wrong or f"{proof.amount} is paid, and {offer.amount} asked for")
            means.read(payment, offer, self.wall.wall_s(), deadline_s)
        except Malformed as error:
            words = f"invalid_payment_requirements: {error.message}"
            raise self._required(words, offers) from error
        await self._take(payment, replace(offer, amount=proof.amount), proof, offers)

    async def _take_voucher(
        self, payment: ClientPayment, offer: PaymentOffer, offers: Sequence[PaymentOffer]
    ) -> None:
        """Have a voucher pay for it: from now on that one pays for nothing else."""
        try:
            self.voucher = await take_voucher(self.wall, payment, offer, self.digest)
        except VoucherRefused as error:
            raise self._required(
                f"invalid_payment_requirements: {error.message}",
                offers,
                channel_told(error.channel, used=error.used),
            ) from error
        except (WireError, Refused) as error:
            words = f"invalid_payment_requirements: {error.message}"
            raise self._required(words, offers) from error
        except BatonError as error:
            raise HttpError(unchecked(error)) from error
        self._kept = self.voucher.kept
        if self._kept is not None:
            # It is told in place of this, and nobody works for it a second time.
            words = "this voucher has paid for its answer"
            raise HttpError(fault(409, words, "payment_used"))

    async def _offers(self, most: int, deadline_s: int) -> list[PaymentOffer]:
        offers: list[PaymentOffer] = []
        for means in self.wall.means.values():
            offers += await means.offers(most, deadline_s + SETTLING_S)
        if not offers:
            words = "nobody who makes payments can be reached now"
            raise HttpError(fault(503, words, "payment_unavailable", UNKNOWN_AGAIN_S))
        return offers

    async def _is_known(self, proof: PaymentProof) -> bool:
        """Whether this very request was paid for by it before; HttpError if it may not be used."""
        if proof.id in self.wall.working:
            words = "this payment is in use: its request is worked on"
            raise HttpError(fault(409, words, "payment_in_use"))
        row = self.wall.journal.rows.get(proof.id)
        if row is None:
            return False
        self.row = row
        if row.state is PaymentState.ASKED:
            self.wall.working.add(row.id)
            try:
                self.row, self._settled = await self.wall.settle_payment(row, row.amount)
            finally:
                self.wall.working.discard(row.id)
            row = self.row
        if row.state is PaymentState.ASKED:
            raise HttpError(self._unknown())
        if row.request != self.digest:
            words = "this payment was used for another request"
            raise HttpError(fault(402, words, "payment_used"))
        if row.state is PaymentState.REFUSED:
            raise HttpError(self._refused(row.reason))
        self._settled = PaymentMade(row.transaction)
        self._kept = self.wall.answers.get(row.id)
        if self._kept is None and row.left > 0:
            self.wall.journal.used_once_more(row)
            self._is_again = True
            return True
        raise HttpError(fault(409, "this payment has paid for its answer", "payment_used"))

    async def _take(
        self,
        payment: ClientPayment,
        offer: PaymentOffer,
        proof: PaymentProof,
        offers: Sequence[PaymentOffer],
    ) -> None:
        """Have it checked, and note that it is taken: from now on it pays for nothing else."""
        document = {
            "x402Version": payment.version,
            "paymentPayload": payment.whole,
            "paymentRequirements": self._as_v1(offer.to_map(payment.version)),
        }
        shows_first = offer.scheme == UPTO
        self.wall.working.add(proof.id)
        row = PaymentRow(
            id=proof.id,
            state=PaymentState.TAKEN,
            request=self.digest,
            payer=proof.payer,
            network=offer.network,
            scheme=offer.scheme,
            version=payment.version,
            amount=proof.amount,
            until_wall_s=min(proof.until_wall_s, 2**53),
            document=document,
        )
        try:
            if wrong := await self.wall.means_of(row).verify(document, proof.payer):
                raise self._required(wrong, offers)
            # Only now it is known whose payment it is: others cannot use up a payer's places.
            if why := self.wall.count_unpaid(proof.payer, shows_first=shows_first):
                raise self._required(why, offers)
            self._holds = proof.payer
            await self.wall.journal.keep(row, self.wall.wall_s())
            self.row = row
        except BatonError as error:
            raise HttpError(unchecked(error)) from error
        finally:
            if self.row is None:
                self.wall.working.discard(proof.id)
                if proof.id in self.wall.journal.rows:
                    self.wall.journal.forget(proof.id)

    # The gate

    async def before_head(
        self, status: int, headers: Headers, data: bytes, *, more: bool
    ) -> tuple[int, Headers, bytes, bool]:
        """What is sent in place of the beginning of an answer: an error, if it was not paid."""
        self._is_told = True
        if self._kept is not None:
            kept = self._kept
            return kept.status, kept.headers + self._receipt(), kept.body, False
        if self.voucher is not None:
            return await self._before_drawn(self.voucher, status, headers, data, more=more)
        row = self.row
        if row is None or status >= 400 or self._is_again:
            return status, headers + self._receipt(), data, more
        if more and row.scheme == UPTO:
            self._shown = True
            return status, headers, data, more
        amount = min(self._spent, row.amount) if row.scheme == UPTO else row.amount
        if not amount:
            return status, headers, data, more
        self.row, self._settled = await self.wall.settle_payment(row, amount)
        if not more:
            self.wall.keep_answer(row.id, ToldAnswer(status, headers, data))
        if isinstance(self._settled, PaymentMade):
            return status, headers + self._receipt(), data, more
        if isinstance(self._settled, PaymentFailed):
            told = self._refused(self._settled.reason)
        else:
            told = self._unknown()
        return worded(told)

    async def _before_drawn(
        self, paid: VoucherPayment, status: int, headers: Headers, data: bytes, *, more: bool
    ) -> tuple[int, Headers, bytes, bool]:
        """What is sent at the beginning of an answer that a voucher pays for."""
        if status < 400 and more:
            # Its end says what it came to.
            self._shown = True
        elif status < 400:
            try:
                await paid.charge(self._spent, self._model)
            except BatonError as error:
                return worded(unchecked(error))
            headers = headers + self._receipt()
            self.wall.keep_answer(paid.id, ToldAnswer(status, headers, data))
        return status, headers, data, more

    @property
    def _model(self) -> ContentId | None:
        """What the request asked for first, by which it is counted."""
        return self._expected[0].stages[0].model

    async def after_replaced(self) -> None:
        """What was sent is no part of an answer: nothing more of it is made."""
        self._scope.cancel()
        await trio.lowlevel.checkpoint()

    def _close(self) -> None:
        """The request is over: what was shown is paid, and a payment for nothing is free again."""
        if self.voucher is not None:
            is_due = self._shown or not self._is_told
            self.voucher.close(self._spent if is_due else 0, self._model)
        row = self.row
        if self._holds:
            self.wall.release(self._holds)
        if row is None or self._is_again:
            return
        self.wall.working.discard(row.id)
        if row.state is not PaymentState.TAKEN or self._settled is not None:
            return
        if (self.wall.journal.rows.get(row.id) or row).state is not PaymentState.TAKEN:
            return
        amount = min(self._spent, row.amount)
        if amount and self._shown:
            self.wall.settle_soon(row, amount)
        elif amount and not self._is_told:
            # Its client left, and peers were paid for what they did: going away costs no less than
            # waiting does. It may still have its answer, once.
            amount = amount if row.scheme == UPTO else row.amount
            self.wall.settle_soon(row, amount, left=1)
        else:
            self.wall.journal.forget(row.id)

    # What is told

    def _required(
        self,
        error: str,
        offers: Sequence[PaymentOffer],
        extensions: Mapping[str, Any] | None = None,
    ) -> HttpError:
        return HttpError(
            ErrorDetail(
                status=402,
                message=error,
                code="payment_required",
                headers={REQUIRED: required_header(error, self.url, offers, extensions)},
                document=required_body(error, self.url, offers),
            )
        )

    def _refused(self, reason: str) -> ErrorDetail:
        told = {name.decode(): value.decode() for name, value in self._receipt()}
        return ErrorDetail(
            status=402,
            message=f"the payment was not made: {reason}",
            code="payment_failed",
            headers=told,
        )

    def _unknown(self) -> ErrorDetail:
        words = (
            "whether the payment was made is not known yet, and is asked again: send the same"
            " request with the same payment, and no other one"
        )
        return fault(503, words, "payment_unknown", UNKNOWN_AGAIN_S)

    def _receipt(self) -> Headers:
        """The header that says what became of the payment; none while that is not known."""
        if self.voucher is not None:
            return self.voucher.receipt()
        row = self.row
        if row is None or not isinstance(self._settled, PaymentMade | PaymentFailed):
            return []
        told: dict[str, str | bool] = {
            "success": isinstance(self._settled, PaymentMade),
            "transaction": row.transaction,
            "network": row.network,
            "payer": row.payer,
            "amount": str(row.amount),
        }
        if isinstance(self._settled, PaymentFailed):
            told["errorReason"] = self._settled.reason
        if row.version == 1:
            told["network"] = name_v1(row.network)
        name = RESPONSE if row.version == 2 else RESPONSE_V1
        return [(name.encode(), encoded(told).encode())]

    def _as_v1(self, offer: dict[str, object]) -> dict[str, object]:
        if "maxAmountRequired" not in offer:
            return offer
        return offer | {"resource": self.url, "description": "", "mimeType": "application/json"}
