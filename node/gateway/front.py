"""What every answer has in common: a request's id, and one slash for two.

An ASGI application between the door and the endpoints.
"""

import re
from dataclasses import dataclass

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from p2p.adverts import Environment

REQUEST_ID = re.compile(rb"[\x21-\x7e]{1,128}")
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
        await self.inner({**scope, "path": path}, receive, say)

    def _made(self) -> bytes:
        return b"req_" + self.environment.entropy(12).hex().encode()
