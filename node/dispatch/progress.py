"""What was shown of a stream so far, by any peer, so that another peer can continue it.

A pure core. Each unit is shown once: of a peer that continues, only the position of its pieces is
trusted. A piece at an earlier position means that what was shown from there on was wrong, and the
watchers get a `Restarted`. Everything is provisional until the receipt; then `remainder` makes what
was shown equal to the output.

Who streams signs for its part as it goes (`wire.segment`). The last that each peer signed is kept,
and is given to who goes on, so that each answers for its own part.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field

from node.engines.interface import Part
from node.task.events import Restarted, Streamed
from wire import limits
from wire.content import ContentId, PeerId
from wire.errors import Malformed, RemoteProtocolError
from wire.message import Progress
from wire.segment import Segment, misfit
from wire.signed import Signed, open_signed

UNITS_MAX = 2**31
# Positions kept at which a stream can be cut if a peer goes back. A guess.
ENDS_MAX = 8192
# An honest chain goes back at most once for each peer of it that fails.
RESTARTS_MAX = 16


@dataclass(slots=True)
class StreamProgress:
    """How far a stream was shown, and what is needed to go on with it elsewhere."""

    units: int = 0
    _size: int = 0
    # None if more was shown than an offer may carry: only the count and the hash are kept.
    _data: bytearray | None = field(default_factory=bytearray)
    _ends: dict[int, int] = field(default_factory=lambda: {0: 0})
    _hash: "hashlib._Hash" = field(default_factory=hashlib.sha256)
    # For the peer that streams now: the position of its next piece, and how often it went back.
    _next: int = 0
    _restarts: int = 0
    # The peer went back to a position without a cut: nothing is shown until another peer streams.
    _muted: bool = False
    # What is signed of that which was shown, in order.
    segments: list[Signed[Segment]] = field(default_factory=list)
    # Those that the peer that streams now was given, and of these the ones that it has not undone.
    given: tuple[Signed[Segment], ...] = ()
    _before: list[Signed[Segment]] = field(default_factory=list)

    @classmethod
    def after(
        cls, progress: Progress | None, segments: Sequence[Signed[Segment]] = ()
    ) -> "StreamProgress":
        """The progress that an offer brings, of other peers' streams, with what is signed of it."""
        shown = cls(segments=list(segments))
        if progress is not None:
            shown._append(Part(0, progress.units, progress.data))
        return shown

    def begin(self, *, with_segments: bool = False) -> Progress | None:
        """Begin another peer's stream; what it continues from, if small enough to send.

        `with_segments`: it reads what others signed before it, and is given that.
        """
        self._restarts = 0
        self._muted = False
        self._next = 0
        self.given, self._before = (), []
        if self._data is None or not self.units:
            return None
        self._next = self.units
        if with_segments:
            self.given = tuple(self.segments[: limits.SEGMENTS_BEFORE_MAX])
            self._before = list(self.given)
        raw = tuple(it.raw for it in self.given)
        return Progress(units=self.units, data=bytes(self._data), segments=raw)

    def apply(self, part: Part) -> list[Streamed | Restarted]:
        """The events for the watchers that follow from a piece of the peer that streams now.

        RemoteProtocolError for a piece that leaves a gap, or if the peer goes back too often.
        """
        if not part.units or not part.data:
            raise RemoteProtocolError("a piece of nothing")
        back = part.position < self._next
        if part.position > self._next:
            raise RemoteProtocolError(f"a piece at {part.position} where {self._next} is due")
        if part.position + part.units > UNITS_MAX:
            raise RemoteProtocolError(f"a stream of more than {UNITS_MAX} units")
        self._restarts += back
        if self._restarts > RESTARTS_MAX:
            raise RemoteProtocolError("a stream that begins again and again")
        self._next = part.position + part.units
        if self._muted or (not back and self._next <= self.units):
            # This part was shown already.
            return []
        told: list[Streamed | Restarted] = []
        if part.position < self.units:
            if not self._cut(part.position):
                # No piece ended at this position, so it cannot be found in what was shown.
                self._cut(0)
                self._muted = True
                return [Restarted(0)]
            told.append(Restarted(part.position))
        self._append(part)
        return [*told, Streamed(part.position, part.units, part.data)]

    def next_segment(
        self, task: ContentId, stage: int, profile: str, signed_at_ms: int
    ) -> Segment | None:
        """What the peer that streams now may sign of all that was shown; None if that is nothing.

        Whoever went back to where nothing can be cut is muted, and signs with its receipt alone.
        """
        last = self._before[-1] if self._before else None
        first = 0 if last is None else last.record.end
        if self._muted or self.units <= first or self._next != self.units:
            return None
        return Segment(
            task=task,
            stage=stage,
            first=first,
            units=self.units - first,
            size_bytes=self._size,
            shown=self._hash.digest(),
            built_on=None if last is None else last.id,
            profile=profile,
            signed_at_ms=signed_at_ms,
        )

    def take_segment(self, part: Part, peer: PeerId, task: ContentId, stage: int) -> bool:
        """Take in what a peer signed with a piece that was applied; whether it is kept.

        It is not kept if it is about something else than was shown: the peer that does not begin
        with what was shown only signs with its receipt. WireError if it is not that peer's word
        about this stream.
        """
        if not part.segment:
            return False
        segment = open_signed(part.segment, Segment)
        if segment.signer != peer:
            raise Malformed("a segment was signed by another peer than the one that streams")
        if why := misfit(segment, task, stage, self._before):
            raise Malformed(f"a segment {why}")
        said = segment.record
        is_shown = (said.end, said.size_bytes, said.shown) == (
            self.units,
            self._size,
            self._hash.digest(),
        )
        if is_shown:
            self.segments = [*self._before, segment]
        return is_shown

    def forget_segments(self) -> None:
        """What was signed is not given to anybody else: an answer that it led to was rejected."""
        self.segments = []

    def remainder(self, output: bytes, units: int) -> list[Streamed | Restarted]:
        """The last events, after which what was shown is `output`, of `units`."""
        told: list[Streamed | Restarted] = []
        right = hashlib.sha256(output[: self._size]).digest() == self._hash.digest()
        ends = (self.units, self._size) == (units, len(output))
        if not right or (not ends and (self.units >= units or self._size >= len(output))):
            self._cut(0)
            told.append(Restarted(0))
        left = output[self._size :]
        # A longer remainder is read from the answer.
        if self.units < units and len(left) <= limits.INLINE_BYTES_MAX:
            told.append(Streamed(self.units, units - self.units, left))
        return told

    def _append(self, part: Part) -> None:
        self.units = part.position + part.units
        self._size += len(part.data)
        self._hash.update(part.data)
        if self._data is None:
            return
        self._data += part.data
        self._ends[self.units] = self._size
        if self._size > limits.INLINE_BYTES_MAX or len(self._ends) > ENDS_MAX:
            self._data = None
            self._ends = {}

    def _cut(self, position: int) -> bool:
        """Forget what was shown from `position` on, if a piece ended there."""
        if position == 0:
            self._data, self._ends = bytearray(), {0: 0}
        if self._data is None or position not in self._ends:
            return False
        self.units, self._size = position, self._ends[position]
        self._ends = {at: size for at, size in self._ends.items() if at <= position}
        for kept in (self.segments, self._before):
            kept[:] = [it for it in kept if it.record.end <= position]
        del self._data[self._size :]
        self._hash = hashlib.sha256(self._data)
        return True
