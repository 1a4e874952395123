"""Requests that are paid by vouchers of a channel: many by one order, each once, none settled."""

import base64
import json
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import pytest

import node as baton
from node.client.net import Net
from node.local.commands import LocalCommands
from node.paying.channels import USED_KEPT, EarningChannel
from node.paying.earning_channels import EarningChannels
from tests.gateway.test_credit_payments import CHAT, PATH, Shop, header, shop_in
from wire import signing
from wire.content import ContentId, PeerId
from wire.errors import InputError
from wire.ledger import Voucher, growth_of
from wire.payment_claim import BATCH
from wire.signed import sign
from wire.signing import SigningKey

OTHER = CHAT | {"messages": [{"role": "user", "content": "SAY:other"}]}
STREAM = OTHER | {"stream": True}
STRANGER = SigningKey(bytes(31) + b"\1")
Payload = dict[str, str]


class Till:
    """A client that signs what it likes, of a channel that is really there."""

    def __init__(self, shop: Shop, offer: dict[str, Any], payload: dict[str, Any]) -> None:
        self.shop, self.offer = shop, offer
        self.channel = str(payload["channel"])
        self.settlement = base64.b64encode(payload["settlement"]).decode()

    def payload(self, total: int, *, key: SigningKey | None = None, **other: Any) -> Payload:
        genesis = self.shop.gateway.config.genesis
        assert genesis is not None
        named: dict[str, Any] = {"network": genesis.id, "channel": bytes.fromhex(self.channel)}
        record = Voucher(total=total, tasks=1, receipt=None, **{**named, **other})
        raw = sign(record, key or self.shop.payer.dependencies.key).raw
        voucher = base64.b64encode(raw).decode()
        return {"channel": self.channel, "voucher": voucher, "settlement": self.settlement}

    async def ask(
        self, payload: Payload, body: dict[str, Any] = CHAT, offer: dict[str, Any] | None = None
    ) -> httpx.Response:
        headers = header(offer or self.offer, payload)
        return await self.shop.http.post(PATH, json=body, headers=headers)

    async def refused(self, payload: Payload, why: str, **more: Any) -> None:
        found = await self.ask(payload, **more)
        assert found.status_code == 402, found.text
        assert why in found.json()["error"], found.json()["error"]


async def till_of(shop: Shop) -> Till:
    offer = await shop.offer(BATCH)
    pay = LocalCommands(shop.payer).commands()["pay_offer"]
    shown = await pay({"offer": offer, "most": 10 * int(offer["amount"])}, lambda _: None)
    return Till(shop, offer, dict(shown))


def earning(shop: Shop) -> EarningChannels:
    assert shop.gateway.paying is not None
    return shop.gateway.paying.till.channels


def cost_of(found: httpx.Response) -> int:
    assert found.status_code == 200, found.text
    told = json.loads(base64.b64decode(found.headers["payment-response"]))
    assert told["success"]
    assert told["payer"]
    return int(told["amount"])


async def asked_on(net: Net) -> None:
    for _ in range(100):
        _ = [it async for it in net.chat("hash", "SAY:hello", max_tokens=20)]


