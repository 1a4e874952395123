"""Requests that are paid for in credits: by our own client in a cap, and by what others show."""

import base64
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from node.gateway.server import open_gateway
from node.gateway_config import HttpPay
from node.local.commands import LocalCommands
from node.local.control import open_control
from node.paying import earning_channels
from node.paying_config import read_price
from node.peer import Node
from tests.gateway.conftest import QUICK
from tests.gateway.engine import SpeakingEngine
from tests.ledger.test_members import CREDIT, genesis_of
from tests.node.network import I, Network, S, open_network
from wire.errors import InputError
from wire.kinds import Role
from wire.payment_claim import BATCH, EXACT, network_name
from wire.signing import SigningKey

CHAT = {"model": "hash", "messages": [{"role": "user", "content": "SAY:hello"}], "max_tokens": 20}
PATH = "/v1/chat/completions"


@dataclass(frozen=True, slots=True)
class Shop:
    gateway: Node
    payer: Node
    http: httpx.AsyncClient
    url: str

    async def balance(self, node: Node) -> int:
        assert self.gateway.ledger is not None
        return (await self.gateway.ledger.wallet.look(node.peers.me)).balance

    async def offer(self, scheme: str = EXACT, body: dict[str, Any] = CHAT) -> dict[str, Any]:
        found = await self.http.post(PATH, json=body)
        assert found.status_code == 402, found.text
        told = json.loads(base64.b64decode(found.headers["payment-required"]))
        assert [it["scheme"] for it in told["accepts"]] == [BATCH, EXACT]
        return next(dict(it) for it in told["accepts"] if it["scheme"] == scheme)

    async def paid(self, offer: dict[str, Any], **arguments: Any) -> dict[str, str]:
        """What shows that the payer has paid an offer."""
        pay = LocalCommands(self.payer).commands()["pay_offer"]
        asked = {"offer": offer, "most": CREDIT} | arguments
        shown = await pay(asked, lambda _: None)
        return {name: base64.b64encode(shown[name]).decode() for name in ("settlement", "claim")}


def header(offer: dict[str, Any], payload: dict[str, str]) -> dict[str, str]:
    told = {"x402Version": 2, "accepted": offer, "payload": payload}
    return {"payment-signature": base64.b64encode(json.dumps(told).encode()).decode()}


