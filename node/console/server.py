"""The console's listener, and the command that makes a link to it."""

import socket
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import trio

from node.console.facts import Examine, FactSource
from node.console.live import LivePage
from node.console.sessions import LINK_LIFE_S, Sessions
from node.console.site import ConsoleSite
from node.console_config import ConsoleConfig
from node.gateway.http_connection import HttpLimits
from node.gateway.http_server import HttpServer, listening_on
from node.gateway.keys import Keyring, keys_file, read_keys
from node.local.control import Command, Emit
from node.peer import Node
from wire.errors import InputError

LIMITS = HttpLimits(connections_max=64, first_byte_s=5.0, idle_s=20.0, body_s=5.0, send_s=10.0)
# Who comes with a thousand others waits for its turn, not for its system to call again.
BACKLOG = 1024
# What the kernel holds for a browser that reads nothing, before that is noticed.
SEND_BUFFER_BYTES = 128 << 10
# Event streams have no end of their own to wait for.
CLOSE_S = 0.2
LINK = "console-link"


@asynccontextmanager
async def open_console(
    node: Node,
    config: ConsoleConfig,
    commands: dict[str, Command],
    examine: Examine,
    advised: Callable[[str], str] = str,
) -> AsyncIterator[str]:
    """Serve the console until the block ends; its address. InputError if it cannot be served.

    All that it shows and does are `commands`, those of the control socket, to which the one that
    makes a link is added. `advised` names the state folder in a command to type.
    """
    file = keys_file(node.config.state)
    if not config.loopback and not read_keys(file):
        raise InputError(
            f"{config.host} is reached from other machines, and there is no API key",
            todo="python -m node keys add NAME, or leave out --console-at",
        )
    with _listening(config) as listening:
        shown = f"[{config.host}]" if ":" in config.host else config.host
        port = listening.getsockname()[1]
        url = f"http://{shown}:{port}/"
        sessions = Sessions(node.dependencies.environment.entropy)
        keyring = None if config.loopback else Keyring(file)
        live = LivePage(FactSource(commands, examine))
        site = ConsoleSite(live, sessions, f"baton-console-{port}", keyring, advised)
        server = HttpServer(site.handle, LIMITS, node.dependencies.environment.wall_s, node.note)

        async def link(_arguments: Mapping[str, Any], _emit: Emit) -> dict[str, Any]:
            """A link that lets one browser in."""
            code = sessions.new_link(trio.current_time())
            return {"url": f"{url}enter?code={code}", "console": url, "for_s": LINK_LIFE_S}

        commands[LINK] = link
        node.status_sources["console"] = lambda: {"url": url, "watchers": live.watchers}
        async with trio.open_nursery() as nursery:
            nursery.start_soon(live.run)
            nursery.start_soon(server.accept_all, listening, nursery)
            try:
                yield url
            finally:
                del commands[LINK], node.status_sources["console"]
                with trio.CancelScope(shield=True):
                    await server.close(CLOSE_S)
                nursery.cancel_scope.cancel()


def _listening(config: ConsoleConfig) -> socket.socket:
    try:
        listening = listening_on(config.host, config.port, BACKLOG)
    except OSError as error:
        raise InputError(
            f"the console cannot listen on {config.host} port {config.port}: {error.strerror}",
            todo="give it another place: --console-at 127.0.0.1:0",
        ) from error
    # What is accepted has it from here.
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
    return listening
