"""Timeouts that move on while a process is starved: trio's clock jumps, the figures are made up."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest
import trio
from trio.testing import MockClock

from p2p import timeouts
from p2p.timeouts import STRETCH_MAX, Reading


@dataclass
class Machine:
    """A machine whose load is set, and what it says."""

    load: float = 0.0

    def read(self) -> Reading:
        return Reading(at_s=trio.current_time(), ran_s=0.0, waited_s=0.0, load=self.load)


@contextmanager
def took() -> Iterator[Callable[[], float]]:
    began_at_s = trio.current_time()
    yield lambda: trio.current_time() - began_at_s


async def waited(seconds: float = 5.0, starved: Callable[[], float] | None = None) -> float:
    with took() as length_s:
        with timeouts.move_on_after(seconds, starved=starved) as scope:
            await trio.sleep_forever()
        assert scope.cancelled_caught
    return length_s()


async def test_without_figures_it_is_trios_timeout(autojump_clock: MockClock) -> None:
    assert await waited() == pytest.approx(5.0)
    assert timeouts.stretched(5.0) == 5.0


async def test_on_a_machine_with_time_it_is_trios_timeout(autojump_clock: MockClock) -> None:
    with timeouts.open_timeouts(Machine().read):
        assert await waited() == pytest.approx(5.0)


async def test_on_a_starved_machine_it_lasts_as_many_times_longer(
    autojump_clock: MockClock,
) -> None:
    machine = Machine(load=12.0)
    with timeouts.open_timeouts(machine.read):
        # Four times slower than a timeout has room for.
        assert timeouts.stretched(5.0) == pytest.approx(20.0)
        assert await waited() == pytest.approx(20.0, rel=0.1)
        machine.load = 1.0
        await trio.sleep(1.0)
        assert await waited() == pytest.approx(5.0, rel=0.1)


async def test_one_gap_longer_than_the_timeout_does_not_end_it(autojump_clock: MockClock) -> None:
    """The process was not let run for a minute, and what it waited for came meanwhile."""
    machine = Machine(load=300.0)
    answered = trio.Event()
    with timeouts.open_timeouts(machine.read):
        async with trio.open_nursery() as nursery:

            async def answer() -> None:
                await trio.sleep(60.0)
                answered.set()

            nursery.start_soon(answer)
            with timeouts.fail_after(5.0):
                await answered.wait()


async def test_another_process_that_is_not_let_run_is_waited_for(
    autojump_clock: MockClock,
) -> None:
    """It was let run a tenth of the time; the machine's load says nothing of that."""
    with timeouts.open_timeouts(Machine().read):
        starved = await waited(5.0, lambda: trio.current_time() * 0.9)
    assert starved == pytest.approx(50.0, rel=0.05)


async def test_a_process_that_is_never_let_run_is_not_waited_for_for_ever(
    autojump_clock: MockClock,
) -> None:
    with timeouts.open_timeouts(Machine().read):
        longest_s = await waited(5.0, trio.current_time)
    assert longest_s == pytest.approx(5.0 * STRETCH_MAX, rel=0.01)


async def test_a_deadline_that_is_set_anew_is_stretched_too(autojump_clock: MockClock) -> None:
    scope = trio.CancelScope()
    with timeouts.open_timeouts(Machine(load=12.0).read), scope, timeouts.stretch(scope):
        await trio.sleep(3.0)
        scope.deadline = trio.current_time() + 5.0
        with took() as length_s:
            try:
                await trio.sleep_forever()
            finally:
                assert length_s() == pytest.approx(20.0, rel=0.1)


async def test_afterwards_nothing_is_left(autojump_clock: MockClock) -> None:
    with timeouts.open_timeouts(Machine(load=12.0).read):
        pass
    assert await waited() == pytest.approx(5.0)


async def test_fail_after_fails(autojump_clock: MockClock) -> None:
    with (
        timeouts.open_timeouts(Machine(load=6.0).read),
        pytest.raises(trio.TooSlowError),
        timeouts.fail_after(1.0),
    ):
        await trio.sleep(3.0)
