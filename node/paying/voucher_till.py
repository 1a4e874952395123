"""Requests that are paid by a voucher each: of a channel to this peer, cumulative, none settled.

A voucher pays for one request, out of what the highest promises beyond what was charged. So neither
one that comes twice nor one that comes late draws on anything a second time, also after a restart:
which ones were used is durable before any work is done.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from node.paying.channels import EarningChannel
from node.paying.earning_channels import EarningChannels
from wire import limits
from wire.amount import show_credits
from wire.content import ContentId, PeerId
from wire.errors import Malformed, Refused
from wire.kinds import RefusalCode
from wire.ledger import Voucher
from wire.payment_claim import bytes_in
from wire.signed import Envelope, Signed

NAME_BYTES = 32


class VoucherRefused(Refused):
    """A voucher that holds, and does not pay for this: what is known here of its channel."""

    def __init__(self, why: str, channel: EarningChannel, *, used: bool = False) -> None:
        super().__init__(why, code=RefusalCode.NOT_PAID)
        self.channel = channel
        self.used = used


@dataclass(frozen=True, slots=True)
class SentVoucher:
    """What came with a request: a voucher whose signature is not checked yet."""

    envelope: Envelope[Voucher]
    record: Voucher
    channel: bytes
    settlement: bytes | None

    @classmethod
    def read(cls, payload: Mapping[str, object]) -> "SentVoucher":
        """WireError for a payload that has none."""
        raw = bytes_in(payload, "voucher", limits.VOUCHER_BYTES_MAX)
        envelope, settlement = Envelope.read(raw, Voucher), None
        if payload.get("settlement") is not None:
            settlement = bytes_in(payload, "settlement", limits.SETTLEMENT_BYTES_MAX)
        text = payload.get("channel")
        try:
            channel = bytes.fromhex(text) if isinstance(text, str) else b""
        except ValueError:
            channel = b""
        if len(channel) != NAME_BYTES:
            raise Malformed(f"the payload names no channel: {2 * NAME_BYTES} hexadecimal digits")
        return cls(envelope, envelope.claimed(), channel, settlement)

    @property
    def payer(self) -> PeerId:
        """Whose voucher it says it is."""
        return self.envelope.signer

    @property
    def id(self) -> bytes:
        """32 bytes that are one for each channel and total."""
        return ContentId.of(self.channel + self.record.total.to_bytes(8, "big")).digest


@dataclass(slots=True, eq=False)
class VoucherDraw:
    """One request that a voucher pays for: at most `most` is held for it until it is over."""

    sent: SentVoucher
    channel: EarningChannel
    channels: EarningChannels
    most: int
    _over: bool = False

    def note(self, amount: int, model: ContentId | None) -> None:
        """Charge what it came to: it is kept with the next commit."""
        if not self._over:
            self._over = True
            self.channel.set_aside(-self.most, None)
            self.channels.charge(self.channel, min(amount, self.most), model)

    async def charge(self, amount: int, model: ContentId | None) -> None:
        """Charge what it came to, and have that durable; StoreError."""
        self.note(amount, model)
        await self.channels.keep(self.channel)

    def give_back(self) -> None:
        """It came to nothing: the voucher pays for another request."""
        if not self._over:
            self._over = True
            self.channel.set_aside(-self.most, None)
            self.channel.unuse(self.sent.record.total)
            self.channels.keep_soon(self.channel)


@dataclass(slots=True)
class VoucherTill:
    """Takes vouchers to the account of this peer."""

    channels: EarningChannels

    async def look(self, sent: SentVoucher, amount: int) -> EarningChannel:
        """The channel of a voucher that pays for so much; WireError or Refused says why not."""
        channel, _ = await self._judged(sent, amount)
        return channel

    async def draw(self, sent: SentVoucher, amount: int) -> VoucherDraw:
        """Have a voucher pay for one request that costs at most so much; as `look`, StoreError."""
        channel, voucher = await self._judged(sent, amount)
        # Nothing waits between the judgement and this.
        self.channels.take(channel, voucher)
        channel.use_up(sent.record.total)
        channel.set_aside(amount, None)
        draw = VoucherDraw(sent, channel, self.channels, amount)
        is_kept = False
        try:
            await self.channels.keep(channel)
            is_kept = True
        finally:
            if not is_kept:
                draw.give_back()
        return draw

    async def _judged(
        self, sent: SentVoucher, amount: int
    ) -> tuple[EarningChannel, Signed[Voucher]]:
        record, network = sent.record, self.channels.wallet.genesis.id
        if record.network != network:
            raise Malformed("the voucher is of another network")
        if record.channel != sent.channel:
            raise Malformed("the voucher is of another channel")
        channel = await self.channels.shown(
            sent.payer, sent.channel, sent.settlement, over_http=True
        )
        if channel.expiry <= self.channels.epoch:
            raise Malformed("the channel expires before all of it can be redeemed: open another")
        if record.models:
            raise Malformed("a voucher for a request names no models: this peer's own vouchers do")
        voucher = sent.envelope.checked(record)
        if why := channel.misnamed(record):
            # The highest is what is redeemed, and so it names all that was named before.
            raise VoucherRefused(f"{why}: open another channel for requests over HTTP", channel)
        _check_total(channel, record.total, amount)
        return channel, voucher


def _check_total(channel: EarningChannel, total: int, amount: int) -> None:
    """VoucherRefused unless a voucher with this total pays for so much more."""
    shown, highest = show_credits(total), show_credits(channel.highest)
    if total > channel.deposit:
        deposit = show_credits(channel.deposit)
        raise VoucherRefused(
            f"the voucher's total of {shown} is beyond the deposit of {deposit}", channel
        )
    if total in channel.used:
        words = f"the voucher with the total of {shown} has paid for a request"
        raise VoucherRefused(f"{words}: sign a higher one for each", channel, used=True)
    available = channel.available_for(None)
    least = show_credits(channel.highest - available + amount)
    if channel.is_used(total):
        words = f"the voucher's total of {shown} is lower than those that were used"
        raise VoucherRefused(f"{words}: sign {least}", channel)
    left = max(0, total - channel.highest) + available
    if left < amount:
        words = f"the voucher's total is {shown}"
        if total < channel.highest:
            words += f", lower than the highest, {highest}"
        raise VoucherRefused(
            f"{words}: {show_credits(max(0, left))} of it is not used, and {show_credits(amount)}"
            f" is asked for: sign {least}",
            channel,
        )
