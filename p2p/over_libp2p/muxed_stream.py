"""Streams of our yamux: frames that fit a noise message, credit in large steps, quick reading."""

import struct
from typing import Self

import trio
from libp2p.security.noise.io import MAX_PLAINTEXT_LENGTH
from libp2p.stream_muxer.exceptions import MuxedStreamError
from libp2p.stream_muxer.yamux.yamux import TYPE_DATA, YAMUX_HEADER_FORMAT, YamuxStream

HEADER = struct.Struct(YAMUX_HEADER_FORMAT)
# A frame that fits one noise message is opened and put into its stream in one go.
FRAME_BODY_BYTES = MAX_PLAINTEXT_LENGTH - HEADER.size
# Yamux gives every stream 256 KiB to begin with; a megabyte keeps a transatlantic path busy.
_WINDOW_FIRST_BYTES = 256 << 10
_WINDOW_BYTES = 1 << 20
# A stream may end while a writer waits for credit, and nothing wakes the writer then.
_CREDIT_POLL_S = 0.5


class SoundStream(YamuxStream):  # type: ignore[misc]
    """A yamux stream whose writer waits for credit and whose reader gives it in large steps.

    Never constructed: `SoundYamux` turns the streams that yamux makes into these.
    """

    _eaten_bytes: int
    _window_bytes: int
    _credit: trio.Event

    @property
    def send_window(self) -> int:
        return int(self.__dict__["send_window"])

    @send_window.setter
    def send_window(self, size_bytes: int) -> None:
        self.__dict__["send_window"] = size_bytes
        credit = self.__dict__.get("_credit")
        if credit is not None and size_bytes > 0:
            credit.set()

    def begin(self) -> Self:
        """Set the attributes that yamux's constructor did not."""
        self._eaten_bytes = 0
        self._window_bytes = _WINDOW_FIRST_BYTES
        self._credit = trio.Event()
        return self

    async def write(self, data: bytes) -> None:
        """Write all of `data`, in frames. A cancelled write may have sent a part of it."""
        sent = 0
        while sent < len(data):
            while self.send_window <= 0 and not self.send_closed and not self.closed:
                self._credit = trio.Event()
                with trio.move_on_after(_CREDIT_POLL_S):
                    await self._credit.wait()
            if self.send_closed or self.closed:
                raise MuxedStreamError("the stream is closed for writing")
            size = min(self.send_window, FRAME_BODY_BYTES, len(data) - sent)
            self.send_window -= size
            header = HEADER.pack(0, TYPE_DATA, 0, self.stream_id, size)
            body = data if size == len(data) else data[sent : sent + size]
            await self.conn._write_frame(header + body)
            sent += size
            if self.is_initiator:
                self.conn.called_written_bytes += size

    async def read(self, n: int | None = None) -> bytes:
        """Up to `n` bytes as soon as there are any; ends as libp2p's own does."""
        conn, size = self.conn, n or 0
        while size > 0 and conn._is_sound(self):
            buffer = conn.stream_buffers.get(self.stream_id)
            event = conn.stream_events.get(self.stream_id)
            if buffer is None or event is None:
                break
            if buffer:
                await trio.lowlevel.checkpoint_if_cancelled()
                return await self._take(buffer, size)
            if event.is_set():
                conn.stream_events[self.stream_id] = trio.Event()
            else:
                await event.wait()
        data: bytes = await super().read(n)
        return data

    async def _take(self, buffer: bytearray, size_bytes: int) -> bytes:
        data = bytes(buffer[:size_bytes])
        del buffer[: len(data)]
        self.conn._was_read(len(data), called=self.is_initiator)
        if self._eaten_bytes + len(data) < self._window_bytes // 2:
            self._eaten_bytes += len(data)
        else:
            await self._auto_tune_and_send_window_update(bytes_read=len(data))
        if buffer:
            # Others have their turn before the rest.
            await trio.lowlevel.checkpoint()
        return data

    async def _auto_tune_and_send_window_update(self, *, bytes_read: int = 0) -> None:
        # Yamux would send a credit frame for every small read.
        self._eaten_bytes += bytes_read
        if self._eaten_bytes < self._window_bytes // 2 or self.recv_closed:
            return
        grant = self._eaten_bytes + _WINDOW_BYTES - self._window_bytes
        self._eaten_bytes = 0
        self._window_bytes = _WINDOW_BYTES
        self.recv_window += grant
        await self.send_window_update(grant)
