"""Which payments of clients were taken, and what became of them: durable before any work is done.

One authorisation pays for one request, also after a crash. Whether a payment was made may be
unknown for a while, if whoever makes it does not answer: such a row stays until that is known.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import IntEnum
from typing import Any

from store import Row, Store, Table
from store.seam import SCAN_ROWS_MAX
from wire.codec import pack, unpack
from wire.errors import Refused

# No more than one scan reads.
PAYMENTS_MAX = SCAN_ROWS_MAX
# Of these so many that paid servers elsewhere: a transfer costs nothing, so anybody has many.
ELSEWHERE_MAX = PAYMENTS_MAX // 4
# What such a payment is for.
ELSEWHERE = b""
# A payment that can no longer be made is remembered so much longer.
REMEMBERED_S = 3600.0
PREFIX = b"pay:"


class PaymentState(IntEnum):
    """How far a payment is. They are kept: append only."""

    # A request is worked on; nothing was asked for yet.
    TAKEN = 0
    # It was asked to be made, and whether it was is not known.
    ASKED = 1
    SETTLED = 2
    REFUSED = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class PaymentRow:
    """One payment. `request` is the hash of what it pays for, `amount` what was asked for.

    `document` is what is asked of whoever makes it; `left` counts the times the request may still
    be answered without another payment, because whether it was paid was unknown for a while.
    """

    id: bytes
    state: PaymentState
    request: bytes
    payer: str
    network: str
    scheme: str
    version: int
    amount: int
    until_wall_s: int
    document: Mapping[str, Any]
    transaction: str = ""
    reason: str = ""
    left: int = 0

    def to_bytes(self) -> bytes:
        """What is kept of it."""
        return pack(
            [
                int(self.state),
                self.request,
                self.payer,
                self.network,
                self.scheme,
                self.version,
                self.amount,
                self.until_wall_s,
                json.dumps(self.document).encode(),
                self.transaction,
                self.reason,
                self.left,
            ]
        )

    @classmethod
    def from_bytes(cls, key: bytes, data: bytes) -> "PaymentRow":
        """WireError if a row is none."""
        state, request, payer, network, scheme, version, amount, until, document, *rest = unpack(
            data
        )
        transaction, reason, left = rest
        return cls(
            id=key,
            state=PaymentState(state),
            request=request,
            payer=payer,
            network=network,
            scheme=scheme,
            version=version,
            amount=amount,
            until_wall_s=until,
            document=json.loads(document),
            transaction=transaction,
            reason=reason,
            left=left,
        )


@dataclass(slots=True)
class PaymentJournal:
    """The payments of one gateway, by their ids."""

    store: Store
    rows: dict[bytes, PaymentRow] = field(default_factory=dict)

    def load(self, wall_s: float) -> None:
        """Go on with the payments that are kept here.

        What was only taken paid for nothing: its request ended with the process.
        """
        for key, value in self.store.scan(Table.HTTP_PAYMENTS, prefix=PREFIX, limit=PAYMENTS_MAX):
            row = PaymentRow.from_bytes(key.removeprefix(PREFIX), value)
            if row.state is PaymentState.TAKEN:
                self.forget(row.id)
            else:
                self.rows[row.id] = row
        self._prune(wall_s)

    def asked(self) -> list[PaymentRow]:
        """Those of which it is not known whether they were made."""
        return [it for it in self.rows.values() if it.state is PaymentState.ASKED]

    async def keep(self, row: PaymentRow, wall_s: float) -> None:
        """Remember a payment, durably; Refused if there is no room for another one."""
        entered = self.enter(row, wall_s)
        await self.store.write(entered.table, entered.key, entered.value)

    def enter(self, row: PaymentRow, wall_s: float) -> Row:
        """As `keep`, but for what is to be written: it is committed with something else."""
        if row.id not in self.rows and not self._has_room(row):
            self._prune(wall_s)
            if not self._has_room(row):
                raise Refused("no room for further payments", retry_after_s=60.0)
        self.rows[row.id] = row
        return Row(Table.HTTP_PAYMENTS, PREFIX + row.id, row.to_bytes())

    def _has_room(self, row: PaymentRow) -> bool:
        if len(self.rows) >= PAYMENTS_MAX:
            return False
        if row.request != ELSEWHERE:
            return True
        return sum(it.request == ELSEWHERE for it in self.rows.values()) < ELSEWHERE_MAX

    def keep_soon(self, row: PaymentRow) -> None:
        """Remember a payment with the next commit."""
        self.rows[row.id] = row
        self.store.write_soon(Table.HTTP_PAYMENTS, PREFIX + row.id, row.to_bytes())

    def forget(self, payment: bytes) -> None:
        """Let a payment be used again: nothing was asked for it."""
        self.rows.pop(payment, None)
        self.store.write_soon(Table.HTTP_PAYMENTS, PREFIX + payment, None)

    def used_once_more(self, row: PaymentRow) -> None:
        """Note that its request is answered again."""
        self.keep_soon(replace(row, left=row.left - 1))

    def _prune(self, wall_s: float) -> None:
        """Forget those that could not be made any more in any case."""
        for row in list(self.rows.values()):
            is_over = row.state in (PaymentState.SETTLED, PaymentState.REFUSED)
            if is_over and row.until_wall_s + REMEMBERED_S < wall_s:
                self.forget(row.id)
