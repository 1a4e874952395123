"""x402 on the wire: what may be paid and how, and what a client sends as its payment.

Amounts are decimal strings there, in millionths of a credit or of a token.
"""

import base64
import binascii
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from node.gateway.json_body import is_too_deep
from wire.errors import Malformed

SIGNATURE, SIGNATURE_V1 = "payment-signature", "x-payment"
REQUIRED = "payment-required"
RESPONSE, RESPONSE_V1 = "payment-response", "x-payment-response"
HEADER_CHARACTERS_MAX = 24 << 10
# The first version of x402 has names for networks instead of numbers.
NAMES_V1 = {"eip155:8453": "base", "eip155:84532": "base-sepolia"}
# Networks of our own kind have no other name there.
OWN_NETWORKS = "baton:"
_DECIMAL = re.compile(r"0|[1-9][0-9]*")
_TEXT_MAX = 256
_URL_MAX = 4096
_BEFORE_TARGET = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^/?#]*")


@dataclass(frozen=True, slots=True, kw_only=True)
class PaymentOffer:
    """One way to pay for a request; `amount` is all of it, or the most of it (`upto`)."""

    scheme: str
    network: str
    asset: str
    amount: int
    pay_to: str
    timeout_s: int
    extra: Mapping[str, str] = field(default_factory=dict)

    def to_map(self, version: int = 2) -> dict[str, Any]:
        """As facilitators want it: as it stands in `accepts`, but for what the first adds."""
        told: dict[str, Any] = {
            "scheme": self.scheme,
            "network": self.network if version == 2 else name_v1(self.network),
            "amount" if version == 2 else "maxAmountRequired": str(self.amount),
            "asset": self.asset,
            "payTo": self.pay_to,
            "maxTimeoutSeconds": self.timeout_s,
            "extra": dict(self.extra),
        }
        return told

    def is_for(self, payment: "ClientPayment") -> bool:
        """Whether a client chose this one, whatever else it says of it."""
        network = self.network if payment.version == 2 else name_v1(self.network)
        return (self.scheme, network) == (payment.scheme, payment.network)

    def difference(self, payment: "ClientPayment") -> str:
        """What a client says of this offer that is not so; empty if it says nothing false."""
        accepted = payment.accepted
        if accepted is None:
            return ""
        own = self.to_map()
        for name in ("asset", "payTo"):
            if str(accepted.get(name)).lower() != own[name].lower():
                return f"{name} is not {own[name]}"
        extra = accepted.get("extra")
        if not isinstance(extra, Mapping) or dict(extra) != own["extra"]:
            return "extra is not as it was offered"
        amount = read_amount(accepted.get("amount"))
        if amount is None:
            return "amount is no decimal string"
        if amount < self.amount:
            return f"amount is {amount}, and {self.amount} is asked for"
        return ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientPayment:
    """What a client sent as its payment. `whole` is all of it, as a facilitator wants it.

    `accepted` is the offer as the client repeats it; None in the first version. `resource` is the
    URL that it says to pay for, if it says one.
    """

    version: int
    scheme: str
    network: str
    payload: Mapping[str, Any]
    accepted: Mapping[str, Any] | None
    whole: Mapping[str, Any]
    resource: str | None = None

    def is_for_url(self, url: str) -> bool:
        """Whether it says to pay for this, or nothing of it.

        By what follows the host: others may stand before a server, under names that it never hears.
        """
        return self.resource is None or _target(self.resource) == _target(url)


@dataclass(frozen=True, slots=True, kw_only=True)
class PaymentProof:
    """What a payment authorises. `id` is one for each authorisation, whoever sends it, and how."""

    id: bytes
    payer: str
    amount: int
    until_wall_s: int


def name_v1(network: str) -> str:
    """What the first version calls a network."""
    return NAMES_V1.get(network, network)


def read_amount(value: object, digits: int = 39) -> int | None:
    """The amount that a decimal string is; None for anything else."""
    if not isinstance(value, str) or len(value) > digits or _DECIMAL.fullmatch(value) is None:
        return None
    return int(value)


def read_payment(headers: Mapping[str, str]) -> ClientPayment | None:
    """The payment in a request's headers, by their names in lower case; None if there is none.

    Malformed if it cannot be read. Of a header that came twice, the value is empty.
    """
    second, first = headers.get(SIGNATURE), headers.get(SIGNATURE_V1)
    if second is None and first is None:
        return None
    if second is not None and first is not None:
        raise Malformed("two payments in one request: send payment-signature, or x-payment")
    name = SIGNATURE if first is None else SIGNATURE_V1
    found = _decoded(name, second if first is None else first)
    return payment_in(found, name, 2 if name == SIGNATURE else 1)


