"""One stream that carries calls, one after the other.

The side that opened the stream begins each call; then both sides send as they like, and the call is
over when both have sent END. A framed stream has one task that reads and one that writes; neither
is cancelled in the middle of a frame except to drop the whole stream. `FramedStream._take` has the
rules that a peer may break; breaking one resets the stream and nothing else.

Waiting here always has a deadline: the caller's, or the limit for silence.
"""

import math
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import trio

from p2p import timeouts
from p2p.frames import Frame, FrameKind, FrameParser, credit_frame, read_credit
from p2p.transport import ByteStream
from wire import limits
from wire.errors import (
    BatonError,
    Disconnected,
    LocalProtocolError,
    RemoteProtocolError,
    TooSlow,
    TransportError,
    WireError,
)

BEAT_INTERVAL_S = 2.0
# So long is four missed heartbeats: the process is frozen, not slow.
SILENCE_S = 8.0
IDLE_S = 60.0
# The side that opened a stream normally ends it; the other side ends one that is idle for so long.
IDLE_ACCEPTED_S = 180.0
# An honest peer opens a stream to send something. A stream with no bytes for so long, or without a
# whole frame for as long as honest peers keep an idle stream, is ended: it only takes our places.
NEVER_SPOKE_S = 10.0
# After we have sent END, the other side may take this long to send END as well.
PARTING_S = 5.0

_READ_BYTES = 64 << 10
_WRITE_BYTES = 64 << 10
_OUTBOX_BYTES = 64 << 10
# Every frame costs this much credit in addition to its payload, or empty frames would be free.
_FRAME_COST_BYTES = 64
_GRANT_BYTES = limits.STREAM_CREDIT_BYTES // 4

# The largest frame always fits the credit that is left before the receiver grants more.
assert limits.FRAME_BYTES_MAX + _FRAME_COST_BYTES + _GRANT_BYTES <= limits.STREAM_CREDIT_BYTES


class TooMuchUnread(TransportError):
    """The bound on unread bytes is reached; the peer of this stream may not be to blame."""


@dataclass(slots=True)
class Unread:
    """The unread bytes of all streams that share this object; see limits.UNREAD_BYTES_MAX."""

    held_bytes: int = 0


class FramedCall:
    """The state of one call; it outlives its place on the stream until its frames are read."""

    __slots__ = (
        "credit_bytes",
        "eaten_bytes",
        "heard",
        "inbox",
        "left",
        "number",
        "they_ended",
        "we_ended",
        "window_bytes",
    )

    def __init__(self, number: int) -> None:
        self.number = number
        self.inbox: deque[bytes] = deque()
        # Credit: what we may send, what they may send, and what we have read since the last grant.
        self.credit_bytes = limits.STREAM_CREDIT_BYTES
        self.window_bytes = limits.STREAM_CREDIT_BYTES
        self.eaten_bytes = 0
        self.heard = False
        self.we_ended = False
        self.they_ended = False
        # Whether the caller has left the call and reads no more.
        self.left = False

    @property
    def is_over(self) -> bool:
        return self.we_ended and self.they_ended


