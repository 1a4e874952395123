"""The port that a peer's invites and its router's forwards name, kept for its next start."""

import os
import socket
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from node.config import NodeConfig
from p2p.ip_address import host_of, is_loopback
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

    Where the user named a port, it stays as it is.
    """
    if config.port_named:
        return config
    port = kept_port(config.state) or port_in(config.peers.listen)
    free = port if port and _is_free(port) else 0
    return replace(config, peers=replace(config.peers, listen=(f"/ip4/0.0.0.0/tcp/{free}",)))


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


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        # As a server does: what has just ended is in nobody's way. Without SO_REUSEPORT, with
        # which a second peer of this user could share the port.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", port))
            probe.listen(1)
        except OSError:
            return False
    return True
