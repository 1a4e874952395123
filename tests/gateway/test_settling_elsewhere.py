"""What a server elsewhere has settled here is taken once, whenever this peer dies meanwhile."""

import base64
import contextlib
from dataclasses import dataclass
from typing import Any
from unittest.mock import AsyncMock, Mock

import pytest

from node.apps.subscriptions import Subscriptions
from node.gateway.credit_means import CreditMeans
from node.gateway.payment_journal import PaymentJournal
from node.gateway.paywall import Paywall
from node.gateway.x402_api import CreditFacilitator
from node.ledger.committee import collected, proof_of
from node.ledger.committees import Committees
from store import Store, Write, open_memory_store
from tests.apps.test_held_credits import Doors
from tests.gateway.test_x402_requirements import EXACT, offer
from tests.ledger.made import ONE, THREE
from wire.errors import Malformed, StoreFull
from wire.ledger import Acknowledgement, Payment, Settlement, order_digest
from wire.payment_claim import network_name, sign_claim
from wire.signed import sign

PRICE = 1_000
KEY = b"k" * 32


class Died(Exception):
    """The process ended."""


@dataclass(slots=True)
class Mortal:
    """A store whose process dies before the write with this number, or whose disk is full then."""

    store: Store
    writes_left: int
    end: type[Exception] = Died
    # Whether the last write was done, and nobody heard of it any more.
    is_last_done: bool = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self.store, name)

    async def write(self, *arguments: Any) -> None:
        await self._one(self.store.write, *arguments)

    async def commit(self, batch: Write) -> Any:
        return await self._one(self.store.commit, batch)

    async def _one(self, call: Any, *arguments: Any) -> Any:
        self.writes_left -= 1
        if self.writes_left < 0 and not self.is_last_done:
            raise self.end("no room")
        found = await call(*arguments)
        if self.writes_left < 0:
            raise self.end("no room")
        return found


@dataclass(slots=True)
class Peer:
    """A peer since its last start, over what its disk has."""

    doors: Doors
    store: Store

    def facilitator(self, store: Any = None) -> CreditFacilitator:
        genesis = self.doors.made.genesis
        wallet = Mock(genesis=genesis, key=THREE, committees=Committees(genesis))
        wallet.look = AsyncMock(return_value=Mock(epoch=self.doors.made.replicas[0].epoch))
        subscriptions = Subscriptions(store or self.store)
        vouchers = Mock(channels=Mock(wallet=wallet, epoch=0))
        means = CreditMeans(wallet, subscriptions, self.doors.follower, vouchers)
        journal = PaymentJournal(store or self.store)
        journal.load(0.0)
        paywall = Paywall(
            {"baton": means}, Mock(), journal, Mock(), lambda: 0.0, lambda _: None, vouchers
        )
        return CreditFacilitator(paywall, means)

    async def periods(self) -> int:
        """For how many epochs a key of the payer is paid, as its payments are now."""
        found = await Subscriptions(self.store).of(
            ONE.peer, KEY, PRICE, 1, self.doors.follower.received.total(ONE.peer)
        )
        return found.until + 1


def asked(doors: Doors) -> dict[str, Any]:
    """A transfer of PRICE that is settled, as a server elsewhere shows it."""
    made = doors.made
    order = made.order(ONE, pay=(Payment(to=THREE.peer, amount=PRICE),))
    digest = order_digest(order)
    applied = Acknowledgement(network=made.genesis.id, epoch=order.record.epoch, order=digest)
    proofs = {at: proof_of(Acknowledgement, sign(applied, made.keys[at]).raw) for at in range(3)}
    shown = Settlement(certificate=made.done(order), acknowledgements=collected(proofs))
    payload = {"settlement": shown.to_bytes(), "claim": sign_claim(ONE, digest)}
    network = network_name(made.genesis.id)
    wanted = offer(EXACT).to_map() | {
        "network": network,
        "amount": str(PRICE),
        "payTo": str(THREE.peer),
    }
    told = {name: base64.b64encode(raw).decode() for name, raw in payload.items()}
    return {
        "x402Version": 2,
        "paymentPayload": {"x402Version": 2, "accepted": wanted, "payload": told},
        "paymentRequirements": wanted,
    }


@pytest.mark.parametrize("is_last_done", [False, True])
@pytest.mark.parametrize("writes", range(3))
async def test_a_transfer_pays_once_whenever_the_peer_dies(
    monkeypatch: pytest.MonkeyPatch, writes: int, is_last_done: bool
) -> None:
    async with open_memory_store(quota_bytes=1 << 30) as store:
        doors = Doors(monkeypatch)
        peer = Peer(doors, store)
        await doors.end()
        body = asked(doors)
        dying = peer.facilitator(Mortal(store, writes, is_last_done=is_last_done))
        with contextlib.suppress(Died):
            await dying.take(body)
        # The epoch ends before it starts again, and its server asks a second time.
        await doors.end()
        with contextlib.suppress(Malformed):
            await peer.facilitator().take(body)
        # It has paid for the server's request, and so for no period: not for both, nor for neither.
        assert await peer.periods() == 0
        with pytest.raises(Malformed, match="has paid for a request"):
            await peer.facilitator().take(body)


async def test_what_a_full_disk_refused_is_settled_later(monkeypatch: pytest.MonkeyPatch) -> None:
    async with open_memory_store(quota_bytes=1 << 30) as store:
        doors = Doors(monkeypatch)
        await doors.end()
        body, disk = asked(doors), Mortal(store, 0, StoreFull)
        facilitator = Peer(doors, store).facilitator(disk)
        with pytest.raises(StoreFull):
            await facilitator.take(body)
        disk.writes_left = 9
        assert (await facilitator.take(body))["success"]


async def test_a_transfer_that_a_period_has_had_settles_nothing_elsewhere(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with open_memory_store(quota_bytes=1 << 30) as store:
        doors = Doors(monkeypatch)
        peer = Peer(doors, store)
        await doors.end()
        body = asked(doors)
        await doors.end()
        facilitator = peer.facilitator()
        document = {"paymentPayload": {"payload": body["paymentPayload"]["payload"]}}
        assert await facilitator.means.verify(document, "") == ""
        # Between the look and the taking, its key is shown.
        assert await peer.periods() > 0
        assert not await facilitator.means.take(document)
        with pytest.raises(Malformed, match="has paid for a subscription"):
            await facilitator.take(body)
        assert not facilitator.paywall.journal.rows
