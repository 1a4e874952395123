"""What a relay is paid by those that asked it for lines: their bytes are paid ahead.

Bytes that an asker's promise covers are charged to its channel, if it said that it pays for bytes
out of that and both agree on the prices of now. All others come out of a small allowance
(`p2p.free_bytes`), beyond which they wait: so neither end risks more than an increment.
"""

from dataclasses import dataclass, field

from node.paying.channels import EarningChannel
from node.paying.earning_channels import EarningChannels
from node.paying.relay_price import ByteBill, relay_price
from wire.content import PeerId
from wire.latest import Latest
from wire.tariff import RELAYED

BILLS_KEPT = 4096


@dataclass(slots=True)
class RelayTill:
    """As `p2p.relaying.LineTill`, by the prices that go with these channels."""

    channels: EarningChannels
    paid_bytes: int = 0
    earned: int = 0
    _bills: Latest[PeerId, ByteBill] = field(default_factory=lambda: Latest(BILLS_KEPT))

    def charge(self, asker: PeerId, size_bytes: int) -> bool:
        """Charge an asker for so many bytes; False while that is not promised."""
        tariff = self.channels.own.now
        price = relay_price(None if tariff is None else tariff.record)
        if not price:
            return True
        channel, bill = self._agreed(asker), self._bill(asker)
        if channel is None or channel.available_for(RELAYED) < bill.needs(size_bytes, price):
            return False
        amount = bill.add(size_bytes, price)
        self.channels.charge(channel, amount, RELAYED, tasks=0, size_bytes=size_bytes)
        self.paid_bytes += size_bytes
        self.earned += amount
        return True

    def has_promised(self, asker: PeerId) -> bool:
        """Whether an asker pays for bytes by the prices of now, and some are promised."""
        channel = self._agreed(asker)
        return channel is not None and channel.available_for(RELAYED) > 0

    def as_map(self) -> dict[str, object]:
        """What was charged, and what of that is not redeemed yet."""
        owed = (
            min(it.models.get(RELAYED, 0), max(0, it.charged - it.redeemed))
            for it in self.channels.by_name.values()
        )
        return {"carried_earned": self.earned, "carried_owed": sum(owed)}

    def _agreed(self, asker: PeerId) -> EarningChannel | None:
        """The channel out of which an asker said that it pays for bytes, by the prices of now."""
        channel, tariff = self.channels.of(asker), self.channels.own.now
        if channel is None or tariff is None or not channel.relays or channel.tariff != tariff.id:
            return None
        return channel

    def _bill(self, asker: PeerId) -> ByteBill:
        if (found := self._bills.get(asker)) is None:
            found = self._bills[asker] = ByteBill()
        return found
