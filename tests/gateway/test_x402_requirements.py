"""What a server elsewhere requires is held against what its client accepted, in both versions."""

from dataclasses import replace
from typing import Any

import pytest

from node.gateway.x402_documents import PaymentOffer
from node.gateway.x402_requirements import PaymentFault, required
from wire.payment_claim import BATCH, CREDITS, EXACT

NETWORK = "baton:" + "0" * 32
BATCH_FAULT, EXACT_FAULT = "invalid_batch_settlement_baton_", "invalid_exact_baton_payload_"


def offer(scheme: str) -> PaymentOffer:
    return PaymentOffer(
        scheme=scheme, network=NETWORK, asset=CREDITS, amount=1, pay_to="me", timeout_s=60
    )


def asked(version: int, scheme: str, amount: str = "500") -> dict[str, Any]:
    """What is right: of a version, a scheme, and what is required."""
    accepted = offer(scheme).to_map() | {"amount": "500"}
    name = "amount" if version == 2 else "maxAmountRequired"
    payment: dict[str, Any] = {"x402Version": version, "payload": {}}
    payment |= {"accepted": accepted} if version == 2 else {"scheme": scheme, "network": NETWORK}
    return {
        "x402Version": version,
        "paymentPayload": payment,
        "paymentRequirements": offer(scheme).to_map(version) | {name: amount},
    }


def reason(body: dict[str, Any]) -> str:
    with pytest.raises(PaymentFault) as fault:
        required(body, [offer(BATCH), offer(EXACT)])
    return fault.value.reason


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("scheme", [BATCH, EXACT])
def test_what_was_accepted_is_what_is_required(version: int, scheme: str) -> None:
    payment, found = required(asked(version, scheme), [offer(BATCH), offer(EXACT)])
    assert (payment.version, payment.scheme, found.scheme) == (version, scheme, scheme)
    assert (found.amount, found.pay_to) == (500, "me")


def test_no_more_is_taken_than_was_accepted() -> None:
    assert reason(asked(2, BATCH, "501")) == BATCH_FAULT + "settlement_exceeds_amount"
    _, found = required(asked(2, BATCH, "499"), [offer(BATCH), offer(EXACT)])
    assert found.amount == 499
    for amount in ("499", "501"):
        assert reason(asked(2, EXACT, amount)) == EXACT_FAULT + "authorization_value_mismatch"


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize(
    ("wrong", "word"),
    [
        ({"payTo": "another"}, BATCH_FAULT + "receiver_mismatch"),
        ({"payTo": ""}, "invalid_payment_requirements"),
        ({"asset": "0x00"}, BATCH_FAULT + "token_mismatch"),
        ({"network": "eip155:8453"}, "unsupported_network"),
        ({"scheme": "upto"}, "unsupported_scheme"),
        ({"scheme": EXACT}, "unsupported_scheme"),
        ({"maxTimeoutSeconds": 0}, "invalid_payment_requirements"),
        ({"maxTimeoutSeconds": "60"}, "invalid_payment_requirements"),
        ({"amount": 500, "maxAmountRequired": 500}, "invalid_payment_requirements"),
        ({"amount": "-1", "maxAmountRequired": "-1"}, "invalid_payment_requirements"),
    ],
)
def test_requirements_that_do_not_fit_have_x402s_word(
    version: int, wrong: dict[str, Any], word: str
) -> None:
    body = asked(version, BATCH)
    body["paymentRequirements"] |= wrong
    assert reason(body) == word


@pytest.mark.parametrize(
    ("wrong", "word"),
    [
        ({"payTo": "another"}, "receiver_mismatch"),
        ({"asset": "0x00"}, "token_mismatch"),
    ],
)
def test_what_was_accepted_of_another_offer_does_not_do(wrong: dict[str, Any], word: str) -> None:
    body = asked(2, EXACT)
    body["paymentPayload"]["accepted"] |= wrong
    assert reason(body) == EXACT_FAULT + word


@pytest.mark.parametrize(("version", "sent_as"), [(1, 2), (2, 1), (3, 3), (True, True), ("2", 2)])
def test_a_payment_of_another_version_is_told_so(version: Any, sent_as: Any) -> None:
    body = asked(2, BATCH)
    body["x402Version"], body["paymentPayload"]["x402Version"] = sent_as, version
    assert reason(body) == "invalid_x402_version"


@pytest.mark.parametrize("body", [{}, {"paymentPayload": {}}, {"paymentRequirements": {}}])
def test_half_a_body_is_told_so(body: dict[str, Any]) -> None:
    assert reason(body) == "invalid_payment_requirements"


def test_a_payment_that_names_another_network_is_told_so() -> None:
    for version in (1, 2):
        body = asked(version, BATCH)
        payment = body["paymentPayload"]
        (payment if version == 1 else payment["accepted"])["network"] = "eip155:8453"
        assert reason(body) == "network_mismatch"


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("shape", [str, lambda url: {"url": url, "mimeType": "text/plain"}])
def test_what_was_accepted_for_one_url_pays_for_no_other(version: int, shape: Any) -> None:
    body = asked(version, EXACT)
    wanted, payment = body["paymentRequirements"], body["paymentPayload"]
    wanted["resource"] = shape("https://shop.example/a?b=1")
    # Who says nothing of it has accepted what the server says.
    required(body, [offer(BATCH), offer(EXACT)])
    payment["resource"] = shape("")
    required(body, [offer(BATCH), offer(EXACT)])
    payment["resource"] = shape("https://shop.example/a?b=1")
    required(body, [offer(BATCH), offer(EXACT)])
    for other in ("https://shop.example/a", "https://other.example/a?b=1"):
        payment["resource"] = shape(other)
        assert reason(body) == "invalid_payment_requirements"
    del payment["resource"]
    if version == 2:
        payment["accepted"]["resource"] = shape("https://shop.example/b")
        assert reason(body) == "invalid_payment_requirements"
        payment["accepted"]["resource"] = 1
        assert reason(body) == "invalid_payload"
        del payment["accepted"]["resource"]
    payment["resource"] = shape("x" * 10_000)
    assert reason(body) == "invalid_payload"
    del payment["resource"]
    wanted["resource"] = [1]
    assert reason(body) == "invalid_payment_requirements"


def test_an_address_within_a_question_is_part_of_what_is_paid_for() -> None:
    payment, _ = required(asked(2, EXACT), [offer(EXACT)])
    url = "https://shop.example/a?of=https://{}/b"
    named = replace(payment, resource=url.format("one.example"))
    assert named.is_for_url(url.format("one.example").replace("shop", "front"))
    assert not named.is_for_url(url.format("two.example"))