@asynccontextmanager
async def paying_network(folder: Path) -> AsyncIterator[tuple[Network, Node, Node]]:
    """A gateway that keeps the ledger alone, a worker, and a peer that has credits.

    A payee redeems when a test says so, and not by its clock amid a test of five seconds.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(earning_channels, "REDEEM_S_MIN", 3600.0)
        async with open_network(folder) as network:
            genesis = genesis_of(network, members=1, granted=2)
            gateway = await network.start(S, Role.LEDGER, models=(), number=0, genesis=genesis)
            await network.start(I, engine=SpeakingEngine(), number=1, genesis=genesis)
            payer = await network.start(S, models=(), number=2, genesis=genesis)
            await network.settled()
            yield network, gateway, payer


@asynccontextmanager
async def shop_in(folder: Path) -> AsyncIterator[Shop]:
    """The same, where the owner of the peer that has credits is a client of the gateway."""
    async with paying_network(folder) as (_, gateway, payer):
        pay = HttpPay(price=read_price("0.01/1k:0.6/1k+0.001"), credits=True)
        payer.config.state.mkdir(parents=True, exist_ok=True)
        async with (
            open_gateway(gateway, replace(QUICK, pay=pay, idle_s=60.0)) as url,
            httpx.AsyncClient(base_url=url, timeout=60) as http,
            open_control(payer.config.socket, LocalCommands(payer).commands()),
        ):
            yield Shop(gateway, payer, http, url)


async def test_a_transfer_pays_for_one_request_of_whoever_made_it(tmp_path: Path) -> None:
    async with shop_in(tmp_path) as shop:
        genesis = shop.gateway.config.genesis
        assert genesis is not None
        offer = await shop.offer()
        assert offer["network"] == network_name(genesis.id)
        assert (offer["scheme"], offer["payTo"]) == ("exact", str(shop.gateway.peers.me))
        payload = await shop.paid(offer)
        # Who only saw the transfer cannot show it: another signs, or nobody does.
        stranger = base64.b64encode(shop.gateway.dependencies.key.sign("payment_claim", b"x"))
        for wrong in (
            {"claim": stranger.decode()},
            {"claim": ""},
            {"claim": "§"},
            {"settlement": payload["claim"]},
            {"settlement": payload["settlement"][:-8] + "AAAAAAA="},
        ):
            found = await shop.http.post(PATH, json=CHAT, headers=header(offer, payload | wrong))
            assert found.status_code == 402, found.text
            assert "invalid_payment_requirements" in found.json()["error"]
        # What fails is not paid: the transfer does for the next request.
        broken = CHAT | {"messages": [{"role": "user", "content": "BROKEN"}]}
        headers = header(offer, payload)
        late = {"x-baton-deadline": "2"}
        failed = await shop.http.post(PATH, json=broken, headers=headers | late)
        assert failed.status_code in (400, 408, 503), failed.text
        found = await shop.http.post(PATH, json=CHAT, headers=headers)
        assert found.status_code == 200, found.text
        told = json.loads(base64.b64decode(found.headers["payment-response"]))
        assert (told["success"], told["payer"]) == (True, str(shop.payer.peers.me))
        other = CHAT | {"messages": [{"role": "user", "content": "SAY:other"}]}
        again = await shop.http.post(PATH, json=other, headers=headers)
        assert again.status_code == 402
        # Too little, and to another.
        with pytest.raises(InputError) as refused:
            await shop.paid(offer, most=1)
        assert "pay_max" in refused.value.todo
        elsewhere = await shop.paid(offer | {"payTo": str(SigningKey(bytes(31) + b"\1").peer)})
        found = await shop.http.post(PATH, json=CHAT, headers=header(offer, elsewhere))
        assert found.status_code == 402


async def test_a_server_elsewhere_has_credits_checked_and_taken_once(tmp_path: Path) -> None:
    async with shop_in(tmp_path) as shop:
        offer = await shop.offer()
        kinds = (await shop.http.get("/x402/supported")).json()["kinds"]
        assert kinds == [
            {"x402Version": version, "scheme": scheme, "network": offer["network"]}
            for version in (2, 1)
            for scheme in (BATCH, EXACT)
        ]
        payload = await shop.paid(offer)
        asked = {
            "x402Version": 2,
            "paymentPayload": {"x402Version": 2, "accepted": offer, "payload": payload},
            "paymentRequirements": offer,
        }
        found = (await shop.http.post("/x402/verify", json=asked)).json()
        assert found == {"isValid": True, "payer": str(shop.payer.peers.me)}
        dear = asked | {"paymentRequirements": offer | {"amount": str(10**9)}}
        found = (await shop.http.post("/x402/verify", json=dear)).json()
        assert found["invalidReason"] == "invalid_exact_baton_payload_authorization_value_mismatch"
        dear["paymentPayload"] = asked["paymentPayload"] | {"accepted": dear["paymentRequirements"]}
        found = (await shop.http.post("/x402/verify", json=dear)).json()
        assert (found["isValid"], found["invalidReason"]) == (False, "insufficient_funds")
        for wrong in ([], {}, {"paymentPayload": 1}, asked | {"paymentRequirements": {}}):
            found = await shop.http.post("/x402/settle", json=wrong)
            assert found.status_code == 200, found.text
            assert found.json()["success"] is False
        outcomes = [(await shop.http.post("/x402/settle", json=asked)).json() for _ in range(2)]
        assert [it["success"] for it in outcomes] == [True, False]
        assert outcomes[1]["errorReason"] == "duplicate_settlement"
        assert outcomes[1]["network"] == offer["network"]
        assert outcomes[0]["amount"] == offer["amount"]
        # This gateway itself takes it no more.
        again = await shop.http.post(PATH, json=CHAT, headers=header(offer, payload))
        assert again.status_code == 402
