"""What goes over the pipe between an engine and its worker: a length, then canonical msgpack.

Both sides are ours, and still every frame is bounded and parsed with care: a worker that ran wild
must not take its peer with it.
"""

from typing import Any, BinaryIO

from wire import limits
from wire.codec import Value, pack, unpack
from wire.errors import Malformed, Oversize

HEAD_BYTES = 4
# A call's tensors travel in one frame.
FRAME_BYTES_MAX = limits.TENSORS_BYTES_MAX


def to_frame(message: dict[str, Value]) -> bytes:
    """The bytes of one frame; Oversize beyond `FRAME_BYTES_MAX`."""
    body = pack(message)
    if len(body) > FRAME_BYTES_MAX:
        raise Oversize(f"a frame of {len(body)} bytes, at most {FRAME_BYTES_MAX}")
    return len(body).to_bytes(HEAD_BYTES, "big") + body


def body_bytes(head: bytes) -> int:
    """How many bytes follow a head; Oversize beyond the limit."""
    size = int.from_bytes(head, "big")
    if size > FRAME_BYTES_MAX:
        raise Oversize(f"a frame of {size} bytes, at most {FRAME_BYTES_MAX}")
    return size


def from_body(body: bytes) -> dict[str, Any]:
    """The message in a frame; WireError if it is not one."""
    message = unpack(body, size_bytes_max=FRAME_BYTES_MAX)
    if not isinstance(message, dict):
        raise Malformed(f"a frame holds a map, not {type(message).__name__}")
    return message


def read_frame(stream: BinaryIO) -> dict[str, Any] | None:
    """The next message of a blocking stream; None once the other side has closed it."""
    head = stream.read(HEAD_BYTES)
    if len(head) < HEAD_BYTES:
        return None
    size = body_bytes(head)
    body = stream.read(size)
    return from_body(body) if len(body) == size else None
