"""Nobody takes all sessions with many keys, and who does not use its own gives it back."""

import pytest

from node.serving.stage_sessions import (
    SESSIONS_MAX,
    SESSIONS_PER_ASKER,
    SESSIONS_PER_PREFIX,
    TAKEN_BACK_S,
    StageSession,
    StageSessions,
)
from tests.wire.samples import KEY
from wire.content import PeerId
from wire.errors import Refused


def asker(number: int) -> PeerId:
    return PeerId(bytes([number]) + KEY.peer[1:])


class Room:
    def __init__(self) -> None:
        self.sessions = StageSessions()
        self.ended: list[int] = []
        self.begun = 0

    def begin(self, number: int, now_at_s: float, prefix: str = "") -> StageSession:
        """A session of the asker with this number."""
        self.sessions.make_room(asker(number), prefix, now_at_s)
        self.begun += 1
        at = self.begun
        session = StageSession(at, asker(number), prefix, now_at_s, lambda: self.ended.append(at))
        self.sessions.add(session)
        return session


def test_one_asker_and_one_prefix_have_a_part_of_the_room() -> None:
    room = Room()
    for _ in range(SESSIONS_PER_ASKER):
        room.begin(1, 0.0)
    with pytest.raises(Refused, match="you have these layers run here already"):
        room.begin(1, 1e6)
    for number in range(SESSIONS_PER_PREFIX):
        room.begin(10 + number, 0.0, "203.0.113.0/24")
    with pytest.raises(Refused, match="others of your network have"):
        room.begin(99, 1e6, "203.0.113.0/24")
    room.begin(100, 0.0, "198.51.100.0/24")
    assert not room.ended


def test_whoever_has_not_used_its_own_the_longest_makes_room() -> None:
    room = Room()
    held = [room.begin(number, float(number)) for number in range(SESSIONS_MAX)]
    with pytest.raises(Refused, match="too many others"):
        room.begin(50, TAKEN_BACK_S - 1)
    held[0].busy = True
    held[1].used_at_s = 100.0
    newcomer = room.begin(50, TAKEN_BACK_S + 2)
    assert room.ended == [held[2].number]
    assert len(room.sessions) == SESSIONS_MAX
    # That it has ended now is no news, and it takes nobody else's place.
    room.sessions.remove(held[2])
    assert len(room.sessions) == SESSIONS_MAX
    room.sessions.remove(newcomer)
    assert len(room.sessions) == SESSIONS_MAX - 1


def test_eight_keys_that_hold_all_keep_nobody_out_for_long() -> None:
    room = Room()
    for number in range(8):
        for _ in range(SESSIONS_PER_ASKER):
            room.begin(number, 0.0)
    assert len(room.sessions) == SESSIONS_MAX
    for number in range(8):
        room.begin(20 + number, TAKEN_BACK_S)
    assert len(room.ended) == 8
