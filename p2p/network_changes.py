"""What has happened to this machine's network, told from what is seen of it now and then. Pure.

A machine moves to another network, sleeps, has its clock set, or is cut off and found again. No
connection says so at once: one that is dead looks like one that is idle.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum

from wire.content import PeerId
from wire.latest import Latest

# Both clocks are read one after the other, and a time server moves one of them a little.
JUMP_S = 5.0
# Who was silent for so long was hung up on by most others.
STALLED_S = 8.0
# Dead connections are found out one after the other, within this.
LOST_WITHIN_S = 15.0
LOST_KEPT = 64
# Keys that call and hang up, however many, have us ask our router and strangers no more often.
BACK_EVERY_S = 60.0
# Who brings it about again and again is heard half as often each time, until it was calm so long.
BACK_EVERY_S_MAX = CALM_S = 3600.0


class Change(StrEnum):
    """What has happened; the words are for people."""

    MOVED = "this machine has other addresses"
    SLEPT = "this machine slept, or its clock was set"
    # It may be the line of this machine, or its relays that went: nothing here tells which.
    BACK = "most connections across the internet broke at once, and others stand again"


@dataclass(slots=True)
class NetworkChanges:
    """Feed it who is met and lost across the internet; `look` says what has happened since."""

    # Whether others across the internet were met, and none of them is connected now.
    cut_off: bool = False
    _far: set[PeerId] = field(default_factory=set)
    _lost_at_s: Latest[PeerId, float] = field(default_factory=lambda: Latest(LOST_KEPT))
    _broken: bool = False
    _back_at_s: float = float("-inf")
    _back_every_s: float = BACK_EVERY_S
    # Trio's clock and the wall's, and the addresses, at the last look; None before the first.
    _last: tuple[float, float, frozenset[str]] | None = None

    def met(self, peer: PeerId) -> None:
        """A connection to a peer across the internet stands."""
        self._far.add(peer)
        self.cut_off = False

    def lost(self, peer: PeerId, now_at_s: float) -> None:
        """The last connection to a peer has ended."""
        if peer not in self._far:
            return
        self._far.discard(peer)
        self._lost_at_s[peer] = now_at_s
        self.cut_off = not self._far

    def look(self, now_at_s: float, wall_s: float, addresses: Iterable[str]) -> tuple[Change, ...]:
        """What has happened since the last look."""
        here = frozenset(addresses)
        last, self._last = self._last, (now_at_s, wall_s, here)
        found = []
        if last is not None:
            passed_s = now_at_s - last[0]
            jumped_s = wall_s - last[1] - passed_s
            if abs(jumped_s) > JUMP_S or passed_s > STALLED_S:
                found.append(Change.SLEPT)
            if here != last[2]:
                found.append(Change.MOVED)
        if self._is_back(now_at_s):
            found.append(Change.BACK)
        return tuple(found)

    def _is_back(self, now_at_s: float) -> bool:
        lost = [it for it, at_s in self._lost_at_s.items() if now_at_s < at_s + LOST_WITHIN_S]
        # Those that came back meanwhile were lost too.
        if lost and 2 * len(lost) >= len(self._far.union(lost)):
            self._broken = True
        passed_s = now_at_s - self._back_at_s
        if not (self._broken and self._far and passed_s >= self._back_every_s):
            return False
        calm = passed_s >= self._back_every_s + CALM_S
        more_s = BACK_EVERY_S if calm else min(BACK_EVERY_S_MAX, 2 * self._back_every_s)
        self._broken, self._back_at_s, self._back_every_s = False, now_at_s, more_s
        self._lost_at_s.clear()
        return True
