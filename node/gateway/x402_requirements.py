"""What a server elsewhere requires of a payment, held against what its client accepted.

The reasons are x402's words for such faults, with `baton` where those of other networks name
theirs.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from node.gateway.x402_documents import (
    ClientPayment,
    PaymentOffer,
    payment_in,
    read_amount,
    resource_url,
)
from wire.errors import Malformed
from wire.payment_claim import BATCH

VERSION, REQUIREMENTS, PAYLOAD = (
    "invalid_x402_version",
    "invalid_payment_requirements",
    "invalid_payload",
)
SCHEME, NETWORK, OTHER_NETWORK = "unsupported_scheme", "unsupported_network", "network_mismatch"
USED, TOO_LITTLE = "duplicate_settlement", "insufficient_funds"
TIMEOUT_S_MAX = 1 << 31


class PaymentFault(Malformed):
    """Why a payment is not taken, with x402's word for it."""

    def __init__(self, reason: str, words: str) -> None:
        super().__init__(words)
        self.reason = reason


def required(
    body: Mapping[str, Any], offers: Sequence[PaymentOffer]
) -> tuple[ClientPayment, PaymentOffer]:
    """The payment, and what it is to be for; PaymentFault unless it is in this network's credits.

    Of what a client accepted, vouchers are taken for as much or less, and a transfer for no other
    amount. The first version repeats nothing of an offer but its scheme and its network.
    """
    payload, wanted = body.get("paymentPayload"), body.get("paymentRequirements")
    if not isinstance(payload, dict) or not isinstance(wanted, dict):
        raise PaymentFault(REQUIREMENTS, "a payload and requirements are to be sent")
    version = payload.get("x402Version")
    if (
        type(version) is not int
        or version not in (1, 2)
        or body.get("x402Version", version) != version
    ):
        raise PaymentFault(VERSION, "the payment is of another version than it is sent as")
    try:
        payment = payment_in(payload, "the payload", version)
    except Malformed as error:
        raise PaymentFault(PAYLOAD, error.message) from error
    found = _offer_of(wanted, offers, version)
    if not found.is_for(payment):
        same = payment.network == wanted.get("network")
        raise PaymentFault(
            SCHEME if same else OTHER_NETWORK,
            f"{payment.scheme} on {payment.network} was accepted, and {found.scheme} is required",
        )
    offer = _demanded(wanted, found, version)
    if payment.accepted is not None:
        _check_accepted(payment.accepted, offer)
    _check_resource(payment, wanted)
    return payment, offer


def _offer_of(
    wanted: Mapping[str, Any], offers: Sequence[PaymentOffer], version: int
) -> PaymentOffer:
    network = offers[0].to_map(version)["network"]
    if wanted.get("network") != network:
        raise PaymentFault(NETWORK, f"only {network} is settled here")
    found = next((it for it in offers if it.scheme == wanted.get("scheme")), None)
    if found is None:
        there = ", ".join(it.scheme for it in offers)
        raise PaymentFault(SCHEME, f"only {there} on {network} is settled here")
    return found


def _demanded(wanted: Mapping[str, Any], found: PaymentOffer, version: int) -> PaymentOffer:
    """What is required, by an offer of this peer."""
    name = "amount" if version == 2 else "maxAmountRequired"
    amount, timeout_s = read_amount(wanted.get(name)), wanted.get("maxTimeoutSeconds")
    if amount is None:
        raise PaymentFault(REQUIREMENTS, f"{name} is no decimal string")
    if type(timeout_s) is not int or not 0 < timeout_s <= TIMEOUT_S_MAX:
        raise PaymentFault(REQUIREMENTS, "maxTimeoutSeconds is no number of seconds")
    if wanted.get("asset") != found.asset:
        raise PaymentFault(_word(found, "token_mismatch"), f"the asset here is {found.asset}")
    pay_to = wanted.get("payTo")
    if not isinstance(pay_to, str) or not pay_to:
        raise PaymentFault(REQUIREMENTS, "payTo names no account")
    if found.scheme == BATCH and pay_to != found.pay_to:
        raise PaymentFault(
            _word(found, "receiver_mismatch"),
            f"vouchers are taken to {found.pay_to} here, and no other account: have its own peer"
            " take them",
        )
    return replace(found, amount=amount, pay_to=pay_to, timeout_s=timeout_s)


def _check_accepted(accepted: Mapping[str, Any], offer: PaymentOffer) -> None:
    """PaymentFault if a client accepted something else than is required of it."""
    for name, word, due in (
        ("asset", "token_mismatch", offer.asset),
        ("payTo", "receiver_mismatch", offer.pay_to),
    ):
        if accepted.get(name) != due:
            raise PaymentFault(_word(offer, word), f"{name} is not the {due} that was accepted")
    agreed = read_amount(accepted.get("amount"))
    if agreed is None:
        raise PaymentFault(PAYLOAD, "the amount that was accepted is no decimal string")
    if offer.scheme == BATCH and offer.amount > agreed:
        raise PaymentFault(
            _word(offer, "settlement_exceeds_amount"),
            f"{offer.amount} is asked for, and {agreed} was accepted",
        )
    if offer.scheme != BATCH and offer.amount != agreed:
        raise PaymentFault(
            _word(offer, "authorization_value_mismatch"),
            f"{offer.amount} is asked for, and {agreed} was accepted",
        )


def _check_resource(payment: ClientPayment, wanted: Mapping[str, Any]) -> None:
    """PaymentFault if a client says to pay for another URL than is required: either may say none.

    The second version's servers name none in what they require.
    """
    try:
        due = resource_url(wanted)
    except Malformed as error:
        raise PaymentFault(REQUIREMENTS, error.message) from error
    try:
        accepted = resource_url(payment.accepted or {})
    except Malformed as error:
        raise PaymentFault(PAYLOAD, error.message) from error
    for agreed in (payment.resource, accepted):
        if due is not None and agreed is not None and agreed != due:
            raise PaymentFault(REQUIREMENTS, f"{agreed} was accepted, and {due} is to be paid for")


def _word(offer: PaymentOffer, fault: str) -> str:
    """As x402 names faults of one scheme."""
    if offer.scheme == BATCH:
        return f"invalid_batch_settlement_baton_{fault}"
    return f"invalid_{offer.scheme}_baton_payload_{fault}"
