"""Which of one asker's own jobs takes the asker's next turn. A pure core.

An asker may say of its jobs which lanes they are in, for instance one for each of its clients. Its
turns are those that it has anyway; within them the lane that was worked for least is next, and a
lane that was idle has saved nothing up. So an asker only ever orders what is its own.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from wire.content import PeerId
from wire.counting import count_down, count_up

# Lanes of one asker that are told apart; a further one counts as one with all others like it.
LANES_MAX = 64
_OTHERS = b""


@dataclass(slots=True)
class _Asker:
    """One asker's lanes: how many jobs of each wait, and what was worked for each."""

    waiting: dict[bytes, int] = field(default_factory=dict)
    worked_s: dict[bytes, float] = field(default_factory=dict)


@dataclass(slots=True)
class LaneTurns:
    """The lanes of all askers with waiting jobs; what is known of an asker ends with its last."""

    _askers: dict[PeerId, _Asker] = field(default_factory=dict)

    def came(self, asker: PeerId, lane: bytes) -> bytes:
        """Note a job that waits now; the lane that it is in here."""
        mine = self._askers.setdefault(asker, _Asker())
        if lane not in mine.worked_s:
            if len(mine.worked_s) >= LANES_MAX:
                lane = _OTHERS
            mine.worked_s.setdefault(lane, 0.0)
        if lane not in mine.waiting:
            least_s = min((mine.worked_s[it] for it in mine.waiting), default=0.0)
            mine.worked_s[lane] = max(mine.worked_s[lane], least_s)
        count_up(mine.waiting, lane)
        return lane

    def left(self, asker: PeerId, lane: bytes, worked_s: float) -> None:
        """Note a job that waits no more, and how much is now worked for it."""
        mine = self._askers[asker]
        count_down(mine.waiting, lane)
        mine.worked_s[lane] += worked_s
        if not mine.waiting:
            del self._askers[asker]

    def has_several(self, asker: PeerId) -> bool:
        """Whether jobs of several lanes of an asker wait."""
        mine = self._askers.get(asker)
        return mine is not None and len(mine.waiting) > 1

    def order(self, asker: PeerId) -> Callable[[bytes], float]:
        """How much was worked for a lane of an asker: the least is next."""
        return self._askers[asker].worked_s.__getitem__