async def elsewhere_too(shop: Shop, till: Till, charged: int) -> None:
    """A server elsewhere takes vouchers to the account of its own peer."""

    async def asked(path: str, payload: Payload, version: int = 2, **wanted: Any) -> Any:
        offer = till.offer | wanted
        whole: dict[str, Any] = {"x402Version": version, "payload": payload}
        if version == 2:
            whole["accepted"] = till.offer
        else:
            offer = offer | {"maxAmountRequired": offer["amount"]}
            whole |= {"scheme": BATCH, "network": offer["network"]}
        body = {"x402Version": version, "paymentPayload": whole, "paymentRequirements": offer}
        found = await shop.http.post(f"/x402/{path}", json=body)
        assert found.status_code == 200, found.text
        return found.json()

    price, me = int(till.offer["amount"]), str(shop.payer.peers.me)
    payload = till.payload(charged + price)
    for version in (2, 1):
        assert await asked("verify", payload, version) == {"isValid": True, "payer": me}
    dear = await asked("verify", payload, amount=str(6 * price + 1))
    assert not dear["isValid"]
    assert dear["invalidReason"] == "invalid_batch_settlement_baton_settlement_exceeds_amount"
    assert f"{price} was accepted" in dear["invalidMessage"]
    till.offer = dict(offer := till.offer) | {"amount": str(6 * price + 1)}
    dear = await asked("verify", payload)
    assert dear["invalidReason"] == "insufficient_funds"
    assert "is asked for" in dear["invalidMessage"]
    till.offer = offer
    other = await asked("verify", payload, payTo=str(STRANGER.peer))
    assert not other["isValid"]
    assert other["invalidReason"] == "invalid_batch_settlement_baton_receiver_mismatch"
    assert "no other account" in other["invalidMessage"]
    # What it came to is taken, once, and the rest is there for the next.
    taken = await asked("settle", payload, amount="1000")
    assert (taken["success"], taken["payer"], taken["amount"]) == (True, me, "1000")
    twice = await asked("settle", payload, amount="1000")
    assert not twice["success"]
    assert twice["errorReason"] == "duplicate_settlement"
    assert "has paid for a request" in twice["errorMessage"]
    assert (await asked("settle", till.payload(price + 1000), 1))["success"]
    [channel] = earning(shop).by_name.values()
    assert channel.charged == charged + price + 1000
    signers = (await shop.http.get("/x402/supported")).json()["signers"]
    assert signers == {till.offer["network"]: [str(shop.gateway.peers.me)]}


async def test_our_client_pays_many_requests_by_one_channel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words: Counter[str] = Counter()
    separated = signing.separated

    def counting(domain: str, body: bytes) -> bytes:
        words[domain] += 1
        return separated(domain, body)

    monkeypatch.setattr(signing, "separated", counting)
    async with shop_in(tmp_path) as shop:
        async with baton.connect(shop.url) as poor:
            with pytest.raises(InputError) as refused:
                _ = [it async for it in poor.chat("hash", "SAY:hello", max_tokens=20)]
            assert "pay_max" in refused.value.todo
        before = await shop.balance(shop.payer)
        options = {"state": shop.payer.config.state, "pay_max": "0.05"}
        async with baton.connect(shop.url, **options) as net:
            payments = net._line.payments
            assert payments is not None
            for number in range(4):
                pieces = [str(it) async for it in net.chat("hash", "SAY:hello", max_tokens=20)]
                assert "".join(pieces) == "hello"
                if not number:
                    # One signed and checked it, and one order opened the channel.
                    assert words.pop("voucher") == 2
                    assert words.pop("account_order")
            # From the second on nothing is asked before, and nothing is settled.
            assert words["voucher"] == 2 * 3
            assert "account_order" not in words
            assert shop.gateway.paying is not None
            [channel] = earning(shop).by_name.values()
            assert channel.charged == payments.spent > 0
            # What the tasks come to is paid, and not what they might have.
            assert channel.highest <= payments.spent + 26_600
            with pytest.raises(InputError) as refused:
                await asked_on(net)
            assert "may be paid" in refused.value.message
            assert channel.charged == payments.spent <= channel.highest <= 50_000
        locked = before - await shop.balance(shop.payer)
        assert channel.highest <= locked == channel.deposit <= 50_000
        gained = await shop.balance(shop.gateway)
        await earning(shop).redeem()
        assert await shop.balance(shop.gateway) - gained == channel.highest - growth_of(
            channel.highest
        )


