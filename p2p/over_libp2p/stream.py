"""A libp2p stream as the transport seam has streams."""

from typing import Any

import trio

from p2p.over_libp2p.errors import contained, streaming
from wire.content import PeerId
from wire.errors import Disconnected

_RESET_DEADLINE_S = 1.0


class LibStream:
    """A libp2p stream as a `ByteStream`."""

    def __init__(self, peer: PeerId, stream: Any) -> None:
        self._peer = peer
        self._stream = stream
        # We skip libp2p's stream wrapper: it counts and locks, for a third of a round trip's cost.
        self._muxed = stream.muxed_stream

    @property
    def peer(self) -> PeerId:
        return self._peer

    async def read(self, size_bytes_max: int) -> bytes:
        with streaming(self._peer):
            try:
                data: bytes = await self._muxed.read(size_bytes_max)
            except EOFError:
                data = b""
        # Yamux reports a reset, and a broken connection, like a normal end.
        if not data and (self._muxed.reset_received or self._muxed.muxed_conn.is_closed):
            raise Disconnected(f"the stream to {self._peer.short} was reset")
        return data

    async def write(self, data: bytes) -> None:
        with streaming(self._peer):
            await self._muxed.write(data)

    async def close(self) -> None:
        with streaming(self._peer):
            await self._stream.close()

    async def reset(self) -> None:
        with (
            contained("resetting a stream"),
            trio.CancelScope(shield=True),
            trio.move_on_after(_RESET_DEADLINE_S),
        ):
            await self._stream.reset()
