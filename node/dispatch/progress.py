"""What was shown of a stream so far, by any peer, so that another peer can continue it.

A pure core. Each unit is shown once: of a peer that continues, only the position of its pieces is
trusted. A piece at an earlier position means that what was shown from there on was wrong, and the
watchers get a `Restarted`. Everything is provisional until the receipt; then `remainder` makes what
was shown equal to the output.
"""

import hashlib
from dataclasses import dataclass, field

from node.engines.interface import Part
from node.task.events import Restarted, Streamed
from wire import limits
from wire.errors import RemoteProtocolError
from wire.message import Progress

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

    @classmethod
    def after(cls, progress: Progress | None) -> "StreamProgress":
        """The progress that an offer brings, of another peer's stream."""
        shown = cls()
        if progress is not None:
            shown._append(Part(0, progress.units, progress.data))
        return shown

    def begin(self) -> Progress | None:
        """Begin another peer's stream; what it continues from, if small enough to send."""
        self._restarts = 0
        self._muted = False
        self._next = 0
        if self._data is None or not self.units:
            return None
        self._next = self.units
        return Progress(units=self.units, data=bytes(self._data))

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
        del self._data[self._size :]
        self._hash = hashlib.sha256(self._data)
        return True
