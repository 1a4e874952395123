"""Timeouts that are fair on a machine that has too much to do.

A fixed number of seconds says how long something takes on a machine that gets the processor when it
asks for it. On one that does not, everything takes longer, and nobody is at fault. A timeout from
here runs as slowly as this process does; on a machine that is not starved it is trio's own.

Only waits that judge somebody belong here: a peer that has to accept, a process that has to start.
Duties towards others (heartbeats) and deadlines that a person named stay on trio's clock.
"""

from p2p.timeouts.scheduler import Processes, Scheduler
from p2p.timeouts.scopes import fail_after, move_on_after, open_timeouts, stretch, stretched
from p2p.timeouts.slowdown import STRETCH_MAX, Reading, Slowdown

__all__ = [
    "STRETCH_MAX",
    "Processes",
    "Reading",
    "Scheduler",
    "Slowdown",
    "fail_after",
    "move_on_after",
    "open_timeouts",
    "stretch",
    "stretched",
]
