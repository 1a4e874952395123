"""How a client reaches a gateway: calls bounded in time and size, repeated where that is safe.

It runs under trio and under asyncio. A call is repeated if the gateway refused it and said when to
try again, or if it never reached the gateway. A repeatable call is also repeated if it broke off
before any of the answer was shown. Repeats are few, and never go beyond the call's deadline.
"""

import json
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from math import ceil, inf
from typing import Any

import anyio
import httpx

from node.client.paying import (
    REQUIRED,
    RESPONSE,
    SIGNATURE,
    CallPayments,
    PaymentNeeded,
    amount_told,
    payment_needed,
)
from node.client.reading import GIVE_LONGER, error_of, read_json
from wire import limits
from wire.errors import (
    BatonError,
    Disconnected,
    InputError,
    Malformed,
    Refused,
    TaskFailed,
    TooSlow,
    Unreachable,
)

CONNECT_S = 10.0
# How long closing a connection may take.
CLOSE_S = 2.0
RETRY_S_MIN = 0.25
BODY_BYTES_MAX = 256 << 20
JSON_TYPE = "application/json"


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpCall:
    """One request. `repeatable`: doing it twice does no harm."""

    method: str
    path: str
    deadline_s: float
    content: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    repeatable: bool = True

    @property
    def until_at_s(self) -> float:
        return anyio.current_time() + self.deadline_s


def json_call(path: str, body: Mapping[str, Any], deadline_s: float, **more: Any) -> HttpCall:
    """A POST of JSON; InputError for a value that JSON cannot express."""
    try:
        content = json.dumps(body, allow_nan=False).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise InputError(f"the request cannot be written as JSON: {error}") from error
    headers = {"content-type": JSON_TYPE, **more.pop("headers", {})}
    return HttpCall(
        method="POST", path=path, deadline_s=deadline_s, content=content, headers=headers, **more
    )


def terms_of(deadline_s: float, verdicts: str | None) -> dict[str, str]:
    """Headers that tell the gateway how long it may take, and how the answer is checked."""
    told = {"x-baton-deadline": str(max(1, min(ceil(deadline_s), limits.DEADLINE_S_MAX)))}
    return told if verdicts is None else told | {"x-baton-verdicts": verdicts}


@contextmanager
def _ours(where: str) -> Iterator[None]:
    """Turn the library's errors into ours."""
    try:
        yield
    except (httpx.ConnectError, httpx.ConnectTimeout) as error:
        raise Unreachable(
            f"nobody answers at {where}: {error or 'it took too long'}",
            todo="is a gateway up there? python -m node join --role gateway",
        ) from error
    except (httpx.InvalidURL, httpx.UnsupportedProtocol) as error:
        raise InputError(f"{where} cannot be used as a gateway: {error}") from error
    except (httpx.HTTPError, httpx.StreamError) as error:
        why = str(error) or type(error).__name__
        raise Disconnected(f"the gateway at {where} broke off: {why}") from error


@contextmanager
def within(until_at_s: float, what: str) -> Iterator[None]:
    """TooSlow once `until_at_s` has passed, though the gateway may say first that nobody did it."""
    try:
        with anyio.fail_after(until_at_s - anyio.current_time()):
            yield
    except TimeoutError as error:
        raise TooSlow(f"{what} took too long", todo=GIVE_LONGER) from error
    except TaskFailed as error:
        # It has the same time: what it says when that is over is no other end than this one.
        if anyio.current_time() < until_at_s:
            raise
        raise TooSlow(f"{what} took too long: {error.message}", todo=GIVE_LONGER) from error


@dataclass(slots=True, eq=False)
class ResponseBody:
    """An answer that is being read. The caller has to close it, or read it to its end."""

    response: httpx.Response
    where: str
    # The headers that it was asked for with.
    asked: Mapping[str, str] = field(default_factory=dict)
    _parts: AsyncIterator[bytes] = field(init=False)
    closed: bool = False

    def __post_init__(self) -> None:
        self._parts = self.response.aiter_bytes()

    @property
    def headers(self) -> httpx.Headers:
        return self.response.headers

    async def part(self) -> bytes | None:
        """The next bytes; None at the end."""
        with _ours(self.where):
            try:
                return await self._parts.__anext__()
            except StopAsyncIteration:
                self.closed = True
                return None

    async def rest(self, most_bytes: int = BODY_BYTES_MAX) -> bytes:
        """All remaining bytes; then the answer is closed."""
        found, size = [], 0
        try:
            while (part := await self.part()) is not None:
                found.append(part)
                if (size := size + len(part)) > most_bytes:
                    raise Malformed(f"the gateway's answer has more than {most_bytes} bytes")
        finally:
            await self.aclose()
        return b"".join(found)

    async def aclose(self) -> None:
        """Close the connection: the gateway then stops the work for this answer."""
        if self.closed:
            return
        self.closed = True
        with anyio.move_on_after(CLOSE_S, shield=True):
            try:
                await self.response.aclose()
                # Without this the library's generators stay unfinished; closing ends them.
                while True:
                    await self._parts.__anext__()
            except (StopAsyncIteration, httpx.HTTPError, httpx.StreamError):
                return


