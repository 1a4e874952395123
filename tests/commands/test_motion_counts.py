"""What is said of a motion's votes tells why it does not pass."""

from dataclasses import replace

import pytest

from node.commands.govern import show_counts
from tests.wire.samples import SAMPLES
from wire.motion import HouseCount, MotionRow, MotionState

NOBODY = HouseCount(yes=0, no=0, total=0)
(ROW,) = (it for it in SAMPLES if isinstance(it, MotionRow))


def test_a_house_that_is_empty_is_said_to_keep_a_motion_open(
    capsys: pytest.CaptureFixture[str],
) -> None:
    row = replace(ROW, state=MotionState.OPEN, using=NOBODY)
    show_counts(row)
    told = capsys.readouterr().out
    assert "use: 0 for it, 0 against, of 0 credits paid for tasks in four weeks" in told
    assert "nothing passes where nobody pays for tasks" in told
    show_counts(replace(row, using=row.stake))
    assert "nothing passes" not in capsys.readouterr().out
