"""Two runs of one seed are the same run, whatever the machine is doing meanwhile."""

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import trio
from libp2p.pubsub import gossipsub
from trio._core import _run as scheduler

from node.devnet.config import DevnetConfig
from node.devnet.links import FaultyNetwork
from node.devnet.virtual_time import repeatable, virtual_time
from p2p.over_libp2p.repeatable import repeatable_library
from store.group_commit import Committer
from tests.devnet.running import config, ran

# Faults of every kind that may draw: links, peers, natures, streams that are cut.
FAULTS = "kill=0.2@0.5,restart=0.1@0.5+1,loss=0.05,garbage=0.1,truncator=0.1"


class Place:
    """Takes up a place in memory."""


@contextmanager
def another_loop() -> Iterator[None]:
    """Another thread with a loop of its own, in real time, that draws whenever it may."""
    ended = threading.Event()

    async def draw() -> None:
        while not ended.is_set():
            gossipsub.random.random()
            async with trio.open_nursery() as nursery:
                for _ in range(3):
                    nursery.start_soon(trio.to_thread.run_sync, int)
                    nursery.start_soon(trio.sleep, 0.002)

    thread = threading.Thread(target=trio.run, args=(draw,))
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def logged(
    folder: Path, wanted: DevnetConfig, monkeypatch: pytest.MonkeyPatch, slower_s: float
) -> list[str]:
    """Every packet that a network carried, and the figures of its report.

    Real time passes faster than it would by `slower_s` for each hundredth packet.
    """
    log: list[str] = []
    carry = FaultyNetwork.carry

    def carried(
        network: FaultyNetwork, source: str, target: str, size: int, deliver: Callable[[], None]
    ) -> None:
        log.append(f"{trio.current_time():.9f} {source} {target} {size}")
        if len(log) % 100 == 0:
            time.sleep(slower_s)
        carry(network, source, target, size, deliver)

    with monkeypatch.context() as patch, virtual_time() as clock:
        patch.setattr(FaultyNetwork, "carry", carried)
        _, report = trio.run(ran, folder, wanted, clock=clock)
    found = report.document
    return [*log, *(f"{it}={found[it]}" for it in found if it.startswith(("tasks", "latency")))]


def test_one_seed_is_one_run_also_on_a_slow_machine(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    wanted = config(FAULTS, peers=8, seconds=1.6)
    first = logged(tmp_path, wanted, monkeypatch, 0.0)
    # Memory is laid out otherwise, and collected at other moments.
    kept = [Place() for _ in range(10_000)]
    with another_loop():
        second = logged(tmp_path, wanted, monkeypatch, 0.01)
    differing = next((it for it in zip(first, second, strict=False) if it[0] != it[1]), None)
    assert differing is None
    assert len(first) == len(second) > 1000
    assert kept


def test_another_seed_is_another_order_of_tasks() -> None:
    async def order(seed: int) -> list[int]:
        ran_first: list[int] = []

        async def one(number: int) -> None:
            ran_first.append(number)
            await trio.lowlevel.checkpoint()

        with repeatable(seed, trio.current_time):
            async with trio.open_nursery() as nursery:
                for number in range(10):
                    nursery.start_soon(one, number)
        return ran_first

    before = scheduler._ALLOW_DETERMINISTIC_SCHEDULING
    assert trio.run(order, 7) == trio.run(order, 7) != trio.run(order, 8)
    assert before == scheduler._ALLOW_DETERMINISTIC_SCHEDULING


def test_libp2p_reads_the_time_of_the_simulation() -> None:
    with repeatable_library(lambda: 1234.5, 7):
        assert gossipsub.time.time() == gossipsub.time.monotonic() == 1234.5
        assert gossipsub.time.time_ns() == 1234_500_000_000
        # What was loaded later, or keeps the function instead of the module, would slip through.
        slipped = [
            name
            for name, module in sys.modules.items()
            if name.startswith("libp2p.pubsub.") and getattr(module, "time", None) is time
        ]
        assert not slipped
    assert gossipsub.time is time


def test_time_stands_while_a_thread_works_and_jumps_over_one_that_may_be_abandoned() -> None:
    async def work(seconds: float, *, abandon: bool) -> float:
        """How much time passes until the thread is done, or ten seconds have passed."""
        began_at_s = trio.current_time()
        with trio.move_on_after(10):
            await trio.to_thread.run_sync(time.sleep, seconds, abandon_on_cancel=abandon)
        return trio.current_time() - began_at_s

    before = trio.to_thread.run_sync, Committer.at_work
    with virtual_time() as clock:
        assert trio.run(lambda: work(0.05, abandon=False), clock=clock) == 0
    with virtual_time() as clock:
        assert trio.run(lambda: work(0.05, abandon=True), clock=clock) == 10
    assert (trio.to_thread.run_sync, Committer.at_work) == before
