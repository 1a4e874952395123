"""Signing a stream while it is made, so that what was shown is signed for if this peer dies.

A peer signs for its part of a stream every few tokens, or once a second, with the piece that it
sends then. Whoever goes on builds on the last of these (`wire.segment`).
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace

import trio

from node.dispatch.handoff import Handoff
from node.dispatch.progress import StreamProgress
from node.engines.interface import Part
from wire.errors import RemoteProtocolError
from wire.segment import UNITS_PER_SIGNATURE
from wire.signed import sign
from wire.signing import SigningKey

# What was made is signed for after this time, however little it is.
EVERY_S = 1.0
Relay = Callable[[Part], Awaitable[None]]


@dataclass(slots=True)
class SegmentSigning:
    """Signs the stream of one leg. `reads`: whether the holder knows what such a signature is."""

    key: SigningKey
    handoff: Handoff
    profile: str
    wall_s: Callable[[], float]
    reads: Callable[[], Awaitable[bool]]
    _progress: StreamProgress = field(init=False)
    _signed_units: int = field(init=False)
    _signed_at_s: float = field(default_factory=trio.current_time)
    # Whether the holder reads it; None until it is asked.
    _is_read: bool | None = None

    def __post_init__(self) -> None:
        self._progress = StreamProgress.after(self.handoff.resume, self.handoff.segments)
        self._progress.begin(with_segments=True)
        self._signed_units = self._progress.units

    def signing(self, relay: Relay) -> Relay:
        """A relay that has some of the pieces signed before they are passed on."""

        async def pass_on(part: Part) -> None:
            await relay(await self._signed(part))

        return pass_on

    async def _signed(self, part: Part) -> Part:
        if self._is_read is False:
            return part
        try:
            self._progress.apply(part)
        except RemoteProtocolError:
            # The stream does not go on from what was said to be shown: the receipt alone signs it.
            self._is_read = False
            return part
        units, now_at_s = self._progress.units, trio.current_time()
        # Of a stream that went back, what was signed before is signed no more.
        self._signed_units = min(self._signed_units, part.position)
        many = units - self._signed_units >= UNITS_PER_SIGNATURE
        if not many and now_at_s - self._signed_at_s < EVERY_S:
            return part
        if self._is_read is None:
            self._is_read = await self.reads()
        segment = self._progress.next_segment(
            self.handoff.task.id, self.handoff.stage, self.profile, int(self.wall_s() * 1000)
        )
        if not self._is_read or segment is None:
            return part
        self._signed_units, self._signed_at_s = units, now_at_s
        return replace(part, segment=sign(segment, self.key).raw)
