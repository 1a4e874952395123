"""What is the same for all endpoints of the framework: one slash for two, and what JSON is called.

An ASGI application between the door and the endpoints.
"""

import re
from dataclasses import dataclass

from starlette.types import ASGIApp, Receive, Scope, Send

# Ollama's clients, and the examples of its manual, do not say that they send JSON.
LENIENT = "/api/"
_JSON = (b"content-type", b"application/json")
_SLASHES = re.compile(r"/{2,}")


@dataclass(frozen=True, slots=True)
class Front:
    """`inner` are the endpoints."""

    inner: ASGIApp

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = _SLASHES.sub("/", scope["path"])
        headers = scope["headers"]
        if scope["method"] == "POST" and path.startswith(LENIENT):
            # The door let it in: what its clients send there is JSON, whatever they call it.
            headers = [it for it in headers if it[0] != b"content-type"] + [_JSON]
        await self.inner({**scope, "path": path, "headers": headers}, receive, send)
