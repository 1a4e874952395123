"""Messages over a call, each checked against the table of `wire.conversation` before use."""

from dataclasses import dataclass
from typing import Protocol, TypeVar

from wire import limits
from wire.content import PeerId
from wire.conversation import CallProtocol
from wire.errors import BatonError, Refused, RemoteProtocolError
from wire.message import Message, Refuse, decode, encode, encode_uncoded
from wire.order import OrderRefusal

# Whatever a peer says, it may be asked again after this; a refusal for good says no time at all.
RETRY_AFTER_S_MAX = 3600.0

M = TypeVar("M", bound=Message)


class CallChannel(Protocol):
    """One call's payloads on a pooled stream (see `p2p.streams`)."""

    @property
    def peer(self) -> PeerId: ...
    async def send(self, payload: bytes) -> None:
        """Send one message's bytes; TransportError if the other side is gone or too slow."""

    async def receive(self) -> bytes:
        """The bytes of the next message; TransportError if none arrives."""


@dataclass(slots=True)
class TypedCall:
    """One call with one peer, as messages."""

    channel: CallChannel
    conversation: CallProtocol
    # Whether the peer has sent anything yet.
    heard: bool = False

    @property
    def peer(self) -> PeerId:
        return self.channel.peer

    async def send(self, message: Message) -> None:
        """Send a message; LocalProtocolError out of turn, TransportError if it does not arrive."""
        self.conversation.sent(message)
        await self.channel.send(encode(message))

    async def refuse_uncoded(self, refusal: Refuse) -> None:
        """As `send`, to a peer of version 1, which reads no code."""
        self.conversation.sent(refusal)
        await self.channel.send(encode_uncoded(refusal))

    async def receive(self) -> Message:
        """The peer's next message; WireError or RemoteProtocolError if invalid or out of turn."""
        payload = await self.channel.receive()
        self.heard = True
        message = decode(payload)
        self.conversation.received(message)
        return message

    async def expect(self, kind: type[M]) -> M:
        """The peer's next message, which must be a `kind`; Refused if the peer refuses instead."""
        message = await self.receive()
        if isinstance(message, Refuse):
            raise refused(message)
        if not isinstance(message, kind):
            raise RemoteProtocolError(f"{type(message).__name__} instead of {kind.__name__}")
        return message


def refused(message: Refuse | OrderRefusal) -> Refused:
    """The error that a peer's refusal, of a call or of one task of an order, means here."""
    wait_ms = message.retry_after_ms
    return Refused(
        message.reason,
        code=message.cause,
        retry_after_s=None if wait_ms is None else min(RETRY_AFTER_S_MAX, wait_ms / 1000),
    )


def refusal_of(error: BatonError) -> Refuse:
    """The refusal that tells the other side about an error of ours."""
    wait_s = error.retry_after_s if isinstance(error, Refused) else error.RETRY_AFTER_S
    return Refuse(
        code=error.code,
        reason=error.message.encode()[: limits.REASON_BYTES_MAX].decode(errors="ignore"),
        retry_after_ms=None if wait_s is None else int(wait_s * 1000),
    )
