"""Channels that this peer has opened without noting it: it died, or waited no longer, in between.

An order is settled before its channels are noted. What was deposited in those that are not is
found again in the wallet's own orders: it is used, or taken back once they have expired.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass

import trio

from node.ledger.wallet import Ordered, OrderState
from node.paying.channels import PaidChannel
from node.paying.paying_channels import OUT, PayingChannels
from node.paying.settled_orders import opened_by
from store import Row, Table, Write
from wire.errors import BatonError

# Of the latest orders so many are looked at, each of which opens up to 64 channels.
ORDERS_MAX = 256
LOOK_EVERY_S = 300.0
# Nobody waits so long for an order of his to be settled.
WAITED_S = 600.0


def unnoted(orders: Iterable[Ordered], known: Collection[bytes]) -> list[PaidChannel]:
    """The channels of settled orders that are not known, and were not taken back since."""
    found: dict[bytes, PaidChannel] = {}
    gone: set[bytes] = set(known)
    for ordered in orders:
        record = ordered.order.record
        if ordered.state is not OrderState.REFUSED:
            gone.update(record.reclaim)
        if ordered.state is OrderState.SETTLED and record.open:
            found |= {it.name: it for it in opened_by(ordered.order, ordered.settlement)}
    return [it for name, it in found.items() if name not in gone]


@dataclass(slots=True)
class LostOpenings:
    """Looks for such channels when a peer starts, and now and then."""

    paying: PayingChannels
    # Orders below this number were looked at, and are settled or refused.
    _from: int = 0

    async def look(self, wall_s: float | None = None) -> int:
        """Note the channels that were not; how many. `wall_s`: without orders of a moment ago."""
        paying, wallet = self.paying, self.paying.wallet
        latest = wallet.log(1)
        count = latest[0].order.record.sequence + 1 - self._from if latest else 0
        if count <= 0:
            return 0
        ended: list[Ordered] = []
        for ordered in reversed(wallet.log(min(ORDERS_MAX, count))):
            is_new = wall_s is not None and ordered.ordered_at_ms > 1000 * (wall_s - WAITED_S)
            if ordered.unsettled or is_new:
                break
            ended.append(ordered)
            self._from = ordered.order.record.sequence + 1
        known = {it.name for it in (*paying.all_for_tasks(), *paying.by_gateway.values())}
        found = unnoted(ended, known)
        if found:
            rows = tuple(Row(Table.CHANNELS, OUT + it.name, it.to_bytes()) for it in found)
            await paying.store.commit(Write(rows=rows))
        for channel in found:
            # Nothing is signed before the payee has said what it has.
            channel.is_new = False
            if channel.settlement and channel.payee not in paying.by_peer:
                paying.use(channel)
            else:
                paying.used_up.append(channel)
        return len(found)

    async def look_forever(self) -> None:
        """Look again, now and then: an order may be settled long after it was made."""
        while True:
            await trio.sleep(LOOK_EVERY_S)
            try:
                await self.look(self.paying.peers.environment.wall_s())
            except BatonError as error:
                self.paying.peers.note_problem("channels", f"not looked through: {error.message}")
