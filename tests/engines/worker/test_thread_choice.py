"""Passes are run by as many threads as are faster, and what was slower is tried again."""

from node.engines.worker.thread_choice import FIRST, TRIED_EVERY, ThreadChoice


def ran(choice: ThreadChoice, took_s: dict[int, float], passes: int, most: int = 2) -> list[int]:
    """With how many threads each of so many passes was run, which took that long."""
    found = []
    for _ in range(passes):
        threads = choice.next(most)
        choice.took(threads, took_s[threads])
        found.append(threads)
    return found


def test_two_threads_are_used_where_they_are_faster() -> None:
    found = ran(ThreadChoice(), {1: 1.0, 2: 0.6}, 10 * TRIED_EVERY)
    assert found[: 2 * FIRST] == [2] * FIRST + [1] * FIRST
    assert found[2 * FIRST :].count(1) == 10


def test_one_thread_is_used_where_two_wait_for_each_other() -> None:
    found = ran(ThreadChoice(), {1: 1.0, 2: 1.4}, 10 * TRIED_EVERY)
    assert found[FIRST:].count(2) == 10


def test_a_first_pass_that_finds_nothing_in_the_caches_says_nothing() -> None:
    choice = ThreadChoice()
    for _ in range(2 * FIRST):
        threads = choice.next(2)
        cold = choice._runs[threads] == 0
        choice.took(threads, 20.0 if cold else {1: 1.0, 2: 0.6}[threads])
    assert ran(choice, {1: 1.0, 2: 0.6}, TRIED_EVERY).count(1) <= 1


def test_one_slow_pass_is_made_good_by_the_next_try() -> None:
    choice = ThreadChoice()
    ran(choice, {1: 1.0, 2: 0.6}, 2 * FIRST)
    choice.took(2, 50.0)
    found = ran(choice, {1: 1.0, 2: 0.6}, 3 * TRIED_EVERY)
    assert found[-TRIED_EVERY:].count(1) <= 1


def test_a_machine_that_becomes_busy_or_free_is_noticed() -> None:
    choice = ThreadChoice()
    ran(choice, {1: 1.0, 2: 0.6}, TRIED_EVERY)
    busy = ran(choice, {1: 2.0, 2: 9.0}, 4 * TRIED_EVERY)
    assert busy[-TRIED_EVERY:].count(2) <= 1
    free = ran(choice, {1: 1.0, 2: 0.6}, 12 * TRIED_EVERY)
    assert free[-TRIED_EVERY:].count(1) <= 1


def test_a_thread_that_may_not_be_used_is_not() -> None:
    choice = ThreadChoice()
    ran(choice, {1: 1.0, 2: 0.6}, TRIED_EVERY)
    assert set(ran(choice, {1: 1.0}, 3 * TRIED_EVERY, most=1)) == {1}
