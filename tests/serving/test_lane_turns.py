"""Lanes order what is one asker's own, and nothing of anybody else."""

from random import Random

import pytest

from node.serving.admission import Admission
from node.serving.lane_turns import LANES_MAX, LaneTurns
from node.serving.queue_slot import Now, QueuedJob, QueueSlot, SlotStage
from tests.serving.test_admission import now, peer

NOW = Now(0.0, 400, 0.0)


def enqueue(admission: Admission, name: str, lane: bytes, cost_s: float = 1.0) -> QueueSlot:
    job = QueuedJob(asker=peer(name), units=1, cost_s=cost_s, left_s=1000.0, lane=lane)
    place, _ = admission.enqueue(job, peer(name), NOW)
    place.stage = SlotStage.READY
    return place


def done(admission: Admission) -> list[QueueSlot]:
    """The places in the order in which they are worked on, one at a time."""
    found = []
    while begun := admission.next(now())[0]:
        found += begun
        for place in begun:
            admission.dequeue(place)
    return found


def lanes(admission: Admission) -> str:
    return "".join(it.lane.decode() for it in done(admission))


def test_a_lane_with_one_job_waits_for_one_turn_and_not_for_a_backlog() -> None:
    admission = Admission(1)
    for lane in (b"a",) * 8 + (b"b",) * 2 + (b"c",):
        enqueue(admission, "x", lane)
    assert lanes(admission) == "abcab" + "a" * 6


def test_a_lane_with_long_jobs_has_fewer_turns() -> None:
    admission = Admission(1)
    for _ in range(4):
        enqueue(admission, "x", b"l", cost_s=3.0)
    for _ in range(9):
        enqueue(admission, "x", b"s")
    assert lanes(admission) == "lsssl" + "sssl" + "sssl"


def test_a_lane_that_was_idle_has_saved_nothing_up() -> None:
    admission = Admission(1)
    for _ in range(6):
        enqueue(admission, "x", b"a")
    for _ in range(3):
        (begun,), _ = admission.next(now())
        admission.dequeue(begun)
    for _ in range(3):
        enqueue(admission, "x", b"b")
    assert lanes(admission) in ("ababab", "bababa")


@pytest.mark.parametrize("seed", range(30))
def test_others_have_their_turns_as_if_there_were_no_lanes(seed: int) -> None:
    random = Random(seed)
    jobs = [
        (random.choice("xxy"), random.choice((b"a", b"b", b"c")), random.choice((1.0, 1.0, 4.0)))
        for _ in range(40)
    ]
    turns = {}
    for told in (False, True):
        admission = Admission(1)
        for name, lane, cost_s in jobs:
            # Only x tells its lanes.
            enqueue(admission, name, lane if told and name == "x" else b"", cost_s)
        at_s, turns[told] = 0.0, dict[str, list[float]](x=[], y=[])
        for place in done(admission):
            turns[told]["x" if place.asker == peer("x") else "y"].append(at_s)
            at_s += place.cost_s
    # What x sends first is its own choice in either case: at most one of its jobs is longer.
    for without, with_lanes in zip(turns[False]["y"], turns[True]["y"], strict=True):
        assert with_lanes <= without + 4.0
    assert len(turns[True]["x"]) == len(turns[False]["x"])


def test_lanes_are_bounded_and_end_with_the_last_job() -> None:
    turns, asker = LaneTurns(), peer("x")
    names = [b"%d" % at for at in range(10 * LANES_MAX)]
    kept = [turns.came(asker, it) for it in names]
    assert len(set(kept)) <= LANES_MAX + 1
    assert turns.has_several(asker)
    for lane in kept:
        turns.left(asker, lane, 1.0)
    assert not turns.has_several(asker)
    assert not turns._askers
