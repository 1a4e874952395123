"""Shows the feeds of this peer's workflows to whoever follows them."""

from dataclasses import dataclass, field

import trio

from node.workflows.keeper import RunningWorkflow, WorkflowKeeper
from p2p.token_bucket import TokenBuckets
from p2p.typed_call import TypedCall, refusal_of
from wire.content import ContentId, PeerId
from wire.errors import Refused, StoreError
from wire.feed import ENTRIES_PER_PAGE, AskFeed, FeedPage
from wire.kinds import RefusalCode
from wire.message import Message

# A follower asks every few seconds, and several times at once where it has much to read.
ASKER_BURST, ASKER_PER_S = 40.0, 2.0


@dataclass(slots=True)
class FeedRole:
    """Answers for the workflows that have a destination of the kind `feed`."""

    keeper: WorkflowKeeper
    _askers: TokenBuckets = field(default_factory=lambda: TokenBuckets(ASKER_BURST, ASKER_PER_S))

    async def on_ask_feed(self, call: TypedCall, message: Message) -> None:
        """Show entries of a feed from a number on."""
        assert isinstance(message, AskFeed)
        try:
            if not self._askers.take(str(call.peer), trio.current_time()):
                raise Refused("you asked for feeds often lately", retry_after_s=1 / ASKER_PER_S)
            found = self._shown(message.feed, call.peer)
            history = found.runner.history
            entries = history.entries(message.number, ENTRIES_PER_PAGE)
        except (Refused, StoreError) as error:
            await call.send(refusal_of(error))
            return
        await call.send(
            FeedPage(
                record=found.kept_workflow.feed.to_bytes(),
                last=history.head.number,
                entries=tuple(it.raw for it in entries),
            )
        )

    def _shown(self, feed: ContentId, asker: PeerId) -> RunningWorkflow:
        """The workflow with this feed; Refused if there is none, or it is not shown to everybody.

        Its keepers see it in any case.
        """
        for found in self.keeper.running.values():
            record = found.kept_workflow.feed
            if found.runner.feed == feed:
                public = any(it.kind == "feed" for it in found.runner.workflow.destinations)
                if public or asker in record.keepers:
                    return found
        raise Refused("no such feed is shown here", code=RefusalCode.NOT_FOUND)
