"""Calls with an app's key that the app's owner pays for: by a voucher of its channel for each."""

from collections.abc import Callable
from dataclasses import dataclass, field

from node.apps.app_keys import AppKeys
from node.apps.known_keys import KnownKey
from node.gateway.errors import ErrorDetail, HttpError
from node.paying.channels import EarningChannel
from node.paying.voucher_till import SentVoucher, VoucherDraw, VoucherRefused, VoucherTill
from wire.amount import show_credits
from wire.app import AppPayment
from wire.content import ContentId, PeerId
from wire.errors import BatonError, Malformed, Refused
from wire.kinds import RefusalCode
from wire.latest import Latest
from wire.ledger import Voucher
from wire.signed import Envelope

# When a client may try again after its key's owner could not be asked.
AGAIN_S = 5.0
REQUEST_BYTES = 32
OWNERS_MAX = 1024


@dataclass(slots=True, eq=False)
class OwnerDraw:
    """One request that the owner of its key's app pays for."""

    keys: AppKeys
    known: KnownKey
    request: bytes
    draw: VoucherDraw

    def end(self, amount: int, model: ContentId | None) -> None:
        """Charge what it came to, and tell the owner."""
        if amount:
            self.draw.note(amount, model)
        else:
            self.draw.give_back()
        self.keys.drew(self.known, self.request, min(amount, self.draw.most))


@dataclass(slots=True)
class OwnerPayments:
    """Has owners of apps pay this gateway. `till` is None where it takes no credits."""

    keys: AppKeys
    till: VoucherTill | None
    entropy: Callable[[int], bytes]
    # The channel of each owner that paid last.
    _channels: Latest[PeerId, EarningChannel] = field(default_factory=lambda: Latest(OWNERS_MAX))

    async def draw(self, known: KnownKey, amount: int) -> OwnerDraw:
        """Have a request paid that costs at most `amount`; HttpError says why it is not."""
        if self.till is None:
            raise _unpaid(
                f"this costs up to {show_credits(amount)} credits, and an app's owner cannot pay"
                " this gateway: its own owner can take credits, with --http-pay credits"
            )
        try:
            try:
                return await self._draw(self.till, known, amount)
            except VoucherRefused as error:
                # One side has forgotten what was charged: now the owner is told.
                self._channels[known.owner] = error.channel
                return await self._draw(self.till, known, amount)
        except BatonError as error:
            is_final = isinstance(error, Refused) and error.code is not RefusalCode.BUSY
            if is_final and error.code is not RefusalCode.NOT_FOUND:
                raise _unpaid(f"this key's app is not paid for: {error.message}") from error
            raise HttpError(away(error)) from error

    async def _draw(self, till: VoucherTill, known: KnownKey, amount: int) -> OwnerDraw:
        request, channel = self.entropy(REQUEST_BYTES), self._channels.get(known.owner)
        asked = AppPayment(
            request=request,
            amount=amount,
            charged=0 if channel is None else channel.charged + channel.held,
            voucher=None if channel is None else channel.voucher or None,
        )
        raw, settlement = await self.keys.voucher(known, asked)
        draw = None
        try:
            envelope = Envelope.read(raw, Voucher)
            record = envelope.claimed()
            if envelope.signer != known.owner:
                raise Malformed("its voucher is another's")
            draw = await till.draw(
                SentVoucher(envelope, record, record.channel, settlement or None), amount
            )
        finally:
            if draw is None:
                self.keys.drew(known, request, 0)
        self._channels[known.owner] = draw.channel
        return OwnerDraw(self.keys, known, request, draw)


def away(error: BatonError) -> ErrorDetail:
    """That a key is none any more, or its owner cannot be asked: nobody comes in on an old list."""
    if isinstance(error, Refused) and error.code is RefusalCode.NOT_FOUND:
        return ErrorDetail(status=401, message=error.message, code="invalid_api_key")
    return ErrorDetail(
        status=503,
        message=f"the owner of this key's app cannot be asked whether it still holds:"
        f" {error.message}",
        code="app_owner_away",
        retry_after_s=AGAIN_S,
    )


def _unpaid(message: str) -> HttpError:
    return HttpError(ErrorDetail(status=402, message=message, code="app_cannot_pay"))
