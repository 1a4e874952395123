"""A ring: one owner's many keys, which pay each other in a circle through channels of the ledger.

It is how use is made up that nobody has: every round is as many lines of use as there are keys. No
peer needs to run for it; the keys' orders go to the members of the ledger like anybody's.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import trio

from node.ledger.committee import collected
from node.ledger.committee_calls import CommitteeCalls
from node.ledger.payment_channel import channel_name
from node.ledger.wallet import Wallet
from p2p.timeouts import stretched
from wire.amount import CREDIT
from wire.content import PeerId
from wire.errors import BatonError
from wire.ledger import (
    AccountOrder,
    Certificate,
    Opening,
    Redemption,
    Voucher,
    order_digest,
)
from wire.signed import sign
from wire.signing import SigningKey

# What each key puts aside for the next one, and what it pays of that in a round.
DEPOSIT, PAID = 900 * CREDIT, 10 * CREDIT
OPEN_FOR_EPOCHS = 10_000
AT_ONCE = 4
CALL_DEADLINE_S = 10.0
LOOK_EVERY_S = 1.0


@dataclass(slots=True)
class Ring:
    """The keys of a ring, and what became of their orders."""

    keys: Sequence[SigningKey]
    rounds: int = 0
    # Redeemed of each other, the growth share included.
    paid: int = 0
    unsettled: int = 0
    # Of each key's channel to the next one: its name, and what was redeemed of it.
    _channels: dict[PeerId, tuple[bytes, int]] = field(default_factory=dict)

    async def run(self, wallet: Wallet) -> None:
        """A round in each epoch, through the members that this wallet knows, until cancelled."""
        done = -1
        while True:
            try:
                epoch = (await wallet.look()).epoch
                if epoch > done:
                    await self._round(wallet, epoch)
                    done = epoch
            except BatonError:
                # Members are away; the ring has time.
                pass
            await trio.sleep(LOOK_EVERY_S)

    async def _round(self, wallet: Wallet, epoch: int) -> None:
        places = trio.CapacityLimiter(AT_ONCE)

        async def turn(at: int) -> None:
            async with places:
                try:
                    await self._turn(wallet, at, epoch)
                except BatonError:
                    self.unsettled += 1

        async with trio.open_nursery() as nursery:
            for at in range(len(self.keys)):
                nursery.start_soon(turn, at)
        self.rounds += 1

    async def _turn(self, wallet: Wallet, at: int, epoch: int) -> None:
        """One key opens its channel to the next one, and later takes what the one before owes."""
        key, before = self.keys[at], self.keys[at - 1]
        action: dict[str, Any]
        if key.peer not in self._channels:
            payee = self.keys[(at + 1) % len(self.keys)].peer
            opening = Opening(payee=payee, deposit=DEPOSIT, expiry=epoch + OPEN_FOR_EPOCHS)
            action = {"open": (opening,)}
        elif (owed := self._channels.get(before.peer)) is not None and owed[1] < DEPOSIT:
            name, total = owed[0], owed[1] + PAID
            voucher = Voucher(
                network=wallet.genesis.id, channel=name, total=total, tasks=1, receipt=None
            )
            raw = sign(voucher, before).raw
            action = {"redeem": (Redemption(channel=name, voucher=raw, release=False),)}
        else:
            return
        digest = await _settled(wallet, key, epoch, action)
        if digest is None:
            self.unsettled += 1
        elif "open" in action:
            self._channels[key.peer] = (channel_name(digest, 0), 0)
        else:
            self._channels[before.peer] = (name, total)
            self.paid += PAID


async def _settled(
    wallet: Wallet, key: SigningKey, epoch: int, action: dict[str, Any]
) -> bytes | None:
    """Have an order of this key settled; its digest, or None if it is not in this epoch."""
    calls: CommitteeCalls = wallet.committee_calls
    view = await calls.account(key.peer, deadline_s=stretched(CALL_DEADLINE_S))
    if view.epoch != epoch:
        return None
    record = AccountOrder(network=calls.network, epoch=epoch, sequence=view.sequence, **action)
    order = sign(record, key)
    voted = await calls.votes(order, deadline_s=stretched(CALL_DEADLINE_S))
    if not voted.is_quorum:
        return None
    certificate = Certificate(order=order.raw, votes=collected(voted.proofs)).to_bytes()
    done = await calls.acknowledgements(order, certificate, deadline_s=stretched(CALL_DEADLINE_S))
    return order_digest(order) if done.is_quorum else None
