"""Calls with an app's key at another peer's gateway that has prices: the app's owner pays."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import trio

from node.apps.own_apps import OwnApp, apps_file, revoke_key
from node.gateway.server import open_gateway
from node.gateway_config import HttpPay
from node.paying.channels import EarningChannel
from node.paying_config import read_price
from node.peer import Node
from tests.apps.test_apps import made
from tests.gateway.conftest import QUICK
from tests.gateway.test_credit_payments import CHAT, PATH, paying_network
from tests.node.network import START_S, Network

PRICE = read_price("0.01/1k:0.6/1k+0.001")
BUDGET = 20_000


@dataclass(frozen=True, slots=True)
class Lent:
    """An owner of apps who has credits, and another peer that has a price for its gateway."""

    network: Network
    owner: Node
    gateway: Node

    @asynccontextmanager
    async def open(self, *, paid: bool = True) -> AsyncIterator[httpx.AsyncClient]:
        pay = HttpPay(price=PRICE, credits=True) if paid else None
        config = replace(QUICK, apps=True, price=PRICE, pay=pay, idle_s=60.0)
        async with (
            open_gateway(self.gateway, config) as url,
            httpx.AsyncClient(base_url=url, timeout=60) as http,
        ):
            yield http

    @property
    def channel(self) -> EarningChannel:
        assert self.gateway.paying is not None
        [channel] = self.gateway.paying.till.channels.by_name.values()
        return channel

    async def use(self) -> dict[str, int]:
        """What the owner knows of the one key that was used."""
        [row] = (await self.owner.app_owner.usage())["keys"]
        return dict(row["gateways"][str(self.gateway.peers.me)])


@asynccontextmanager
async def lent_in(folder: Path) -> AsyncIterator[Lent]:
    async with paying_network(folder) as (network, gateway, owner):
        yield Lent(network, owner, gateway)


async def ask(http: httpx.AsyncClient, secret: str, **more: Any) -> httpx.Response:
    headers = {"authorization": f"Bearer {secret}"}
    return await http.post(PATH, json=CHAT | more, headers=headers)


def code_of(found: httpx.Response) -> tuple[int, str]:
    return found.status_code, found.json()["error"]["code"]


async def test_an_owner_pays_what_calls_come_to_until_the_budget_is_used_up(
    tmp_path: Path,
) -> None:
    async with lent_in(tmp_path) as lent, lent.open() as http:
        secret = made(
            lent.owner, OwnApp(name="writer", mode="call", price=10, pays=20_000), budget=BUDGET
        )
        found = await ask(http, secret)
        assert found.status_code == 200, found.text
        cost = lent.channel.charged
        assert 0 < cost < lent.channel.highest <= 20_000
        stream = await ask(http, secret, stream=True)
        assert stream.status_code == 200
        assert "hello" in "".join(stream.text.split('"'))
        assert lent.channel.charged == 2 * cost
        # The second was promised no more than what the first had left over.
        use = await lent.use()
        assert use["promised"] == lent.channel.highest < 20_000 + cost
        assert use["paid"] == cost
        # What comes to nothing costs nothing.
        broken = {"messages": [{"role": "user", "content": "BROKEN"}]}
        headers = {"authorization": f"Bearer {secret}", "x-baton-deadline": "2"}
        failed = await http.post(PATH, json=CHAT | broken, headers=headers)
        assert failed.status_code in (400, 408, 503), failed.text
        assert (lent.channel.charged, lent.channel.held) == (2 * cost, 0)
        answered = 2
        while (found := await ask(http, secret)).status_code == 200:
            answered += 1
        assert code_of(found) in ((402, "insufficient_quota"), (402, "app_cannot_pay"))
        assert "budget of 0.02" in found.text
        assert lent.channel.charged == answered * cost
        assert lent.channel.highest == (await lent.use())["promised"] <= BUDGET
        # It was used, and not only held.
        assert lent.channel.charged > BUDGET - 14_000 - answered * 10
        assert lent.gateway.paying is not None
        assert await lent.gateway.paying.till.channels.redeem() == lent.channel.highest


async def test_what_one_side_forgets_is_told_by_the_other(tmp_path: Path) -> None:
    async with lent_in(tmp_path) as lent:
        secret = made(
            lent.owner, OwnApp(name="writer", mode="call", price=10, pays=20_000), budget=3 * BUDGET
        )
        async with lent.open() as http:
            assert (await ask(http, secret)).status_code == 200
        cost = lent.channel.charged
        # As if both had just been started, and the owner had lost what was not written yet.
        assert lent.owner.paying is not None
        vouchers = lent.owner.paying.request_vouchers
        [paid] = vouchers.paying.by_gateway.values()
        paid.signed = paid.charged = paid.held = 0
        lent.owner.app_owner.pays._under_way.clear()
        async with lent.open() as http:
            assert (await ask(http, secret)).status_code == 200
        assert lent.channel.charged == 2 * cost
        assert lent.channel.highest <= (await lent.use())["promised"] <= 3 * BUDGET


async def test_why_an_owner_does_not_pay_is_said(tmp_path: Path) -> None:
    async with lent_in(tmp_path) as lent:
        mean = made(lent.owner, OwnApp(name="mean", mode="call", price=10), budget=BUDGET)
        low = made(lent.owner, OwnApp(name="low", mode="call", price=10, pays=5000), budget=BUDGET)
        good = made(
            lent.owner, OwnApp(name="good", mode="call", price=9, pays=20_000), budget=BUDGET
        )
        async with lent.open(paid=False) as http:
            found = await ask(http, good)
            assert code_of(found) == (402, "app_cannot_pay")
            assert "--http-pay credits" in found.text
        async with lent.open() as http:
            found = await ask(http, mean)
            assert code_of(found) == (402, "app_cannot_pay")
            assert "does not pay for calls" in found.text
            found = await ask(http, low)
            assert code_of(found) == (402, "app_cannot_pay")
            assert "pays at most 0.005 for a call" in found.text
            assert (await ask(http, good)).status_code == 200
            charged = lent.channel.charged
            revoke_key(apps_file(lent.owner.config.state), "good", "ada", START_S)
            # The gateway has a list that says nothing of it yet: the owner does not pay.
            await trio.sleep(1.1)
            found = await ask(http, good)
            assert code_of(found) == (401, "invalid_api_key")
            assert "revoked" in found.text
            lent.network.kill(lent.owner)
            found = await ask(http, low)
            assert code_of(found) == (503, "app_owner_away")
            assert lent.channel.charged == charged
