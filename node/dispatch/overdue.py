"""When a peer that has a leg is so late that another one gets it: it may mean to stall."""

import math
from statistics import median_high

from node.dispatch.directory import PeerDirectory
from node.dispatch.handoff import Handoff
from node.dispatch.route import Candidate
from node.task.units import PASSAGES_PER_LEG
from p2p.timeouts import stretched
from wire.kinds import Role
from wire.task import Stage

# While there is another, a peer so much later than expected is given up.
OVERDUE_S = 10.0
OVERDUE_TIMES = 5.0


def overdue_s(directory: PeerDirectory, handoff: Handoff, one: Candidate) -> float:
    """How long one peer may take for a leg, while there is another."""
    expected_s = max(one.expected_s, one.work_s)
    if handoff.leg.role is Role.DATA:
        expected_s += later_legs_s(directory, handoff)
    elif not handoff.is_last:
        # The peer has to hand on itself, and does not say how long that takes.
        return math.inf
    return stretched(OVERDUE_S + OVERDUE_TIMES * expected_s)


def later_legs_s(directory: PeerDirectory, handoff: Handoff) -> float:
    """How long the legs after this one take with the peers that we know."""
    later = handoff.task.record.stages[handoff.stage + 1 :]
    return sum(_usual_s(directory, handoff, it) for it in later)


def _usual_s(directory: PeerDirectory, handoff: Handoff, stage: Stage) -> float:
    units = max(handoff.units, PASSAGES_PER_LEG)
    able = directory.candidates(stage, units, handoff.avoid)
    return median_high(max(it.expected_s, it.work_s) for it in able) if able else math.inf
