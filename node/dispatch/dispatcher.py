"""Handing a task on: to the best peer, to the next best if that fails, within a deadline.

Every holder hands a task on like this: the asker's own peer and every peer in between. The holder
remains responsible until it has the next legs' receipts and they fit the task.
"""

import math
from dataclasses import dataclass

from node.dispatch.begun import Begun
from node.dispatch.directory import PeerDirectory
from node.dispatch.failover import Failover
from node.dispatch.handoff import Handoff, LegResult, Relay
from node.dispatch.progress import StreamProgress
from node.task.events import EventSink
from wire.content import PeerId


@dataclass(frozen=True, slots=True)
class Dispatcher:
    """Hands tasks on for one peer, to the peers of its directory."""

    directory: PeerDirectory

    async def hand_on(
        self,
        handoff: Handoff,
        on_event: EventSink,
        relay: Relay,
        *,
        deadline_at_s: float,
        patience_s: float = math.inf,
        shown: StreamProgress | None = None,
        failed: set[PeerId] | None = None,
        begun: Begun | None = None,
    ) -> LegResult:
        """Have the rest of the legs done. TaskFailed once the deadline leaves nobody to ask.

        A peer that failed is not asked again; one that was only busy may be. Refused, to be tried
        again, if there was no peer to ask for `patience_s`. `shown` is how far the last leg was
        streamed already, `failed` are peers that failed in an earlier attempt; both are updated.
        `begun` is what was done of it before.
        """
        failover = Failover(
            self.directory,
            handoff,
            on_event,
            relay,
            deadline_at_s,
            shown if shown is not None else StreamProgress(),
            failed if failed is not None else set(),
            begun if begun is not None else Begun(),
        )
        return await failover.run(patience_s)
