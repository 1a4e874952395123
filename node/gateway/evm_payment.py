"""Payments in tokens of Ethereum's kind, as x402 clients sign them: what they say.

The facilitator checks signatures and balances. What is checked here is that the signature, if it is
one, is over what was offered: to us, so much, for long enough, and once.
"""

import hashlib
import re
from collections.abc import Mapping
from typing import Any

from node.gateway.x402_documents import ClientPayment, PaymentOffer, PaymentProof, read_amount
from wire.errors import Malformed

EXACT, UPTO = "exact", "upto"
# The contracts that clients let take the token.
UPTO_SPENDER = "0x4020a4f3b7b90cca423b9fabcc0ce57c6c240002"
# So long it has to hold at least, for the answer and its settlement.
HOLDS_S_MIN = 30
# Of a number of 256 bits.
NONCE_DIGITS = 78
_ADDRESS = re.compile(r"0x[0-9a-f]{40}")
_NONCE = re.compile(r"0x[0-9a-f]{64}")
_SIGNATURE = re.compile(r"0x(?:[0-9a-f]{2}){64,4096}")


def read_evm(
    payment: ClientPayment, offer: PaymentOffer, wall_s: float, needs_s: int
) -> PaymentProof:
    """What a payment authorises; Malformed unless it is for us, for `needs_s` more, and whole."""
    signature = payment.payload.get("signature")
    if not isinstance(signature, str) or _SIGNATURE.fullmatch(signature.lower()) is None:
        raise Malformed("the payload has no signature")
    reading = _read_exact if offer.scheme == EXACT else _read_upto
    proof, since_wall_s = reading(payment.payload, offer)
    if payment.accepted is not None and str(proof.amount) != payment.accepted.get("amount"):
        raise Malformed("another amount was signed than was accepted")
    if since_wall_s > wall_s:
        raise Malformed("the payment does not hold yet")
    if proof.until_wall_s < wall_s + max(needs_s, HOLDS_S_MIN):
        raise Malformed(f"the payment has to hold for {max(needs_s, HOLDS_S_MIN)} s more")
    return proof


def is_address(text: str) -> bool:
    """Whether a text is an account's address."""
    return _ADDRESS.fullmatch(text.lower()) is not None


def _read_exact(payload: Mapping[str, Any], offer: PaymentOffer) -> tuple[PaymentProof, int]:
    said = _object(payload, "authorization")
    _check_address(said, "to", offer.pay_to)
    nonce = str(said.get("nonce")).lower()
    if _NONCE.fullmatch(nonce) is None:
        raise Malformed("nonce is not 32 bytes in hexadecimal")
    payer = _address(said, "from")
    proof = PaymentProof(
        id=_identity(offer, payer, nonce),
        payer=payer,
        amount=_amount(said, "value"),
        until_wall_s=_amount(said, "validBefore"),
    )
    return proof, _amount(said, "validAfter")


def _read_upto(payload: Mapping[str, Any], offer: PaymentOffer) -> tuple[PaymentProof, int]:
    said = _object(payload, "permit2Authorization")
    permitted, witness = _object(said, "permitted"), _object(said, "witness")
    _check_address(permitted, "token", offer.asset)
    _check_address(said, "spender", UPTO_SPENDER)
    _check_address(witness, "to", offer.pay_to)
    _check_address(witness, "facilitator", offer.extra["facilitatorAddress"])
    payer = _address(said, "from")
    proof = PaymentProof(
        id=_identity(offer, payer, str(_amount(said, "nonce", NONCE_DIGITS))),
        payer=payer,
        amount=_amount(permitted, "amount"),
        until_wall_s=_amount(said, "deadline"),
    )
    return proof, _amount(witness, "validAfter")


def _identity(offer: PaymentOffer, payer: str, nonce: str) -> bytes:
    said = f"{offer.network}\n{offer.scheme}\n{offer.asset.lower()}\n{payer}\n{nonce}"
    return hashlib.sha256(b"baton/1/x402\0" + said.encode()).digest()


def _object(said: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = said.get(name)
    if not isinstance(found, dict):
        raise Malformed(f"the payload has no {name}")
    return found


def _address(said: Mapping[str, Any], name: str) -> str:
    found = str(said.get(name)).lower()
    if _ADDRESS.fullmatch(found) is None:
        raise Malformed(f"{name} is no address")
    return found


def _check_address(said: Mapping[str, Any], name: str, wanted: str) -> None:
    if _address(said, name) != wanted.lower():
        raise Malformed(f"{name} is not {wanted}")


def _amount(said: Mapping[str, Any], name: str, digits: int = 39) -> int:
    found = read_amount(said.get(name), digits)
    if found is None:
        raise Malformed(f"{name} is no decimal string")
    return found
