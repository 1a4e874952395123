"""Content between peers: serves blocks, and fetches whole blobs from several sources at once.

Blocks that have arrived are in the store, so a fetch that breaks goes on where it was. Every block
is compared with its content id by hash; a source that sends other bytes is not asked again. A tree
with wrong sizes or depth ends the fetch: its maker lied, and no source is blamed.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field

import trio

from p2p.fetching import ROOT, Due, FetchPlan
from p2p.peers import Handler, Peers
from p2p.pulling import BLOCK_DEADLINE_S, Download, Progress, Puller, want
from p2p.score import Offence
from p2p.timeouts import stretched
from p2p.typed_call import TypedCall, refusal_of
from store import Store
from wire import limits
from wire.content import ContentId, PeerId
from wire.counting import counted
from wire.errors import (
    Corrupt,
    Missing,
    Oversize,
    Refused,
    RemoteProtocolError,
    TooSlow,
    TransportError,
    WireError,
)
from wire.kinds import RefusalCode, Role
from wire.message import BlockReply, BlocksComing, BlocksSent, Message, Want, WantBlocks

SOURCES_MAX = 8
# Blocks that are in memory for one request of another peer.
_READ_AT_ONCE = 2


@dataclass(slots=True)
class Blobs:
    """The blob exchange of one peer."""

    store: Store
    peers: Peers
    served: int = 0
    _fetching: dict[ContentId, trio.Event] = field(default_factory=dict)
    # Blocks that a peer is asked to show, because it says that it has them.
    _shown: Counter[tuple[PeerId, ContentId]] = field(default_factory=Counter)

    def handlers(self) -> dict[type[Message], Handler]:
        """What it answers."""
        return {Want: self.on_want, WantBlocks: self.on_want_blocks}

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

    async def on_want_blocks(self, call: TypedCall, message: Message) -> None:
        """Say which of the blocks are here, and send those, some read at a time."""
        assert isinstance(message, WantBlocks)
        wanted = [(it, block) for it, block in enumerate(message.blocks)]
        here = [
            (place, block)
            for place, block in wanted
            if self.store.has(block) and (call.peer, block) not in self._shown
        ]
        await call.send(BlocksComing(places=bytes(place for place, _ in here)))
        for at in range(0, len(here), _READ_AT_ONCE):
            some = [block for _, block in here[at : at + _READ_AT_ONCE]]
            try:
                found = await self.store.get_blocks(some)
            except (Missing, Corrupt):
                gone = Refused("not here any more", code=RefusalCode.NOT_FOUND)
                await call.send(refusal_of(gone))
                return
            for data in found:
                await self._send_soon(call, BlockReply(data=data))
                self.served += 1
        await call.send(BlocksSent(count=len(here)))

    async def _send_soon(self, call: TypedCall, message: Message) -> None:
        # Whoever does not read what it wanted holds our memory no longer than this.
        with trio.move_on_after(stretched(BLOCK_DEADLINE_S)):
            await call.send(message)
            return
        raise TooSlow(f"{call.peer.short} reads none of the blocks that it wanted")

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
        self,
        blocks: Mapping[ContentId, int | None],
        progress: Progress | None = None,
        behind: set[PeerId] | None = None,
        *,
        only: Sequence[PeerId] = (),
        into: dict[ContentId, bytes] | None = None,
    ) -> int:
        """Bring these blocks into the store, each with the size that it must have, if one is known.

        The caller has a deadline. Where `only` names sources, no other is asked. `behind` are
        sources to be asked last; those that fail or are slow now are added, so that such a one
        holds up a download of many parts once, and not each part. Returns the bytes that came from
        others. Raises Missing if nobody has one of them, Malformed if one has another size. What
        came is added to `into`: nobody has to read it from the disk again.
        """
        download = Download(FetchPlan(), None, limits.BLOB_BYTES_MAX, progress, arrived=into)
        absent = [block for block in blocks if not self.store.has(block)]
        for block in absent:
            download.plan.need(block, Due(blocks[block], 0))
        if behind is not None:
            download.behind = behind
        sources, last = only or self.likely_sources(), frozenset(download.behind)
        for some in (
            [it for it in sources if it not in last],
            [it for it in sources if it in last],
        ):
            for at in range(0, len(some), SOURCES_MAX):
                if download.plan.done:
                    break
                await Puller(self.store, self.peers, download).ask(some[at : at + SOURCES_MAX])
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
                data = await want(self.peers, source, block, deadline_s)
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
                    data = await want(self.peers, source, block)
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
        download = Download(FetchPlan(), root, size_bytes_max, progress)
        at = 0
        while missing := await self.store.missing(root):
            if not download.size_bytes and self.store.has(root):
                download.learn_size(root, await self.store.get_block(root))
                download.got_bytes = download.size_bytes - sum(size for _, size in missing)
            for block, size_bytes in missing:
                # The store checks the depth again, once this wave of blocks has arrived.
                download.plan.need(block, ROOT if block == root else Due(size_bytes, 1))
            wave = sources[at : at + SOURCES_MAX]
            if not wave:
                raise nobody_has(root, len(sources))
            await Puller(self.store, self.peers, download).ask(wave)
            if not download.plan.done:
                # These sources lack a part; another source may be the only one that has it.
                at += SOURCES_MAX


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
