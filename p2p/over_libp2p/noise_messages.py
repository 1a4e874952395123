"""A secured connection that yamux reads and writes in whole noise messages.

libp2p asks the socket for two bytes of length, then for one message, then for twelve bytes of yamux
out of that, and sends one message for each write. Here one read of the socket takes what has
arrived, each whole message in it is opened in its turn, and one write sends any number of them.

Nothing is held beyond what one read brings: the next one waits until yamux has taken this one.
"""

from collections.abc import Awaitable, Callable
from typing import Any

from libp2p.io.exceptions import ConnectionClosedError, IncompleteReadError
from libp2p.io.trio import TrioTCPStream
from libp2p.network.connection.raw_connection import RawConnection
from libp2p.security.noise.io import (
    MAX_PLAINTEXT_LENGTH,
    NoisePacketReadWriter,
    NoiseTransportReadWriter,
)
from libp2p.security.secure_session import SecureSession

_READ_BYTES = 256 << 10
_LENGTH_BYTES = 2


class NoiseMessages:
    """What a yamux connection has as its `secured_conn`.

    `arrived` is called whenever there may be bytes in `plain` from `at` on, before yamux is given
    any of them; it may take some by moving `at` forward, and says whether yamux is to have what is
    left now, rather than when more has come. `pace` waits where frames that it left
    come too fast.
    """

    def __init__(
        self,
        session: SecureSession,
        arrived: Callable[[], bool],
        pace: Callable[[], Awaitable[None]],
    ) -> None:
        self.plain = bytearray()
        self.at = 0
        self._session = session
        self._arrived = arrived
        self._pace = pace
        self._noise = _checked(session.conn, NoiseTransportReadWriter)
        packets = _checked(self._noise.read_writer, NoisePacketReadWriter)
        self._raw = _checked(packets.read_write_closer, RawConnection)
        if type(self._raw.stream) is TrioTCPStream:
            # From here on one task alone reads it, and one alone writes.
            self._raw.stream.read_lock = self._raw.stream.write_lock = _Alone()
        # From the socket, up to a message that is not whole yet.
        self._sealed = bytearray()

    @property
    def socket(self) -> Any:
        """What carries the bytes."""
        return self._raw.stream

    def __getattr__(self, name: str) -> Any:
        # What libp2p asks about the connection: whose it is, and its addresses.
        return getattr(self._session, name)

    async def read(self, size_bytes: int) -> bytes:
        """The next header of a frame, once `arrived` has taken what it wants."""
        while True:
            if self._arrived() and len(self.plain) - self.at >= size_bytes:
                await self._pace()
                return self._taken(size_bytes)
            await self._receive()

    async def take(self, size_bytes: int) -> bytes:
        """The next bytes, whatever they are."""
        while len(self.plain) - self.at < size_bytes:
            await self._receive()
        return self._taken(size_bytes)

    async def write(self, data: bytes) -> None:
        """Send `data` as so many messages as it needs, at once."""
        sealed = []
        for begin in range(0, len(data), MAX_PLAINTEXT_LENGTH):
            message = self._noise.encrypt(data[begin : begin + MAX_PLAINTEXT_LENGTH])
            sealed += [len(message).to_bytes(_LENGTH_BYTES), message]
        await self._raw.write(b"".join(sealed))

    async def close(self) -> None:
        """Close the connection beneath; what was not read is lost."""
        await self._session.close()

    def _taken(self, size_bytes: int) -> bytes:
        end = self.at + size_bytes
        data = bytes(self.plain[self.at : end])
        self.at = end
        return data

    async def _receive(self) -> None:
        """Wait for at least one more message; what libp2p raises where none comes any more."""
        del self.plain[: self.at]
        self.at = 0
        # What the handshake's last message had besides.
        before = self._session._drain(None)
        if before:
            self.plain += before
            return
        while (message := self._next_message()) is None:
            data = await self._raw.read(_READ_BYTES)
            if not data:
                held = len(self._sealed) + len(self.plain)
                raise IncompleteReadError("the connection was closed", 0, held)
            self._sealed += data
        self.plain += message

    def _next_message(self) -> bytes | None:
        """Open the first message, if it is there whole; one that does not open stays there."""
        sealed = self._sealed
        end = _LENGTH_BYTES + int.from_bytes(sealed[:_LENGTH_BYTES])
        if len(sealed) < max(end, _LENGTH_BYTES):
            return None
        with memoryview(sealed) as view:
            message: bytes = self._noise.decrypt(bytes(view[_LENGTH_BYTES:end]))
        if not message:
            # As libp2p takes it.
            raise ConnectionClosedError("an empty message")
        del sealed[:end]
        return message


class _Alone:
    """In place of a lock where nobody else comes: trio's lets the loop go round for each use."""

    async def __aenter__(self) -> None:
        """Go on at once."""

    async def __aexit__(self, *_: object) -> None:
        """Nobody waits."""


def _checked(found: Any, kind: type) -> Any:
    """What libp2p has at this place; it is used inside, so it has to be what we know."""
    if type(found) is not kind:
        raise TypeError(f"libp2p has {type(found).__name__} where {kind.__name__} was expected")
    return found
