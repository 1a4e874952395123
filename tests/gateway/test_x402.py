"""Requests that are paid for by themselves: what is offered, taken, and made once."""

import base64
import json
import ssl
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from random import Random
from typing import Any

import httpx
import pytest
import trio

from node.gateway import facilitator as facilitators
from node.gateway import payment_journal
from node.gateway.evm_means import EvmMeans
from node.gateway.evm_payment import UPTO_SPENDER
from node.gateway.facilitator import (
    Facilitator,
    PaymentMade,
    PaymentUnknown,
    SettlementOutcome,
    facilitator_at,
    rules_of,
)
from node.gateway.payment_journal import PaymentJournal, PaymentRow, PaymentState
from node.gateway.paywall import UNPAID_MAX, Paywall
from node.gateway.spending import Purses
from node.gateway.x402_documents import read_payment
from node.gateway_config import EvmPay, HttpPay, pay_of
from node.ingest.guard import Network, real_network
from node.paying_config import read_price
from store import open_memory_store
from tests.gateway.conftest import QUICK, Served, serving
from tests.gateway.facilitator import (
    FAILS,
    FLOODS,
    HANGS,
    LIES,
    REDIRECTS,
    REFUSES,
    SIGNER,
    FakeFacilitator,
    facilitating,
)
from wire.errors import InputError, Malformed, Refused, Unreachable

PAY_TO = "0x" + "AB" * 20
CHAT = {"model": "hash", "messages": [{"role": "user", "content": "SAY:hello"}], "max_tokens": 20}
PATH = "/v1/chat/completions"
PATIENCE_S = 60.0
random = Random(402)
ROW = PaymentRow(
    id=b"1",
    state=PaymentState.SETTLED,
    request=b"own",
    payer="0x",
    network="eip155:8453",
    scheme="exact",
    version=2,
    amount=1,
    until_wall_s=1000,
    document={},
)


class Made(EvmMeans):
    """Means with which every payment is made."""

    def __init__(self) -> None:
        """They ask nobody."""

    async def settle_payment(
        self, document: Mapping[str, Any], payer: str, amount: int, *, again: bool
    ) -> SettlementOutcome:
        """Say that it is paid."""
        return PaymentMade("0x1")


@dataclass(frozen=True, slots=True)
class Shop:
    served: Served
    fake: FakeFacilitator
    http: httpx.Client


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    with facilitating() as fake:
        evm = EvmPay(facilitator=fake.url, pay_to=PAY_TO)
        pay = HttpPay(price=read_price("0.01/1k:0.6/1k+0.001"), evm=evm)
        with (
            pytest.MonkeyPatch.context() as patch,
            serving(tmp_path_factory.mktemp("shop"), replace(QUICK, pay=pay)) as served,
            httpx.Client(base_url=served.url, timeout=PATIENCE_S) as http,
        ):
            patch.setattr(facilitators, "SETTLE_S", 0.5)
            yield Shop(served, fake, http)


