"""Which of this machine's addresses its packets leave from, as the system's routes say.

A datagram socket that is connected asks for the route and sends nothing. The addresses asked for
are of those that are kept for documentation, so nobody is there.
"""

import socket
import struct
from pathlib import Path

_NOBODY = ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1"))
_PORT = 9
_RTF_GATEWAY = 0x2


def outgoing_hosts() -> tuple[str, ...]:
    """The source addresses of the default routes, IPv4 first; empty where there is none."""
    found = []
    for family, nobody in _NOBODY:
        try:
            with socket.socket(family, socket.SOCK_DGRAM) as probe:
                probe.connect((nobody, _PORT))
                found.append(str(probe.getsockname()[0]))
        except OSError:
            # No way out of this kind.
            continue
    return tuple(found)


def default_router(root: Path = Path("/")) -> str | None:
    """The router's IPv4 address by the default route; None without one, or where none is told."""
    try:
        text = (root / "proc/net/route").read_text(encoding="ascii", errors="replace")
        for fields in [it.split() for it in text.splitlines()][1:]:
            if fields[1] == "00000000" and int(fields[3], 16) & _RTF_GATEWAY:
                return socket.inet_ntoa(struct.pack("<I", int(fields[2], 16)))
    except (OSError, IndexError, ValueError):
        return None
    return None
