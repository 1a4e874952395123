"""The messages of one topic on their way to who subscribed to it."""

from collections.abc import Callable
from typing import Any, Self

import trio

from p2p.transport import Heard

_INBOX_MAX = 128


class Inbox:
    """A `Subscription`: a bounded queue of a topic's messages."""

    def __init__(self, topic: str, leave: Callable[["Inbox"], Any]) -> None:
        self._topic = topic
        self._leave = leave
        self._dropped = 0
        self._send, self._receive = trio.open_memory_channel[Heard](_INBOX_MAX)

    @property
    def topic(self) -> str:
        return self._topic

    @property
    def dropped(self) -> int:
        return self._dropped

    def offer(self, heard: Heard) -> bool:
        """Add a message; returns whether there was room."""
        try:
            self._send.send_nowait(heard)
        except trio.WouldBlock:
            self._dropped += 1
            return False
        return True

    def close(self) -> None:
        """Take no more messages; the reader gets those that are queued, and then the end."""
        self._send.close()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Heard:
        try:
            return await self._receive.receive()
        except trio.EndOfChannel:
            raise StopAsyncIteration from None

    async def unsubscribe(self) -> None:
        self.close()
        await self._leave(self)
