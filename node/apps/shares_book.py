"""What the owner of apps has given out of each key's budget, and to which gateway; durable.

Each gateway gets a share of its own to spend, never one that another has: so a key's budget is
spent once, however many gateways it is shown to.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import trio

from store import Store, Table
from wire.amount import AMOUNT_MAX, show_credits
from wire.codec import Value, pack, unpack
from wire.content import PeerId
from wire.errors import Refused
from wire.kinds import RefusalCode

PREFIX = b"app:"
GATEWAYS_MAX = 64
# A gateway that needs more gets this part of the budget at once, as far as it is left.
PART = 8


@dataclass(frozen=True, slots=True)
class GatewayUse:
    """What one gateway may let a key spend, what it says was spent, and how many calls it tells.

    `promised` is what the owner's vouchers for this key promise it, and `paid` what it says that
    they came to. Amounts are in millionths.
    """

    share: int = 0
    spent: int = 0
    calls: int = 0
    promised: int = 0
    paid: int = 0


@dataclass(slots=True)
class SharesBook:
    """The shares of all keys; changes are written one after another."""

    store: Store
    _writing: trio.Lock = field(default_factory=trio.Lock)

    def of(self, key: bytes) -> Mapping[bytes, GatewayUse]:
        """What the gateways have of one key, by their peer ids."""
        row = self.store.read(Table.HTTP_PAYMENTS, PREFIX + key)
        return {} if row is None else {it[0]: GatewayUse(*it[1:]) for it in unpack(row)}

    async def give(
        self, key: bytes, budget: int, gateway: PeerId, need: int, spent: int, calls: int
    ) -> GatewayUse:
        """Note what a gateway tells, and see that its share is `need` in all, as far as is left.

        Refused if as many gateways as can be have a share of this key.
        """
        async with self._writing:
            uses = dict(self.of(key))
            before = uses.get(gateway, GatewayUse())
            if gateway not in uses and len(uses) >= GATEWAYS_MAX:
                raise Refused(
                    f"this key is in use at {GATEWAYS_MAX} gateways, as many as it may be",
                    code=RefusalCode.NOT_WILLING,
                )
            after = replace(
                before,
                share=_share(budget, sum(it.share for it in uses.values()), before.share, need),
                spent=max(before.spent, min(spent, AMOUNT_MAX)),
                calls=min(AMOUNT_MAX, before.calls + calls),
            )
            if after != before:
                await self._keep(key, uses | {gateway: after})
            return after

    async def promise(self, key: bytes, budget: int, gateway: PeerId, amount: int) -> None:
        """Note that a gateway is promised so much more; Refused if too little is left for that.

        It has a share of this key already.
        """
        async with self._writing:
            uses = dict(self.of(key))
            before = uses.get(gateway, GatewayUse())
            promised = before.promised + amount
            given = sum(it.share for it in uses.values())
            share = _share(budget, given, before.share, promised)
            if promised > share:
                raise Refused(
                    f"of this key's budget of {show_credits(budget)} credits {show_credits(share)}"
                    f" may be paid to this gateway, {show_credits(before.promised)} are promised,"
                    f" and {show_credits(amount)} more are asked for",
                    code=RefusalCode.NOT_PAID,
                )
            after = replace(before, share=share, promised=promised)
            await self._keep(key, uses | {gateway: after})

    async def note(self, key: bytes, gateway: PeerId, *, back: int = 0, paid: int = 0) -> None:
        """Note that so much was not promised after all, and that so much was paid."""
        async with self._writing:
            uses = dict(self.of(key))
            before = uses.get(gateway, GatewayUse())
            promised = max(0, before.promised - back)
            after = replace(before, promised=promised, paid=before.paid + paid)
            await self._keep(key, uses | {gateway: after})

    async def _keep(self, key: bytes, uses: Mapping[bytes, GatewayUse]) -> None:
        rows: list[Value] = [
            [it, use.share, use.spent, use.calls, use.promised, use.paid]
            for it, use in uses.items()
        ]
        await self.store.write(Table.HTTP_PAYMENTS, PREFIX + key, pack(rows))


def _share(budget: int, given: int, before: int, need: int) -> int:
    """A gateway's new share, when all have `given` and it has `before` of that."""
    if need <= before:
        return before
    wanted = max(need - before, budget // PART)
    return before + min(wanted, max(0, budget - given))
