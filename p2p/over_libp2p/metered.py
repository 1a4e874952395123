"""A TCP stream whose bytes are counted, and wait where their owner set a rate.

What is not taken from the system in time makes the other side wait: no byte is lost.
"""

from typing import Any

import trio

from p2p.traffic import Traffic


class MeteredStream:
    """In place of trio's stream beneath a connection of libp2p."""

    __slots__ = ("_stream", "_traffic", "socket")

    def __init__(self, stream: trio.SocketStream, traffic: Traffic) -> None:
        self._stream = stream
        self._traffic = traffic
        self.socket = stream.socket

    async def send_all(self, data: bytes) -> None:
        """Send it all, once the rate allows."""
        if wait_s := self._traffic.sends(len(data), trio.current_time()):
            await trio.sleep(wait_s)
        await self._stream.send_all(data)

    async def receive_some(self, size_bytes: int | None = None) -> bytes:
        """What came; later ones wait if the rate is used up."""
        data = await self._stream.receive_some(size_bytes)
        if wait_s := self._traffic.received(len(data), trio.current_time()):
            await trio.sleep(wait_s)
        return bytes(data)

    async def aclose(self) -> None:
        """Close the stream beneath."""
        await self._stream.aclose()


def meter(connection: Any, traffic: Traffic) -> None:
    """Count the bytes of a TCP stream of libp2p from now on."""
    connection.stream = MeteredStream(connection.stream, traffic)
