"""A process killed in mid-write never loses what it acknowledged, nor serves anything else."""

import json
import subprocess
import sys
from pathlib import Path

ROUNDS = 100
SEED = 20


def test_a_hundred_kills_in_mid_write_lose_nothing_acknowledged(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.store.crash_writer", str(tmp_path), str(ROUNDS), str(SEED)],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    found = json.loads(done.stdout)
    assert found["rounds"] == ROUNDS
    # Many children must have died between two acknowledgements, or this would show nothing. How
    # many blobs that makes is up to the disk.
    assert found["killed_while_writing"] > ROUNDS // 4
    assert found["whole"] > ROUNDS
