"""HTTP for the app: hypercorn's connections on this peer's own event loop, bounded in every way.

hypercorn bounds how long a head may take and how long a connection is idle (`keep_alive_timeout`
covers both). It does not bound how many connections there are, nor how long a client may take to
read what it is sent; the streams it is given here do.
"""

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import cast

import trio
from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.config import Config
from hypercorn.trio.tcp_server import TCPServer
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import ASGIFramework, ConnectionState

from node.gateway.app import gateway_app
from node.gateway.keys import keys_file, read_keys
from node.gateway_config import GatewayConfig
from node.peer import Node
from wire.errors import InputError

HEAD_BYTES_MAX = 16 << 10
BACKLOG = 256


class SendTimeoutStream(trio.abc.Stream):
    """A connection whose client has to read what it is sent, or is cut off."""

    def __init__(self, inner: trio.SocketStream, send_s: float) -> None:
        self._inner = inner
        self._send_s = send_s
        # hypercorn asks it for the addresses of both sides.
        self.socket = inner.socket

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        with trio.move_on_after(self._send_s) as scope:
            await self._inner.send_all(bytes(data))
        if scope.cancelled_caught:
            await trio.aclose_forcefully(self._inner)
            raise trio.BrokenResourceError("the client does not read")

    async def wait_send_all_might_not_block(self) -> None:
        await self._inner.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        return bytes(await self._inner.receive_some(max_bytes))

    async def send_eof(self) -> None:
        await self._inner.send_eof()

    async def aclose(self) -> None:
        await self._inner.aclose()


@asynccontextmanager
async def open_gateway(node: Node, config: GatewayConfig) -> AsyncIterator[str]:
    """Serve HTTP for as long as the block runs; the base URL. InputError if it cannot be."""
    if not config.loopback and not read_keys(keys_file(node.config.state)):
        raise InputError(
            f"{config.host} is reached from other machines, and there is no API key",
            todo="python -m node keys add NAME, or serve --http 127.0.0.1:8000",
        )
    listener = await _listen(config)
    app = ASGIWrapper(cast("ASGIFramework", gateway_app(node, config)))
    settings, context = _settings(config), WorkerContext(None)
    open_streams: set[SendTimeoutStream] = set()

    async def serve(inner: trio.SocketStream) -> None:
        if len(open_streams) >= config.connections_max:
            await trio.aclose_forcefully(inner)
            return
        stream = SendTimeoutStream(inner, config.send_s)
        open_streams.add(stream)
        try:
            # It asks for no more of a stream than there is of this one.
            server = TCPServer(
                app, settings, context, ConnectionState({}), cast("trio.SSLStream", stream)
            )
            await server.run()
        finally:
            open_streams.discard(stream)

    accepting = trio.CancelScope()

    async def accept() -> None:
        with accepting:
            await trio.serve_listeners(serve, [listener], handler_nursery=nursery)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(accept)
        address = listener.socket.getsockname()
        shown = f"[{config.host}]" if ":" in config.host else config.host
        try:
            yield f"http://{shown}:{address[1]}"
        finally:
            # Nobody new; who has a request under way gets its answer, as far as there is time.
            accepting.cancel()
            with trio.CancelScope(shield=True):
                await context.terminated.set()
                with trio.move_on_after(node.config.leave_s):
                    while open_streams:
                        await trio.sleep(0.02)
                for stream in list(open_streams):
                    # What is being sent to who does not read would not let itself be cancelled.
                    await trio.aclose_forcefully(stream)
            nursery.cancel_scope.cancel()


async def _listen(config: GatewayConfig) -> trio.SocketListener:
    family = socket.AF_INET6 if ":" in config.host else socket.AF_INET
    place = trio.socket.socket(family, socket.SOCK_STREAM)
    place.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        await place.bind((config.host, config.port))
        place.listen(BACKLOG)
    except OSError as error:
        place.close()
        raise InputError(
            f"{config.host} port {config.port} cannot be listened on: {error.strerror}",
            todo="give another with --http ADDRESS:PORT",
        ) from error
    return trio.SocketListener(place)


def _settings(config: GatewayConfig) -> Config:
    settings = Config()
    settings.h11_max_incomplete_size = HEAD_BYTES_MAX
    settings.keep_alive_timeout = config.idle_s
    settings.h2_max_concurrent_streams = 16
    settings.include_server_header = False
    # Only what is a bug of ours.
    settings.loglevel = "ERROR"
    return settings