class FramedStream:
    """A stream, its two tasks, and at most one call at a time.

    `error` is set once, when the stream has ended. `on_idle` is called when a call has ended
    cleanly on both sides and its caller has left it; `on_end` when the stream has ended. Streams
    with the same `unread` share its bound: the stream whose frame exceeds it is reset.
    """

    def __init__(
        self, stream: ByteStream, *, opened_here: bool, unread: Unread | None = None
    ) -> None:
        self.peer = stream.peer
        self.opened_here = opened_here
        self.error: BatonError | None = None
        self.call: FramedCall | None = None
        self.count = 0
        self.on_idle: Callable[[], None] = _nothing
        self.on_end: Callable[[], None] = _nothing
        self._stream = stream
        self._unread = unread or Unread()
        self._held_bytes = 0
        self._waiting: FramedCall | None = None
        # Whether somebody waits for room in the outbox.
        self._waits_to_send = False
        self._outbox: deque[bytes] = deque()
        self._outbox_bytes = 0
        self._to_write = trio.Event()
        self._changed = trio.Event()
        self._sent_at_s = 0.0
        self._opened_at_s = 0.0
        self._alive = trio.CancelScope()

    async def run(self) -> None:
        """Carry calls until the stream ends; then `error` says why."""
        self._opened_at_s = trio.current_time()
        self._set_patience()
        try:
            with self._alive, timeouts.stretch(self._alive):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._guarded, self._write_forever)
                    await self._guarded(self._read_forever)
            if self._never_spoke:
                self.fail(TooSlow(f"{self.peer.short} opened a stream and sent nothing"))
            if self.call is not None and not self.call.left:
                self.fail(Disconnected(f"heard nothing of {self.peer.short} for {SILENCE_S:g} s"))
        finally:
            broken = self.call is not None or not isinstance(self.error, Disconnected | None)
            self.fail(Disconnected(f"the stream to {self.peer.short} has ended"))
            self._release(self._held_bytes)
            self.on_end()
            await self._part(broken)

    def fail(self, error: BatonError) -> None:
        """End the stream with this error, unless it has ended already."""
        if self.error is None:
            self.error = error
            self._alive.cancel()
            self._wake()

    def begin(self) -> FramedCall:
        """Start a call; only for the side that opened the stream."""
        assert self.opened_here
        assert self.call is None
        return self._begin()

    async def next_conversation(self) -> FramedCall | None:
        """The next call that the other side begins; None when the stream has ended."""
        while self._waiting is None:
            if self.error is not None:
                return None
            await self._changed.wait()
        conversation, self._waiting = self._waiting, None
        return conversation

    async def send(self, call: FramedCall, payload: bytes, deadline_at_s: float) -> None:
        """Queue one payload, whole or not at all, also if cancelled."""
        if len(payload) > limits.FRAME_BYTES_MAX:
            raise LocalProtocolError(f"{len(payload)} bytes, at most {limits.FRAME_BYTES_MAX}")
        if call.we_ended:
            raise LocalProtocolError("sending after END")
        cost = len(payload) + _FRAME_COST_BYTES
        await trio.lowlevel.checkpoint_if_cancelled()
        while self._must_wait(call, cost):
            self._waits_to_send = True
            await self._wait(deadline_at_s, "took no more")
        call.credit_bytes -= cost
        self._queue(Frame(FrameKind.DATA, payload))

    def end(self, call: FramedCall) -> None:
        """Send END: nothing more follows. Safe to call twice, and when the stream has ended."""
        if not call.we_ended:
            call.we_ended = True
            if self.error is None:
                self._queue(Frame(FrameKind.END))
            self._settle(call)

    async def receive(self, call: FramedCall, deadline_at_s: float) -> bytes | None:
        """The next payload; None when the other side has sent END. Payloads that arrived before
        the stream broke are still given.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        while not call.inbox:
            if call.they_ended:
                return None
            if self.error is not None:
                raise self._raised()
            await self._wait(deadline_at_s, "said nothing")
        payload = call.inbox.popleft()
        cost = len(payload) + _FRAME_COST_BYTES
        self._release(cost)
        call.eaten_bytes += cost
        if call.eaten_bytes >= _GRANT_BYTES and not call.they_ended and self.error is None:
            call.window_bytes += call.eaten_bytes
            self._queue(credit_frame(call.number, call.eaten_bytes))
            call.eaten_bytes = 0
        return payload

    def leave(self, call: FramedCall) -> None:
        """Leave a call without an error. The stream is free once the other side has ended too."""
        call.left = True
        self._release(sum(len(payload) + _FRAME_COST_BYTES for payload in call.inbox))
        call.inbox.clear()
        if call.is_over:
            self.on_idle()
            return
        self.end(call)
        if self.call is call:
            self._alive.deadline = trio.current_time() + PARTING_S

    def _begin(self) -> FramedCall:
        self.count += 1
        self.call = FramedCall(self.count)
        self._sent_at_s = trio.current_time()
        self._set_patience()
        # The writer sleeps without a deadline while there is no call.
        self._to_write.set()
        return self.call

    def _settle(self, call: FramedCall) -> None:
        if call.is_over and self.call is call:
            self.call = None
            self._set_patience()
            if call.left:
                self.on_idle()

    def _set_patience(self) -> None:
        if self.call is None:
            patience_s = IDLE_S if self.opened_here else self._idle_accepted_s()
        elif self.call.left:
            return
        else:
            patience_s = SILENCE_S
        self._alive.deadline = trio.current_time() + patience_s

    @property
    def _never_spoke(self) -> bool:
        return not self.opened_here and not self.count

    def _idle_accepted_s(self) -> float:
        if not self._never_spoke:
            return IDLE_ACCEPTED_S
        return min(NEVER_SPOKE_S, self._opened_at_s + IDLE_S - trio.current_time())

    def _must_wait(self, call: FramedCall, cost: int) -> bool:
        if self.error is not None:
            raise self._raised()
        return call.credit_bytes < cost or self._outbox_bytes > _OUTBOX_BYTES

    def _raised(self) -> BatonError:
        # A new error object each time: several tasks may raise it.
        assert self.error is not None
        return type(self.error)(self.error.message, todo=self.error.todo)

    async def _wait(self, deadline_at_s: float, what: str) -> None:
        with trio.move_on_at(deadline_at_s) as scope:
            await self._changed.wait()
        if scope.cancelled_caught:
            raise TooSlow(f"{self.peer.short} {what} before the deadline")

    def _queue(self, frame: Frame) -> None:
        data = frame.to_bytes()
        self._outbox.append(data)
        self._outbox_bytes += len(data)
        self._to_write.set()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    async def _guarded(self, loop: Callable[[], Awaitable[None]]) -> None:
        try:
            await loop()
        except (TransportError, WireError, RemoteProtocolError) as error:
            self.fail(error)

    async def _read_forever(self) -> None:
        parser = FrameParser()
        while data := await self._stream.read(_READ_BYTES):
            self._set_patience()
            for frame in parser.feed(data):
                self._take(frame)
        self.fail(Disconnected(f"{self.peer.short} has closed the stream"))

    def _take(self, frame: Frame) -> None:
        call = self.call
        if call is None:
            # Credit and heartbeats of the last call may still arrive.
            if frame.kind in (FrameKind.CREDIT, FrameKind.BEAT):
                return
            if self.opened_here:
                raise RemoteProtocolError(f"{self.peer.short} sent a frame outside a call")
            call = self._waiting = self._begin()
        call.heard = True
        match frame.kind:
            case FrameKind.DATA:
                self._take_data(call, frame.payload)
            case FrameKind.END:
                if call.they_ended:
                    raise RemoteProtocolError(f"{self.peer.short} ended twice")
                call.they_ended = True
                self._settle(call)
            case FrameKind.CREDIT:
                number, size_bytes = read_credit(frame)
                if number == call.number:
                    call.credit_bytes += size_bytes
                    if call.credit_bytes > limits.STREAM_CREDIT_BYTES:
                        raise RemoteProtocolError(f"{self.peer.short} gave credit for nothing")
            case FrameKind.BEAT:
                return
        self._wake()

    def _take_data(self, call: FramedCall, payload: bytes) -> None:
        if call.they_ended:
            raise RemoteProtocolError(f"{self.peer.short} sent data after its END")
        cost = len(payload) + _FRAME_COST_BYTES
        call.window_bytes -= cost
        if call.window_bytes < 0:
            raise RemoteProtocolError(f"{self.peer.short} sent more than its credit")
        if not call.left:
            self._hold(cost)
            call.inbox.append(payload)
        elif self.opened_here:
            # Only a reset makes the other side stop. The side that accepted the stream waits a
            # moment instead, so that its last frames are not lost with the stream.
            self.fail(Disconnected("we left before the other side had ended"))

    def _hold(self, cost: int) -> None:
        self._held_bytes += cost
        self._unread.held_bytes += cost
        if (
            self._held_bytes > limits.UNREAD_FREE_BYTES
            and self._unread.held_bytes > limits.UNREAD_BYTES_MAX
        ):
            raise TooMuchUnread(f"too many bytes of {self.peer.short} and others are unread here")

    def _release(self, cost: int) -> None:
        # An ended stream no longer counts, even while a caller still reads its last frames.
        cost = min(cost, self._held_bytes)
        self._held_bytes -= cost
        self._unread.held_bytes -= cost

    async def _write_forever(self) -> None:
        while True:
            if not self._outbox:
                await self._wait_to_write()
                continue
            batch = [self._outbox.popleft()]
            size = len(batch[0])
            while self._outbox and size + len(self._outbox[0]) <= _WRITE_BYTES:
                batch.append(self._outbox.popleft())
                size += len(batch[-1])
            await self._stream.write(batch[0] if len(batch) == 1 else b"".join(batch))
            self._sent_at_s = trio.current_time()
            self._outbox_bytes -= size
            if self._waits_to_send:
                # Who waits to receive hears nothing new: it is not woken for each frame sent.
                self._waits_to_send = False
                self._wake()

    async def _wait_to_write(self) -> None:
        self._to_write = trio.Event()
        beat_at_s = math.inf if self.call is None else self._sent_at_s + BEAT_INTERVAL_S
        with trio.move_on_at(beat_at_s) as scope:
            await self._to_write.wait()
        if scope.cancelled_caught and self.call is not None:
            self._queue(Frame(FrameKind.BEAT))

    async def _part(self, broken: bool) -> None:
        if not broken:
            with trio.CancelScope(shield=True), timeouts.move_on_after(PARTING_S):
                try:
                    await self._stream.close()
                except TransportError:
                    return
            return
        await self._stream.reset()


def _nothing() -> None:
    """Do nothing: the default callback."""
