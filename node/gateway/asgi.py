"""Runs an ASGI application for one request of our own server.

A client that goes away has the application cancelled, as trio cancels, instead of being told with
`http.disconnect`. A HEAD request runs as GET; the server leaves the body out.
"""

from urllib.parse import unquote

import trio
from starlette.types import ASGIApp, Message, Scope, Send

from node.gateway.http_exchange import Exchange


async def run_asgi(app: ASGIApp, exchange: Exchange, body: bytes, state: dict[str, object]) -> None:
    """Have `app` answer; `state` is what endpoints find as `request.state`."""
    given = False

    async def receive() -> Message:
        nonlocal given
        if given:
            await trio.sleep_forever()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    await app(scope_of(exchange, state), receive, sender_to(exchange))


def sender_to(exchange: Exchange) -> Send:
    """Where an application sends its answer."""

    async def send(message: Message) -> None:
        if message["type"] == "http.response.start":
            exchange.start(message["status"], list(message.get("headers", ())))
        elif message["type"] == "http.response.body":
            more = message.get("more_body", False)
            await exchange.send(message.get("body", b""), more=more)

    return send


def scope_of(exchange: Exchange, state: dict[str, object]) -> Scope:
    head = exchange.request.head
    raw_path, _, query = head.target.partition(b"?")
    path = raw_path.decode("ascii")
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": head.version,
        "method": "GET" if head.method == "HEAD" else head.method,
        "scheme": "http",
        "path": unquote(path) if "%" in path else path,
        "raw_path": raw_path,
        "query_string": query,
        "root_path": "",
        "headers": head.headers,
        "client": exchange.channel.address,
        "server": None,
        "state": state,
    }
