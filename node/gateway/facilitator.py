"""The server that checks and settles payments in tokens for this gateway.

What it says is bounded and read strictly, no redirect is followed, and it is reached at the place
that the owner named and nowhere else. A settlement whose outcome was not heard is unknown: it is
never taken for one that failed.
"""

import json
import ssl
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpcore
import trio

from node.gateway.x402_documents import read_object
from node.ingest.guard import Guard, Network
from node.ingest.location import HostRules, Location, address_of, read_url
from p2p.timeouts import stretched
from wire.errors import BatonError, InputError, Malformed, Oversize, TooSlow, Unreachable

ASK_S, SETTLE_S = 10.0, 30.0
BODY_BYTES_MAX = 64 << 10
KINDS_MAX = 256
WORDS_MAX = 200
# What is supported is asked for again after so long, and after a failure.
SUPPORTED_S, AGAIN_S = 600.0, 5.0
# What a facilitator says of a payment that is on its way, or was made before.
PENDING = frozenset({"settlement_pending", "pending", "transaction_timed_out", "timeout"})
USED = frozenset({"invalid_exact_evm_nonce_already_used", "nonce_already_used", "nonce_used"})


@dataclass(frozen=True, slots=True)
class PaymentMade:
    """It was paid, by this transaction."""

    transaction: str


@dataclass(frozen=True, slots=True)
class PaymentFailed:
    """It was not paid, for this reason."""

    reason: str


@dataclass(frozen=True, slots=True)
class PaymentUnknown:
    """Whether it was paid is not known."""

    why: str


SettlementOutcome = PaymentMade | PaymentFailed | PaymentUnknown


@dataclass(slots=True)
class Facilitator:
    """Speaks to one facilitator."""

    location: Location
    network: Network
    tls: ssl.SSLContext
    problem: str = ""
    _supported: Sequence[Mapping[str, Any]] = ()
    _look_at_s: float = -1.0
    _looking: trio.Lock = field(default_factory=trio.Lock)

    async def supported(self) -> Sequence[Mapping[str, Any]]:
        """The schemes and networks it knows, each with what clients are to be told of it."""
        async with self._looking:
            if trio.current_time() >= self._look_at_s:
                try:
                    _, body = await self._ask("GET", "supported", None, ASK_S)
                    self._supported = _kinds(body)
                    self.problem, wait_s = "", SUPPORTED_S
                except BatonError as error:
                    self.problem, wait_s = error.message, AGAIN_S
                self._look_at_s = trio.current_time() + wait_s
        return self._supported

    async def verify(self, request: Mapping[str, Any], payer: str) -> str:
        """Why a payment is not valid; empty if it is. Unreachable if nobody can say."""
        try:
            status, body = await self._ask("POST", "verify", request, ASK_S)
        except BatonError as error:
            self.problem = error.message
            raise Unreachable(f"the facilitator does not say whether it is: {error}") from error
        if body.get("isValid") is True and status == 200:
            said = str(body.get("payer") or payer).lower()
            return "" if said == payer else "the payment is of another payer"
        return _words(body.get("invalidReason") or f"the facilitator answered {status}")

    async def settle_payment(
        self, request: Mapping[str, Any], payer: str, *, again: bool
    ) -> SettlementOutcome:
        """Have a payment made. `again`: it was asked for before, with an outcome unknown."""
        try:
            status, body = await self._ask("POST", "settle", request, SETTLE_S)
        except BatonError as error:
            self.problem = error.message
            return PaymentUnknown(error.message)
        success, reason = body.get("success"), _words(body.get("errorReason") or "")
        if status >= 500 or not isinstance(success, bool) or reason in PENDING:
            return PaymentUnknown(reason or f"the facilitator answered {status}")
        if success:
            said = str(body.get("payer") or payer).lower()
            if said != payer:
                return PaymentUnknown("the facilitator names another payer")
            return PaymentMade(_words(body.get("transaction") or ""))
        if again and reason in USED:
            # Its nonce is good for one transfer, to us: this is what the first try did.
            return PaymentMade("")
        return PaymentFailed(reason or "settlement failed")

    async def _ask(
        self, method: str, path: str, request: Mapping[str, Any] | None, limit_s: float
    ) -> tuple[int, dict[str, Any]]:
        """The status and the object of one answer: Unreachable, TooSlow, Oversize, Malformed."""
        where = Location(
            f"{self.location.url.rstrip('/')}/{path}",
            self.location.scheme,
            self.location.host,
            self.location.port,
        )
        content = b"" if request is None else json.dumps(request).encode()
        try:
            with trio.fail_after(stretched(limit_s)):
                return await self._exchanged(method, where, content, limit_s)
        except trio.TooSlowError as error:
            raise TooSlow(f"{where.place} does not answer") from error
        except httpcore.TimeoutException as error:
            raise TooSlow(f"{where.place} does not answer") from error
        except (httpcore.NetworkError, httpcore.UnsupportedProtocol) as error:
            raise Unreachable(f"{where.place} cannot be reached: {error}") from error
        except httpcore.ProtocolError as error:
            raise Malformed(f"{where.place} sends no sound HTTP: {error}") from error

    async def _exchanged(
        self, method: str, where: Location, content: bytes, limit_s: float
    ) -> tuple[int, dict[str, Any]]:
        guard = Guard(where, rules_of(where), self.network)
        timeout = {"connect": ASK_S, "read": limit_s, "write": ASK_S}
        headers = [
            (b"accept", b"application/json"),
            (b"content-type", b"application/json"),
        ]
        if content:
            headers.append((b"content-length", b"%d" % len(content)))
        async with (
            httpcore.AsyncConnectionPool(
                ssl_context=self.tls, max_connections=1, network_backend=guard
            ) as pool,
            pool.stream(
                method,
                where.url,
                headers=headers,
                content=_Content(content) if content else None,
                extensions={"timeout": timeout},
            ) as response,
        ):
            if 300 <= response.status < 400:
                raise Malformed(f"{where.place} redirects, and is not followed")
            body = await _bounded(response)
        if body is None:
            raise Oversize(f"{where.place} sends more than {BODY_BYTES_MAX} bytes")
        return response.status, read_object(body, f"the answer of {where.place}")


