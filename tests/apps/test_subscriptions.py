"""A subscription opens a door for as long as was paid, to the key of who paid, and to no other."""

from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import trio
from trio.testing import MockClock

from node.apps.app_keys import AppKeys
from node.apps.own_apps import OwnApp, add_app_key, apps_file
from node.apps.subscriptions import PERIODS_MAX, PaidPeriods, Subscriptions
from node.gateway import credit_means
from node.gateway.credit_means import CreditMeans
from node.ledger import received
from node.ledger.received import PaidTotal
from store import open_memory_store
from tests.apps.test_apps import Lent, key_of, lent, made
from tests.apps.test_held_credits import Doors
from tests.ledger.made import ONE, TWO
from tests.ledger.simulation import GRANT, OWNERS
from wire.content import PeerId
from wire.errors import Refused
from wire.kinds import RefusalCode
from wire.ledger import Payment

PRICE = GRANT // 10
APP = OwnApp(name="magazine", mode="subscription", price=PRICE, period_s=300)


def paid(doors: Doors, owner: PeerId, amount: int = PRICE) -> None:
    """ONE pays the owner."""
    doors.made.done(doors.made.order(ONE, pay=(Payment(to=owner, amount=amount),)))


def subscribed(found: Lent, doors: Doors, **fields: Any) -> str:
    """A key of an app that ONE is to pay for, whose owner follows the ledger."""
    doors.follower.peers = found.owner.peers
    found.owner.app_owner.ledger = Mock(genesis=doors.made.genesis, follower=doors.follower)
    return made(found.owner, APP, account=str(ONE.peer), **fields)


