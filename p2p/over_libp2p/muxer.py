"""Yamux with the bounds and checks that py-libp2p's multiplexer lacks, in one subclass.

- A frame is queued whole and one task writes the queue, so a cancelled caller can neither cut a
  frame in half nor put the cipher out of step, and frames that wait travel together.
- The other side is pinged; if it does not answer, the connection is dropped.
- Streams that a peer opens, and unread bytes, are bounded for each connection.
- Credit is given back in large steps, and a writer without credit waits instead of giving up.
- Data that is for a stream, and has arrived whole, goes straight into it; libp2p's own loop, with
  its locks, reads every other frame. So does a reader take from its stream's buffer.

Nothing here can be configured: every number is here, with its reason.
"""

import math
import struct
from collections import deque
from typing import Any, cast

import trio
from libp2p.io.exceptions import ConnectionClosedError
from libp2p.security.noise.io import MAX_PLAINTEXT_LENGTH
from libp2p.stream_muxer.yamux.yamux import (
    FLAG_SYN,
    TYPE_DATA,
    TYPE_PING,
    YAMUX_HEADER_FORMAT,
    Yamux,
    YamuxStream,
)

from p2p import timeouts
from p2p.over_libp2p.errors import contained
from p2p.over_libp2p.muxed_stream import HEADER, SoundStream
from p2p.over_libp2p.noise_messages import NoiseMessages
from p2p.token_bucket import TokenBucket
from wire import limits

# How many streams a peer may have open at once: Baton's own, gossip, pings, some that are ending.
STREAMS_IN_MAX = limits.STREAMS_IN_PER_PEER_MAX + 32
# How many it may open at once, and then each second. Every stream costs us most of a millisecond,
# also one that is reset at once; Baton uses its own again and again. Who does not stop is cut off.
STREAMS_AT_ONCE = 96.0
STREAMS_PER_S = 64.0
STREAMS_REFUSED_MAX = 128
# Frames that are no plain data: credit, pings, beginnings and ends of streams. Each has twelve
# bytes and costs us a tenth of a millisecond; whose come faster is read more slowly, and who goes
# on for so long without a pause is cut off.
FRAMES_AT_ONCE = 1024.0
FRAMES_PER_S = 256.0
_NEGOTIATED_AT_ONCE = 8
_PACE_S, _PACED_S_MAX = 0.02, 1.0
# Unread bytes of one connection. Baton reads its streams at once, whatever the application does,
# so connections of honest peers stay far below.
UNREAD_BYTES_MAX = 64 << 20

# Frames that wait travel together, in a few messages that are full.
_BATCH_BYTES = 4 * MAX_PLAINTEXT_LENGTH
_QUEUE_BYTES = 256 << 10
# Replies to the other side's frames do not wait, or two full queues would wait for each other.
# Beyond this many, a peer that makes us reply but does not read is disconnected.
_QUEUE_BYTES_MAX = 4 << 20

# Ping, wait, ping again: a frozen peer is dropped within ten seconds.
_PING_INTERVAL_S = 4.0
_PING_DEADLINE_S = 5.0
# Where the other side has connected anew: what waits on a dead connection waits for its end.
_PROVE_DEADLINE_S = 2.0
_WRITE_DEADLINE_S = 20.0
_LAST_WORDS_S = 0.5
# For the rest of a frame whose header has come.
_BODY_DEADLINE_S = 60.0
# No frame of ours is larger: the rest of such a one is waited for here, and of others by libp2p.
_FRAME_BYTES_MAX = 64 << 10


