"""The system's own figures: of a process that competes with others for one processor."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import trio

from p2p.timeouts import Processes, Scheduler

SPIN_PROGRAM = """
import os
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
while True:
    pass
"""
SPIN = (sys.executable, "-c", SPIN_PROGRAM)
pytestmark = pytest.mark.skipif(
    not Path("/proc/self/schedstat").exists(), reason="this system does not tell who waited"
)


@contextmanager
def spinning(count: int, *, children_of: bool = False) -> Iterator[list[int]]:
    """Processes that all want the same processor."""
    command = ["sh", "-c", '"$@"; :', "sh", *SPIN] if children_of else [*SPIN]
    processes = [subprocess.Popen(command, start_new_session=True) for _ in range(count)]
    try:
        yield [it.pid for it in processes]
    finally:
        for process in processes:
            os.killpg(process.pid, 9)
            process.wait()


@pytest.mark.parametrize("children_of", [False, True])
async def test_processes_that_share_a_processor_wait_for_each_other(children_of: bool) -> None:
    with spinning(4, children_of=children_of) as pids:
        waits = Processes(lambda: pids[:1])
        # The first look sees what is there; they compete once they have begun.
        await trio.sleep(0.5)
        before_s = waits()
        await trio.sleep(1.0)
        assert waits() - before_s > 0.3


def test_a_process_that_sleeps_waits_for_nobody() -> None:
    process = subprocess.Popen(["sleep", "60"])
    try:
        waits = Processes(lambda: (process.pid,))
        # To become what sleeps it needs the processor, which others may have.
        until_asleep(process.pid)
        before_s = waits()
        time.sleep(0.5)
        assert waits() - before_s < 0.1
    finally:
        process.kill()
        process.wait()


def until_asleep(process: int) -> None:
    while True:
        name, _, rest = Path(f"/proc/{process}/stat").read_text().rpartition(")")
        if name.endswith("(sleep") and rest.split()[0] == "S":
            return
        time.sleep(0.01)


def test_who_has_gone_is_not_waited_for() -> None:
    assert Processes(lambda: (2**22 + 1,))() == 0.0


def test_where_the_system_does_not_tell_there_is_nothing_to_say(tmp_path: Path) -> None:
    assert Processes(lambda: (os.getpid(),), tmp_path)() == 0.0


async def test_own_figures_grow() -> None:
    scheduler = Scheduler()
    before = scheduler.read()
    sum(range(3_000_000))
    after = scheduler.read()
    assert after.ran_s > before.ran_s
    assert after.at_s > before.at_s
    assert after.waited_s >= before.waited_s
    assert after.load >= 0.0
