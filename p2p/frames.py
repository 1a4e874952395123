"""How a call is cut into frames: one byte of kind, four of length, then the payload.

Pure: bytes in, frames out. A bad frame is refused at its header, before a byte of the payload is
kept. Who may send which frame when is checked in `p2p.framed_stream`.
"""

import struct
from dataclasses import dataclass
from enum import IntEnum

from wire import limits
from wire.errors import Malformed, Oversize

_HEADER = struct.Struct(">BI")
_CREDIT = struct.Struct(">II")
HEADER_BYTES = _HEADER.size


class FrameKind(IntEnum):
    """Append only. These numbers are the protocol."""

    DATA = 1
    END = 2
    CREDIT = 3
    BEAT = 4


_SIZES = {
    FrameKind.DATA: range(limits.FRAME_BYTES_MAX + 1),
    FrameKind.END: range(1),
    FrameKind.CREDIT: range(_CREDIT.size, _CREDIT.size + 1),
    FrameKind.BEAT: range(1),
}


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame; `payload` is empty except for DATA and CREDIT."""

    kind: FrameKind
    payload: bytes = b""

    def to_bytes(self) -> bytes:
        return _HEADER.pack(self.kind, len(self.payload)) + self.payload


def credit_frame(conversation: int, size_bytes: int) -> Frame:
    """A frame that says: the receiver has read `size_bytes` of the call with this number."""
    return Frame(FrameKind.CREDIT, _CREDIT.pack(conversation, size_bytes))


def read_credit(frame: Frame) -> tuple[int, int]:
    """The call's number on its stream, and the size in bytes."""
    conversation, size_bytes = _CREDIT.unpack(frame.payload)
    return conversation, size_bytes


class FrameParser:
    """Takes bytes in any portions, and gives whole frames."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[Frame]:
        """Every frame that is complete now.

        Raises Malformed for an unknown kind or a length that kind cannot have, Oversize for a
        payload beyond FRAME_BYTES_MAX. Nothing may be fed after that.
        """
        self._buffer += data
        frames = []
        start = 0
        while len(self._buffer) - start >= HEADER_BYTES:
            number, size = _HEADER.unpack_from(self._buffer, start)
            kind = _checked(number, size)
            end = start + HEADER_BYTES + size
            if len(self._buffer) < end:
                break
            frames.append(Frame(kind, bytes(self._buffer[start + HEADER_BYTES : end])))
            start = end
        del self._buffer[:start]
        return frames


def _checked(number: int, size: int) -> FrameKind:
    try:
        kind = FrameKind(number)
    except ValueError as error:
        raise Malformed(f"no frame is of kind {number}") from error
    if size > limits.FRAME_BYTES_MAX:
        raise Oversize(f"a frame of {size} bytes, at most {limits.FRAME_BYTES_MAX}")
    if size not in _SIZES[kind]:
        raise Malformed(f"{kind.name} does not have {size} bytes")
    return kind
