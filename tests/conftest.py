"""What every test shares: its clock, hypothesis without a deadline, which tests take their time."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import trio
from hypothesis import settings
from trio.testing import MockClock

from store.group_commit import Committer

# A busy machine is no reason for a property to fail; pytest's timeout ends what hangs.
settings.register_profile("baton", deadline=None)
settings.load_profile("baton")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--soak", action="store_true", help="also the proofs that take their time")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "soak: a proof that takes its time; runs with --soak")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--soak"):
        return
    for item in items:
        if item.get_closest_marker("soak"):
            item.add_marker(pytest.mark.skip(reason="takes its time; runs with --soak"))


@pytest.fixture
def autojump_clock(monkeypatch: pytest.MonkeyPatch) -> MockClock:
    """trio's virtual clock, which stands while a thread works for the loop.

    The clock jumps when no task can run, and a task that waits for a thread cannot: on a busy
    machine hours would pass while a thread reads a file. Threads that may be abandoned, which
    stand for what never comes back, do not hold it.
    """
    clock = MockClock(autojump_threshold=0)
    at_work = 0

    def count(change: int) -> None:
        nonlocal at_work
        at_work += change
        clock.autojump_threshold = math.inf if at_work else 0

    in_thread = trio.to_thread.run_sync

    async def run_sync(function: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        if options.get("abandon_on_cancel"):
            return await in_thread(function, *arguments, **options)
        count(1)
        try:
            return await in_thread(function, *arguments, **options)
        finally:
            count(-1)

    take, deliver = Committer._take, Committer._deliver

    def counted_take(committer: Committer) -> Any:
        count(1)
        return take(committer)

    def counted_deliver(committer: Committer, *result: Any) -> None:
        count(-1)
        deliver(committer, *result)

    monkeypatch.setattr(trio.to_thread, "run_sync", run_sync)
    # The thread that commits serves the store as long as it is open: its groups are what counts.
    monkeypatch.setattr(Committer, "_take", counted_take)
    monkeypatch.setattr(Committer, "_deliver", counted_deliver)
    return clock
