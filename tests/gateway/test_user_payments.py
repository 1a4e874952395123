"""Keys of apps whose users pay: each request by itself, and the key is counted beside."""

import base64
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio

import node as baton
from node.apps import app_keys
from node.apps.own_apps import OwnApp, apps_file, revoke_key
from node.gateway.server import open_gateway
from node.gateway_config import HttpPay
from node.local.commands import LocalCommands
from node.local.control import open_control
from node.paying_config import read_price
from node.peer import Node
from tests.apps.test_apps import made
from tests.gateway.conftest import QUICK
from tests.gateway.engine import SpeakingEngine
from tests.gateway.test_credit_payments import PATH
from tests.gateway.test_owner_payments import ask, code_of
from tests.ledger.test_members import genesis_of
from tests.node.network import START_S, I, Network, S, open_network
from wire.errors import BatonError, InputError
from wire.kinds import Role
from wire.payment_claim import BATCH, EXACT

PRICE = read_price("0.01/1k:0.6/1k+0.001")


@dataclass(frozen=True, slots=True)
class Hall:
    """A gateway with prices, a peer that gives out keys of apps, and a user who has credits."""

    network: Network
    gateway: Node
    owner: Node
    user: Node

    def key(self, app: OwnApp, **fields: object) -> str:
        return made(self.owner, app, **fields)

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
    def charged(self) -> int:
        """What the user's channel to the gateway was charged."""
        assert self.gateway.paying is not None
        return sum(it.charged for it in self.gateway.paying.till.channels.by_name.values())

    async def told(self, calls: int) -> list[dict[str, Any]]:
        """What the owner knows of its keys, once it was told of so many calls of each."""
        with trio.fail_after(20):
            while True:
                rows = [dict(it) for it in (await self.owner.app_owner.usage())["keys"]]
                uses = [it["gateways"].get(str(self.gateway.peers.me), {}) for it in rows]
                if uses and sum(it.get("calls", 0) for it in uses) >= calls:
                    return uses
                await trio.sleep(0.1)


@asynccontextmanager
async def hall_in(folder: Path) -> AsyncIterator[Hall]:
    async with open_network(folder) as network:
        genesis = genesis_of(network, members=1, granted=2)
        gateway = await network.start(S, Role.LEDGER, models=(), number=0, genesis=genesis)
        await network.start(I, engine=SpeakingEngine(), number=1, genesis=genesis)
        user = await network.start(S, models=(), number=2, genesis=genesis)
        owner = await network.start(S, models=(), number=3, genesis=genesis)
        await network.settled()
        user.config.state.mkdir(parents=True, exist_ok=True)
        async with open_control(user.config.socket, LocalCommands(user).commands()):
            yield Hall(network, gateway, owner, user)


async def chat(net: Any) -> str:
    return "".join([it.text async for it in net.chat("hash", "SAY:hello", max_tokens=20)])


async def test_a_user_pays_beside_the_key_and_the_owner_sees_its_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app_keys, "REPORT_S", 1.0)
    async with hall_in(tmp_path) as hall, hall.open() as http:
        secret = hall.key(OwnApp(name="reader", mode="open", users_pay=True))
        found = await ask(http, secret)
        assert found.status_code == 402
        told = json.loads(base64.b64decode(found.headers["payment-required"]))
        assert [it["scheme"] for it in told["accepts"]] == [BATCH, EXACT]
        assert {it["payTo"] for it in told["accepts"]} == {str(hall.gateway.peers.me)}
        # A key alone pays nothing, and a payment alone is no key that holds.
        url, state = str(http.base_url), hall.user.config.state
        async with baton.connect(url, key=secret) as poor:
            with pytest.raises(InputError, match="wants to be paid"):
                await chat(poor)
        async with baton.connect(url, key=secret, pay_max="0.5", state=state) as net:
            assert "hello" in await chat(net)
            first = hall.charged
            assert "hello" in await chat(net)
        assert 0 < first < hall.charged == 2 * first
        # Those that were not paid for are no calls.
        [use] = await hall.told(2)
        assert (use["calls"], use["spent"], use["paid"], use["promised"]) == (2, 0, 0, 0)
        revoke_key(apps_file(hall.owner.config.state), "reader", "ada", START_S)
        forged = secret[:-8] + "0" * 8
        async with baton.connect(url, key=forged, pay_max="0.5", state=state) as net:
            with pytest.raises(BatonError, match="no app of this peer has this key"):
                await chat(net)
        assert hall.charged == 2 * first


async def test_the_apps_price_comes_out_of_the_budget_and_who_cannot_pay_hears_how(
    tmp_path: Path,
) -> None:
    async with hall_in(tmp_path) as hall:
        app = OwnApp(name="writer", mode="call", price=10, users_pay=True)
        secret = hall.key(app, budget=25)
        async with hall.open(paid=False) as http:
            found = await ask(http, secret)
            assert code_of(found) == (402, "users_pay")
            assert "--http-pay credits" in found.text
        async with hall.open() as http:
            headers = {"authorization": f"Bearer {secret}"}
            body = {"model": "hash", "input": "hello", "max_output_tokens": 4}
            found = await http.post("/v1/responses", json=body, headers=headers)
            assert code_of(found) == (402, "users_pay")
            assert PATH in found.text
            # What costs nothing needs no payment.
            assert (await http.get("/v1/models", headers=headers)).status_code == 200
            assert hall.charged == 0
            url, state = str(http.base_url), hall.user.config.state
            async with baton.connect(url, key=secret, pay_max="0.5", state=state) as net:
                for _ in range(2):
                    assert "hello" in await chat(net)
                charged = hall.charged
                # What the key may not do is not paid for.
                with pytest.raises(BatonError, match=r"budget of 0\.000025"):
                    await chat(net)
            assert hall.charged == charged > 0


async def test_whose_app_pays_nobody_hears_that_only_what_is_free_is_answered(
    tmp_path: Path,
) -> None:
    async with hall_in(tmp_path) as hall, hall.open() as http:
        found = await ask(http, hall.key(OwnApp(name="reader", mode="open")))
    assert code_of(found) == (402, "insufficient_quota")
    assert "which nobody pays for keys of the app 'reader'" in found.text


async def test_a_call_is_paid_by_one_side_only(tmp_path: Path) -> None:
    async with open_network(tmp_path) as network:
        owner = await network.add(S)
        with pytest.raises(InputError, match="not by both"):
            made(owner, OwnApp(name="writer", mode="call", price=10, pays=9, users_pay=True))
