"""Where a peer can be called: asking to be called back, and to be called through a relay."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

from wire import limits
from wire.content import PeerId
from wire.kinds import Kind
from wire.message_base import Message
from wire.schema import Between, Int, Omitted
from wire.signed import SignedRecord

Port = Annotated[int, Between(1, 2**16 - 1)]


@dataclass(frozen=True, slots=True, kw_only=True)
class DialBack(Message):
    """Please call me over a new connection, at the IP address that you see me at, and this port.

    With `relay`: please call me through that one instead, where its own advert says that it is. The
    message names no address, so nobody can have a third party called.
    """

    KIND: ClassVar[Kind] = Kind.DIAL_BACK
    port: Port
    relay: Annotated[tuple[PeerId, ...], Between(0, 1), Omitted(())] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class DialedBack(Message):
    """Whether a peer with the asker's key answered at `host`, the IP address that was called."""

    KIND: ClassVar[Kind] = Kind.DIALED_BACK
    host: Annotated[str, Between(1, limits.HOST_BYTES_MAX)]
    reached: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Reservation(SignedRecord):
    """A relay's word that it passes calls on to `kept`, for `lease_s` seconds.

    It does so while the peer keeps a connection to it open, on `lines_max` lines at once.
    """

    KIND: ClassVar[Kind] = Kind.RESERVATION
    SIZE_BYTES_MAX: ClassVar[int] = limits.RESERVATION_BYTES_MAX

    kept: PeerId
    issued_at_s: Int
    lease_s: Annotated[int, Between(1, limits.LEASE_S_MAX)]
    lines_max: Annotated[int, Between(1, 2**16)]
    bytes_per_s: Int


@dataclass(frozen=True, slots=True, kw_only=True)
class Reserve(Message):
    """Please pass calls on to me, as long as this connection stands and for so long at most."""

    KIND: ClassVar[Kind] = Kind.RESERVE
    lease_s: Annotated[int, Between(1, limits.LEASE_S_MAX)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reserved(Message):
    """The relay does: a signed Reservation."""

    KIND: ClassVar[Kind] = Kind.RESERVED
    reservation: Annotated[
        bytes, Between(1, limits.RESERVATION_BYTES_MAX + limits.ENVELOPE_BYTES_MAX)
    ]