@dataclass(slots=True, eq=False)
class ResponseLine:
    """The connections to one gateway. Each call first closes answers that were left half read."""

    http: httpx.AsyncClient
    retries: int
    payments: CallPayments | None = None
    left: list[ResponseBody] = field(default_factory=list)

    @property
    def where(self) -> str:
        return str(self.http.base_url)

    async def fetch(self, call: HttpCall) -> tuple[bytes, httpx.Headers]:
        """A whole answer; BatonError within the call's deadline if none arrives."""
        until_at_s, tries = call.until_at_s, 0
        with within(until_at_s, call.path):
            call = await self._paid_ahead(call)
            while True:
                try:
                    body = await self._open(call)
                    data = await body.rest()
                    self.note_answered(call.headers, amount_told(body.headers.get(RESPONSE)))
                    return data, body.headers
                except PaymentNeeded as error:
                    call = await self._paid(call, error)
                    continue
                except BatonError as error:
                    await self._wait_after(error, call, tries, until_at_s)
                tries += 1

    async def open(self, call: HttpCall, until_at_s: float) -> ResponseBody:
        """The beginning of an answer that is read as it arrives."""
        tries = 0
        with within(until_at_s, call.path):
            call = await self._paid_ahead(call)
            while True:
                try:
                    body = await self._open(call)
                    body.asked = call.headers
                    return body
                except PaymentNeeded as error:
                    call = await self._paid(call, error)
                    continue
                except BatonError as error:
                    await self._wait_after(error, call, tries, until_at_s)
                tries += 1

    async def _paid(self, call: HttpCall, needed: PaymentNeeded) -> HttpCall:
        """The call with its payment; the error itself where it has one, or none is to be made."""
        if self.payments is None:
            raise needed
        shown = await self.payments.headers_for(needed, call.path, call.headers)
        return replace(call, headers={**call.headers, **shown})

    async def _paid_ahead(self, call: HttpCall) -> HttpCall:
        """The call with a payment, where one to its path was paid by a voucher before."""
        if self.payments is None:
            return call
        return replace(
            call, headers={**call.headers, **await self.payments.headers_ahead(call.path)}
        )

    def note_answered(self, headers: Mapping[str, str], amount: object) -> None:
        """A call with these headers was answered; `amount` is what the gateway says it cost."""
        if self.payments is not None:
            self.payments.note_answered(headers, amount)

    async def close_left(self) -> None:
        while self.left:
            await self.left.pop().aclose()

    async def _open(self, call: HttpCall) -> ResponseBody:
        await self.close_left()
        with _ours(self.where):
            request = self.http.build_request(
                call.method, call.path, content=call.content, headers=dict(call.headers)
            )
            body = ResponseBody(await self.http.send(request, stream=True), self.where)
        if body.response.is_success:
            return body
        status, retry_after = body.response.status_code, body.headers.get("retry-after")
        data = await body.rest()
        if status == 402 and (required := body.headers.get(REQUIRED)) is not None:
            raise payment_needed(required)
        try:
            told = read_json(data)
        except Malformed:
            # A proxy may have answered instead of the gateway; the status says enough.
            told = {}
        raise error_of(status, told, retry_after)

    async def _wait_after(
        self, error: BatonError, call: HttpCall, tries: int, until_at_s: float
    ) -> None:
        """Wait until the call may be tried again; raise the error itself if it may not."""
        wait_s = _wait_s(error, call, tries)
        if tries >= self.retries or anyio.current_time() + wait_s >= until_at_s:
            if self.payments is not None and SIGNATURE in call.headers:
                heard = not isinstance(error, Disconnected)
                self.payments.keep_unused(call.headers, heard=heard)
            raise error
        await anyio.sleep(wait_s)


def _wait_s(error: BatonError, call: HttpCall, tries: int) -> float:
    """How long to wait before the next try; infinite where there must be none."""
    backoff_s = RETRY_S_MIN * 2.0**tries
    match error:
        case Refused(retry_after_s=float() as advised_s):
            return max(advised_s, backoff_s)
        case Unreachable():
            return backoff_s
        case Disconnected() if call.repeatable:
            return backoff_s
        case _:
            return inf
