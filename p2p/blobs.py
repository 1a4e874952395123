"""Content between peers: serves blocks, and fetches whole blobs from several sources at once.

Blocks that have arrived are in the store, so a fetch that breaks goes on where it was. Every block
is compared with its content id by hash; a source that sends other bytes is not asked again. A tree
with wrong sizes or depth ends the fetch: its maker lied, and no source is blamed.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field

import trio

from p2p.fetching import ROOT, Due, FetchPlan, below
from p2p.peers import Peers
from p2p.score import Offence
from p2p.timeouts import stretched
from p2p.typed_call import TypedCall, refusal_of
from store import Store
from wire import limits
from wire.content import ContentId, PeerId
from wire.counting import counted
from wire.errors import (
    BatonError,
    Corrupt,
    Missing,
    Oversize,
    Refused,
    RemoteProtocolError,
    StoreError,
    TooSlow,
    TransportError,
    WireError,
)
from wire.kinds import RefusalCode, Role
from wire.message import BlockReply, Message, Want
from wire.tree import Block as StoredBlock
from wire.tree import TreeNode

# Blocks asked of one source at a time: enough to fill a link of 100 ms and 80 Mbit/s.
WANTS_PER_SOURCE = 4
SOURCES_MAX = 8
# The deadline for a block of 256 KiB: a slower source is not worth waiting for.
BLOCK_DEADLINE_S = 30.0

Progress = Callable[[int, int], None]


@dataclass(slots=True)
class _Download:
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

    def wake(self) -> None:
        self.changed.set()
        self.changed = trio.Event()


@dataclass(slots=True)
class Blobs:
    """The blob exchange of one peer."""

    store: Store
    peers: Peers
    served: int = 0
    _fetching: dict[ContentId, trio.Event] = field(default_factory=dict)
    # Blocks that a peer is asked to show, because it says that it has them.
    _shown: Counter[tuple[PeerId, ContentId]] = field(default_factory=Counter)

    async def on_want(self, call: TypedCall, message: Message) -> None:
        """Answer with the block, or with a message that it is not here."""
        assert isinstance(message, Want)
        try:
            if (call.peer, message.block) in self._shown:
                raise Missing("whoever is asked to show a block is not given it here")
            data = await self.store.get_block(message.block)
        except (Missing, Corrupt):
            await call.send(refusal_of(Refused("not here", code=RefusalCode.NOT_FOUND)))
            return
        self.served += 1
        await call.send(BlockReply(data=data))

    def likely_sources(self, first: Sequence[PeerId] = ()) -> tuple[PeerId, ...]:
        """Whom to ask: `first`, then connected peers that keep content for others."""
        wall_s = self.peers.environment.wall_s()
        keepers = [it.signer for it in self.peers.view.candidates(Role.STORE, None, wall_s)]
        near = sorted(self.peers.connected())
        keepers.sort(key=lambda peer: peer not in near)
        ranked = dict.fromkeys((*first, *keepers, *near))
        return tuple(peer for peer in ranked if peer != self.peers.me)

    async def fetch(
        self,
        content_id: ContentId,
        sources: Sequence[PeerId] = (),
        *,
        deadline_s: float,
        size_bytes_max: int = limits.BLOB_BYTES_MAX,
        progress: Progress | None = None,
    ) -> None:
        """Bring all of `content_id` into the store.

        `sources` are asked first, then peers that keep content for others. Raises Missing if no
        peer has it, TooSlow at the deadline, Oversize if it exceeds `size_bytes_max`, Malformed if
        its tree is wrong. `progress` is called with the bytes so far and the bytes in all.
        """
        try:
            # A caller's remaining time may be negative.
            with trio.fail_after(max(0.0, deadline_s)):
                while (other := self._fetching.get(content_id)) is not None:
                    await other.wait()
                done = self._fetching[content_id] = trio.Event()
                try:
                    if await self.store.missing(content_id, limit=1):
                        likely = self.likely_sources(sources)
                        await self._fetch(content_id, likely, size_bytes_max, progress)
                finally:
                    del self._fetching[content_id]
                    done.set()
        except trio.TooSlowError as error:
            raise _late(content_id, deadline_s) from error

    async def fetch_from(
        self, source: PeerId, content_id: ContentId, *, deadline_s: float, size_bytes_max: int
    ) -> None:
        """As `fetch`, from this source alone. No other fetch of the content waits for this one."""
        try:
            with trio.fail_after(max(0.0, deadline_s)):
                await self._fetch(content_id, (source,), size_bytes_max, None)
        except trio.TooSlowError as error:
            raise _late(content_id, deadline_s) from error

    async def bring_blocks(
        self, blocks: Mapping[ContentId, int | None], progress: Progress | None = None
    ) -> int:
        """Bring these blocks into the store, each with the size that it must have, if one is known.

        The caller has a deadline. Returns the bytes that came from other peers. Raises Missing if
        nobody has one of them, Malformed if one has another size.
        """
        download = _Download(FetchPlan(), None, limits.BLOB_BYTES_MAX, progress)
        absent = [block for block in blocks if not self.store.has(block)]
        for block in absent:
            download.plan.need(block, Due(blocks[block], 0))
        sources = self.likely_sources()
        for at in range(0, len(sources), SOURCES_MAX):
            if download.plan.done:
                break
            await self._ask(download, sources[at : at + SOURCES_MAX])
        if not download.plan.done:
            lacking = next((it for it in absent if not self.store.has(it)), absent[0])
            raise nobody_has(lacking, len(sources))
        return download.got_bytes

    async def holds(
        self, source: PeerId, blocks: Sequence[ContentId], *, deadline_s: float
    ) -> bool:
        """Whether `source` gives each of these blocks now; one that sends other bytes is blamed."""
        for block in blocks:
            try:
                data = await self._want(source, block, deadline_s)
            except (Refused, TransportError, RemoteProtocolError, WireError):
                return False
            if not block.matches(data):
                self.peers.offended(source, Offence.MALFORMED)
                return False
        return True

    async def get(
        self,
        content_id: ContentId,
        sources: Sequence[PeerId] = (),
        *,
        deadline_s: float,
        size_bytes_max: int,
    ) -> bytes:
        """The bytes of `content_id`, from the store or from others. Raises as `fetch` does.

        If the content is a single block of others, it is not kept: to ask again costs less than a
        commit to the disk.
        """
        try:
            return await self.store.get(content_id, size_bytes_max=size_bytes_max)
        except (Missing, Corrupt):
            if not content_id.is_tree:
                return await self._one_block(content_id, sources, deadline_s, size_bytes_max)
            await self.fetch(
                content_id, sources, deadline_s=deadline_s, size_bytes_max=size_bytes_max
            )
        return await self.store.get(content_id, size_bytes_max=size_bytes_max)

    async def shows(
        self, source: PeerId, blocks: Sequence[ContentId], *, deadline_s: float
    ) -> bool:
        """As `holds`, of a peer that says it has them: it cannot fetch them here meanwhile."""
        with ExitStack() as stack:
            for block in blocks:
                stack.enter_context(counted(self._shown, (source, block)))
            return await self.holds(source, blocks, deadline_s=deadline_s)

    async def _one_block(
        self,
        block: ContentId,
        first: Sequence[PeerId],
        deadline_s: float,
        size_bytes_max: int,
    ) -> bytes:
        sources = self.likely_sources(first)
        with trio.move_on_after(max(0.0, deadline_s)):
            for source in sources:
                try:
                    data = await self._want(source, block)
                except (Refused, TransportError, RemoteProtocolError, WireError):
                    # This source lacks it, is gone, or broke the rules of the call: ask the next.
                    continue
                if not block.matches(data):
                    self.peers.offended(source, Offence.MALFORMED)
                elif len(data) > size_bytes_max:
                    raise Oversize(f"content of {len(data)} bytes, at most {size_bytes_max}")
                else:
                    return data
            raise nobody_has(block, len(sources))
        raise TooSlow(f"content {block.short} did not arrive within {deadline_s:.0f} s")

    async def _fetch(
        self,
        root: ContentId,
        sources: Sequence[PeerId],
        size_bytes_max: int,
        progress: Progress | None,
    ) -> None:
        download = _Download(FetchPlan(), root, size_bytes_max, progress)
        at = 0
        while missing := await self.store.missing(root):
            if not download.size_bytes and self.store.has(root):
                self._learn_size(download, root, await self.store.get_block(root))
                download.got_bytes = download.size_bytes - sum(size for _, size in missing)
            for block, size_bytes in missing:
                # The store checks the depth again, once this wave of blocks has arrived.
                download.plan.need(block, ROOT if block == root else Due(size_bytes, 1))
            wave = sources[at : at + SOURCES_MAX]
            if not wave:
                raise nobody_has(root, len(sources))
            await self._ask(download, wave)
            if not download.plan.done:
                # These sources lack a part; another source may be the only one that has it.
                at += SOURCES_MAX

    async def _ask(self, download: _Download, wave: Sequence[PeerId]) -> None:
        async with trio.open_nursery() as nursery:
            for source in wave:
                for _ in range(WANTS_PER_SOURCE):
                    nursery.start_soon(self._pull, download, source, nursery.cancel_scope)
        if download.failure is not None:
            raise download.failure

    async def _pull(self, download: _Download, source: PeerId, everybody: trio.CancelScope) -> None:
        """Ask one source for block after block until there is nothing left to ask it for."""
        plan = download.plan
        while not plan.done:
            changed = download.changed
            block = plan.next_for(source)
            if block is None:
                if plan.idle_for_good(source):
                    return
                await changed.wait()
                continue
            try:
                data = await self._want(source, block)
            except Refused:
                plan.lacks(source, block)
            except (TransportError, WireError, RemoteProtocolError):
                plan.failed(source, block)
            else:
                try:
                    await self._take(download, block, data)
                except Corrupt:
                    plan.failed(source, block)
                    self.peers.offended(source, Offence.MALFORMED)
                except (StoreError, WireError) as error:
                    # The error is ours, or the content is too large or its tree is wrong: no other
                    # source can help, and this one sent what we asked for.
                    download.failure = error
                    everybody.cancel()
                else:
                    plan.arrived(block)
            download.wake()

    def _learn_size(self, download: _Download, root: ContentId, data: bytes) -> None:
        size_bytes = TreeNode.from_bytes(data).size_bytes if root.is_tree else len(data)
        download.size_bytes = size_bytes
        if download.size_bytes > download.size_bytes_max:
            raise Oversize(
                f"content of {download.size_bytes} bytes,"
                f" at most {download.size_bytes_max} are allowed"
            )

    async def _want(
        self, source: PeerId, block: ContentId, deadline_s: float = BLOCK_DEADLINE_S
    ) -> bytes:
        async with self.peers.call(source, deadline_s=stretched(deadline_s)) as call:
            await call.send(Want(block=block))
            return (await call.expect(BlockReply)).data

    async def _take(self, download: _Download, block: ContentId, data: bytes) -> None:
        if not block.matches(data):
            raise Corrupt(f"{block.short}: the bytes do not match this content id")
        children = below(block, data, download.plan.due(block))
        if block == download.root:
            self._learn_size(download, block, data)
        await self.store.put_block(StoredBlock(block, data))
        if not block.is_tree:
            download.got_bytes += len(data)
        for child, due in children:
            if not self.store.has(child):
                download.plan.need(child, due)
            elif not child.is_tree:
                download.got_bytes += due.size_bytes or 0
        if download.progress is not None:
            size_bytes = max(download.size_bytes, download.got_bytes)
            download.progress(download.got_bytes, size_bytes)


def _late(content: ContentId, deadline_s: float) -> TooSlow:
    return TooSlow(
        f"content {content.short} did not arrive within {deadline_s:.0f} s",
        todo="try again: what has arrived is kept",
    )


def nobody_has(content: ContentId, asked: int) -> Missing:
    """The error for content that no asked peer has."""
    return Missing(
        f"nobody of {asked} peers has all of the content {content}",
        todo="check the id, or try again when a peer that holds it is there",
    )
