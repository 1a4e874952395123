"""Messages about where a peer can be called: asking to be called back."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

from wire import limits
from wire.kinds import Kind
from wire.message_base import Message
from wire.schema import Between

Port = Annotated[int, Between(1, 2**16 - 1)]


@dataclass(frozen=True, slots=True, kw_only=True)
class DialBack(Message):
    """Please call me over a new connection, at the IP address that you see me at, and this port.

    The message names no address, so nobody can have a third party called.
    """

    KIND: ClassVar[Kind] = Kind.DIAL_BACK
    port: Port


@dataclass(frozen=True, slots=True, kw_only=True)
class DialedBack(Message):
    """Whether a peer with the asker's key answered at `host`, the IP address that was called."""

    KIND: ClassVar[Kind] = Kind.DIALED_BACK
    host: Annotated[str, Between(1, limits.HOST_BYTES_MAX)]
    reached: bool
