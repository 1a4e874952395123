"""A workflow in a network whose peers are killed: every slot has exactly one result."""

from pathlib import Path

import pytest
from trio.testing import MockClock

from tests.workflows.killing import IDLE_S, measure


@pytest.fixture
def patient_clock() -> MockClock:
    return MockClock(autojump_threshold=IDLE_S)


@pytest.mark.parametrize("seconds", [15, pytest.param(600, marks=pytest.mark.soak)])
async def test_every_slot_has_one_result_whoever_is_killed(
    seconds: int, patient_clock: MockClock, tmp_path: Path
) -> None:
    found = await measure(tmp_path, seconds, seed=7)
    assert found["held"], found
    assert found["kills"] >= seconds // 8
    assert found["slots"] >= seconds
