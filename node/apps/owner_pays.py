"""What the owner of apps pays for calls at other peers' gateways: a voucher for each request.

Each voucher is of the owner's channel to that gateway. How much more it promises in all is counted
against the key's budget before it is signed, so gateways never have more than the budgets of the
keys that they were shown, whatever they say that requests came to.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import trio

from node.apps.own_apps import OwnApp, OwnKey
from node.apps.shares_book import SharesBook
from node.paying.request_vouchers import RequestVoucher, RequestVouchers
from wire.amount import show_credits
from wire.app import AppDrawn, AppPayment
from wire.content import PeerId
from wire.errors import Refused, WireError
from wire.kinds import RefusalCode
from wire.latest import Latest
from wire.ledger import Voucher
from wire.signed import Envelope

# Requests of which it is not known yet what they came to.
UNDER_WAY_MAX = 1024
Request = tuple[bytes, PeerId, bytes]


@dataclass(slots=True)
class OwnerPays:
    """Signs vouchers within the budgets of keys. `vouchers` is None while nothing can be paid."""

    given: SharesBook
    vouchers: RequestVouchers | None = None
    # By key, gateway and request: what it costs at most, and its voucher.
    _under_way: Latest[Request, tuple[int, RequestVoucher]] = field(
        default_factory=lambda: Latest(UNDER_WAY_MAX)
    )
    _signing: trio.Lock = field(default_factory=trio.Lock)

    async def sign(
        self, app: OwnApp, key: OwnKey, gateway: PeerId, asked: AppPayment
    ) -> RequestVoucher:
        """A voucher for one request; BatonError says why there is none.

        Who asks again for the same request has the same voucher, which pays once.
        """
        if not app.pays:
            raise Refused(
                f"the owner of the app {app.name!r} does not pay for calls at other peers'"
                " gateways",
                code=RefusalCode.NOT_WILLING,
            )
        if self.vouchers is None:
            raise Refused("the peer of this app's owner has no credits to pay with yet")
        if asked.amount > app.pays:
            raise Refused(
                f"this may cost {show_credits(asked.amount)} credits, and the owner of the app"
                f" {app.name!r} pays at most {show_credits(app.pays)} for a call: ask for less"
                " (max_tokens)",
                code=RefusalCode.NOT_WILLING,
            )
        name = (key.digest, gateway, asked.request)
        async with self._signing:
            if (before := self._under_way.get(name)) is None:
                found = await self._sign(self.vouchers, key, gateway, asked)
                self._under_way[name] = asked.amount, found
                return found
        if before[0] != asked.amount:
            raise Refused(
                "this request was asked about before: ask about each once",
                code=RefusalCode.NOT_WILLING,
            )
        return before[1]

    async def _sign(
        self, vouchers: RequestVouchers, key: OwnKey, gateway: PeerId, asked: AppPayment
    ) -> RequestVoucher:
        if (told := _told(vouchers, gateway, asked)) is not None:
            vouchers.hear(gateway, told)
        rise, risen = vouchers.rise(gateway, asked.amount), 0
        await self.given.promise(key.digest, key.budget, gateway, rise)
        try:
            found = await vouchers.sign(gateway, asked.amount, key.budget)
            risen = found.rise
        finally:
            if back := rise - risen:
                with trio.CancelScope(shield=True):
                    await self.given.note(key.digest, gateway, back=back)
        return found

    async def note_drawn(self, key: bytes, gateway: PeerId, drawn: Iterable[AppDrawn]) -> None:
        """Note what a gateway says that requests came to: no more than was asked for each."""
        paid = 0
        for told in drawn:
            known = self._under_way.pop((key, gateway, told.request), None)
            if known is None or self.vouchers is None:
                continue
            most, voucher = known
            amount = min(most, told.amount)
            self.vouchers.note_drawn(voucher.channel.name, voucher.total, amount)
            paid += amount
        if paid:
            await self.given.note(key, gateway, paid=paid)


def _told(
    vouchers: RequestVouchers, gateway: PeerId, asked: AppPayment
) -> Mapping[str, Any] | None:
    """What the gateway says of the channel that is used; None where it speaks of another."""
    channel = vouchers.paying.by_gateway.get(gateway)
    if channel is None or asked.voucher is None:
        return None
    try:
        claimed = Envelope.read(asked.voucher, Voucher).claimed()
    except WireError:
        return None
    if claimed.channel != channel.name:
        return None
    return {"voucher": asked.voucher, "charged": asked.charged}