async def test_a_key_comes_in_once_it_was_paid_for_and_no_longer(
    autojump_clock: MockClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with lent(tmp_path) as found:
        doors, me = Doors(monkeypatch), found.owner.peers.me
        secret = subscribed(found, doors)
        await doors.end()
        with pytest.raises(Refused, match=r"not paid: 10 credits .* for 3 epochs") as refused:
            await found.keys.learn(secret)
        assert refused.value.code is RefusalCode.NOT_PAID
        # A part of the price opens nothing, and is not lost; somebody else's payment is not his.
        paid(doors, me, PRICE // 2)
        doors.made.done(doors.made.order(TWO, pay=(Payment(to=me, amount=PRICE),)))
        await doors.end()
        await trio.sleep(10)
        with pytest.raises(Refused, match="is not paid"):
            await found.keys.learn(secret)
        paid(doors, me, PRICE // 2)
        await doors.end()
        await trio.sleep(10)
        known = await found.keys.learn(secret)
        # The call itself costs nothing, and the end is that of three epochs of 100 s.
        assert known.policy.price == 0
        until_wall_s = known.key.until_wall_s
        left_s = until_wall_s - found.owner.peers.environment.wall_s()
        assert 299 <= left_s <= 301
        # Another key of the same account is not paid by it.
        file = apps_file(found.owner.config.state)
        other = key_of("magazine", "grace", account=str(ONE.peer))
        entropy = found.owner.peers.environment.entropy
        second = add_app_key(file, other, me, entropy, found.owner.peers.environment.wall_s())
        await trio.sleep(2)
        with pytest.raises(Refused, match="is not paid"):
            await AppKeys(found.gateway.peers).learn(second)
        for _ in range(3):
            await doors.end()
        await trio.sleep(310)
        with pytest.raises(Refused, match="is not paid"):
            await found.keys.learn(secret)
        # It is paid again, and comes in at once.
        paid(doors, me)
        await doors.end()
        await trio.sleep(10)
        assert (await found.keys.learn(secret)).key.until_wall_s > until_wall_s


async def test_a_ledger_that_is_not_read_yet_and_a_network_without_one_are_said(
    autojump_clock: MockClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with lent(tmp_path) as found:
        doors = Doors(monkeypatch)
        secret = subscribed(found, doors)
        doors.follower.problem = "the ledger is being read"
        with pytest.raises(Refused, match="is being read"):
            await found.keys.learn(secret)
        found.owner.app_owner.ledger = None
        await trio.sleep(10)
        with pytest.raises(Refused, match="nobody can subscribe"):
            await found.keys.learn(secret)


async def test_a_payment_that_was_not_read_yet_is_not_pushed_out_by_others(
    autojump_clock: MockClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(received, "LATEST_MAX", 3)
    async with lent(tmp_path) as found:
        doors, me = Doors(monkeypatch), found.owner.peers.me
        secret = subscribed(found, doors)
        paid(doors, me)
        tiny = Payment(to=me, amount=1)
        for _ in range(2):
            for key in (TWO, OWNERS[3]):
                doors.made.done(doors.made.order(key, pay=(tiny,)))
            await doors.end()
        assert ONE.peer not in {it.payer for it in doors.follower.received.latest}
        assert (await found.keys.learn(secret)).key.until_wall_s > 0


async def test_what_was_paid_counts_once_also_after_a_start() -> None:
    paid_by_now = PaidTotal(25, 3)
    async with open_memory_store(quota_bytes=1 << 30) as store:
        book = Subscriptions(store)
        found = await book.of(ONE.peer, b"a" * 32, 10, 5, paid_by_now)
        assert found == PaidPeriods(3 + 2 * 5, 5)
        for again in (book, Subscriptions(store)):
            assert await again.of(ONE.peer, b"a" * 32, 10, 5, paid_by_now) == found
            assert await again.of(ONE.peer, b"b" * 32, 10, 5, paid_by_now) == PaidPeriods()
            # Another account has its own.
            assert await again.of(TWO.peer, b"a" * 32, 10, 5, PaidTotal()) == PaidPeriods()
        # What was left over counts with the next payment, which goes on from the end.
        more = PaidTotal(30, 9)
        assert await book.of(ONE.peer, b"a" * 32, 10, 5, more) == PaidPeriods(18, 0)
        most = await book.of(ONE.peer, b"a" * 32, 10, 5, PaidTotal(2**60, 9))
        assert most.until == 18 + PERIODS_MAX * 5
        # Credits may go round so often that the sum of payments has more than 64 bits.
        last = await book.of(ONE.peer, b"a" * 32, 2**60, 5, PaidTotal(2**70, 9))
        assert last.until == most.until + PERIODS_MAX * 5


async def test_a_transfer_pays_for_a_request_or_for_a_period_and_never_for_both(
    autojump_clock: MockClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with lent(tmp_path) as found:
        doors, me = Doors(monkeypatch), found.owner.peers.me
        secret = subscribed(found, doors)
        wallet = Mock(genesis=doors.made.genesis, key=Mock(peer=me))
        # No voucher is looked at.
        options = (wallet, found.owner.app_owner.subscriptions, doors.follower)
        means = CreditMeans(*options, vouchers=Mock())
        document = {"paymentPayload": {"payload": {"settlement": "AA=="}}}

        def transfer() -> None:
            order = doors.made.order(ONE, pay=(Payment(to=me, amount=PRICE),))
            monkeypatch.setattr(credit_means, "read_shown", lambda _: Mock(order=order))
            doors.made.done(order)

        await doors.end()
        # The owner's own gateway takes it before its epoch ends; that it was is asked twice.
        transfer()
        assert await means.verify(document, "") == ""
        for again in (False, True):
            await means.settle_payment(document, "", PRICE, again=again)
        await doors.end()
        with pytest.raises(Refused, match="is not paid"):
            await found.keys.learn(secret)
        # What has paid for a period pays for no request, and what is not counted yet does.
        transfer()
        await doors.end()
        assert await means.verify(document, "") == ""
        await trio.sleep(10)
        await found.keys.learn(secret)
        assert "paid for a subscription" in await means.verify(document, "")
        transfer()
        await doors.end()
        assert await means.verify(document, "") == ""


async def test_what_was_paid_for_one_app_opens_no_other(
    autojump_clock: MockClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with lent(tmp_path) as found:
        doors, me = Doors(monkeypatch), found.owner.peers.me
        magazine = subscribed(found, doors)
        club = made(found.owner, replace(APP, name="club"), account=str(ONE.peer))
        paid(doors, me)
        await doors.end()
        assert (await found.keys.learn(magazine)).policy.app == "magazine"
        with pytest.raises(Refused, match="to 'club' is not paid"):
            await found.keys.learn(club)
        # And paid for itself it opens, while the first goes on.
        paid(doors, me)
        await doors.end()
        await trio.sleep(10)
        assert (await found.keys.learn(club)).policy.app == "club"
        assert await AppKeys(found.gateway.peers).learn(magazine)
