"""What a relay asks of those that asked it for lines: their bytes are paid ahead, or are few.

Bytes that an asker's promise covers are charged to its channel, if it said that it pays for bytes
out of that and both agree on the prices of now. All others come out of a small allowance, beyond
which they wait: so neither end risks more than an increment.
"""

from dataclasses import dataclass, field

import trio

from node.paying.channels import EarningChannel
from node.paying.earning_channels import EarningChannels
from node.paying.relay_price import ByteBill, FreeBytes, relay_price
from wire.content import PeerId
from wire.latest import Latest
from wire.tariff import RELAYED

BILLS_KEPT = 4096
# An asker is said to be waited for so long after its bytes were last held back.
WAITS_S = 1.0


@dataclass(slots=True)
class RelayTill:
    """As `p2p.relaying.LineTill`. Until `begin` its prices are not known: the allowance is all."""

    free: FreeBytes = field(default_factory=FreeBytes)
    paid_bytes: int = 0
    free_bytes: int = 0
    earned: int = 0
    _channels: EarningChannels | None = None
    _bills: Latest[PeerId, ByteBill] = field(default_factory=lambda: Latest(BILLS_KEPT))
    # When bytes of each were last held back.
    _held_back_at_s: Latest[PeerId, float] = field(default_factory=lambda: Latest(BILLS_KEPT))

    def begin(self, channels: EarningChannels) -> None:
        """Charge from now on, by the prices that go with these channels."""
        self._channels = channels

    def charge(self, asker: PeerId, size_bytes: int) -> bool:
        """Charge an asker for so many bytes; False while that is neither promised nor free."""
        channels, now_at_s = self._channels, trio.current_time()
        tariff = None if channels is None else channels.own.now
        price = relay_price(None if tariff is None else tariff.record)
        if channels is not None and not price:
            self.free_bytes += size_bytes
            return True
        channel = None if channels is None else self._agreed(channels, asker)
        if channels is not None and channel is not None:
            bill = self._bill(asker)
            if channel.available_for(RELAYED) >= bill.needs(size_bytes, price):
                amount = bill.add(size_bytes, price)
                channels.charge(channel, amount, RELAYED, tasks=0, size_bytes=size_bytes)
                self.paid_bytes += size_bytes
                self.earned += amount
                return True
        if self.free.take(asker, size_bytes, now_at_s):
            self.free_bytes += size_bytes
            return True
        self._held_back_at_s[asker] = now_at_s
        return False

    def has_promised(self, asker: PeerId) -> bool:
        """Whether an asker pays for bytes by the prices of now, and some are promised."""
        channel = None if self._channels is None else self._agreed(self._channels, asker)
        return channel is not None and channel.available_for(RELAYED) > 0

    def as_map(self) -> dict[str, object]:
        """What was paid and what was free, and how many askers owe a promise now."""
        since_at_s = trio.current_time() - WAITS_S
        return {
            "carried_paid_bytes": self.paid_bytes,
            "carried_free_bytes": self.free_bytes,
            "carried_earned": self.earned,
            "carried_owed": self._owed(),
            "owing": sum(it > since_at_s for it in self._held_back_at_s.values()),
        }

    def _owed(self) -> int:
        """What was charged for bytes and is not redeemed yet."""
        if self._channels is None:
            return 0
        return sum(
            min(it.models.get(RELAYED, 0), max(0, it.charged - it.redeemed))
            for it in self._channels.by_name.values()
        )

    def _agreed(self, channels: EarningChannels, asker: PeerId) -> EarningChannel | None:
        """The channel out of which an asker said that it pays for bytes, by the prices of now."""
        channel, tariff = channels.of(asker), channels.own.now
        if channel is None or tariff is None or not channel.relays or channel.tariff != tariff.id:
            return None
        return channel

    def _bill(self, asker: PeerId) -> ByteBill:
        if (found := self._bills.get(asker)) is None:
            found = self._bills[asker] = ByteBill()
        return found
