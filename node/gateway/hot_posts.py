"""The POSTs that are asked for most, answered from the exchange, without the framework.

Who may come in was asked before, as for every request. A body that reads as its endpoint wants it
is answered by the very function that the framework would call; any other goes to the framework,
which says what is wrong with it. What goes wrong later is told in the words of the framework's
handlers.
"""

import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import trio
from pydantic import ValidationError
from starlette.responses import JSONResponse, Response
from starlette.types import Message

from node.gateway.asgi import sender_to
from node.gateway.client_request import (
    ClientRequest,
    DirectRequest,
    RawHeaders,
    RequestState,
)
from node.gateway.errors import BUG, ErrorDetail, HttpError, fault_of, fault_response
from node.gateway.http_exchange import Exchange, Headers
from node.gateway.json_response import JsonResponse
from node.gateway.requests import RequestBody
from wire.errors import BatonError

_JSON = b"application/json"
# What is sent whole, and cannot fail.
_PLAIN = frozenset({Response, JSONResponse, JsonResponse})


@dataclass(frozen=True, slots=True)
class HotPost:
    """An endpoint. `answer` is given what `kind` made of the body; None, where it reads that."""

    kind: type[RequestBody] | None
    answer: Callable[[Any, ClientRequest], Awaitable[Response]]


@dataclass(frozen=True, slots=True)
class HotPosts:
    """The endpoints, each by its target as it stands in a request's first line."""

    posts: Mapping[bytes, HotPost]

    async def answer(self, exchange: Exchange, owner: bytes, body: bytes) -> bool:
        """Answer a request; False, with nothing done, if the framework has to."""
        head = exchange.request.head
        post = self.posts.get(head.target)
        if post is None or head.method != "POST" or not _is_json(head.headers):
            return False
        asked = None
        if post.kind is not None:
            try:
                asked = post.kind.model_validate(json.loads(body))
            except (ValidationError, ValueError, RecursionError):
                return False
        request = DirectRequest(RawHeaders(head.headers), RequestState(owner), body)
        async with _BugsTold(exchange):
            await _say(exchange, post, asked, request)
        return True


async def _say(
    exchange: Exchange, post: HotPost, asked: RequestBody | None, request: DirectRequest
) -> None:
    try:
        response = await post.answer(asked, request)
        if type(response) not in _PLAIN:
            # What streams may still fail before its first word.
            await response({}, _nothing_more, sender_to(exchange))
            return
    except HttpError as error:
        response = _worded(exchange, error, error.fault)
    except BatonError as error:
        response = _worded(exchange, error, fault_of(error))
    await _respond(exchange, response)


def _worded(exchange: Exchange, error: Exception, fault: ErrorDetail) -> Response:
    if exchange.is_begun:
        raise RuntimeError("an answer that had begun failed") from error
    return fault_response(fault, exchange.request.head.target.decode("ascii"))


async def _respond(exchange: Exchange, response: Response) -> None:
    await exchange.respond(response.status_code, response.raw_headers, bytes(response.body))


async def _nothing_more() -> Message:
    # A client that goes away has its request cancelled.
    await trio.sleep_forever()


@dataclass(frozen=True, slots=True)
class _BugsTold:
    """Tells the client of an exception that nobody expected; it goes on, and is counted."""

    exchange: Exchange

    async def __aenter__(self) -> None:
        """Nothing is done before."""

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # That a request is cancelled is no `Exception`.
        if isinstance(error, Exception) and not self.exchange.is_begun:
            await _respond(self.exchange, _worded(self.exchange, error, BUG))


def _is_json(headers: Headers) -> bool:
    for name, value in headers:
        if name == b"content-type":
            return value == _JSON or value.partition(b";")[0].strip().lower() == _JSON
    return False