class _Content:
    """A body that is sent. The library's own would be left unfinished where it is cut short."""

    def __init__(self, content: bytes) -> None:
        self._parts = iter((content,))

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        part = next(self._parts, None)
        if part is None:
            raise StopAsyncIteration
        return part


def facilitator_at(text: str) -> Location:
    """Where a facilitator is; InputError for a place that payments are not sent to.

    One on this machine is named by its address, or as localhost; every other is spoken to with TLS.
    """
    location = read_url(text.rstrip("/"))
    if not _is_of_this_machine(location) and location.scheme != "https":
        raise InputError(f"{location.place} is spoken to without TLS", todo="give it as https://…")
    if "?" in location.url or "#" in location.url:
        raise InputError("a facilitator's URL ends with its path", todo="leave out ? and #")
    rules_of(location).check(location, strange=False)
    return location


def rules_of(location: Location) -> HostRules:
    """Which addresses it may have: public ones, unless the owner named an address."""
    is_named = address_of(location.host) is not None or _is_of_this_machine(location)
    usual = {"http": 80, "https": 443}[location.scheme] == location.port
    return HostRules(allow=(location.place,)) if is_named or not usual else HostRules()


def _is_of_this_machine(location: Location) -> bool:
    address = address_of(location.host)
    return location.host == "localhost" or (address is not None and address.is_loopback)


async def _bounded(response: httpcore.Response) -> bytes | None:
    """The body; None if it is too large."""
    body = bytearray()
    # The library's generators end together only where they are cancelled from inside.
    with trio.CancelScope() as scope:
        async for part in response.aiter_stream():
            body += part
            if len(body) > BODY_BYTES_MAX:
                scope.cancel()
    return None if len(body) > BODY_BYTES_MAX else bytes(body)


def _kinds(body: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    kinds = body.get("kinds")
    if not isinstance(kinds, list):
        raise Malformed("the facilitator does not say what it supports")
    return [it for it in kinds[:KINDS_MAX] if isinstance(it, dict)]


def _words(value: object) -> str:
    return "".join(it for it in str(value)[:WORDS_MAX] if it.isprintable())
