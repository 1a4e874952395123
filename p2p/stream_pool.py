"""The streams that this peer has opened to one other, for one call after the other."""

import trio

from p2p.framed_stream import FramedStream
from wire import limits
from wire.errors import Disconnected


class StreamPool:
    """The streams that we have opened to one peer; a caller waits while all are in use."""

    def __init__(self) -> None:
        # One slot for every stream in `busy`, and for every stream that is being opened.
        self.slots = trio.Semaphore(limits.STREAMS_PER_PEER_MAX)
        self.busy: set[FramedStream] = set()
        self.idle: list[FramedStream] = []
        self.users = 0
        # Whether its streams are used no more: another one has taken its place.
        self.retired = False

    def take_idle(self) -> FramedStream | None:
        """One that is open and free, if there is one."""
        while self.idle:
            # The stream that was used last is the likeliest to be alive.
            framed = self.idle.pop()
            if framed.error is None:
                return framed
        return None

    def give_back(self, framed: FramedStream) -> None:
        """Its call is over."""
        if framed in self.busy:
            self.busy.remove(framed)
            self.slots.release()
            if self.retired:
                framed.fail(_retired())
            elif framed.error is None:
                self.idle.append(framed)

    def retire(self) -> None:
        """End its streams, those in use once their calls have ended."""
        self.retired = True
        for framed in self.idle.copy():
            framed.fail(_retired())

    def drop(self, framed: FramedStream) -> None:
        """It has ended."""
        if framed in self.busy:
            self.busy.remove(framed)
            self.slots.release()
        elif framed in self.idle:
            self.idle.remove(framed)


def _retired() -> Disconnected:
    return Disconnected("another connection is used in its place")
