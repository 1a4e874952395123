"""The POSTs that are asked for most, answered without the framework's machinery.

Who may come in was asked before, as for every request. A body that reads as its endpoint wants it
is answered by the very function that the framework would call; any other goes to the framework,
which says what is wrong with it. What goes wrong later, the framework's own handlers put in words.
"""

import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from fastapi import FastAPI
from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.middleware.errors import ServerErrorMiddleware
from starlette.middleware.exceptions import ExceptionMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from node.gateway.requests import RequestBody

_READ, _SAID = "baton.read", "baton.said"
_JSON = b"application/json"
# What is sent whole, and cannot fail.
_PLAIN = frozenset({Response, JSONResponse})


@dataclass(frozen=True, slots=True)
class HotPost:
    """An endpoint. `answer` is given what `kind` made of the body; None, where it reads that."""

    kind: type[RequestBody] | None
    answer: Callable[[Any, Request], Awaitable[Response]]


@dataclass(slots=True)
class HotPosts:
    """An ASGI application; `posts` are those of `framework` that it answers itself, by path."""

    framework: FastAPI
    posts: Mapping[str, HotPost]
    _guarded: ASGIApp = field(init=False)
    # Has the framework's handlers put exceptions in words; and the kinds that they know.
    _worded: ASGIApp = field(init=False)
    _known: tuple[type[Exception], ...] = field(init=False)

    def __post_init__(self) -> None:
        # What a client is told of an exception is what the framework tells.
        handlers = dict(self.framework.exception_handlers)
        of_bugs: Any = handlers.pop(Exception)
        self._known = (HTTPException, *[it for it in handlers if isinstance(it, type)])
        self._worded = ExceptionMiddleware(_say, handlers)
        self._guarded = ServerErrorMiddleware(self._answer, handler=of_bugs)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        post = self.posts.get(scope["path"])
        if post is None or scope["method"] != "POST" or scope["query_string"]:
            await self.framework(scope, receive, send)
            return
        message = await receive()

        async def again() -> Message:
            return message

        if not _is_json(scope) or not (read := _Read.of(post, message["body"])):
            await self.framework(scope, again, send)
        else:
            await self._guarded({**scope, _READ: read}, again, send)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        read: _Read = scope[_READ]
        try:
            response = await read.post.answer(read.asked, Request(scope, receive))
        except self._known as error:
            await self._worded({**scope, _SAID: error}, receive, send)
            return
        if type(response) in _PLAIN:
            await response(scope, receive, send)
        else:
            # What streams may still fail before its first word.
            await self._worded({**scope, _SAID: response}, receive, send)


@dataclass(frozen=True, slots=True)
class _Read:
    """A request whose body was read, and what answers it."""

    post: HotPost
    asked: RequestBody | None

    @classmethod
    def of(cls, post: HotPost, body: bytes) -> "_Read | None":
        if post.kind is None:
            return cls(post, None)
        try:
            return cls(post, post.kind.model_validate(json.loads(body)))
        except (ValidationError, ValueError, RecursionError):
            return None


async def _say(scope: Scope, receive: Receive, send: Send) -> None:
    said: Response | Exception = scope[_SAID]
    if isinstance(said, Exception):
        raise said
    await said(scope, receive, send)


def _is_json(scope: Scope) -> bool:
    sent = next((value for name, value in scope["headers"] if name == b"content-type"), b"")
    return bool(sent.partition(b";")[0].strip().lower() == _JSON)
