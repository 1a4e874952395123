"""What a peer signs of a stream while it makes it, so that its part is its own if it dies.

A stream is one output that comes unit by unit (tokens). A segment is one peer's part of it: it
begins where the last segment that it builds on ends. While a peer streams, it signs every few units
for all of its segment so far; the last of these is what it answers for. Whoever goes on names that
one, and signs for what comes after.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

from wire import limits
from wire.content import ContentId
from wire.errors import Malformed, Oversize
from wire.kinds import Kind
from wire.schema import Between, Digest, Inline, Int, Omitted, Record
from wire.signed import Signed, SignedRecord, open_signed

# A segment is signed for again after so many units.
UNITS_PER_SIGNATURE = 32
UNITS_MAX = 2**31
# The kind, the lengths, the key, and a signature of its own.
_ENVELOPE_BYTES = 112

SegmentBytes = Annotated[bytes, Between(1, limits.SEGMENT_BYTES_MAX)]
OptionalSegment = Annotated[bytes, Between(0, limits.SEGMENT_BYTES_MAX), Omitted(b"")]


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment(SignedRecord):
    """What a peer signed of one leg's stream: it made the `units` units after the first `first`.

    `shown` is the SHA-256 of the stream's first `size_bytes` bytes, which end with those units: so
    it binds what was built on, too. `built_on` is the id of the segment before; None for the first.
    `signed_at_ms` is its signer's wall clock.
    """

    KIND: ClassVar[Kind] = Kind.SEGMENT
    SIZE_BYTES_MAX: ClassVar[int] = limits.SEGMENT_BYTES_MAX - _ENVELOPE_BYTES

    task: ContentId
    stage: Annotated[int, Between(0, limits.STAGES_MAX - 1)]
    first: Annotated[int, Between(0, UNITS_MAX)]
    units: Annotated[int, Between(1, UNITS_MAX)]
    size_bytes: Annotated[int, Between(1, limits.BLOB_BYTES_MAX)]
    shown: Digest
    built_on: ContentId | None
    profile: Annotated[str, Between(0, 128)]
    signed_at_ms: Int

    @property
    def end(self) -> int:
        """The position after its last unit."""
        return self.first + self.units


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress(Record):
    """What other peers streamed of this leg before they failed: `units` of output, joined.

    `segments` are what they signed of it (`wire.segment`): whoever goes on names those in its
    receipt that its own output begins with. None are sent to peers before SEGMENTS_VERSION.
    """

    units: Annotated[int, Between(1, UNITS_MAX)]
    data: Inline
    segments: Annotated[
        tuple[SegmentBytes, ...], Between(0, limits.SEGMENTS_BEFORE_MAX), Omitted(())
    ] = ()


def open_segments(task: ContentId, stage: int, envelopes: Sequence[bytes]) -> list[Signed[Segment]]:
    """Read what peers signed of one leg's stream, in order; WireError names what does not fit.

    Each begins where the one before ends, and names it.
    """
    if len(envelopes) > limits.SEGMENTS_BEFORE_MAX:
        most = limits.SEGMENTS_BEFORE_MAX
        raise Oversize(f"{len(envelopes)} segments before the last one; {most} are the most")
    found: list[Signed[Segment]] = []
    for number, raw in enumerate(envelopes, 1):
        segment = open_signed(raw, Segment)
        if why := misfit(segment, task, stage, found):
            raise Malformed(f"segment {number} of leg {stage + 1} {why}")
        found.append(segment)
    return found


def misfit(
    segment: Signed[Segment], task: ContentId, stage: int, before: Sequence[Signed[Segment]]
) -> str:
    """Why a segment does not follow those before it; empty if it does."""
    said, last = segment.record, before[-1] if before else None
    begins, size = (0, 0) if last is None else (last.record.end, last.record.size_bytes)
    for what, is_right in (
        ("is of another task", said.task == task),
        ("is of another leg", said.stage == stage),
        ("names another segment before it", said.built_on == (None if last is None else last.id)),
        (f"begins at {said.first}, where {begins} is due", said.first == begins),
        ("has units of no bytes", said.size_bytes > size),
        ("is too long", said.end <= UNITS_MAX),
    ):
        if not is_right:
            return what
    return ""


def is_of(segment: Segment, output: bytes) -> bool:
    """Whether an output begins with what was signed."""
    size = segment.size_bytes
    return size <= len(output) and hashlib.sha256(output[:size]).digest() == segment.shown


def standing(segments: Sequence[Signed[Segment]], output: bytes) -> tuple[Signed[Segment], ...]:
    """Of segments in order, the first ones that an output was built on."""
    for number, segment in enumerate(segments):
        if not is_of(segment.record, output):
            return tuple(segments[:number])
    return tuple(segments)


def end_of(segments: Sequence[Signed[Segment]]) -> int:
    """The position after the last unit of these; 0 if there are none."""
    return segments[-1].record.end if segments else 0
