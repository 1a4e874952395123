"""A leg that is being done, and what it streamed so far, for whoever offers it once more.

An asker whose connection broke comes back in a second, and offers the leg that is still being done
for it. It hears from there on what is made, instead of nothing until all is.
"""

from array import array
from bisect import bisect_left
from dataclasses import dataclass, field

import trio

from node.dispatch.progress import ENDS_MAX
from node.engines.interface import Part
from node.serving.lease import LegLease
from node.serving.role import Emit
from wire import limits
from wire.message import Progress


@dataclass(slots=True)
class RunningLeg:
    """`lease` is that of the one for whom it is done, and `resume` what it went on from."""

    lease: LegLease | None = None
    resume: Progress | None = None
    ended: trio.Event = field(default_factory=trio.Event)
    # What was streamed, and its units and bytes after each piece. None: more than may be resumed,
    # or it went back, and whoever comes then waits for the end.
    _data: bytearray | None = field(default_factory=bytearray)
    _units: "array[int]" = field(default_factory=lambda: array("Q"))
    _sizes: "array[int]" = field(default_factory=lambda: array("Q"))
    _news: trio.Event = field(default_factory=trio.Event)

    def end(self) -> None:
        """It is done, or has failed."""
        self.ended.set()
        self._news.set()

    def heard_by(self, emit: Emit) -> Emit:
        """An `emit` that also keeps what is streamed."""

        async def keep(part: Part) -> None:
            self._keep(part)
            await emit(part)

        return keep

    def _keep(self, part: Part) -> None:
        if self._data is None:
            return
        if not self._units and self.resume is not None and part.position == self.resume.units:
            self._add(part.position, self.resume.data)
        if part.position != (self._units[-1] if self._units else 0):
            self._data = None
        else:
            self._add(part.position + part.units, part.data)
            if len(self._data) > limits.INLINE_BYTES_MAX or len(self._units) > ENDS_MAX:
                self._data = None
        self._news.set()
        self._news = trio.Event()

    def _add(self, units: int, data: bytes) -> None:
        assert self._data is not None
        self._data += data
        self._units.append(units)
        self._sizes.append(len(self._data))

    async def follow(self, resume: Progress | None, emit: Emit) -> bool:
        """Pass on what comes after `resume`, while it is kept; whether anything was.

        Where something else was shown before, it is passed on from the start.
        """
        at, begun = self._place(resume), False
        while self._data is not None:
            at = self._place(resume) if at is None else at
            while at is not None and self._data is not None and at < len(self._units):
                begun = True
                at += 1
                await emit(self._part(at - 1))
            if self.ended.is_set() or self._data is None:
                break
            await self._news.wait()
        return begun

    def _part(self, at: int) -> Part:
        assert self._data is not None
        position, begin = (self._units[at - 1], self._sizes[at - 1]) if at else (0, 0)
        data = bytes(self._data[begin : self._sizes[at]])
        return Part(position, self._units[at] - position, data)

    def _place(self, resume: Progress | None) -> int | None:
        """The number of the piece after what was shown; None while so much is not made yet."""
        if resume is None or not resume.units or self._data is None:
            return 0
        if not resume.data.startswith(bytes(self._data[: len(resume.data)])):
            return 0
        if not self._units or self._units[-1] < resume.units:
            return None
        at = bisect_left(self._units, resume.units)
        same = (self._units[at], self._sizes[at]) == (resume.units, len(resume.data))
        return at + 1 if same else 0
