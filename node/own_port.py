"""The port that a peer's invites and its router's forwards name, kept for its next start."""

import os
import socket
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from node.config import NodeConfig
from p2p.ip_address import host_of, is_loopback
from p2p.routes import outgoing_hosts
from store.files import appearing

FILE = "port"
_BYTES_MAX = 16


def kept_port(state: Path) -> int | None:
    """The port of earlier starts; None if none is kept, or what is there is no port."""
    try:
        # Of a pipe that nobody writes to nothing is read.
        descriptor = os.open(state / FILE, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            text = (file.read(_BYTES_MAX) or b"").strip()
    except OSError:
        return None
    number = int(text) if text.isdigit() else 0
    return number if 0 < number <= 65535 else None


def at_own_port(config: NodeConfig) -> NodeConfig:
    """The configuration with the kept port, or any if another program has that; waits for a disk.

    Where the user named a port, it stays as it is. A machine whose ways out are all of IPv6 is
    listened on by that too: its IPv4 may only be late.
    """
    if config.port_named:
        return config
    port = kept_port(config.state) or port_in(config.peers.listen)
    free = port if port and _is_free(port) else 0
    listen: tuple[str, ...] = (f"/ip4/0.0.0.0/tcp/{free}",)
    if (hosts := outgoing_hosts()) and all(":" in it for it in hosts):
        # One port for both: invites and forwards name one.
        free = free if free and _is_free(free, socket.AF_INET6) else _any_free()
        listen = (f"/ip4/0.0.0.0/tcp/{free}", f"/ip6/::/tcp/{free}")
    return replace(config, peers=replace(config.peers, listen=listen))


def keep_port(config: NodeConfig, addresses: Sequence[str]) -> str:
    """Keep the port of these addresses, if none is kept or the user named it; waits for a disk.

    Returns what the user should know: "" unless the kept one is not the one that is listened on.
    """
    port, kept = port_in(addresses), kept_port(config.state)
    named = config.port_named and port_in(config.peers.listen) != 0
    # Whom only this machine reaches, nobody else has an address of.
    if not port or all(is_loopback(host_of(it)) for it in config.peers.listen):
        return ""
    if kept is None or (named and port != kept):
        # A link in its place is replaced, and not followed.
        with appearing(config.state / FILE) as file:
            file.write(f"{port}\n".encode())
        return ""
    if port == kept or config.port_named:
        return ""
    return f"port {kept} is taken: this start listens on {port}; invites and forwards say {kept}"


def port_in(addresses: Sequence[str]) -> int:
    """The first TCP port; 0 where there is none, or any was asked for."""
    for address in addresses:
        parts = address.split("/")
        if len(parts) > 4 and parts[3] == "tcp":
            with suppress(ValueError):
                return int(parts[4])
    return 0


def _any_free() -> int:
    """A port that nobody has now, by either kind of address."""
    with socket.create_server(("", 0), family=socket.AF_INET6, dualstack_ipv6=True) as probe:
        return int(probe.getsockname()[1])


def _is_free(port: int, family: socket.AddressFamily = socket.AF_INET) -> bool:
    with socket.socket(family) as probe:
        if family == socket.AF_INET6:
            probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        # As a server does: what has just ended is in nobody's way. Without SO_REUSEPORT, with
        # which a second peer of this user could share the port.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", port))
            probe.listen(1)
        except OSError:
            return False
    return True
