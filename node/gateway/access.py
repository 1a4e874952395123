"""The gateway's door: who may come in, with how much, and how long that may take.

An ASGI application around the endpoints. A request goes further only with a Host header that names
this gateway (a page of some site must not reach it through a name that it made point here), an API
key where keys are needed, a place among those that are worked on, and a whole body within bounds.
Whoever goes away has the work for it cancelled. No header ever allows another site to read.
"""

import ipaddress
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

import trio
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from node.gateway.errors import ErrorDetail, fault_of
from node.gateway.json_body import is_too_deep
from node.gateway.keys import Keyring
from node.gateway.rate_limit import Allowance
from node.gateway.tensors import HEAD_BYTES_MAX, NPY_TYPE, SAFETENSORS_TYPE
from node.gateway_config import GatewayConfig
from wire import limits
from wire.errors import BatonError

JSON_BYTES_MAX = 1 << 20
TENSOR_BYTES_MAX = limits.TENSORS_BYTES_MAX + HEAD_BYTES_MAX + 8
# Most clients read the answer only when they have sent everything: so much more is read for it.
DRAINED_BYTES_MAX = 16 << 20
OPEN_PATHS = frozenset({"/healthz", "/health", "/livez", "/ready", "/readyz", "/version"})
_HOST = re.compile(r"(?:\[(?P<six>[0-9a-fA-F:.]+)\]|(?P<name>[A-Za-z0-9._-]+))(?::\d{1,5})?")


class _Turned(Exception):
    """A request that goes no further."""

    def __init__(self, fault: ErrorDetail) -> None:
        super().__init__(fault.message)
        self.fault = fault


class _Gone(Exception):
    """The client went away before its request was there."""


def _turned(status: int, message: str, code: str, wait_s: float | None = None) -> _Turned:
    return _Turned(ErrorDetail(status=status, message=message, code=code, retry_after_s=wait_s))


@dataclass(slots=True)
class AccessMiddleware:
    """The application that the server runs."""

    inner: ASGIApp
    config: GatewayConfig
    keyring: Keyring
    allowance: Allowance = field(default_factory=Allowance)
    inside: int = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            if scope["type"] == "websocket":
                await send({"type": "websocket.close", "code": 1008})
            return
        headers = _headers_of(scope)
        try:
            self._check(scope, headers)
            self.inside += 1
            try:
                body = await self._body(headers, receive)
                await self._within(scope, body, receive, send)
            finally:
                self.inside -= 1
        except _Turned as turned:
            await _refuse(send, turned.fault)
        except _Gone:
            return
        except BatonError as error:
            # The keys cannot be read: then nobody comes in.
            await _refuse(send, fault_of(error))

    def _check(self, scope: Scope, headers: dict[str, str]) -> None:
        now_s = trio.current_time()
        if not _is_host(headers.get("host", ""), self.config):
            raise _turned(
                403,
                "the Host header is not a name of this gateway: --http-name NAME adds one",
                "host_not_allowed",
            )
        if scope["path"] in OPEN_PATHS:
            return
        if self.keyring.keys(now_s) or not self.config.loopback:
            secret = secret_of(headers)
            key = self.keyring.holder(secret, now_s) if secret else None
            if key is None:
                raise _turned(
                    401,
                    "an API key is needed: Authorization: Bearer KEY"
                    " (python -m node keys add NAME makes one)",
                    "invalid_api_key",
                )
            wait_s = self.allowance.take(key.sha256, key.per_minute, now_s)
            if wait_s:
                raise _turned(
                    429,
                    f"this key may ask {key.per_minute} times a minute",
                    "rate_limit_exceeded",
                    wait_s,
                )
        if self.inside >= self.config.requests_max:
            raise _turned(503, f"{self.inside} requests are worked on already", "busy", 1.0)

    async def _body(self, headers: dict[str, str], receive: Receive) -> bytes:
        """All of it, within its bounds of size, depth and time."""
        sent = headers.get("content-type", "").partition(";")[0].strip().lower()
        most = TENSOR_BYTES_MAX if sent in (NPY_TYPE, SAFETENSORS_TYPE) else JSON_BYTES_MAX
        size, parts = 0, []
        with trio.move_on_after(self.config.body_s) as scope:
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise _Gone
                data = message.get("body", b"")
                size += len(data)
                if size <= most:
                    parts.append(data)
                else:
                    parts.clear()
                if not message.get("more_body", False) or size > most + DRAINED_BYTES_MAX:
                    break
        if scope.cancelled_caught:
            raise _turned(
                408, f"the body did not come within {self.config.body_s:g} s", "body_too_slow"
            )
        if size > most:
            raise _turned(413, f"a body has at most {most} bytes here", "body_too_large")
        body = b"".join(parts)
        if sent.endswith("json") and is_too_deep(body):
            raise _turned(400, "the JSON is nested too deeply", "invalid_json")
        return body

    async def _within(self, scope: Scope, body: bytes, receive: Receive, send: Send) -> None:
        """Run the endpoint for as long as its client is there."""
        given = over = False

        async def replay() -> Message:
            nonlocal given
            if given:
                await trio.sleep_forever()
            given = True
            return {"type": "http.request", "body": body, "more_body": False}

        async def say(message: Message) -> None:
            nonlocal over
            over = message["type"] == "http.response.body" and not message.get("more_body", False)
            await send(message)

        async def watch() -> None:
            while (await receive())["type"] != "http.disconnect":
                pass
            # That is also said while the last piece goes out: the server then sees to the
            # connection, within `send`, and must not be cut short.
            if not over:
                nursery.cancel_scope.cancel()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch)
            await self.inner(scope, replay, say)
            nursery.cancel_scope.cancel()


def secret_of(headers: Mapping[str, str]) -> str:
    """The API key of a request, as OpenAI's clients send it or as Anthropic's do."""
    scheme, _, secret = headers.get("authorization", "").partition(" ")
    return secret.strip() if scheme.lower() == "bearer" else headers.get("x-api-key", "").strip()


def _headers_of(scope: Scope) -> dict[str, str]:
    """By name; of one that comes twice nothing is believed."""
    found: dict[str, str] = {}
    for raw, value in scope["headers"]:
        name = raw.decode("latin-1").lower()
        found[name] = "" if name in found else value.decode("latin-1")
    return found


def _is_host(text: str, config: GatewayConfig) -> bool:
    """An address, which no site can make point elsewhere, or a name that is ours."""
    match = _HOST.fullmatch(text)
    if match is None:
        return False
    name = match["six"] or match["name"].lower().rstrip(".")
    if name == "localhost" or name in config.names:
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


async def _refuse(send: Send, fault: ErrorDetail) -> None:
    body = json.dumps(fault.body).encode()
    headers = {
        "content-type": "application/json",
        "content-length": str(len(body)),
        **fault.all_headers,
    }
    if fault.status == 401:
        headers["www-authenticate"] = "Bearer"
    raw = [(name.encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": fault.status, "headers": raw})
    await send({"type": "http.response.body", "body": body})
