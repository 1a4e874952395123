"""A stranger does a leg beside the peer that the task waits for, and how it does is noted.

The leg is done twice then, which is bounded as hedges are, and no task waits for a stranger while a
peer that delivered is idle.
"""

import trio

from node.dispatch.directory import PeerDirectory
from node.dispatch.handoff import Handoff
from node.dispatch.offer import offer_leg
from node.engines.interface import Part
from node.task.events import ignore_event
from wire.content import PeerId
from wire.errors import Refused, RemoteProtocolError, TransportError, WireError


def try_out(
    directory: PeerDirectory,
    handoff: Handoff,
    stranger: PeerId,
    until_at_s: float,
    deadline_at_s: float,
) -> None:
    """Have `stranger` do the leg too, in the background; at `until_at_s` it sits on it."""
    assert directory.background is not None
    # Counted from now, so that the next leg is no trial as well.
    directory.trials.under_way += 1
    directory.background.start_soon(_tried, directory, handoff, stranger, until_at_s, deadline_at_s)


async def _tried(
    directory: PeerDirectory,
    handoff: Handoff,
    stranger: PeerId,
    until_at_s: float,
    deadline_at_s: float,
) -> None:
    try:
        with trio.move_on_at(until_at_s) as scope:
            await offer_leg(directory, handoff, stranger, ignore_event, _ignore, deadline_at_s)
        # If the client left it too little time, or the task is a stranger's, nobody is blamed.
        if scope.cancelled_caught and until_at_s < deadline_at_s and handoff.is_own:
            directory.sitting.sat(stranger, trio.current_time())
    except (Refused, TransportError, WireError, RemoteProtocolError):
        # What counts against it was counted where it happened, and the task is not concerned.
        return
    finally:
        directory.trials.under_way -= 1


async def _ignore(_: Part) -> None:
    """Nobody is shown what a stranger streams on trial."""
