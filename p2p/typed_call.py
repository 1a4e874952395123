"""Messages over an exchange, each checked against the conversation's table before it counts."""

from dataclasses import dataclass
from typing import Protocol, TypeVar

from wire import limits
from wire.content import PeerId
from wire.conversation import CallProtocol
from wire.errors import BatonError, Refused, RemoteProtocolError
from wire.message import Message, Refuse, decode, encode

M = TypeVar("M", bound=Message)


class CallChannel(Protocol):
    """One conversation's frames on a pooled stream (see `p2p.streams`)."""

    @property
    def peer(self) -> PeerId: ...
    async def send(self, payload: bytes) -> None:
        """Send one message's bytes; TransportError if the other side is gone or too slow."""

    async def receive(self) -> bytes:
        """The bytes of the next message; TransportError if none comes."""


@dataclass(slots=True)
class TypedCall:
    """One conversation with one peer."""

    channel: CallChannel
    conversation: CallProtocol
    # Whether they have said anything yet.
    heard: bool = False

    @property
    def peer(self) -> PeerId:
        return self.channel.peer

    async def send(self, message: Message) -> None:
        """Send a message; LocalProtocolError out of turn, TransportError if it does not arrive."""
        self.conversation.sent(message)
        await self.channel.send(encode(message))

    async def receive(self) -> Message:
        """Their next message; WireError or RemoteProtocolError if it is none, or out of turn."""
        payload = await self.channel.receive()
        self.heard = True
        message = decode(payload)
        self.conversation.received(message)
        return message

    async def expect(self, kind: type[M]) -> M:
        """Their next message, which is a `kind`; Refused if they refuse instead."""
        message = await self.receive()
        if isinstance(message, Refuse):
            raise refused(message)
        if not isinstance(message, kind):
            raise RemoteProtocolError(f"{type(message).__name__} where {kind.__name__} is due")
        return message


def refused(message: Refuse) -> Refused:
    """A refusal as the error it is to the one who asked."""
    wait_ms = message.retry_after_ms
    return Refused(
        message.reason,
        code=message.cause,
        retry_after_s=None if wait_ms is None else wait_ms / 1000,
    )


def refusal_of(error: BatonError) -> Refuse:
    """An error of ours as the refusal that tells the other side why."""
    wait_s = error.retry_after_s if isinstance(error, Refused) else None
    return Refuse(
        code=error.code,
        reason=error.message.encode()[: limits.REASON_BYTES_MAX].decode(errors="ignore"),
        retry_after_ms=None if wait_s is None else int(wait_s * 1000),
    )
