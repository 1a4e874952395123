"""libp2p's TCP, metered, with the address at the other end, and calls from a port of ours."""

import socket
from typing import Any

import trio
from libp2p.io.trio import TrioTCPStream
from libp2p.transport.tcp.tcp import TCP
from multiaddr import Multiaddr  # type: ignore[import-untyped]

from p2p.over_libp2p.host import note_address
from p2p.over_libp2p.metered import meter
from p2p.traffic import Traffic


class SoundTcp(TCP):  # type: ignore[misc]
    """libp2p's TCP, which also knows the address at the other end of every connection.

    What moves over its connections is counted, and held to a rate, by `traffic`.
    """

    def __init__(self, traffic: Traffic) -> None:
        super().__init__()
        self._traffic = traffic

    async def dial(self, maddr: Multiaddr) -> Any:
        raw = await super().dial(maddr)
        note_address(raw.stream)
        meter(raw.stream, self._traffic)
        return raw

    async def call_from(self, own_port: int, host: str, port: int) -> TrioTCPStream:
        """Call from a port on which this peer listens; OSError if nobody answers there.

        If the other end calls us from there at the same time, the two calls are one connection.
        """
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        calling = trio.socket.socket(family, socket.SOCK_STREAM)
        connected = False
        try:
            # As libp2p's listeners have them: else the port is taken by the listener.
            for option in (socket.SO_REUSEADDR, socket.SO_REUSEPORT):
                calling.setsockopt(socket.SOL_SOCKET, option, 1)
            await calling.bind(("", own_port))
            await calling.connect((host, port))
            connected = True
        finally:
            if not connected:
                calling.close()
        stream = TrioTCPStream(trio.SocketStream(calling))
        note_address(stream)
        meter(stream, self._traffic)
        return stream

    def create_listener(self, handler_function: Any) -> Any:
        async def metered(connection: Any) -> None:
            meter(connection, self._traffic)
            await handler_function(connection)

        return super().create_listener(metered)
