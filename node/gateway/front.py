"""What every answer has in common: a request's id, and one slash for two.

An ASGI application between the door and the endpoints.
"""

import re
from dataclasses import dataclass

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from p2p.adverts import Environment

REQUEST_ID = re.compile(rb"[\x21-\x7e]{1,128}")
# Ollama's clients, and the examples of its manual, do not say that they send JSON.
LENIENT = "/api/"
_JSON = (b"content-type", b"application/json")
_SLASHES = re.compile(r"/{2,}")


@dataclass(frozen=True, slots=True)
class Front:
    """The endpoints, and what is the same for all of them."""

    inner: ASGIApp
    environment: Environment

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        given = next((value for name, value in scope["headers"] if name == b"x-request-id"), b"")
        known = given if REQUEST_ID.fullmatch(given) else self._made()

        async def say(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = [*message["headers"], (b"x-request-id", known)]
                message = {**message, "headers": headers}
            await send(message)

        path = _SLASHES.sub("/", scope["path"])
        headers = scope["headers"]
        if scope["method"] == "POST" and path.startswith(LENIENT):
            # The door let it in: what its clients send there is JSON, whatever they call it.
            headers = [it for it in headers if it[0] != b"content-type"] + [_JSON]
        await self.inner({**scope, "path": path, "headers": headers}, receive, say)

    def _made(self) -> bytes:
        return b"req_" + self.environment.entropy(12).hex().encode()
