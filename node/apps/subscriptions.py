"""What accounts have paid this peer for periods of its apps, durable.

A payment counts once: for the key of that account which is shown first after its epoch has ended.
Periods are counted in epochs, so no clock matters; a gateway is told an end by the owner's clock.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

import trio

from node.ledger.received import Received
from store import Store, Table
from wire.codec import Value, pack, unpack
from wire.content import PeerId

PREFIX = b"sub:"
# Who pays for more at once has paid for so many.
PERIODS_MAX = 1000
# Of one account; the key that was paid for longest ago makes room.
KEYS_MAX = 64


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
        received: Iterable[Received],
    ) -> PaidPeriods:
        """How far a key is paid for, with what its account has paid since it was looked last.

        `price` is for `epochs` epochs; `received` are payments to this peer of ended epochs.
        """
        async with self._writing:
            taken, there = self._row(account)
            before = there.get(key, PaidPeriods())
            fresh = [it for it in received if it.payer == account and it.sequence > taken]
            if not fresh:
                return before
            amount = before.rest + sum(it.amount for it in fresh)
            periods = min(PERIODS_MAX, amount // price)
            latest = max(fresh, key=lambda it: it.sequence)
            until = before.until
            if periods:
                until = max(before.until, latest.epoch) + periods * epochs
            after = PaidPeriods(until, amount - periods * price)
            there[key] = after
            while len(there) > KEYS_MAX:
                del there[min(there, key=lambda it: there[it].until)]
            rows: list[Value] = [[it, sub.until + 1, sub.rest] for it, sub in there.items()]
            row = pack([latest.sequence, rows])
            await self.store.write(Table.HTTP_PAYMENTS, PREFIX + account, row)
            return after

    def _row(self, account: PeerId) -> tuple[int, dict[bytes, PaidPeriods]]:
        raw = self.store.read(Table.HTTP_PAYMENTS, PREFIX + account)
        if raw is None:
            return -1, {}
        taken, rows = unpack(raw)
        return taken, {key: PaidPeriods(until - 1, rest) for key, until, rest in rows}
