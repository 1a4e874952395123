"""A workflow at one run a second for ten minutes, in a network whose peers are killed.

`python -m tests.bench workflow [SECONDS] [--seed N] [--json]`. Wire, engine and clock are
simulated, so ten minutes take a minute. It holds if every slot has exactly one result: one entry in
the feed, each naming the one before it, and one line in the file that results go to.
"""

import argparse
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import trio
from trio.testing import MockClock

from p2p.timeouts import Scheduler, open_timeouts
from tests.workflows.killing import IDLE_S, measure

SECONDS = 600


def run(arguments: list[str]) -> dict[str, Any]:
    """What became of every slot, how many peers were killed, and whether that holds."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench workflow")
    parser.add_argument("seconds", nargs="?", type=int, default=SECONDS)
    parser.add_argument("--seed", type=int, default=7)
    # What is printed is JSON in any case.
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)

    async def fairly(folder: Path) -> dict[str, Any]:
        with open_timeouts(Scheduler().read):
            return await measure(folder, options.seconds, options.seed)

    with tempfile.TemporaryDirectory() as folder:
        return trio.run(partial(fairly, Path(folder)), clock=MockClock(autojump_threshold=IDLE_S))
