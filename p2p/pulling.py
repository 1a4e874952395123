"""Pulls the blocks of one download from several sources at once, each at its own pace.

A source that speaks so is asked for many blocks by one request: for more of them the faster it is,
so that one that trickles holds up few. What came is compared with its ids by hash and kept, in one
commit for all of one request; a block that is another one costs who sent it.
"""

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

import trio

from p2p.connect import TROUBLES
from p2p.fetching import FetchPlan, below
from p2p.peers import Peers
from p2p.score import Offence
from p2p.timeouts import stretched
from p2p.typed_call import M, TypedCall
from store import Store
from wire import limits
from wire.content import ContentId, PeerId
from wire.errors import (
    BatonError,
    Corrupt,
    Oversize,
    Refused,
    RemoteProtocolError,
    StoreError,
    TooSlow,
    TransportError,
    WireError,
)
from wire.message import BlockReply, BlocksComing, BlocksSent, Want, WantBlocks
from wire.tree import Block, TreeNode

# Requests to one source at a time: enough to fill a link of 100 ms and 80 Mbit/s with one block
# each, and to let one arrive while another is written.
WANTS_PER_SOURCE = 4
# The deadline for a block of 256 KiB: a slower source is not worth waiting for.
BLOCK_DEADLINE_S = 30.0
VERSION_S = 10.0
# Blocks of the first request. A request is to take about so long: less would be spent on asking,
# and more would be waited for at the end, or lost with a source that breaks off.
_FIRST_BLOCKS = 4
_REQUEST_S_MIN, _REQUEST_S_MAX = 0.25, 1.0
# Whoever takes longer for one request is asked after all others for what else is wanted.
_SLOW_S = 10.0
# What of one request is held until it is kept.
_HELD_BYTES_MAX = 4 << 20

Progress = Callable[[int, int], None]


@dataclass(slots=True)
class Download:
    """One blob that is being fetched."""

    plan: FetchPlan
    # None where several blocks are brought, each by itself.
    root: ContentId | None
    size_bytes_max: int
    progress: Progress | None
    failure: BatonError | None = None
    size_bytes: int = 0
    got_bytes: int = 0
    changed: trio.Event = field(default_factory=trio.Event)
    # The sources that are asked now, and the blocks of one request to each.
    sources: int = 0
    at_once: dict[PeerId, int] = field(default_factory=dict)
    # The sources that failed or were slow; whoever downloads more asks others before them.
    behind: set[PeerId] = field(default_factory=set)
    # Where what has arrived and is kept goes too, for whoever uses it at once.
    arrived: dict[ContentId, bytes] | None = None

    def wake(self) -> None:
        """Have whoever waits look for work again."""
        self.changed.set()
        self.changed = trio.Event()

    def learn_size(self, root: ContentId, data: bytes) -> None:
        """Note the size that the root tells; Oversize if it is more than wanted."""
        self.size_bytes = TreeNode.from_bytes(data).size_bytes if root.is_tree else len(data)
        if self.size_bytes > self.size_bytes_max:
            raise Oversize(
                f"content of {self.size_bytes} bytes, at most {self.size_bytes_max} are allowed"
            )


