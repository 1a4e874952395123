"""What a payer and a payee say to each other of a channel between them."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

from wire import limits
from wire.amount import Balance
from wire.content import ContentId
from wire.kinds import Kind
from wire.message_base import Message
from wire.schema import Between, Digest, Omitted

VoucherBytes = Annotated[bytes, Between(1, limits.VOUCHER_BYTES_MAX)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pay(Message):
    """A voucher for this channel, or a question how it stands; work is paid by `tariff`.

    `settlement` shows that the channel was opened, and comes until the payee has seen it. `relays`
    says that bytes which the payee passes on for the payer are paid out of this channel too; only
    a payee whose tariff has a price for them is told that.
    """

    KIND: ClassVar[Kind] = Kind.PAY
    channel: Digest
    tariff: ContentId
    voucher: VoucherBytes | None
    settlement: Annotated[bytes, Between(1, limits.SETTLEMENT_BYTES_MAX)] | None
    relays: Annotated[bool, Omitted(False)] = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Paid(Message):
    """The highest voucher of the channel that the payee has, and what it has charged so far.

    `relayed` of it was for bytes that it passed on.
    """

    KIND: ClassVar[Kind] = Kind.PAID
    charged: Balance
    voucher: VoucherBytes | None
    relayed: Annotated[Balance, Omitted(0)] = 0