async def test_a_voucher_pays_once_and_what_is_wrong_with_one_is_said(tmp_path: Path) -> None:
    async with shop_in(tmp_path) as shop:
        till = await till_of(shop)
        price = int(till.offer["amount"])
        with_no_key = till.payload(price, key=STRANGER)
        await till.refused(with_no_key, "opens no such channel")
        unsigned = base64.b64decode(till.payload(price)["voucher"])
        flipped = base64.b64encode(unsigned[:-1] + bytes((unsigned[-1] ^ 1,))).decode()
        await till.refused(till.payload(price) | {"voucher": flipped}, "not signed by")
        await till.refused(till.payload(price) | {"voucher": "§"}, "not base64")
        await till.refused(till.payload(price) | {"channel": "12"}, "names no channel")
        await till.refused(till.payload(price, network=ContentId.of(b"x")), "another network")
        await till.refused(till.payload(price, channel=bytes(32)), "another channel")
        unknown = till.payload(price, channel=bytes(32)) | {"channel": bytes(32).hex()}
        await till.refused(unknown, "opens no such channel")
        del unknown["settlement"]
        await till.refused(unknown, "show its settlement")
        await till.refused(till.payload(10 * price + 1), "beyond the deposit")
        await till.refused(till.payload(price - 1), "is asked for: sign")
        elsewhere = till.offer | {"payTo": str(STRANGER.peer)}
        await till.refused(till.payload(price), "payTo is not", offer=elsewhere)
        # None of these has taken anything.
        [channel] = earning(shop).by_name.values()
        assert (channel.charged, channel.held, channel.highest) == (0, 0, 0)

        first = till.payload(price + 7)
        cost = cost_of(await till.ask(first))
        assert 0 < cost < price
        assert channel.charged == cost
        # The same request is answered again, at no cost; another is not, nor by a lower one.
        assert cost_of(await till.ask(first)) == cost == channel.charged
        await till.refused(first, "has paid for a request", body=OTHER)
        await till.refused(till.payload(price + 6), "lower than the highest", body=OTHER)
        # What comes to nothing is not paid, and its voucher does for the next request.
        broken = CHAT | {"messages": [{"role": "user", "content": "BROKEN"}]}
        second = till.payload(2 * price)
        late = header(till.offer, second) | {"x-baton-deadline": "2"}
        failed = await shop.http.post(PATH, json=broken, headers=late)
        assert failed.status_code in (400, 408, 503), failed.text
        assert channel.charged == cost
        assert not channel.held
        # Over the stream's end it is said what it came to.
        stream = await till.ask(second, STREAM)
        assert '"amount":' in stream.text
        assert channel.charged == 2 * cost
        # Vouchers that come in reverse are all taken once the highest is there.
        for total in (6 * price, 5 * price, 4 * price):
            assert cost_of(await till.ask(till.payload(total), OTHER))
        charged = channel.charged
        assert charged == 5 * cost

        # A peer that starts again has forgotten none of it.
        row = EarningChannel.from_bytes(channel.name, channel.to_bytes())
        assert (row.used, row.charged, row.highest) == (channel.used, charged, 6 * price)
        await earning(shop).keep(channel)
        earning(shop).by_name.clear()
        earning(shop).load()
        await till.refused(till.payload(6 * price), "has paid for a request", body=STREAM)
        [channel] = earning(shop).by_name.values()
        assert channel.charged == charged
        await elsewhere_too(shop, till, charged)
        earning(shop).epoch = channel.expiry
        await till.refused(till.payload(8 * price), "expires before")


def test_of_many_vouchers_the_latest_are_known_and_none_before_pays_again() -> None:
    channel = EarningChannel(PeerId(STRANGER.peer), bytes(32), 10**9, 5)
    for total in range(1, 3 * USED_KEPT):
        assert not channel.is_used(total)
        channel.use_up(total)
    assert len(channel.used) == USED_KEPT
    assert all(channel.is_used(it) for it in range(3 * USED_KEPT))
    channel.unuse(3 * USED_KEPT - 1)
    assert not channel.is_used(3 * USED_KEPT - 1)
    kept = EarningChannel.from_bytes(channel.name, channel.to_bytes())
    assert (kept.used, kept.floor) == (channel.used, channel.floor)
