"""Who has layers run here at the moment: how many sessions, whose, and which makes room. Pure.

Keys cost nothing, so sessions are counted by key and by address prefix; and when all places are
taken, whoever has used its own the longest ago makes room for a newcomer.
"""

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from node.dispatch.layer_log import RowLog
from wire.content import ContentId, PeerId
from wire.errors import Refused

# Sessions at once; of one asker: one that stands, and one that it begins after a failure; and of
# all askers of one address prefix.
SESSIONS_MAX = 16
SESSIONS_PER_ASKER = 2
SESSIONS_PER_PREFIX = 8
# One without a pass for so long makes room where somebody else needs it.
TAKEN_BACK_S = 10.0


@dataclass(slots=True, eq=False)
class StageSession:
    """One asker's. `end` ends it; `log` has digests of what went through."""

    number: int
    asker: PeerId
    prefix: str
    used_at_s: float
    end: Callable[[], None]
    model: ContentId | None = None
    # Whether a pass of it is being done.
    busy: bool = False
    # Passes since what went through was signed.
    unsigned: int = 0
    log: RowLog = field(default_factory=RowLog)


@dataclass(slots=True)
class StageSessions:
    """The sessions that stand now."""

    _sessions: dict[int, StageSession] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self._sessions)

    def make_room(self, asker: PeerId, prefix: str, now_at_s: float) -> None:
        """Room for one more of this asker; Refused where there is none. It may end another one."""
        of_asker = Counter(it.asker for it in self._sessions.values())
        of_prefix = Counter(it.prefix for it in self._sessions.values())
        if of_asker[asker] >= SESSIONS_PER_ASKER:
            raise self._full("you have")
        if prefix and of_prefix[prefix] >= SESSIONS_PER_PREFIX:
            raise self._full("others of your network have")
        if len(self._sessions) < SESSIONS_MAX:
            return
        if not self._end_oldest(self._sessions.values(), now_at_s):
            raise self._full("too many others have")

    def take_back(self, model: ContentId, now_at_s: float) -> bool:
        """End a session that has pages of a model and does not use them; False if there is none."""
        of_model = [it for it in self._sessions.values() if it.model == model]
        return self._end_oldest(of_model, now_at_s)

    def _end_oldest(self, some: Iterable[StageSession], now_at_s: float) -> bool:
        idle = [it for it in some if not it.busy and now_at_s - it.used_at_s >= TAKEN_BACK_S]
        if not idle:
            return False
        oldest = min(idle, key=lambda it: it.used_at_s)
        del self._sessions[oldest.number]
        oldest.end()
        return True

    def add(self, session: StageSession) -> None:
        self._sessions[session.number] = session

    def remove(self, session: StageSession) -> None:
        """It has ended; one that made room is not there any more."""
        self._sessions.pop(session.number, None)

    def _full(self, who: str) -> Refused:
        return Refused(f"{who} these layers run here already", retry_after_s=1.0)
