"""What clients are told of payments that do not do."""

import json

from node.gateway.errors import ErrorDetail
from node.gateway.http_exchange import Headers
from wire.errors import BatonError

# Whoever waits for what is not known yet asks again after so long.
UNKNOWN_AGAIN_S = 5.0


def fault(status: int, message: str, code: str, wait_s: float | None = None) -> ErrorDetail:
    """What is told of a payment that does not do."""
    return ErrorDetail(status=status, message=message, code=code, retry_after_s=wait_s)


def unchecked(error: BatonError) -> ErrorDetail:
    """Whether the payment is good cannot be said now."""
    words = f"the payment cannot be checked now: {error.message}"
    return fault(503, words, "payment_unchecked", UNKNOWN_AGAIN_S)


def worded(found: ErrorDetail) -> tuple[int, Headers, bytes, bool]:
    """A fault as what is sent: status, headers, body, and that nothing follows."""
    headers = {"content-type": "application/json", **found.all_headers}
    raw = [(name.encode(), value.encode()) for name, value in headers.items()]
    return found.status, raw, json.dumps(found.body).encode(), False
