"""A stream of a peer to itself: a peer can call its own roles as any other peer does."""

from dataclasses import dataclass, field

import trio

from p2p.transport import ByteStream
from wire.content import PeerId
from wire.errors import Disconnected


@dataclass(slots=True)
class _Both:
    """State that the two ends share."""

    is_reset: bool = False


@dataclass(slots=True)
class LoopbackStream:
    """One end, a `ByteStream`. At most one write at a time waits to be read."""

    peer: PeerId
    _both: _Both
    _out: trio.MemorySendChannel[bytes]
    _in: trio.MemoryReceiveChannel[bytes]
    _unread: bytes = field(default=b"")

    async def read(self, size_bytes_max: int) -> bytes:
        if not self._unread:
            try:
                self._unread = await self._in.receive()
            except trio.EndOfChannel:
                self._check()
                return b""
            except trio.ClosedResourceError as error:
                raise _gone() from error
        self._check()
        data, self._unread = self._unread[:size_bytes_max], self._unread[size_bytes_max:]
        return data

    async def write(self, data: bytes) -> None:
        if not data:
            return
        try:
            await self._out.send(bytes(data))
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise _gone() from error

    async def close(self) -> None:
        self._out.close()

    async def reset(self) -> None:
        self._both.is_reset = True
        self._unread = b""
        self._out.close()
        self._in.close()

    def _check(self) -> None:
        if self._both.is_reset:
            raise _gone()


def loopback_pair(me: PeerId) -> tuple[ByteStream, ByteStream]:
    """Both ends of a stream to ourselves."""
    both = _Both()
    out, far_in = trio.open_memory_channel[bytes](0)
    far_out, near_in = trio.open_memory_channel[bytes](0)
    return LoopbackStream(me, both, out, near_in), LoopbackStream(me, both, far_out, far_in)


def _gone() -> Disconnected:
    return Disconnected("the stream to ourselves was dropped")
