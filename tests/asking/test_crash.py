"""An asker killed at any moment finishes all that it accepted, and keeps all that it answered."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SEED = 30


@pytest.mark.parametrize("rounds", [3, pytest.param(100, marks=pytest.mark.soak)])
def test_killed_at_any_moment_nothing_accepted_is_lost(tmp_path: Path, rounds: int) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.asking.crash_asker", str(tmp_path), str(rounds), str(SEED)],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    found = json.loads(done.stdout)
    assert found["rounds"] == rounds
    # Most must have died with tasks under way, or this would show nothing.
    assert found["cut_off"] > 0
    assert found["accepted"] > found["cut_off"] or found["rounds_with_tasks_cut_off"] == rounds