class SoundYamux(Yamux):  # type: ignore[misc]
    """One multiplexed connection. The module's docstring says what it adds."""

    secured_conn: Any

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._messages = NoiseMessages(self.secured_conn, self._deliver, self._pace)
        self.secured_conn = self._messages
        # Frames of data that did not go through libp2p's loop.
        self.delivered = 0
        # What was read from, and written to, the streams that this end opened.
        self.called_read_bytes = 0
        self.called_written_bytes = 0
        self._frames: deque[bytes] = deque()
        self._queued_bytes = 0
        self._to_write = trio.Event()
        self._drained = trio.Event()
        self._unread_bytes = 0
        self._heard_at = 0.0
        self.streams_refused = 0
        # Whether a later connection stands, and this one has not shown since that it lives.
        self.in_doubt = False
        self._doubted = trio.Event()
        self._openings = TokenBucket(STREAMS_AT_ONCE, STREAMS_PER_S)
        self._frames_read = TokenBucket(FRAMES_AT_ONCE, FRAMES_PER_S)
        # Since when its frames have come too fast, without a pause.
        self._paced_since_at_s = math.inf
        # By these names libp2p bounds how many streams agree on a protocol at once: those that we
        # open, and those of the other side, so that a hundred of one peer delay nobody else.
        self._negotiation_semaphore = trio.Semaphore(limits.STREAMS_PER_PEER_MAX)
        self._server_negotiation_semaphore = trio.Semaphore(_NEGOTIATED_AT_ONCE)

    @property
    def is_relayed(self) -> bool:
        """Whether another peer passes the connection on."""
        return getattr(self.socket, "IS_RELAYED", False)

    @property
    def socket(self) -> Any:
        """What the connection is over: a socket, or a line that a relay passes on."""
        return self._messages.socket

    async def start(self) -> None:
        # An exception that left this task would end the service behind every connection.
        try:
            with contained("a yamux connection"):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._write_queue)
                    await super().start()
                    nursery.cancel_scope.cancel()
        finally:
            # No task empties the queue any more; tasks that wait for room must see the end.
            self._queued_bytes = 0
            self.event_shutting_down.set()
            self._drained.set()
            # Yamux closes its socket at the end of a clean-up that may be cancelled before that.
            await self._drop()

    async def open_stream(self) -> SoundStream:
        return self._adopt(await super().open_stream())

    async def accept_stream(self) -> SoundStream:
        while True:
            stream = self._adopt(await super().accept_stream())
            in_time = self._openings.take(trio.current_time())
            if in_time and stream.reset_received:
                # It was given up before anything had to be done for it.
                continue
            inbound = sum(not one.is_initiator for one in self.streams.values())
            if in_time and inbound <= STREAMS_IN_MAX:
                return stream
            self.streams_refused += 1
            if self.streams_refused > STREAMS_REFUSED_MAX:
                await self._drop()
            with contained("refusing a stream"):
                await stream.reset()

    def _adopt(self, stream: YamuxStream) -> SoundStream:
        # Yamux's code names its stream class, so we change the class of the object that it made.
        stream.__class__ = SoundStream
        return cast("SoundStream", stream).begin()

    async def close(self, *arguments: Any) -> None:
        if not self.event_shutting_down.is_set():
            # Bytes that were just written have been sent, unless the other side does not read.
            with trio.move_on_after(_LAST_WORDS_S):
                while self._queued_bytes:
                    await self._drained.wait()
        await super().close(*arguments)

    async def _write_frame(self, data: bytes) -> None:
        if len(data) > HEADER.size:
            while self._queued_bytes > _QUEUE_BYTES and not self.event_shutting_down.is_set():
                await self._drained.wait()
        if self.event_shutting_down.is_set():
            raise ConnectionClosedError("the connection is closed", transport="yamux")
        if self._queued_bytes > _QUEUE_BYTES_MAX:
            await self._drop()
            raise ConnectionClosedError("the other side does not read", transport="yamux")
        self._frames.append(data)
        self._queued_bytes += len(data)
        self._to_write.set()
        await trio.lowlevel.checkpoint_if_cancelled()

    async def _write_queue(self) -> None:
        while True:
            await self._to_write.wait()
            batch, size = [], 0
            while self._frames and size < _BATCH_BYTES:
                batch.append(self._frames.popleft())
                size += len(batch[-1])
            if not self._frames:
                self._to_write = trio.Event()
            done = False
            with contained("writing to a connection"), timeouts.move_on_after(_WRITE_DEADLINE_S):
                await self.secured_conn.write(batch[0] if len(batch) == 1 else b"".join(batch))
                done = True
            self._queued_bytes -= size
            self._drained.set()
            self._drained = trio.Event()
            if not done:
                await self._drop()
                return

    async def _pace(self) -> None:
        while not self._frames_read.take(now_at_s := trio.current_time()):
            self._paced_since_at_s = min(self._paced_since_at_s, now_at_s)
            if now_at_s - self._paced_since_at_s > _PACED_S_MAX:
                await self._drop()
                raise ConnectionClosedError("frames without end", transport="yamux")
            await trio.sleep(_PACE_S)
        if self._frames_read.tokens(now_at_s) > FRAMES_AT_ONCE / 2:
            self._paced_since_at_s = math.inf

    def prove(self) -> None:
        """Ask at once whether the other side still hears us here; else the connection ends."""
        self.in_doubt = True
        self._doubted.set()

    async def _measure_rtt_loop(self) -> None:
        # In place of yamux's loop, which never dropped a connection.
        while True:
            asked_at = trio.current_time()
            self._ping_id += 1
            self._ping_event = trio.Event()
            ping = struct.pack(YAMUX_HEADER_FORMAT, 0, TYPE_PING, FLAG_SYN, 0, self._ping_id)
            with contained("a ping"):
                await self._write_frame(ping)
                self._ping_sent_time = trio.current_time()
            deadline_s = _PROVE_DEADLINE_S if self.in_doubt else _PING_DEADLINE_S
            with timeouts.move_on_after(deadline_s):
                await self._ping_event.wait()
            if not self._ping_event.is_set() and self._heard_at <= asked_at:
                await self._drop()
                return
            if self._ping_event.is_set():
                self.in_doubt, self._doubted = False, trio.Event()
            with trio.move_on_after(_PING_INTERVAL_S):
                await self._doubted.wait()

    async def _drop(self) -> None:
        # Only the socket is closed here. The reading task notices, and only that task cleans up,
        # so that no clean-up is cancelled half-way.
        with contained("dropping a connection"), trio.CancelScope(shield=True):
            await self.secured_conn.close()

    def _is_sound(self, stream: YamuxStream) -> bool:
        """Whether a stream is open to its reader, as far as is known."""
        return not (
            stream.recv_closed
            or stream.closed
            or stream.reset_received
            or self.event_shutting_down.is_set()
        )

    def _deliver(self) -> bool:
        """Put the data frames that have come whole into the streams that they are for.

        What is anything else, or would be too much, is left to libp2p's loop. Nothing here waits,
        so it does not matter who holds which lock. False where the rest of a frame is to come.
        """
        messages, whole = self._messages, True
        at, end = messages.at, len(messages.plain)
        with memoryview(messages.plain) as plain:
            while (begin := at + HEADER.size) <= end:
                _, kind, flags, stream_id, size = HEADER.unpack_from(plain, at)
                stream = self.streams.get(stream_id)
                if (
                    kind != TYPE_DATA
                    or flags
                    or stream is None
                    or not self._is_sound(stream)
                    or self._unread_bytes + size > UNREAD_BYTES_MAX
                ):
                    break
                if begin + size > end:
                    whole = size > _FRAME_BYTES_MAX
                    break
                at = begin + size
                self.stream_buffers[stream_id] += plain[begin:at]
                stream.recv_window = max(0, stream.recv_window - size)
                self._unread_bytes += size
                self.delivered += 1
                self.stream_events[stream_id].set()
        if at != messages.at or not whole:
            messages.at = at
            self._heard_at = trio.current_time()
        return whole

    async def _read_data_body(self, length: int) -> bytes:
        with trio.fail_after(_BODY_DEADLINE_S):
            data = await self._messages.take(length)
        self._heard_at = trio.current_time()
        self._unread_bytes += length
        if self._unread_bytes > UNREAD_BYTES_MAX:
            # For speed the sum is only approximate; it is computed exactly before the peer is
            # blamed.
            self._unread_bytes = length + sum(map(len, self.stream_buffers.values()))
            if self._unread_bytes > UNREAD_BYTES_MAX:
                await self._drop()
                raise ConnectionClosedError("too much unread", transport="yamux")
        return data

    async def read_stream(self, stream_id: int, n: int = -1) -> bytes:
        stream = self.streams.get(stream_id)
        data: bytes = await super().read_stream(stream_id, n)
        self._was_read(len(data), called=stream is not None and stream.is_initiator)
        return data

    def _was_read(self, size_bytes: int, *, called: bool) -> None:
        self._unread_bytes = max(0, self._unread_bytes - size_bytes)
        if called:
            self.called_read_bytes += size_bytes

    def _finalize_stream_locked(self, stream: YamuxStream, *, fully_closed: bool) -> None:
        if stream.reset_received:
            # Nobody will read a reset stream's remaining bytes; yamux would keep them for a minute.
            buffer = self.stream_buffers.get(stream.stream_id)
            if buffer is not None:
                buffer.clear()
        super()._finalize_stream_locked(stream, fully_closed=fully_closed)
