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
from starlette.middleware.errors import ServerErrorMiddleware
from starlette.middleware.exceptions import ExceptionMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from node.gateway.requests import RequestBody

_READ = "baton.read"
_JSON = b"application/json"


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

    def __post_init__(self) -> None:
        # What a client is told of an exception is what the framework tells.
        handlers = dict(self.framework.exception_handlers)
        of_bugs: Any = handlers.pop(Exception)
        self._guarded = ServerErrorMiddleware(
            ExceptionMiddleware(_answer, handlers), handler=of_bugs
        )

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


async def _answer(scope: Scope, receive: Receive, send: Send) -> None:
    read: _Read = scope[_READ]
    response = await read.post.answer(read.asked, Request(scope, receive))
    await response(scope, receive, send)


def _is_json(scope: Scope) -> bool:
    sent = next((value for name, value in scope["headers"] if name == b"content-type"), b"")
    return bool(sent.partition(b";")[0].strip().lower() == _JSON)
