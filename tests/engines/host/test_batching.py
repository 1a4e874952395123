"""The queue as a pure core: turns, bounds, second tries."""

import pytest

from node.engines.formats.bert import fill, slots
from node.engines.host.batching import BatchOffer, Queue
from node.engines.interface import OFFER_TEXTS_MAX
from wire.content import ContentId
from wire.errors import EngineFailed, ModelRefused, Refused

ONE, OTHER = ContentId.of(b"one"), ContentId.of(b"other")
BUCKETS = (32, 128, 256)


def all_done(offer: BatchOffer) -> tuple[list[int], list[bytes]]:
    places = list(range(len(offer.items)))
    return places, [b"row"] * len(places)


def test_a_short_job_is_in_the_next_offer_whatever_was_there_before() -> None:
    queue = Queue(8)
    queue.put(ONE, ("word " * 20,) * 256, 0)
    first = queue.offer(256)
    short = queue.put(ONE, ("short",), 0)
    queue.settle(first, *all_done(first))
    second = queue.offer(256)
    assert short in [pending for pending, _ in second.items]
    queue.settle(second, *all_done(second))
    assert short.ended.is_set()


def test_an_offer_is_of_one_model_and_the_other_comes_next() -> None:
    queue = Queue(8)
    mine, theirs = queue.put(ONE, ("a",) * 200, 0), queue.put(OTHER, ("b",) * 200, 0)
    models = [queue.offer(256).model for _ in range(4)]
    assert models == [ONE, OTHER, ONE, OTHER]
    assert not mine.ended.is_set() or not theirs.ended.is_set()


def test_what_was_not_done_is_offered_again_in_order() -> None:
    queue = Queue(8)
    pending = queue.put(ONE, tuple("abcdef"), 0)
    offer = queue.offer(256)
    assert queue.settle(offer, [0, 3], [b"A", b"D"]) == 2
    again = queue.offer(256)
    assert again.texts == ["b", "c", "e", "f"]
    queue.settle(again, [0, 1, 2, 3], [b"B", b"C", b"E", b"F"])
    assert pending.ended.is_set()
    assert pending.rows == [b"A", b"B", b"C", b"D", b"E", b"F"]


def test_after_a_crash_every_job_is_tried_by_itself_and_only_the_guilty_one_fails() -> None:
    queue = Queue(8)
    guilty, innocent = queue.put(ONE, ("poison",), 0), queue.put(ONE, ("bread",), 0)
    together = queue.offer(256)
    assert len(together.items) == 2
    queue.give_back(together, EngineFailed("it died"))
    while (offer := queue.offer(256)) is not None:
        assert len({id(pending) for pending, _ in offer.items}) == 1
        if "poison" in offer.texts:
            queue.give_back(offer, EngineFailed("it died"))
        else:
            queue.settle(offer, *all_done(offer))
    assert isinstance(guilty.failure, EngineFailed)
    assert innocent.failure is None
    assert innocent.ended.is_set()


def test_a_dropped_job_is_not_offered_any_more() -> None:
    queue = Queue(8)
    pending = queue.put(ONE, ("a", "b"), 0)
    offer = queue.offer(256)
    queue.drop(pending)
    queue.settle(offer, [0], [b"A"])
    assert queue.offer(256) is None
    assert not queue.ready
    assert len(queue) == 0


def test_a_full_queue_refuses_and_a_failed_model_ends_its_jobs_only() -> None:
    queue = Queue(2)
    mine, theirs = queue.put(ONE, ("a",), 0), queue.put(OTHER, ("a",), 0)
    with pytest.raises(Refused) as caught:
        queue.put(ONE, ("a",), 7.5)
    assert caught.value.retry_after_s == 7.5
    queue.fail(ONE, ModelRefused, "gone")
    assert isinstance(mine.failure, ModelRefused)
    assert queue.units == 1
    assert theirs.failure is None


def test_an_offer_is_bounded_in_texts_and_bytes_and_never_empty() -> None:
    queue = Queue(8)
    queue.put(ONE, ("",) * 256, 0)
    assert len(queue.offer(10_000).items) == OFFER_TEXTS_MAX
    queue = Queue(8)
    queue.put(ONE, ("x" * 32_768,) * 20, 0)
    assert sum(map(len, queue.offer(10_000).texts)) <= 1 << 19
    queue.put(ONE, ("x" * 32_768,), 0)
    assert queue.offer(1).items


@pytest.mark.parametrize(
    ("lengths", "texts", "bucket"),
    [
        ([10], (0,), 32),
        ([10, 10, 10], (0, 1, 2), 32),
        ([2] * 5, (0, 1, 2, 3, 4), 128),
        ([40], (0,), 128),
        ([200, 100, 50], (0, 2), 256),
        ([256, 2], (0,), 256),
        ([2] * 40, tuple(range(slots(256))), 256),
    ],
)
def test_a_pass_takes_what_fits_in_order_and_no_larger_bucket_than_needed(
    lengths: list[int], texts: tuple[int, ...], bucket: int
) -> None:
    found = fill(lengths, BUCKETS)
    assert found.texts == texts
    assert found.bucket == bucket
