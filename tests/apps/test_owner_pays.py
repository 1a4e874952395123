"""Gateways that ask an app's owner for more than they should have: each gets its share at most."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import trio

from node.apps.app_keys import digest_of
from node.apps.own_apps import OwnApp, apps_file, revoke_key
from node.peer import Node
from tests.apps.test_apps import made
from tests.ledger.test_members import genesis_of
from tests.node.network import START_S, S, open_network
from wire.app import DRAWN_MAX, AppDrawn, AppKeyTold, AppPayment, AskAppKey
from wire.content import PeerId
from wire.errors import BatonError, Malformed, Oversize, Refused
from wire.kinds import Role
from wire.ledger import Voucher
from wire.signed import open_signed

BUDGET, MOST = 50_000, 8000


@dataclass(frozen=True, slots=True)
class Greedy:
    """An owner who pays, and two gateways that say what they like."""

    owner: Node
    one: Node
    other: Node
    key: bytes

    async def ask(
        self,
        gateway: Node,
        number: int,
        amount: int = MOST,
        *,
        charged: int = 0,
        voucher: bytes | None = None,
        drawn: tuple[AppDrawn, ...] = (),
    ) -> bytes:
        """The voucher for this request."""
        payment = AppPayment(request=name(number), amount=amount, charged=charged, voucher=voucher)
        asked = AskAppKey(key=self.key, share=0, spent=0, calls=0, pay=(payment,), drawn=drawn)
        async with gateway.peers.call(self.owner.peers.me, deadline_s=20) as call:
            await call.send(asked)
            told = await call.expect(AppKeyTold)
        assert told.voucher
        return told.voucher

    async def drain(self, gateway: Node, first: int, highest: dict[PeerId, int]) -> None:
        """Ask until nothing is given, and say each time that all of it was charged."""
        voucher, why = None, ""
        for number in range(first, first + 100):
            try:
                voucher = await self.ask(gateway, number, charged=BUDGET, voucher=voucher)
            except Refused as error:
                why = error.message
                break
            highest[gateway.peers.me] = total(voucher)
        assert "of this key's budget" in why

    async def promised(self) -> list[int]:
        [row] = (await self.owner.app_owner.usage())["keys"]
        return [it["promised"] for it in row["gateways"].values()]


def name(number: int) -> bytes:
    return number.to_bytes(32, "big")


def total(voucher: bytes) -> int:
    return open_signed(voucher, Voucher).record.total


@asynccontextmanager
async def greedy_in(folder: Path) -> AsyncIterator[Greedy]:
    async with open_network(folder) as network:
        genesis = genesis_of(network, members=1, granted=2)
        one = await network.start(S, Role.LEDGER, models=(), number=0, genesis=genesis)
        other = await network.start(S, models=(), number=1, genesis=genesis)
        owner = await network.start(S, models=(), number=2, genesis=genesis)
        await network.settled()
        app = OwnApp(name="writer", mode="call", price=1, pays=MOST)
        yield Greedy(owner, one, other, digest_of(made(owner, app, budget=BUDGET)))


async def test_a_request_is_paid_once_and_within_what_the_owner_pays_for_a_call(
    tmp_path: Path,
) -> None:
    async with greedy_in(tmp_path) as greedy:
        first = await greedy.ask(greedy.one, 1)
        assert total(first) == MOST
        assert await greedy.ask(greedy.one, 1) == first
        assert await greedy.promised() == [MOST]
        with pytest.raises(Refused, match="asked about before"):
            await greedy.ask(greedy.one, 1, MOST - 1)
        with pytest.raises(Refused, match=r"pays at most 0\.008 for a call"):
            await greedy.ask(greedy.one, 2, MOST + 1)
        # Twice at the same time: one of them is paid.
        asked: list[int] = []

        async def ask() -> None:
            try:
                asked.append(total(await greedy.ask(greedy.other, 3)))
            except BatonError:
                asked.append(0)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            nursery.start_soon(ask)
        assert set(asked) <= {0, MOST}
        assert await greedy.promised() == [MOST, MOST]
        # What it says that it came to is no more than was asked for, and is counted once.
        more = (AppDrawn(request=name(1), amount=10 * MOST),) * 2
        second = await greedy.ask(greedy.one, 4, drawn=more)
        assert total(second) == 2 * MOST
        [row] = (await greedy.owner.app_owner.usage())["keys"]
        assert row["gateways"][str(greedy.one.peers.me)]["paid"] == MOST
        revoke_key(apps_file(greedy.owner.config.state), "writer", "ada", START_S)
        await trio.sleep(1.1)
        with pytest.raises(Refused, match="revoked"):
            await greedy.ask(greedy.one, 5)


async def test_two_gateways_at_once_have_one_budget_whatever_they_say(tmp_path: Path) -> None:
    async with greedy_in(tmp_path) as greedy:
        highest: dict[PeerId, int] = {}
        async with trio.open_nursery() as nursery:
            nursery.start_soon(greedy.drain, greedy.one, 1, highest)
            nursery.start_soon(greedy.drain, greedy.other, 1001, highest)
        assert BUDGET - 2 * MOST < sum(highest.values()) <= BUDGET
        # Who says afterwards that it all came to nothing has none of the budget again.
        none = tuple(AppDrawn(request=name(it), amount=0) for it in range(1, 30))
        promised = highest[greedy.one.peers.me]
        for number in range(2001, 2010):
            try:
                promised = total(await greedy.ask(greedy.one, number, drawn=none))
            except Refused:
                break
        assert promised + highest[greedy.other.peers.me] <= BUDGET


def test_what_is_told_of_requests_is_bounded() -> None:
    drawn = (AppDrawn(request=bytes(32), amount=0),) * (DRAWN_MAX + 1)
    with pytest.raises((Malformed, Oversize)):
        AskAppKey(key=bytes(32), share=0, spent=0, calls=0, drawn=drawn)
    pay = AppPayment(request=bytes(32), amount=1, charged=0, voucher=b"voucher")
    asked = AskAppKey(key=bytes(32), share=0, spent=0, calls=0, pay=(pay,), drawn=drawn[1:])
    assert AskAppKey.from_bytes(asked.to_bytes()) == asked
    with pytest.raises(Oversize):
        AppPayment(request=bytes(32), amount=0, charged=0, voucher=None)
