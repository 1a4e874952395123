"""Who may come in: what is checked of every request before any endpoint sees it.

A request goes further only with a Host header that names this gateway (a page of some site must not
reach it through a name that it made point here), from no page of a site that was not allowed, with
an API key where keys are needed, with a whole body within bounds, and with a place among the
requests at work. It takes its place last: who is slow to send a body holds none. Health checks need
no key and no place.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial

import trio
from starlette.types import ASGIApp

from node.apps.app_keys import is_app_key
from node.gateway.app_door import AppDoor, AppPurse
from node.gateway.asgi import run_asgi
from node.gateway.availability import Availability, refuse
from node.gateway.browser_policy import ALWAYS, is_host, page_access
from node.gateway.counted_purse import CountedPurse
from node.gateway.errors import ErrorDetail, HttpError, fault_of
from node.gateway.front import LENIENT
from node.gateway.hot_posts import HotPosts
from node.gateway.http_exchange import Exchange, RequestRefused
from node.gateway.json_body import is_too_deep
from node.gateway.keys import Keyring
from node.gateway.paid_request import PaidRequest
from node.gateway.paywall import (
    PAID_PATHS,
    SHOWN,
    UNKNOWN_PER_MINUTE,
    UNPAID,
    Paywall,
    request_hash,
)
from node.gateway.rate_limit import Allowance
from node.gateway.request_parser import RequestHead
from node.gateway.shares import Shares
from node.gateway.tensors import HEAD_BYTES_MAX, NPY_TYPE, SAFETENSORS_TYPE
from node.gateway.x402_documents import read_payment
from node.gateway_config import GatewayConfig
from p2p import timeouts
from p2p.adverts import Environment
from wire import limits
from wire.errors import BatonError, Malformed
from wire.latest import Latest

JSON_BYTES_MAX = 1 << 20
# A file of requests, with what a form has around it.
FILE_BYTES_MAX = 32 << 20
FORM_TYPE, FORM_PATH = "multipart/form-data", b"/v1/files"
# What is asked for without a body.
CANCEL = b"/cancel"
TENSOR_BYTES_MAX = limits.TENSORS_BYTES_MAX + HEAD_BYTES_MAX + 8
# Bodies that are in memory, of all requests together.
BODIES_BYTES_MAX = 256 << 20
HOSTS_KEPT = 64
OPEN_PATHS = frozenset({b"/healthz", b"/health", b"/livez", b"/ready", b"/readyz", b"/version"})
# Whose tasks those are that came without a key: they belong to the owner of this peer.
NOBODY = b""
REQUEST_ID = re.compile(rb"[\x21-\x7e]{1,128}")
# What a page may send without asking first is none of these.
_JSON_TYPE = re.compile(r"application/(?:[^\s/;+]+\+)?json")


class _Turned(Exception):
    """A request that goes no further."""

    def __init__(self, fault: ErrorDetail) -> None:
        super().__init__(fault.message)
        self.fault = fault


def _turned(status: int, message: str, code: str, wait_s: float | None = None) -> _Turned:
    return _Turned(ErrorDetail(status=status, message=message, code=code, retry_after_s=wait_s))


@dataclass(slots=True)
class AccessMiddleware:
    """What the server gives each request to.

    `hot` answers some requests; for all others `inner` are the endpoints.
    """

    hot: HotPosts
    inner: ASGIApp
    environment: Environment
    config: GatewayConfig
    keyring: Keyring
    # Where requests without a key may be paid for; None where they may not.
    paywall: Paywall | None = None
    # Lets keys of apps in; None where none are taken.
    apps: AppDoor | None = None
    # Holds requests of the first moments; None where it is known that there is nothing to wait for.
    availability: Availability | None = None
    allowance: Allowance = field(default_factory=Allowance)
    # Of the requests at work, and of the memory for bodies.
    places: Shares = field(init=False)
    bodies: Shares = field(init=False)
    # Whether only this machine's own programs can come in.
    _loopback: bool = field(init=False)
    # The Host headers that were seen last, and whether they name this gateway.
    _hosts: Latest[str, bool] = field(default_factory=lambda: Latest(HOSTS_KEPT))

    def __post_init__(self) -> None:
        self.places = Shares(self.config.requests_max, self.is_for_one)
        self.bodies = Shares(BODIES_BYTES_MAX, self.is_for_one)
        self._loopback = self.config.loopback

    def is_for_one(self) -> bool:
        """Whether all who may come in are one caller."""
        others = self.paywall is not None or (self.apps is not None and self.apps.used)
        return not others and self.keyring.is_for_one()

    async def handle(self, exchange: Exchange) -> None:
        """Answer one request, by an endpoint or by saying why not."""
        try:
            await self._handle(exchange)
        except _Turned as turned:
            await refuse(exchange, turned.fault)
        except RequestRefused as error:
            refusal = error.refusal
            fault = ErrorDetail(status=refusal.status, message=refusal.message, code=refusal.code)
            await refuse(exchange, fault)
        except HttpError as error:
            await refuse(exchange, error.fault)
        except BatonError as error:
            # The keys cannot be read: then nobody comes in.
            await refuse(exchange, fault_of(error))

    async def _handle(self, exchange: Exchange) -> None:
        head = exchange.request.head
        exchange.extra_headers = ALWAYS
        headers = _headers_of(head)
        if not self._is_host(headers.get("host", "")):
            raise _turned(
                403,
                "the Host header is not a name of this gateway: --http-name NAME adds one",
                "host_not_allowed",
            )
        page = page_access(head.method, headers, self.config.origins)
        if not page.allowed:
            raise _turned(
                403,
                "pages of other sites may not use this gateway: --http-origin ORIGIN allows one",
                "origin_not_allowed",
            )
        exchange.extra_headers = page.headers
        if page.is_preflight:
            await exchange.respond(204, [])
        elif head.target.partition(b"?")[0] in OPEN_PATHS:
            await self._run(exchange, NOBODY, b"")
        elif self.apps is not None and is_app_key(secret := _secret_of(headers)):
            is_open = self._loopback and not self.keyring.keys(trio.current_time())
            door = self.apps.admit(secret, exchange, self.allowance, is_open=is_open)
            owner = await door
            purse = self.apps.paid_by_user(owner) if _is_payable(head) else None
            wall = None if purse is None else self.paywall
            await self._with_place(exchange, headers, owner, wall, purse)
        elif self.paywall is not None and not self._has_key(headers):
            await self._without_key(exchange, headers, self.paywall)
        else:
            await self._with_place(exchange, headers, self._owner(headers))

    def _has_key(self, headers: Mapping[str, str]) -> bool:
        secret = _secret_of(headers)
        return bool(secret) and self.keyring.holder(secret, trio.current_time()) is not None

    async def _without_key(
        self, exchange: Exchange, headers: Mapping[str, str], paywall: Paywall
    ) -> None:
        """Answer what may be asked without a key where requests can be paid for."""
        head, address = exchange.request.head, exchange.channel.address[0]
        wait_s = self.allowance.take(f"at {address}", UNKNOWN_PER_MINUTE, trio.current_time())
        if wait_s:
            words = f"without a key {UNKNOWN_PER_MINUTE} requests a minute are taken"
            raise _turned(429, words, "rate_limit_exceeded", wait_s)
        path = head.target.partition(b"?")[0]
        if (head.method, path) in SHOWN:
            await self._with_place(exchange, headers, UNPAID)
        elif not _is_payable(head):
            raise _turned(
                401, "an API key is needed here: requests that are paid for are others", "no_key"
            )
        else:
            await self._with_place(exchange, headers, UNPAID, paywall)

    def _is_host(self, text: str) -> bool:
        known = self._hosts.get(text)
        if known is None:
            known = self._hosts[text] = is_host(text, self.config.names)
        return known

    def _owner(self, headers: Mapping[str, str]) -> bytes:
        """Whose request this is, by its key where keys are needed; it counts against its rate."""
        now_at_s = trio.current_time()
        keys = self.keyring.keys(now_at_s)
        if not keys and self._loopback:
            return NOBODY
        secret = _secret_of(headers)
        key = self.keyring.holder(secret, now_at_s) if secret else None
        if key is None:
            raise _turned(
                401,
                "an API key is needed: Authorization: Bearer KEY"
                " (python -m node keys add NAME makes one)",
                "invalid_api_key",
            )
        wait_s = self.allowance.take(key.sha256, key.per_minute, now_at_s)
        if wait_s:
            raise _turned(
                429,
                f"this key may ask {key.per_minute} times a minute",
                "rate_limit_exceeded",
                wait_s,
            )
        return key.owner

    async def _with_place(
        self,
        exchange: Exchange,
        headers: Mapping[str, str],
        owner: bytes,
        paywall: Paywall | None = None,
        purse: AppPurse | None = None,
    ) -> None:
        reading = _Reading(self, exchange, headers, owner)
        try:
            body = await reading.body()
            if not self.places.take(owner):
                held = self.places.held_by(owner)
                words = f"no place is free for another request; {held} of yours are worked on"
                raise _turned(503, words, "busy", 1.0)
            exchange.hold_connection()
            try:
                if self.availability is not None:
                    await self.availability.until_begun(exchange.request.head)
                if paywall is None:
                    await self._run(exchange, owner, body)
                else:
                    await self._run_paid(exchange, headers, body, paywall, purse)
            finally:
                self.places.give_back(owner)
        finally:
            reading.forget()

    async def _run(self, exchange: Exchange, owner: bytes, body: bytes) -> None:
        request_id = self._request_id(exchange.request.head)
        exchange.extra_headers = [(b"x-request-id", request_id), *exchange.extra_headers]
        if not await self.hot.answer(exchange, owner, body):
            await run_asgi(self.inner, exchange, body, {"owner": owner})

    async def _run_paid(
        self,
        exchange: Exchange,
        headers: Mapping[str, str],
        body: bytes,
        paywall: Paywall,
        purse: AppPurse | None,
    ) -> None:
        head = exchange.request.head
        try:
            payment = read_payment(headers)
        except Malformed as error:
            raise _turned(400, error.message, "invalid_payment") from error
        paid = PaidRequest(
            paywall,
            payment,
            f"http://{headers.get('host', '')}{head.target.decode('latin-1')}",
            request_hash(head.target, body),
            # Each is an owner of its own: nobody else asks for what it had done.
            b"paid" + self.environment.entropy(28),
        )
        answer = partial(self._run, exchange, paid.owner, body)
        await paid.run(exchange, answer, purse and CountedPurse(paid, purse))

    def _request_id(self, head: RequestHead) -> bytes:
        """The id that the client gave a request, if it can be said again; else one made here."""
        given = next((value for name, value in head.headers if name == b"x-request-id"), b"")
        if given and REQUEST_ID.fullmatch(given):
            return given
        return b"req_" + self.environment.entropy(12).hex().encode()


@dataclass(slots=True)
class _Reading:
    """One request's body on its way in: within its bounds of type, size, time and depth."""

    access: AccessMiddleware
    exchange: Exchange
    headers: Mapping[str, str]
    owner: bytes
    size_bytes: int = 0
    _parts: list[bytes] = field(default_factory=list)

    async def body(self) -> bytes:
        head = self.exchange.request.head
        sent = self.headers.get("content-type", "").partition(";")[0].strip().lower()
        is_json = _JSON_TYPE.fullmatch(sent) is not None or self._is_lenient()
        is_tensors = sent in (NPY_TYPE, SAFETENSORS_TYPE)
        is_file = sent == FORM_TYPE and head.target == FORM_PATH and not self._is_of_page()
        most = TENSOR_BYTES_MAX if is_tensors else FILE_BYTES_MAX if is_file else JSON_BYTES_MAX
        if head.length_bytes is not None and head.length_bytes > most:
            raise _too_large(most)
        coding = self.headers.get("content-encoding", "identity").strip().lower()
        if coding != "identity":
            # A small body that unpacks to a huge one would cost us what it did not cost its sender.
            message = f"a compressed body ({coding[:60]!r}) is not read here: send it as it is"
            raise _Turned(
                ErrorDetail(
                    status=400, message=message, code="invalid_value", param="content-encoding"
                )
            )
        is_bare = head.target.endswith(CANCEL) and not sent and not self._is_of_page()
        if head.method == "POST" and not (is_json or is_tensors or is_file or is_bare):
            message = (
                f"a body of {sent[:60]!r} is not read here, but application/json, and for"
                f" tensors {NPY_TYPE} and {SAFETENSORS_TYPE}"
            )
            raise _Turned(
                ErrorDetail(status=400, message=message, code="invalid_value", param="content-type")
            )
        if self.exchange.request.is_complete:
            await self._read(most)
        else:
            seconds = self.access.config.body_s
            with timeouts.move_on_after(seconds) as scope:
                await self._read(most)
            if scope.cancelled_caught:
                words = f"the body did not come within {seconds:g} s"
                raise _turned(408, words, "body_too_slow")
        body = b"".join(self._parts)
        if is_json and is_too_deep(body):
            raise _turned(400, "the JSON is nested too deeply", "invalid_json")
        return body

    def _is_lenient(self) -> bool:
        """Whether a body is JSON without a word: never where a page of a browser may have sent it.

        Each browser says where a POST comes from, by one of these headers.
        """
        path = self.exchange.request.head.target.decode("latin-1")
        return path.startswith(LENIENT) and not self._is_of_page()

    def _is_of_page(self) -> bool:
        """Whether a browser says that a page sent it."""
        told = {"origin", "sec-fetch-site", "sec-fetch-mode", "referer"}
        return not told.isdisjoint(self.headers.keys())

    async def _read(self, most: int) -> None:
        while part := await self.exchange.body_part():
            if self.size_bytes + len(part) > most:
                raise _too_large(most)
            if not self.access.bodies.take(self.owner, len(part)):
                raise _turned(503, "too many large requests are under way", "busy", 1.0)
            self.size_bytes += len(part)
            self._parts.append(part)

    def forget(self) -> None:
        """The body is no longer in memory."""
        if self.size_bytes:
            self.access.bodies.give_back(self.owner, self.size_bytes)
            self.size_bytes = 0


def _secret_of(headers: Mapping[str, str]) -> str:
    """The API key of a request, as OpenAI's clients send it or as Anthropic's do."""
    scheme, _, secret = headers.get("authorization", "").partition(" ")
    return secret.strip() if scheme.lower() == "bearer" else headers.get("x-api-key", "").strip()


def _too_large(most: int) -> _Turned:
    return _turned(413, f"a body has at most {most} bytes here", "body_too_large")


def _headers_of(head: RequestHead) -> dict[str, str]:
    """By name; of one that comes twice nothing is believed."""
    found: dict[str, str] = {}
    for raw, value in head.headers:
        name = raw.decode("latin-1")
        found[name] = "" if name in found else value.decode("latin-1")
    return found


def _is_payable(head: RequestHead) -> bool:
    return head.method == "POST" and head.target.partition(b"?")[0] in PAID_PATHS
