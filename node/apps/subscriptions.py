"""What accounts have paid this peer for periods of its apps, durable.

A payment counts once: for the key of that account which is shown first after its epoch has ended,
unless this peer's gateway took it for a request.
Periods are counted in epochs, so no clock matters; a gateway is told an end by the owner's clock.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import trio

from node.ledger.received import PaidTotal
from store import Row, Store, Table, Write
from wire.codec import Value, pack, unpack
from wire.content import PeerId

PREFIX = b"periods:"
# What was taken for requests, and the latest orders that were: one may be settled twice.
REQUESTS = b"requests:"
ORDERS_KEPT = 64
# Who pays for more at once has paid for so many.
PERIODS_MAX = 1000
# Of one account; the key that was paid for longest ago makes room.
KEYS_MAX = 64
# Sums of payments are written in so many bytes: the same credits may be paid many times.
SUM_BYTES = 16


@dataclass(frozen=True, slots=True)
class PaidPeriods:
    """Up to the end of which epoch a key is paid for, and what is left over, in millionths."""

    until: int = -1
    rest: int = 0


@dataclass(slots=True)
class Subscriptions:
    """The subscriptions of all keys; changes are written one after another."""

    store: Store
    _writing: trio.Lock = field(default_factory=trio.Lock)

    async def of(
        self,
        account: PeerId,
        key: bytes,
        price: int,
        epochs: int,
        paid: PaidTotal,
    ) -> PaidPeriods:
        """How far a key is paid for, with what its account has paid since it was looked last.

        `price` is for `epochs` epochs; `paid` is what the account has paid this peer
        since the ledger began, in epochs that have ended.
        """
        async with self._writing:
            taken, there = self._row(account)
            before = there.get(key, PaidPeriods())
            # Of what is known to be taken for requests some may be of the epoch that runs.
            fresh = paid.amount - taken - self._requests(account)[0]
            if fresh <= 0:
                return before
            amount = before.rest + fresh
            periods = min(PERIODS_MAX, amount // price)
            until = before.until
            if periods:
                until = max(before.until, paid.epoch) + periods * epochs
            after = PaidPeriods(until, amount - periods * price)
            there[key] = after
            while len(there) > KEYS_MAX:
                del there[min(there, key=lambda it: there[it].until)]
            rows: list[Value] = [[it, sub.until + 1, _raw(sub.rest)] for it, sub in there.items()]
            row = pack([_raw(taken + fresh), rows])
            await self.store.write(Table.HTTP_PAYMENTS, PREFIX + account, row)
            return after

    async def take_for_request(
        self,
        account: PeerId,
        order: bytes,
        amount: int,
        paid: PaidTotal | None,
        also: Sequence[Row] = (),
    ) -> bool:
        """Note that an order, given by its digest, has paid for a request and for no period.

        `paid` is what the account has paid, where the order's epoch has ended: False, and nothing
        is kept, if a period has had that by now. `also` is kept in the same commit.
        """
        async with self._writing:
            rows = [*also]
            taken, orders = self._requests(account)
            if amount and order not in orders:
                if paid is not None and self.left_of(account, paid) < amount:
                    return False
                latest = [*orders, order][-ORDERS_KEPT:]
                row = pack([_raw(taken + amount), [*latest]])
                rows.append(Row(Table.HTTP_PAYMENTS, REQUESTS + account, row))
            if rows:
                await self.store.commit(Write(rows=tuple(rows)))
            return True

    def left_of(self, account: PeerId, paid: PaidTotal) -> int:
        """How much of what an account has paid is counted for nothing yet, in millionths."""
        return paid.amount - self._row(account)[0] - self._requests(account)[0]

    def _requests(self, account: PeerId) -> tuple[int, list[bytes]]:
        raw = self.store.read(Table.HTTP_PAYMENTS, REQUESTS + account)
        if raw is None:
            return 0, []
        taken, orders = unpack(raw)
        return int.from_bytes(taken), orders

    def _row(self, account: PeerId) -> tuple[int, dict[bytes, PaidPeriods]]:
        raw = self.store.read(Table.HTTP_PAYMENTS, PREFIX + account)
        if raw is None:
            return 0, {}
        taken, rows = unpack(raw)
        there = {key: PaidPeriods(it - 1, int.from_bytes(rest)) for key, it, rest in rows}
        return int.from_bytes(taken), there


def _raw(sum_paid: int) -> bytes:
    return sum_paid.to_bytes(SUM_BYTES)