def unpacked(value: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(base64.b64decode(value))
    return found


def packed(value: Any) -> str:
    return base64.b64encode(json.dumps(value).encode()).decode()


def offers(shop: Shop, body: dict[str, Any] = CHAT) -> list[dict[str, Any]]:
    found = shop.http.post(PATH, json=body)
    assert found.status_code == 402, found.text
    told = unpacked(found.headers["payment-required"])
    assert told["x402Version"] == 2
    assert told["resource"]["url"].endswith(PATH)
    return list(told["accepts"])


def offer_of(shop: Shop, scheme: str, body: dict[str, Any] = CHAT) -> dict[str, Any]:
    return next(it for it in offers(shop, body) if it["scheme"] == scheme)


def payload_of(offer: dict[str, Any], payer: str = "", **changes: Any) -> dict[str, Any]:
    """What a wallet signs for an offer; the signature itself is the facilitator's to check."""
    payer, until = payer or "0x" + random.randbytes(20).hex(), str(2**34)
    signature = "0x" + random.randbytes(65).hex()
    if offer["scheme"] == "exact":
        said: dict[str, Any] = {
            "from": payer,
            "to": offer["payTo"],
            "value": offer["amount"],
            "validAfter": "0",
            "validBefore": until,
            "nonce": "0x" + random.randbytes(32).hex(),
        }
        return {"signature": signature, "authorization": said | changes}
    said = {
        "from": payer,
        "permitted": {"token": offer["asset"], "amount": offer["amount"]},
        "spender": UPTO_SPENDER,
        "nonce": str(random.getrandbits(256)),
        "deadline": until,
        "witness": {"to": offer["payTo"], "facilitator": SIGNER, "validAfter": "0"},
    }
    return {"signature": signature, "permit2Authorization": said | changes}


def payment(offer: dict[str, Any], payload: dict[str, Any] | None = None) -> dict[str, str]:
    told = {"x402Version": 2, "accepted": offer, "payload": payload or payload_of(offer)}
    return {"payment-signature": packed(told)}


def code_of(found: httpx.Response) -> str:
    return str(found.json()["error"]["code"])


def test_a_request_without_means_of_payment_is_told_how_to_pay_in_both_versions(shop: Shop) -> None:
    accepts = offers(shop)
    assert [(it["scheme"], it["network"]) for it in accepts] == [
        ("exact", "eip155:8453"),
        ("upto", "eip155:8453"),
    ]
    exact, upto = accepts
    assert exact["payTo"] == PAY_TO
    assert exact["extra"] == {"name": "USD Coin", "version": "2"}
    assert upto["extra"]["facilitatorAddress"] == SIGNER
    # By the price: a base, each byte of the prompt, and the tokens that are asked for.
    assert int(exact["amount"]) >= 1000 + 20 * 600
    # Some clients send a key that is none.
    found = shop.http.post(PATH, json=CHAT, headers={"authorization": "Bearer 0x00"})
    first = found.json()
    assert (found.status_code, first["x402Version"]) == (402, 1)
    assert [it["network"] for it in first["accepts"]] == ["base"]
    assert first["accepts"][0]["maxAmountRequired"] == exact["amount"]
    assert first["accepts"][0]["resource"].endswith(PATH)
    assert shop.http.get("/v1/models").status_code == 200
    assert shop.http.post("/v1/tasks", json={}).status_code == 401
    assert shop.http.get("/v1/batches").status_code == 401


def test_a_whole_answer_is_told_once_it_is_paid(shop: Shop) -> None:
    offer = offer_of(shop, "exact")
    found = shop.http.post(PATH, json=CHAT, headers=payment(offer))
    assert found.status_code == 200, found.text
    assert found.json()["choices"][0]["message"]["content"] == "hello"
    told = unpacked(found.headers["payment-response"])
    assert told["success"] is True
    assert told["network"] == "eip155:8453"
    assert told["amount"] == offer["amount"]
    assert (told["payer"], int(told["amount"])) in shop.fake.settled.values()


def test_the_first_version_is_paid_too(shop: Shop) -> None:
    offer = offer_of(shop, "exact")
    told = {"x402Version": 1, "scheme": "exact", "network": "base", "payload": payload_of(offer)}
    found = shop.http.post(PATH, json=CHAT, headers={"x-payment": packed(told)})
    assert found.status_code == 200, found.text
    told = unpacked(found.headers["x-payment-response"])
    assert (told["success"], told["network"]) == (True, "base")


def test_up_to_an_amount_only_what_was_made_is_paid(shop: Shop) -> None:
    body = CHAT | {"max_tokens": 500}
    offer = offer_of(shop, "upto", body)
    found = shop.http.post(PATH, json=body, headers=payment(offer))
    assert found.status_code == 200, found.text
    told = unpacked(found.headers["payment-response"])
    usage = found.json()["usage"]
    cost = 1000 + -(-(usage["prompt_tokens"] * 10 + usage["completion_tokens"] * 600) // 1)
    assert int(told["amount"]) == cost < int(offer["amount"])


@pytest.mark.parametrize("scheme", ["exact", "upto"])
def test_a_stream_is_paid_for(shop: Shop, scheme: str) -> None:
    body = CHAT | {"stream": True}
    offer = offer_of(shop, scheme, body)
    payload = payload_of(offer)
    with shop.http.stream("POST", PATH, json=body, headers=payment(offer, payload)) as found:
        assert found.status_code == 200
        is_told = "payment-response" in found.headers
        text = found.read().decode()
    assert text.endswith("data: [DONE]\n\n")
    chunks = [json.loads(it) for it in text.split("data: ")[1:-1]]
    charged = int(chunks[-1]["x_baton"]["amount"])
    assert all("amount" not in it.get("x_baton", {}) for it in chunks[:-1])
    # Of one that is paid by its length nothing is known before its end.
    assert is_told is (scheme == "exact")
    said = payload.get("authorization") or payload["permit2Authorization"]
    end_s = time.monotonic() + PATIENCE_S
    while said["nonce"] not in shop.fake.settled:
        assert time.monotonic() < end_s
        time.sleep(0.02)
    assert 0 < charged == shop.fake.settled[said["nonce"]][1] <= int(offer["amount"])


def test_a_client_that_goes_away_pays_what_was_shown(shop: Shop) -> None:
    body = CHAT | {"messages": [{"role": "user", "content": "WAIT"}], "max_tokens": 4000}
    body |= {"stream": True}
    offer = offer_of(shop, "upto", body)
    payload = payload_of(offer)
    with shop.http.stream("POST", PATH, json=body, headers=payment(offer, payload)) as found:
        lines = found.iter_lines()
        for _ in range(12):
            next(lines)
    nonce, end_s = payload["permit2Authorization"]["nonce"], time.monotonic() + PATIENCE_S
    while nonce not in shop.fake.settled:
        assert time.monotonic() < end_s
        time.sleep(0.02)
    amount = shop.fake.settled[nonce][1]
    assert 1000 < amount < int(offer["amount"]) // 4


BAD_HEADERS = {
    "not base64": "§§§",
    "no JSON": base64.b64encode(b"{").decode(),
    "an array": packed([1]),
    "a number": packed(1),
    "NaN": base64.b64encode(b'{"x402Version":NaN}').decode(),
    "a name twice": base64.b64encode(b'{"x402Version":2,"x402Version":2}').decode(),
    "deep": base64.b64encode(b'{"a":' * 1000 + b"1" + b"}" * 1000).decode(),
    "a huge number": base64.b64encode(b'{"x402Version":' + b"9" * 5000 + b"}").decode(),
    "empty": "",
    "another version": packed({"x402Version": 1, "payload": {}, "accepted": {}}),
    "nothing accepted": packed({"x402Version": 2, "payload": {}}),
    "no payload": packed({"x402Version": 2, "accepted": {"scheme": "exact", "network": "n"}}),
    "surrogates": base64.b64encode(b'{"x402Version":2,"payload":{},"accepted":"\\ud800"}').decode(),
}


@pytest.mark.parametrize("value", BAD_HEADERS.values(), ids=BAD_HEADERS.keys())
def test_a_header_that_is_no_payment_is_refused(shop: Shop, value: str) -> None:
    header = {"payment-signature": value.encode("latin-1")}
    found = shop.http.post(PATH, json=CHAT, headers=header)
    assert (found.status_code, code_of(found)) == (400, "invalid_payment")


def test_a_header_of_a_megabyte_is_refused() -> None:
    with pytest.raises(Malformed):
        read_payment({"payment-signature": "A" * (1 << 20)})
    with pytest.raises(Malformed):
        read_payment({"payment-signature": "e30=", "x-payment": "e30="})


def test_a_payment_for_another_url_is_not_taken(shop: Shop) -> None:
    offer = offer_of(shop, "exact")
    told = {"x402Version": 2, "accepted": offer, "payload": payload_of(offer)}
    settled = len(shop.fake.settled)
    for url in (f"{shop.served.url}/v1/completions", f"{shop.served.url}{PATH}?more=1", 1):
        other = told | {"resource": {"url": url}}
        found = shop.http.post(PATH, json=CHAT, headers={"payment-signature": packed(other)})
        assert found.status_code == (400 if url == 1 else 402), found.text
        assert len(shop.fake.settled) == settled
    # By another name of the same server, as it is offered behind one that ends TLS.
    same = told | {"resource": {"url": f"https://api.example{PATH}", "mimeType": "text/plain"}}
    found = shop.http.post(PATH, json=CHAT, headers={"payment-signature": packed(same)})
    assert found.status_code == 200, found.text


def changed(offer: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {**offer, **changes}


BAD_ACCEPTED: dict[str, dict[str, Any]] = {
    "to another": {"payTo": "0x" + "cd" * 20},
    "on another network": {"network": "eip155:1"},
    "another token": {"asset": "0x" + "cd" * 20},
    "less": {"amount": "1"},
    "a number": {"amount": 13_000},
    "negative": {"amount": "-13000"},
    "another form": {"amount": "0013000"},
    "other digits": {"amount": "١٣٠٠٠"},
    "another extra": {"extra": {"name": "USD Coin", "version": "3"}},
    "no extra": {"extra": None},
    "a list": {"extra": []},
    "another scheme": {"scheme": "batch-settlement"},
}


@pytest.mark.parametrize("changes", BAD_ACCEPTED.values(), ids=BAD_ACCEPTED.keys())
def test_what_was_not_offered_cannot_be_accepted(shop: Shop, changes: dict[str, Any]) -> None:
    offer = offer_of(shop, "exact")
    asked, settled = shop.fake.asked, len(shop.fake.settled)
    altered = changed(offer, **changes)
    sound = changed(offer, amount=str(altered["amount"]), payTo=altered["payTo"])
    told = {"x402Version": 2, "accepted": altered, "payload": payload_of(sound)}
    found = shop.http.post(PATH, json=CHAT, headers={"payment-signature": packed(told)})
    assert found.status_code == 402, found.text
    assert "invalid_payment_requirements" in found.json()["error"]
    assert (shop.fake.asked, len(shop.fake.settled)) == (asked, settled)


BAD_SAID: dict[str, dict[str, Any]] = {
    "to another": {"to": "0x" + "cd" * 20},
    "less": {"value": "1"},
    "over": {"validBefore": "1000000000"},
    "not yet": {"validAfter": str(2**34 - 1), "validBefore": str(2**34)},
    "too short": {"validBefore": "1800000030"},
    "no nonce": {"nonce": "0x12"},
    "no payer": {"from": "me"},
    "a list": {"nonce": []},
}


@pytest.mark.parametrize("changes", BAD_SAID.values(), ids=BAD_SAID.keys())
def test_what_was_signed_has_to_be_what_was_accepted(shop: Shop, changes: dict[str, Any]) -> None:
    offer = offer_of(shop, "exact")
    found = shop.http.post(PATH, json=CHAT, headers=payment(offer, payload_of(offer, **changes)))
    assert found.status_code == 402, found.text
    assert "invalid_payment_requirements" in found.json()["error"]


def test_one_authorisation_on_ten_connections_pays_for_one_request(shop: Shop) -> None:
    offer = offer_of(shop, "exact")
    headers = payment(offer)
    begun, found = shop.served.engine.begun, []

    def ask() -> None:
        found.append(shop.http.post(PATH, json=CHAT, headers=headers))

    before = len(shop.fake.settled)
    threads = [threading.Thread(target=ask) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(shop.fake.settled) == before + 1
    assert shop.served.engine.begun <= begun + 1
    statuses = sorted(it.status_code for it in found)
    # Whoever comes after the answer is there gets the same one again.
    assert set(statuses) <= {200, 409}
    assert len({it.text for it in found if it.status_code == 200}) == 1
    # For another request it is used.
    other = CHAT | {"messages": [{"role": "user", "content": "SAY:more"}]}
    again = shop.http.post(PATH, json=other, headers=headers)
    assert (again.status_code, code_of(again)) == (402, "payment_used")
    assert "payment-required" not in again.headers


@pytest.mark.parametrize("mood", [HANGS, FAILS, LIES, FLOODS, REDIRECTS])
def test_an_outcome_that_was_not_heard_is_asked_again_and_paid_once(shop: Shop, mood: str) -> None:
    offer = offer_of(shop, "exact")
    headers, before = payment(offer), len(shop.fake.settled)
    shop.fake.moods[:] = [mood]
    found = shop.http.post(PATH, json=CHAT, headers=headers)
    # The second try hears that its nonce is used, which it is by the first.
    assert found.status_code == 200, found.text
    assert len(shop.fake.settled) == before + 1


def test_while_an_outcome_is_unknown_no_other_payment_is_asked_for(shop: Shop) -> None:
    offer = offer_of(shop, "exact")
    headers, before = payment(offer), len(shop.fake.settled)
    shop.fake.moods[:] = [FAILS] * 3
    found = shop.http.post(PATH, json=CHAT, headers=headers)
    assert (found.status_code, code_of(found)) == (503, "payment_unknown")
    assert "retry-after" in found.headers
    assert "payment-required" not in found.headers
    again = shop.http.post(PATH, json=CHAT, headers=headers)
    assert again.status_code == 200, again.text
    assert again.json()["choices"][0]["message"]["content"] == "hello"
    assert unpacked(again.headers["payment-response"])["success"] is True
    assert len(shop.fake.settled) == before + 1


def test_an_answer_whose_payment_is_refused_is_not_told(shop: Shop) -> None:
    offer = offer_of(shop, "exact")
    headers = payment(offer)
    for body in (CHAT, CHAT | {"stream": True}):
        shop.fake.moods[:] = [REFUSES]
        found = shop.http.post(PATH, json=body, headers=payment(offer))
        assert found.status_code == 402, found.text
        assert code_of(found) == "payment_failed"
        assert "hello" not in found.text
        assert unpacked(found.headers["payment-response"])["errorReason"] == "insufficient_funds"
    poor = payload_of(offer, payer="0x" + "01" * 20)
    shop.fake.balances["0x" + "01" * 20] = 1
    found = shop.http.post(PATH, json=CHAT, headers=payment(offer, poor))
    assert found.status_code == 402
    assert found.json()["error"] == "insufficient_funds"
    assert shop.http.post(PATH, json=CHAT, headers=headers).status_code == 200


def test_an_answer_that_fails_is_not_paid_and_its_payment_does_again(shop: Shop) -> None:
    body = CHAT | {"messages": [{"role": "user", "content": "BROKEN"}]}
    offer = offer_of(shop, "exact", body)
    headers, asked = payment(offer), shop.fake.asked
    found = shop.http.post(PATH, json=body, headers=headers | {"x-baton-deadline": "3"})
    assert found.status_code in (400, 408, 503), found.text
    assert shop.fake.asked == asked
    sound = CHAT | {"messages": [{"role": "user", "content": "SAY:ok"}]}
    assert shop.http.post(PATH, json=sound, headers=headers).status_code == 200


def test_what_was_asked_before_a_restart_is_asked_after_it_and_answered_once(shop: Shop) -> None:
    offer = offer_of(shop, "exact")
    payload = payload_of(offer)
    assert shop.http.post(PATH, json=CHAT, headers=payment(offer, payload)).status_code == 200
    store = shop.served.node.dependencies.store
    journal = PaymentJournal(store)
    journal.load(1_800_000_000.0)
    payer = payload["authorization"]["from"]
    rows = [it for it in journal.rows.values() if it.payer == payer]
    assert [it.state for it in rows] == [PaymentState.SETTLED]
    # Long after nobody could use it any more it is forgotten.
    journal.load(2.0**53)
    assert not [it for it in journal.rows.values() if it.payer == payer]


def test_a_facilitator_lies_where_its_owner_says_and_nowhere_else() -> None:
    assert facilitator_at("https://x402.example.com/v2/").place == "x402.example.com:443"
    for wrong in (
        "http://x402.example.com",
        "ftp://x402.example.com",
        "https://user:secret@x402.example.com",
        "https://x402.example.com/?a=1",
        "https://printer.local",
        "x402.example.com",
    ):
        with pytest.raises(InputError):
            facilitator_at(wrong)
    # A name that leads to this machine later is judged by its address, as a data peer's fetch is.
    assert rules_of(facilitator_at("https://x402.example.com")).allow == ()
    assert rules_of(facilitator_at("http://127.0.0.1:4020")).allow == ("127.0.0.1:4020",)


def test_options_that_make_no_sense_together_are_refused() -> None:
    for options in (
        ("evm", None, "https://x402.example.com", PAY_TO),
        ("evm", "0.1/1k:0.1/1k", None, PAY_TO),
        ("evm", "0.1/1k:0.1/1k", "https://x402.example.com", None),
        ("evm", "0.1/1k:0.1/1k", "https://x402.example.com", "0x12"),
        ("gold", "0.1/1k:0.1/1k", None, None),
        (None, None, "https://x402.example.com", None),
    ):
        with pytest.raises(InputError):
            pay_of(*options, "eip155:8453")


async def test_a_facilitator_whose_name_leads_to_this_machine_is_not_reached() -> None:
    async def resolve(host: str, port: int) -> list[str]:
        return ["127.0.0.1"]

    location = facilitator_at("https://x402.example.com")
    network = Network(resolve, real_network().backend)
    found = Facilitator(location, network, ssl.create_default_context())
    assert await found.supported() == ()
    assert "loopback" in found.problem
    outcome = await found.settle_payment({}, "0x", again=False)
    assert isinstance(outcome, PaymentUnknown)
    with pytest.raises(Unreachable):
        await found.verify({}, "0x")


async def test_no_more_payments_are_remembered_than_there_is_room_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(payment_journal, "PAYMENTS_MAX", 2)
    row = ROW
    async with open_memory_store(quota_bytes=1 << 30) as store:
        journal = PaymentJournal(store)
        for name in (b"1", b"2"):
            await journal.keep(replace(row, id=name), 0.0)
        with pytest.raises(Refused):
            await journal.keep(replace(row, id=b"3"), 0.0)
        assert set(journal.rows) == {b"1", b"2"}
        # Those that nobody could use any more make room, and what is not known is never forgotten.
        await journal.keep(replace(row, id=b"1", state=PaymentState.ASKED), 0.0)
        await journal.keep(replace(row, id=b"3"), 10_000.0)
        assert set(journal.rows) == {b"1", b"3"}
        again = PaymentJournal(store)
        again.load(0.0)
        assert again.rows[b"1"].state is PaymentState.ASKED
        # What was only taken paid for nothing: it may be used again after a crash.
        await journal.keep(replace(row, id=b"3", state=PaymentState.TAKEN), 0.0)
        again = PaymentJournal(store)
        again.load(0.0)
        assert set(again.rows) == {b"1"}


def test_a_client_that_leaves_before_a_whole_answer_pays_for_what_was_made(shop: Shop) -> None:
    body = CHAT | {"messages": [{"role": "user", "content": "WAIT"}], "max_tokens": 4000}
    offer, paid = offer_of(shop, "exact", body), False
    # A machine that is slow may have made nothing yet when its client leaves: then that is free.
    for waits_s in (1.0, 5.0, 25.0):
        payload = payload_of(offer)
        with pytest.raises(httpx.ReadTimeout):
            shop.http.post(PATH, json=body, headers=payment(offer, payload), timeout=waits_s)
        nonce, end_s = payload["authorization"]["nonce"], time.monotonic() + 5 * waits_s
        while not (paid := nonce in shop.fake.settled) and time.monotonic() < end_s:
            time.sleep(0.02)
        if paid:
            break
    assert paid
    # It has paid for this request, which may still be answered once, and for no other one.
    other = shop.http.post(PATH, json=CHAT, headers=payment(offer, payload))
    assert (other.status_code, code_of(other)) == (402, "payment_used")
    payer, end_s = payload["authorization"]["from"], time.monotonic() + PATIENCE_S
    journal = PaymentJournal(shop.served.node.dependencies.store)
    while True:
        journal.load(1_800_000_000.0)
        (row,) = [it for it in journal.rows.values() if it.payer == payer]
        if row.state is PaymentState.SETTLED:
            break
        assert time.monotonic() < end_s
        time.sleep(0.02)
    assert (row.left, row.amount) == (1, int(offer["amount"]))


def test_payments_that_nobody_signed_use_up_no_payers_places(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    victim, holding, found = "0x" + "0b" * 20, threading.Event(), []
    offer = offer_of(shop, "exact")
    sound = payload_of(offer, payer=victim)
    verify, begun = Facilitator.verify, []

    async def slow(self: Facilitator, request: dict[str, Any], payer: str) -> str:
        if request["paymentPayload"]["payload"] == sound:
            return await verify(self, request, payer)
        begun.append(payer)
        while not holding.is_set():
            await trio.sleep(0.01)
        return "invalid_signature"

    monkeypatch.setattr(Facilitator, "verify", slow)

    def forge() -> None:
        forged = payment(offer, payload_of(offer, payer=victim))
        found.append(shop.http.post(PATH, json=CHAT, headers=forged).status_code)

    threads = [threading.Thread(target=forge) for _ in range(UNPAID_MAX)]
    for thread in threads:
        thread.start()
    try:
        end_s = time.monotonic() + PATIENCE_S
        while len(begun) < UNPAID_MAX and time.monotonic() < end_s:
            time.sleep(0.01)
        answer = shop.http.post(PATH, json=CHAT, headers=payment(offer, sound))
    finally:
        holding.set()
        for thread in threads:
            thread.join()
    assert answer.status_code == 200, answer.text
    assert found == [402] * UNPAID_MAX


async def test_what_servers_elsewhere_were_paid_leaves_room_for_payments_here(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(payment_journal, "PAYMENTS_MAX", 8)
    monkeypatch.setattr(payment_journal, "ELSEWHERE_MAX", 2)
    elsewhere = replace(ROW, request=payment_journal.ELSEWHERE)
    async with open_memory_store(quota_bytes=1 << 30) as store:
        journal = PaymentJournal(store)
        for name in (b"1", b"2"):
            await journal.keep(replace(elsewhere, id=name), 0.0)
        with pytest.raises(Refused):
            await journal.keep(replace(elsewhere, id=b"3"), 0.0)
        await journal.keep(replace(ROW, id=b"4", request=b"own"), 0.0)
        # Those that nobody could use any more make room.
        await journal.keep(replace(elsewhere, id=b"3"), 10_000.0)


async def test_what_was_signed_is_forgotten_once_it_is_known_what_became_of_it() -> None:
    async with open_memory_store(quota_bytes=1 << 30) as store:
        wall = Paywall(
            means={"eip155": Made()},
            prices=None,  # type: ignore[arg-type]
            journal=PaymentJournal(store),
            purses=Purses(),
            wall_s=lambda: 0.0,
            note=lambda _: None,
        )
        taken = replace(ROW, state=PaymentState.TAKEN, document={"long": "x" * 20_000})
        await wall.journal.keep(taken, 0.0)
        row, _ = await wall.settle_payment(taken, 1)
        assert row.state is PaymentState.SETTLED
        assert wall.journal.rows[ROW.id].document == {}