@dataclass(slots=True)
class Puller:
    """Asks sources for the blocks of one download."""

    store: Store
    peers: Peers
    download: Download

    async def ask(self, sources: Sequence[PeerId]) -> None:
        """Ask these until nothing is left that one of them may have.

        Raises what ended the download: StoreError, or WireError for a tree that is wrong.
        """
        self.download.sources = len(sources)
        async with trio.open_nursery() as nursery:
            for source in sources:
                nursery.start_soon(self._pull_from, nursery, source)
        if self.download.failure is not None:
            raise self.download.failure

    async def _pull_from(self, everybody: trio.Nursery, source: PeerId) -> None:
        if self.download.root is None:
            # What it speaks decides how it is asked; if it does not say, as peers always were.
            with suppress(*TROUBLES):
                await self.peers.neighbours.version_of(source, deadline_s=stretched(VERSION_S))
        for _ in range(WANTS_PER_SOURCE):
            everybody.start_soon(self._pull, source, everybody.cancel_scope)

    async def _pull(self, source: PeerId, everybody: trio.CancelScope) -> None:
        """Ask one source for blocks until there is nothing left to ask it for."""
        plan = self.download.plan
        while not plan.done:
            changed = self.download.changed
            wanted = self._next_for(source)
            if not wanted:
                if plan.idle_for_good(source):
                    return
                await changed.wait()
                continue
            try:
                await self._pull_some(source, wanted)
            except (StoreError, WireError) as error:
                # The error is ours, or the content is too large or its tree is wrong: no other
                # source can help, and this one sent what we asked for.
                self.download.failure = error
                everybody.cancel()
            self.download.wake()

    def _next_for(self, source: PeerId) -> list[ContentId]:
        """Blocks for one request: several only of a source that speaks so, and of no tree.

        In a tree the next blocks are decided by what the first ones say.
        """
        plan, count = self.download.plan, 1
        if self.download.root is None:
            speaks = self.peers.neighbours.known_version(source)
            if speaks >= limits.MANY_BLOCKS_VERSION:
                # Never so many that others would have nothing to do meanwhile.
                fair = plan.waiting // (WANTS_PER_SOURCE * max(1, self.download.sources))
                count = min(self.download.at_once.setdefault(source, _FIRST_BLOCKS), fair)
        found: list[ContentId] = []
        left_bytes = _HELD_BYTES_MAX
        while left_bytes > 0 and len(found) < max(1, count):
            block = plan.next_for(source)
            if block is None:
                break
            found.append(block)
            left_bytes -= plan.due(block).size_bytes or limits.BLOCK_BYTES_MAX
        return found

    async def _pull_some(self, source: PeerId, wanted: list[ContentId]) -> None:
        """One request; each of the blocks has arrived afterwards, or is to be asked for again."""
        plan, begun_at_s = self.download.plan, trio.current_time()
        got, alive = await self._request(source, wanted)
        self._pace(source, len(wanted), trio.current_time() - begun_at_s)
        try:
            await self._take(got)
        except Corrupt:
            self.peers.offended(source, Offence.MALFORMED)
            got, alive = [], False
        came = {it.id for it in got}
        for block in wanted:
            if block in came:
                plan.arrived(block)
            elif alive:
                plan.lacks(source, block)
            else:
                plan.failed(source, block)
                self.download.behind.add(source)

    def _pace(self, source: PeerId, count: int, took_s: float) -> None:
        before = self.download.at_once.get(source, 1)
        if took_s > stretched(_SLOW_S):
            self.download.behind.add(source)
        if took_s > _REQUEST_S_MAX:
            self.download.at_once[source] = max(1, before // 2)
        elif took_s < _REQUEST_S_MIN and count >= before:
            self.download.at_once[source] = min(limits.WANTED_BLOCKS_MAX, before * 2)

    async def _request(self, source: PeerId, wanted: list[ContentId]) -> tuple[list[Block], bool]:
        """What came of these, unchecked, and whether the source kept to the rules."""
        got: list[Block] = []
        try:
            if len(wanted) == 1:
                got.append(Block(wanted[0], await want(self.peers, source, wanted[0])))
                return got, True
            # Many are asked only of who was quick: it may become slow, but not for each of them.
            deadline_s = stretched(BLOCK_DEADLINE_S * min(len(wanted), _FIRST_BLOCKS))
            async with self.peers.call(source, deadline_s=deadline_s) as call:
                await call.send(WantBlocks(blocks=tuple(wanted)))
                coming = await _soon(call, BlocksComing)
                if coming.places and coming.places[-1] >= len(wanted):
                    raise RemoteProtocolError(f"{source.short} sends blocks that nobody wanted")
                for place in coming.places:
                    got.append(Block(wanted[place], (await _soon(call, BlockReply)).data))
                    self._check_size(got[-1])
                await _soon(call, BlocksSent)
        except Refused:
            return got, True
        except Corrupt:
            self.peers.offended(source, Offence.MALFORMED)
            return [], False
        except (TransportError, WireError, RemoteProtocolError):
            return got, False
        return got, True

    def _check_size(self, block: Block) -> None:
        """Corrupt for a block of another size than it should have, unless its id says so too.

        So nobody makes this peer hold more bytes than it asked for.
        """
        size_bytes = self.download.plan.due(block.id).size_bytes
        if size_bytes not in (None, len(block.data)) and not block.id.matches(block.data):
            raise _corrupt(block.id)

    async def _take(self, blocks: list[Block]) -> None:
        """Keep these; Corrupt if one is another, Malformed if a tree is wrong, StoreError."""
        download, below_all = self.download, []
        for block in blocks:
            due = download.plan.due(block.id)
            if not block.id.is_tree and len(block.data) == due.size_bytes:
                # It has nothing below it, and the store compares it with its id.
                continue
            if not block.id.matches(block.data):
                raise _corrupt(block.id)
            below_all += below(block.id, block.data, due)
            if block.id == download.root:
                download.learn_size(block.id, block.data)
        if len(blocks) == 1:
            await self.store.put_block(blocks[0])
        elif blocks:
            await self.store.put_blocks(blocks)
        if download.arrived is not None:
            # The store has compared each with its id.
            download.arrived.update((it.id, it.data) for it in blocks)
        download.got_bytes += sum(len(it.data) for it in blocks if not it.id.is_tree)
        for child, due in below_all:
            if not self.store.has(child):
                download.plan.need(child, due)
            elif not child.is_tree:
                download.got_bytes += due.size_bytes or 0
        if blocks and download.progress is not None:
            size_bytes = max(download.size_bytes, download.got_bytes)
            download.progress(download.got_bytes, size_bytes)


async def want(
    peers: Peers, source: PeerId, block: ContentId, deadline_s: float = BLOCK_DEADLINE_S
) -> bytes:
    """One block of one source, unchecked; Refused if it lacks it, or what `Peers.call` raises."""
    async with peers.call(source, deadline_s=stretched(deadline_s)) as call:
        await call.send(Want(block=block))
        return (await call.expect(BlockReply)).data


async def _soon(call: TypedCall, kind: type[M]) -> M:
    with trio.move_on_after(stretched(BLOCK_DEADLINE_S)):
        return await call.expect(kind)
    raise TooSlow(f"{call.peer.short} sent no block for {BLOCK_DEADLINE_S:g} s")


def _corrupt(block: ContentId) -> Corrupt:
    return Corrupt(f"{block.short}: the bytes do not match this content id")
