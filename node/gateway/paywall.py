"""Requests that are paid for by themselves: offers, payments, and that each is made once.

A payment is checked before any work, noted durably, and made when the answer is there: a whole one
is told only once it is paid. One whose outcome is not known is asked about again, with the same
payment, until it is known; its client is never asked for another one.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import trio

from node.gateway.facilitator import PaymentFailed, PaymentMade, PaymentUnknown, SettlementOutcome
from node.gateway.http_exchange import Headers
from node.gateway.payment_journal import PaymentJournal, PaymentRow, PaymentState
from node.gateway.prices import HttpPrices
from node.gateway.spending import Purses
from node.gateway.x402_documents import ClientPayment, PaymentOffer, PaymentProof
from node.paying.voucher_till import VoucherTill
from wire.latest import Latest

# What is on its way is asked for so often while its client waits.
TRIES, TRY_S = 3, 1.0
# Afterwards, in the background, in pauses that double.
AGAIN_S_MIN, AGAIN_S_MAX = 5.0, 300.0
ASKED_AT_ONCE = 8
# It was never heard of: after so long nobody would make it any more.
LOST_S = 3600.0
# Answers that were paid for and may be asked for again.
ANSWERS_KEPT, ANSWER_BYTES_MAX = 64, 256 << 10
# Of one payer: requests under way that are not paid yet.
UNPAID_MAX = 4
PAYERS_KEPT = 4096
# Whose requests those are that have no key, until they are paid for.
UNPAID = b"unpaid"
UNKNOWN_PER_MINUTE = 600
# What may be asked without a key where requests are paid for: what is on offer, and these.
SHOWN = frozenset(
    {
        ("GET", b"/v1/models"),
        ("GET", b"/openapi.json"),
        ("GET", b"/x402/supported"),
        ("POST", b"/x402/verify"),
        ("POST", b"/x402/settle"),
    }
)
PAID_PATHS = frozenset(
    f"/v1/{it}".encode()
    for it in (
        "chat/completions",
        "completions",
        "embeddings",
        "rerank",
        "score",
        "infer",
        "messages",
    )
)


class PaymentMeans(Protocol):
    """One kind of money."""

    async def offers(self, amount: int, timeout_s: int) -> Sequence[PaymentOffer]:
        """How so many millionths may be paid with it now."""
        ...

    def read(
        self, payment: ClientPayment, offer: PaymentOffer, wall_s: float, needs_s: int
    ) -> PaymentProof:
        """What a payment authorises; Malformed if it does not do for this offer."""
        ...

    async def verify(self, document: Mapping[str, Any], payer: str) -> str:
        """Why a payment is not valid; empty if it is. Unreachable if nobody can say."""
        ...

    async def settle_payment(
        self, document: Mapping[str, Any], payer: str, amount: int, *, again: bool
    ) -> SettlementOutcome:
        """Have so much of it paid."""
        ...


@dataclass(frozen=True, slots=True)
class ToldAnswer:
    """A whole answer that was paid for."""

    status: int
    headers: Headers
    body: bytes


@dataclass(slots=True)
class Paywall:
    """What all paid requests of one gateway share."""

    means: Mapping[str, PaymentMeans]
    prices: HttpPrices
    journal: PaymentJournal
    purses: Purses
    wall_s: Callable[[], float]
    note: Callable[[str], None]
    # Takes vouchers of channels; None where no credits are taken.
    vouchers: VoucherTill | None = None
    # Payments that are in the hands of a request now.
    working: set[bytes] = field(default_factory=set)
    answers: Latest[bytes, ToldAnswer] = field(default_factory=lambda: Latest(ANSWERS_KEPT))
    # Requests of each payer that are not paid yet; and who did not pay for what was shown.
    unpaid: dict[str, int] = field(default_factory=dict)
    owing: Latest[str, bool] = field(default_factory=lambda: Latest(PAYERS_KEPT))
    _next_at_s: dict[bytes, tuple[float, float]] = field(default_factory=dict)
    _settling: set[bytes] = field(default_factory=set)
    _due: trio.Event = field(default_factory=trio.Event)

    async def settle_payment(
        self, row: PaymentRow, amount: int
    ) -> tuple[PaymentRow, SettlementOutcome]:
        """Have a payment made, and try some times to hear that it was."""
        again = row.state is PaymentState.ASKED
        if not again:
            row = replace(row, state=PaymentState.ASKED, amount=amount)
            await self.journal.keep(row, self.wall_s())
        self._settling.add(row.id)
        try:
            for number in range(TRIES):
                if number:
                    await trio.sleep(TRY_S)
                means = self.means_of(row)
                found: SettlementOutcome = await means.settle_payment(
                    row.document, row.payer, row.amount, again=again or number > 0
                )
                if not isinstance(found, PaymentUnknown):
                    return await self._known(row, found, was_unknown=again or number > 0), found
        finally:
            self._settling.discard(row.id)
            if (self.journal.rows.get(row.id) or row).state is PaymentState.ASKED:
                self._ask_later(row, AGAIN_S_MIN)
        return row, found

    def settle_soon(self, row: PaymentRow, amount: int, *, left: int = 0) -> None:
        """Have what was made paid, though nobody waits for it any more.

        `left`: so often the request may still be answered for it.
        """
        row = replace(row, state=PaymentState.ASKED, amount=amount, left=left)
        self.journal.keep_soon(row)
        self._ask_later(row, 0.0)

    async def run(self) -> None:
        """Ask again for payments whose outcome is not known."""
        for row in self.journal.asked():
            self._ask_later(row, 0.0)
        while True:
            self._due = trio.Event()
            now_at_s = trio.current_time()
            first_at_s = min((it[0] for it in self._next_at_s.values()), default=float("inf"))
            with trio.move_on_at(first_at_s):
                if first_at_s > now_at_s:
                    await self._due.wait()
            now_at_s = trio.current_time()
            due = [(it, pause) for it, (at_s, pause) in self._next_at_s.items() if at_s <= now_at_s]
            async with trio.open_nursery() as nursery:
                for payment, pause_s in due[:ASKED_AT_ONCE]:
                    nursery.start_soon(self._ask_again, payment, pause_s)

    async def _ask_again(self, payment: bytes, pause_s: float) -> None:
        row = self.journal.rows.get(payment)
        self._next_at_s.pop(payment, None)
        if row is None or row.state is not PaymentState.ASKED or payment in self._settling:
            return
        again = pause_s > 0
        found = await self.means_of(row).settle_payment(
            row.document, row.payer, row.amount, again=again
        )
        if isinstance(found, PaymentUnknown):
            if row.until_wall_s + LOST_S < self.wall_s():
                found = PaymentFailed("nobody said for an hour whether it was")
                self.note(f"a payment of {row.amount} millionths by {row.payer} was never heard of")
            else:
                self._ask_later(row, min(AGAIN_S_MAX, max(AGAIN_S_MIN, 2 * pause_s)))
                return
        await self._known(row, found, was_unknown=again)

    def _ask_later(self, row: PaymentRow, pause_s: float) -> None:
        self._next_at_s[row.id] = (trio.current_time() + pause_s, pause_s)
        self._due.set()

    async def _known(
        self, row: PaymentRow, found: PaymentMade | PaymentFailed, *, was_unknown: bool
    ) -> PaymentRow:
        """Keep what became of a payment."""
        if isinstance(found, PaymentMade):
            # Its client may not have had the answer.
            row = replace(
                row,
                state=PaymentState.SETTLED,
                transaction=found.transaction,
                left=max(row.left, int(was_unknown)),
            )
            self.owing.pop(row.payer, None)
        else:
            row = replace(row, state=PaymentState.REFUSED, reason=found.reason)
            self.owing[row.payer] = True
        # What was signed is long, and nobody is asked about it any more.
        row = replace(row, document={})
        await self.journal.keep(row, self.wall_s())
        return row

    def means_of(self, row: PaymentRow) -> PaymentMeans:
        """What a payment is made with."""
        return self.means[row.network.partition(":")[0]]

    def count_unpaid(self, payer: str, *, shows_first: bool) -> str:
        """Count a request of a payer that is not paid yet; why not, if it is one too many."""
        if shows_first and payer in self.owing:
            return "an earlier answer to this payer was not paid: pay in advance (exact)"
        if self.unpaid.get(payer, 0) >= UNPAID_MAX:
            return f"{UNPAID_MAX} requests of this payer are not paid yet"
        self.unpaid[payer] = self.unpaid.get(payer, 0) + 1
        return ""

    def release(self, payer: str) -> None:
        """It is paid, or it is over."""
        left = self.unpaid.pop(payer, 0) - 1
        if left > 0:
            self.unpaid[payer] = left

    def keep_answer(self, payment: bytes, answer: ToldAnswer) -> None:
        """Keep a whole answer, so that its client can have it again."""
        if len(answer.body) <= ANSWER_BYTES_MAX:
            self.answers[payment] = answer


def request_hash(target: bytes, body: bytes) -> bytes:
    """What a payment is for."""
    return hashlib.sha256(len(target).to_bytes(4, "big") + target + body).digest()