def payment_in(found: Mapping[str, Any], name: str, version: int) -> ClientPayment:
    """The payment that an object of this version of x402 says; Malformed."""
    if found.get("x402Version") != version or isinstance(found["x402Version"], bool):
        raise Malformed(f"{name} has another x402Version than it has to have")
    accepted = found.get("accepted") if version == 2 else None
    if version == 2 and not isinstance(accepted, dict):
        raise Malformed(f"{name} does not say which of the offers was accepted")
    chosen, payload = found if accepted is None else accepted, found.get("payload")
    scheme, network = chosen.get("scheme"), chosen.get("network")
    if not isinstance(payload, dict) or not _is_text(scheme) or not _is_text(network):
        raise Malformed(f"{name} lacks a payload, a scheme or a network")
    return ClientPayment(
        version=version,
        scheme=str(scheme),
        network=str(network),
        payload=payload,
        accepted=accepted,
        whole=found,
        resource=resource_url(found),
    )


def resource_url(found: Mapping[str, Any]) -> str | None:
    """The URL that a document of either version says to be paid for; Malformed if it is none.

    Servers that have no URL to name leave it out, or empty.
    """
    resource = found.get("resource")
    url = resource.get("url") if isinstance(resource, dict) else resource
    if url is None or url == "":
        return None
    if not isinstance(url, str) or len(url) > _URL_MAX:
        raise Malformed("resource is no URL")
    return url


def _target(url: str) -> str:
    before = _BEFORE_TARGET.match(url)
    return url[before.end() if before else 0 :].partition("#")[0] or "/"


def required_header(
    error: str,
    url: str,
    offers: Sequence[PaymentOffer],
    extensions: Mapping[str, Any] | None = None,
) -> str:
    """The header of a 402 that says how to pay."""
    told: dict[str, Any] = {
        "x402Version": 2,
        "error": error,
        "resource": {"url": url, "description": "an answer", "mimeType": "application/json"},
        "accepts": [it.to_map() for it in offers],
    }
    if extensions is not None:
        told["extensions"] = dict(extensions)
    return encoded(told)


def required_body(error: str, url: str, offers: Sequence[PaymentOffer]) -> dict[str, Any]:
    """The body of a 402, as the first version of x402 has it."""
    more = {"resource": url, "description": "an answer", "mimeType": "application/json"}
    # The second version's ways to pay for a part are not known to the first.
    shown = [it for it in offers if it.network in NAMES_V1 and it.scheme == "exact"]
    # Clients of tokens read nothing of an offer that they do not know, and then none at all.
    shown = shown or [it for it in offers if it.network.startswith(OWN_NETWORKS)]
    accepts = [it.to_map(1) | more for it in shown]
    return {"x402Version": 1, "error": error, "accepts": accepts}


def encoded(told: Mapping[str, Any]) -> str:
    """A document as a header's value."""
    return base64.b64encode(json.dumps(told).encode()).decode()


def read_object(data: bytes, what: str) -> dict[str, Any]:
    """A JSON object that can be read in one way only; Malformed for anything else."""
    if is_too_deep(data):
        raise Malformed(f"{what} is nested too deeply")
    try:
        found = json.loads(data, object_pairs_hook=_once, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise Malformed(f"{what} is no JSON: {str(error)[:80]}") from error
    if not isinstance(found, dict):
        raise Malformed(f"{what} is not a JSON object")
    return found


def _decoded(name: str, value: str | None) -> dict[str, Any]:
    if not value:
        raise Malformed(f"{name} is empty, or there twice")
    if len(value) > HEADER_CHARACTERS_MAX:
        raise Malformed(f"{name} has {len(value)} characters, at most {HEADER_CHARACTERS_MAX}")
    try:
        data = base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError) as error:
        raise Malformed(f"{name} is not base64") from error
    return read_object(data, name)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name stands there twice")
    return found


def _no_number(text: str) -> float:
    raise ValueError(f"{text} is no number")


def _is_text(value: object) -> bool:
    return isinstance(value, str) and 0 < len(value) <= _TEXT_MAX
