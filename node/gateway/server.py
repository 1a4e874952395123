"""HTTP for this peer's clients: the listener, the server behind it, and its end."""

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from node.gateway.app import gateway_app
from node.gateway.http_connection import HttpLimits
from node.gateway.http_server import HttpServer
from node.gateway.keys import keys_file, read_keys
from node.gateway_config import GatewayConfig
from node.peer import Node
from wire.errors import InputError

BACKLOG = 256


@asynccontextmanager
async def open_gateway(node: Node, config: GatewayConfig) -> AsyncIterator[str]:
    """Serve HTTP for as long as the block runs; the base URL. InputError if it cannot be."""
    if not config.loopback and not read_keys(keys_file(node.config.state)):
        raise InputError(
            f"{config.host} is reached from other machines, and there is no API key",
            todo="python -m node keys add NAME, or serve --http 127.0.0.1:8000",
        )
    app, batches = gateway_app(node, config)
    server = HttpServer(
        app.handle,
        HttpLimits(
            connections_max=config.connections_max,
            first_byte_s=config.first_byte_s,
            idle_s=config.idle_s,
            body_s=config.body_s,
            send_s=config.send_s,
        ),
        node.dependencies.environment.wall_s,
        node.note,
    )
    node.status_sources["http"] = server.status
    with _listening(config) as listening:
        async with trio.open_nursery() as nursery:
            accepting = trio.CancelScope()

            async def accept() -> None:
                with accepting:
                    await server.accept_all(listening, nursery)

            nursery.start_soon(accept)
            nursery.start_soon(batches.run)
            if node.ledger is not None:
                nursery.start_soon(node.ledger.follower.run)
            shown = f"[{config.host}]" if ":" in config.host else config.host
            try:
                yield f"http://{shown}:{listening.getsockname()[1]}"
            finally:
                accepting.cancel()
                with trio.CancelScope(shield=True):
                    await server.close(node.config.leave_s)
                nursery.cancel_scope.cancel()
                del node.status_sources["http"]


def _listening(config: GatewayConfig) -> socket.socket:
    family = socket.AF_INET6 if ":" in config.host else socket.AF_INET
    place = socket.socket(family, socket.SOCK_STREAM)
    place.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    place.setblocking(False)
    try:
        # An address in digits: nothing is looked up.
        place.bind((config.host, config.port))
        place.listen(BACKLOG)
    except OSError as error:
        place.close()
        raise InputError(
            f"{config.host} port {config.port} cannot be listened on: {error.strerror}",
            todo="give another with --http ADDRESS:PORT",
        ) from error
    return place
