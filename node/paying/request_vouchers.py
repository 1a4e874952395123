"""Vouchers for requests over HTTP: one for each, out of a channel to whoever keeps the gateway.

What a request came to is heard with its answer. As long as it is not, the request counts for all
that it may cost: so no voucher goes further beyond what was had than the requests under way may.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import trio

from node.ledger.payment_channel import channel_name
from node.ledger.wallet import unheard
from node.paying.channels import PaidChannel
from node.paying.paying_channels import (
    BALANCE_PART,
    CHANNELS_MAX,
    EXPIRY_EPOCHS,
    WEB,
    PayingChannels,
)
from store import Table
from wire.amount import show_credits
from wire.content import PeerId
from wire.errors import InputError, Malformed, Refused, WireError
from wire.latest import Latest
from wire.ledger import Opening, Voucher, order_digest
from wire.signed import open_signed, sign

# A channel is opened for so many requests like the first, within what is to be paid at most.
REQUESTS_PER_CHANNEL = 1024
# So many requests under way are known.
UNDER_WAY_MAX = 1024


@dataclass(frozen=True, slots=True)
class RequestVoucher:
    """What pays for a request. `recovered` was charged before, and is heard of only now.

    `rise` is how much more is promised in all by it.
    """

    channel: PaidChannel
    total: int
    raw: bytes
    recovered: int
    rise: int


@dataclass(slots=True)
class RequestVouchers:
    """The vouchers of one peer for gateways."""

    paying: PayingChannels
    # What requests under way may cost, by channel and total.
    _under_way: Latest[tuple[bytes, int], int] = field(
        default_factory=lambda: Latest(UNDER_WAY_MAX)
    )
    _opening: trio.Lock = field(default_factory=trio.Lock)

    async def sign(
        self, payee: PeerId, amount: int, most: int, told: Mapping[str, Any] | None = None
    ) -> RequestVoucher:
        """A voucher for a request that costs at most `amount`; InputError if none can be had.

        `most` is what all further requests may cost. `told` is what the payee says of the channel.
        """
        recovered = 0 if told is None else self.hear(payee, told)
        async with self._opening:
            channel = self.paying.by_gateway.get(payee)
            if channel is None or self._is_over(channel, amount):
                channel = await self._open(payee, amount, most)
        channel.held += amount
        before = channel.signed
        channel.signed = max(channel.signed + 1, channel.charged + channel.held)
        channel.tasks += 1
        record = Voucher(
            network=self.paying.wallet.genesis.id,
            channel=channel.name,
            total=channel.signed,
            tasks=channel.tasks,
            receipt=None,
        )
        if len(self._under_way) >= UNDER_WAY_MAX:
            # Of the oldest nobody says any more what it came to: all that was signed for it.
            (oldest, its_total), its_amount = next(iter(self._under_way.items()))
            self.note_drawn(oldest, its_total, its_amount)
        self._under_way[channel.name, channel.signed] = amount
        self._keep_soon(channel)
        self.paying.vouchers += 1
        raw = sign(record, self.paying.wallet.key).raw
        return RequestVoucher(channel, channel.signed, raw, recovered, channel.signed - before)

    def rise(self, payee: PeerId, amount: int) -> int:
        """How much more the next voucher for so much promises in all, as things are."""
        channel = self.paying.by_gateway.get(payee)
        if channel is None or self._is_over(channel, amount):
            return amount
        return max(1, channel.charged + channel.held + amount - channel.signed)

    def note_drawn(self, name: bytes, total: int, amount: int) -> None:
        """Note what a request came to, as its payee says: no more than was signed for it."""
        signed = self._under_way.pop((name, total), None)
        channel = next((it for it in self.paying.by_gateway.values() if it.name == name), None)
        if signed is None or channel is None:
            return
        channel.held -= signed
        channel.charged += max(0, min(amount, signed))
        self._keep_soon(channel)

    def hear(self, payee: PeerId, told: Mapping[str, Any]) -> int:
        """Take in what the payee has: only what we signed ourselves is believed of it.

        How much more it has charged than was known.
        """
        if (channel := self.paying.by_gateway.get(payee)) is None:
            return 0
        try:
            voucher = open_signed(bytes(told.get("voucher") or b""), Voucher)
        except WireError:
            return 0
        network, record = self.paying.wallet.genesis.id, voucher.record
        named = (voucher.signer, record.network, record.channel)
        if named != (self.paying.wallet.key.peer, network, channel.name):
            raise Malformed("the gateway shows a voucher that is not this peer's for its channel")
        channel.signed = max(channel.signed, record.total)
        charged = told.get("charged")
        said = min(charged, record.total) if isinstance(charged, int) else 0
        before, channel.charged = channel.charged, max(channel.charged, said - channel.held)
        return channel.charged - before

    def _is_over(self, channel: PaidChannel, amount: int) -> bool:
        """Whether another one has to take its place: little is left in it, or little time."""
        needed = max(channel.signed + 1, channel.charged + channel.held + amount)
        return needed > channel.deposit or channel.expiry <= self.paying.epoch

    async def _open(self, payee: PeerId, amount: int, most: int) -> PaidChannel:
        paying, wallet = self.paying, self.paying.wallet
        if payee == wallet.key.peer:
            raise InputError(
                "the gateway is this peer's own: it is asked with a key of its own",
                todo="make one: python -m node keys add NAME; or pay by another peer: state=…",
            )
        if len(paying.by_gateway) >= CHANNELS_MAX:
            raise InputError(f"{CHANNELS_MAX} gateways have a channel", todo="wait until some end")
        view = await wallet.look()
        paying.epoch = max(paying.epoch, view.epoch)
        usual = min(REQUESTS_PER_CHANNEL * amount, most, view.balance // BALANCE_PART)
        least = wallet.genesis.account_min
        deposit = max(least, amount, usual)
        if view.agreed and view.balance - least < deposit:
            raise InputError(
                f"this account has {show_credits(view.balance)} credits, and a channel to the"
                f" gateway begins with {show_credits(deposit)}",
                todo="have somebody pay this account: python -m node wallet shows its key",
            )
        opening = Opening(payee=payee, deposit=deposit, expiry=view.epoch + EXPIRY_EPOCHS)
        ordered = await wallet.order(unheard, open=(opening,))
        paying.orders += 1
        if not ordered.settlement:
            raise Refused(
                "the channel was settled at the end of an epoch, which shows others nothing",
                todo="ask again: another one is opened",
                retry_after_s=1.0,
            )
        name = channel_name(order_digest(ordered.order), 0)
        channel = PaidChannel(payee, name, deposit, opening.expiry, ordered.settlement)
        await paying.store.write(Table.CHANNELS, WEB + name, channel.to_bytes())
        before = paying.by_gateway.get(payee)
        if before is not None:
            # What is left in it comes back once it has expired.
            paying.used_up.append(before)
        paying.by_gateway[payee] = channel
        return channel

    def _keep_soon(self, channel: PaidChannel) -> None:
        self.paying.store.write_soon(Table.CHANNELS, WEB + channel.name, channel.to_bytes())
