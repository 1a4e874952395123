"""A small part of `python -m tests.bench fuzz http`: mutated conversations end and hold nothing."""

from pathlib import Path

import pytest
from trio.testing import MockClock

from tests.bench._http_fuzz import HONEST_EVERY, fuzzed

COUNT = 1000


@pytest.mark.parametrize("seed", [2, 3])
async def test_mutated_conversations_end_nothing_and_leave_nothing(
    tmp_path: Path, autojump_clock: MockClock, seed: int
) -> None:
    found = await fuzzed(COUNT, seed, tmp_path)
    assert found["held"], found["broken"]
    assert found["conversations"] == COUNT
    assert found["honest_answered"] == COUNT // HONEST_EVERY
    # They went further than the first check, and were of many kinds.
    assert found["answered"]["200"] > COUNT / 50
    assert len(found["answered"]) > 8
    assert found["server"]["timed_out"].keys() >= {"head", "next request"}
