"""What followers and keepers of a feed ask other peers: entries, results, and who is there."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from node.asking.record_files import RecordFiles
from node.workflows.history import RESULT_BYTES_MAX
from p2p.blobs import Blobs
from p2p.peers import Peers
from p2p.score import Offence
from p2p.timeouts import stretched
from store import Store
from wire import limits
from wire.content import ContentId, PeerId
from wire.errors import Refused, StoreError, TransportError, WireError
from wire.feed import AskFeed, FeedEntry, FeedFork, FeedPage
from wire.signed import Signed, sign

CALL_S, RESULT_S = 10.0, 30.0
FORK_SUFFIX = ".fork"


class FeedCalls(Protocol):
    """A seam: what is asked of others about feeds."""

    async def page(self, keeper: PeerId, feed: ContentId, number: int) -> FeedPage:
        """What a keeper shows of a feed from a number on; one of TROUBLES if it does not."""
        ...

    async def fetch_result(self, entry: Signed[FeedEntry], keepers: Sequence[PeerId]) -> int:
        """Have an entry's result in the store: its bytes, 0 if there is none or it did not come."""
        ...

    async def keep_pair(self, one: Signed[FeedEntry], other: Signed[FeedEntry]) -> str:
        """Keep two entries that belong beside each other as a file for `verify`; its name."""
        ...

    def hears_others(self, than: PeerId) -> bool:
        """Whether this peer has a connection with anybody else."""
        ...

    def offended(self, keeper: PeerId, offence: Offence) -> None:
        """A keeper did what it must not."""
        ...


@dataclass(frozen=True, slots=True)
class PeerFeedCalls:
    """The calls of one running peer."""

    peers: Peers
    blobs: Blobs
    store: Store
    files: RecordFiles
    note: Callable[[str], None]

    async def page(self, keeper: PeerId, feed: ContentId, number: int) -> FeedPage:
        version = await self.peers.neighbours.version_of(keeper, deadline_s=stretched(CALL_S))
        if version < limits.FEEDS_VERSION:
            raise Refused("its keeper runs a release that shows no feeds")
        async with self.peers.call(keeper, deadline_s=stretched(CALL_S)) as call:
            await call.send(AskFeed(feed=feed, number=number))
            return await call.expect(FeedPage)

    async def fetch_result(self, entry: Signed[FeedEntry], keepers: Sequence[PeerId]) -> int:
        result = entry.record.result
        if result is None:
            return 0
        try:
            if self.store.has(result):
                return len(await self.store.get(result, size_bytes_max=RESULT_BYTES_MAX))
            others = (it for it in keepers if it not in (entry.signer, self.peers.me))
            data = await self.blobs.get(
                result,
                [entry.signer, *others],
                deadline_s=stretched(RESULT_S),
                size_bytes_max=RESULT_BYTES_MAX,
            )
            if not self.store.has(result):
                await self.store.put(data)
            return len(data)
        except (TransportError, WireError, Refused, StoreError) as error:
            self.note(f"feed {entry.record.feed.short}: a result did not come: {error.message}")
            return 0

    async def keep_pair(self, one: Signed[FeedEntry], other: Signed[FeedEntry]) -> str:
        fork = sign(FeedFork(first=one.raw, second=other.raw), self.peers.key)
        name = f"{fork.id}{FORK_SUFFIX}"
        await self.files.write(name, fork.raw)
        return f"receipts/{name}"

    def hears_others(self, than: PeerId) -> bool:
        return bool(self.peers.connected() - {than, self.peers.me})

    def offended(self, keeper: PeerId, offence: Offence) -> None:
        self.peers.offended(keeper, offence)
