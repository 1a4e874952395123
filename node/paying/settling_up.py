"""What a payer does with its channels beside its tasks: it pays what it still owes, keeps what was
charged, finds channels that it does not know of, and takes back what is left in expired ones.
"""

from dataclasses import dataclass, field

import trio

from node.ledger.wallet import OrderState, unheard
from node.paying.channels import PaidChannel
from node.paying.payer import Payer
from node.paying.paying_channels import OUT, SPENT, WEB, PayingChannels
from node.paying.settled_orders import opened_by
from store import Row, Table, Write
from wire import limits
from wire.errors import BatonError

# What is owed is paid, and what was charged kept, so often, for all tasks since the last time.
KEEP_EVERY_S = 1.0
# Which channels have expired is looked up in this part of an epoch, within these bounds.
EPOCH_PART = 4
LOOK_S_MIN, LOOK_S_MAX = 5.0, 600.0
# So many orders of this account, the latest, are looked through for channels.
ORDERS_LOOKED_AT = 64


@dataclass(slots=True)
class SettlingUp:
    """The quiet side of one payer. Both loops have to run meanwhile."""

    payer: Payer
    # The number of the latest order that was looked through.
    _looked: int = -1
    # Channels that were not known a moment ago: whoever opened them may be about to say so.
    _unknown: frozenset[bytes] = field(default_factory=frozenset)

    @property
    def channels(self) -> PayingChannels:
        """The channels of the payer."""
        return self.payer.channels

    async def keep_forever(self) -> None:
        """Pay what is owed and keep what is charged, with the next commit."""
        while True:
            await trio.sleep(KEEP_EVERY_S)
            self.channels.pay_owed()
            for channel in self.channels.take_unkept():
                row = channel.charges_to_bytes()
                self.channels.store.write_soon(Table.CHANNELS, SPENT + channel.name, row)

    async def reclaim_forever(self) -> None:
        """Find channels that are not known here, and take back what is left in expired ones."""
        epoch_s = self.channels.wallet.genesis.epoch_s
        every_s = min(LOOK_S_MAX, max(LOOK_S_MIN, epoch_s / EPOCH_PART))
        while True:
            await trio.sleep(every_s)
            channels = self.channels
            try:
                await self.find_forgotten()
                if channels.all() or channels.by_gateway:
                    epoch = await channels.wallet.epoch_now(every_s)
                    channels.epoch = max(channels.epoch, epoch)
                    await self._reclaim()
            except BatonError as error:
                channels.peers.note_problem("channels", f"none was taken back: {error.message}")

    async def find_forgotten(self, *, at_once: bool = False) -> None:
        """Take in channels that orders have opened while nobody waited for them any more.

        Such an order was settled late, by another one that went on with it, or before a crash.
        `at_once`: also those that were not unknown a moment ago.
        """
        wallet = self.channels.wallet
        latest = wallet.log(1)
        if not latest or latest[0].unsettled or latest[0].order.record.sequence == self._looked:
            return
        orders = wallet.log(ORDERS_LOOKED_AT)
        opened = [
            channel
            for ordered in orders
            if ordered.state is OrderState.SETTLED and ordered.order.record.sequence > self._looked
            for channel in opened_by(ordered.order, ordered.settlement)
        ]
        known = {it.name for it in (*self.channels.all(), *self.channels.by_gateway.values())}
        known.update(
            *(it.order.record.reclaim for it in orders if it.state is not OrderState.REFUSED)
        )
        # What has expired may have been taken back before.
        lost = [it for it in opened if it.name not in known and it.expiry >= self.channels.epoch]
        before, self._unknown = self._unknown, frozenset(it.name for it in lost)
        found = [it for it in lost if at_once or it.name in before]
        if found:
            rows = tuple(Row(Table.CHANNELS, OUT + it.name, it.to_bytes()) for it in found)
            await self.channels.store.commit(Write(rows=rows))
            for channel in found:
                # Nothing is signed before its payee has said what it has.
                channel.is_new = False
                self.channels.adopt(channel)
        elif not lost:
            self._looked = latest[0].order.record.sequence

    async def _reclaim(self) -> None:
        channels = self.channels
        for kept in (channels.by_peer, channels.spare, channels.by_gateway):
            for peer, channel in list(kept.items()):
                if channel.expiry < channels.epoch and not channel.held:
                    channels.used_up.append(kept.pop(peer))
        expired = [it for it in channels.used_up if it.expiry < channels.epoch]
        expired = expired[: limits.ACTIONS_MAX]
        if not expired:
            return
        await channels.wallet.order(unheard, reclaim=tuple(it.name for it in expired))
        channels.orders += 1
        channels.used_up = [it for it in channels.used_up if it not in expired]
        await self._forget_rows(expired)

    async def _forget_rows(self, gone: list[PaidChannel]) -> None:
        for channel in gone:
            rows = [Row(Table.CHANNELS, it + channel.name, None) for it in (OUT, WEB, SPENT)]
            await self.channels.store.commit(Write(rows=tuple(rows)))
