"""Lanes say nothing of a client, and tasks that wait at home take turns by them."""

from random import Random

from node.dispatch.lanes import LaneQueue, Lanes
from wire import limits


def test_a_lane_is_the_same_for_one_client_and_says_nothing_of_it() -> None:
    lanes = Lanes(Random(1).randbytes)
    first, second = lanes.of(b"first"), lanes.of(b"second")
    assert first != second
    assert lanes.of(b"first") == first
    assert len(first) == limits.LANE_BYTES_MAX
    # Another process, or this one after a restart, calls it otherwise.
    assert Lanes(Random(2).randbytes).of(b"first") != first
    assert lanes.of(b"") == b""


def test_lanes_take_turns_and_within_one_the_first_is_next() -> None:
    queue = LaneQueue[int]()
    for number in range(5):
        queue.put(b"a", number)
    queue.put(b"b", 10)
    queue.put(b"c", 20)
    queue.put(b"c", 21)
    assert len(queue) == len(list(queue)) == 8
    queue.discard(b"a", 2)
    queue.discard(b"a", 2)
    queue.discard(b"d", 1)
    assert [queue.pop() for _ in range(7)] == [0, 10, 20, 1, 21, 3, 4]
    assert not queue
    assert list(queue) == []
