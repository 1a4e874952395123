"""Keeps content for other peers that ask for it: fetched from who asks, within bounds of its own.

Nothing of it is pinned: what the owner keeps comes first at any time. The store evicts content of
others last of all that is not pinned, and who asked finds out by asking for blocks of it.
"""

from contextlib import nullcontext, suppress
from dataclasses import dataclass, field

import trio

from node.paying.till import Till
from node.serving.kept_for_others import (
    ITEMS_MAX,
    WORTH_WRITING_S,
    KeptForOthers,
    KeptId,
    KeptItem,
    kept_id_of,
)
from p2p.blobs import Blobs
from p2p.timeouts import stretched
from p2p.typed_call import TypedCall, refusal_of
from store import Row, Store, Table, Write
from wire.content import ContentId, PeerId
from wire.errors import Malformed, Refused, StoreError, TransportError, WireError
from wire.kinds import RefusalCode
from wire.message import Keep, Keeping, Message
from wire.tree import TreeNode
from wire.unixfs import UnixfsId
from wire.unixfs_tree import UnixfsTree

EXPIRE_EVERY_S = 60.0
_NODES_AT_ONCE = 64
_LEAVES_AT_ONCE = 256
_INLINE_BYTES_MAX = 16 << 10


@dataclass(slots=True)
class KeepRole:
    """Answers a Keep; `run` lets go of what is over."""

    blobs: Blobs
    willing: bool
    # Why nothing new is kept for now, in words; empty if it is.
    paused: str = ""
    store: Store = field(init=False)
    kept_items: KeptForOthers = field(init=False)
    # What this peer asks for what it keeps; None where that is free.
    till: Till | None = field(default=None)

    def __post_init__(self) -> None:
        self.store = self.blobs.store
        self.kept_items = KeptForOthers(self.store.statistics().quota_bytes)
        for key, value in self.store.scan(Table.KEPT, limit=ITEMS_MAX):
            with suppress(WireError):
                self.kept_items.items[kept_id_of(key)] = KeptItem.from_bytes(value)

    async def on_keep(self, call: TypedCall, message: Message) -> None:
        """Fetch the content and say that it is kept, or refuse."""
        assert isinstance(message, Keep)
        try:
            keep_s = await self._keep(call.peer, message)
        except (Refused, StoreError, TransportError, WireError) as error:
            await call.send(refusal_of(error))
            return
        await call.send(Keeping(keep_s=keep_s))

    async def _keep(self, asker: PeerId, wanted: Keep) -> int:
        if not self.willing:
            raise Refused("this peer keeps nothing for others", code=RefusalCode.NOT_WILLING)
        if self.paused:
            raise Refused(f"this peer is paused: {self.paused}", code=RefusalCode.PAUSED)
        content: KeptId = wanted.content
        if wanted.unixfs:
            content = UnixfsId.of_block(wanted.content)
        wall_s = self.blobs.peers.environment.wall_s()
        until_wall_s = wall_s + wanted.keep_s
        known = self.kept_items.items.get(content)
        if (
            known is not None
            and known.size_bytes == wanted.size_bytes
            and until_wall_s <= known.until_wall_s + WORTH_WRITING_S
            and self.store.has(wanted.content)
        ):
            # Less than was asked for says that nothing is charged: it was paid for before.
            return max(1, int(min(known.until_wall_s - wall_s, wanted.keep_s - 1)))
        with nullcontext() if self.till is None else self.till.keeping(asker, wanted.size_bytes):
            await self._keep_newly(asker, content, wanted, until_wall_s)
        return wanted.keep_s

    async def _keep_newly(
        self, asker: PeerId, content: KeptId, wanted: Keep, until_wall_s: float
    ) -> None:
        wall_s = self.blobs.peers.environment.wall_s()
        figures = self.store.statistics()
        # It is less while the disk is nearly full: nobody is promised room that is not there.
        self.kept_items.quota_bytes = figures.quota_bytes
        deadline_s = self.kept_items.begin(
            asker, content, wanted.size_bytes, figures.held_bytes, wall_s
        )
        try:
            deadline_s = stretched(min(deadline_s, wanted.deadline_ms / 1000))
            if isinstance(content, UnixfsId):
                await self._bring_tree(asker, content, wanted.size_bytes, deadline_s)
            else:
                await self._bring(asker, content, wanted.size_bytes, deadline_s)
            item = self.kept_items.done(asker, content, wanted.size_bytes, until_wall_s)
            await self.store.write(Table.KEPT, content, item.to_bytes())
        finally:
            self.kept_items.ended(asker, content, self.blobs.peers.environment.wall_s())
            if content not in self.kept_items.items:
                self.store.soft_unpin(content)

    async def _bring(
        self, asker: PeerId, content: ContentId, size_bytes: int, deadline_s: float
    ) -> None:
        """All of the content, here and softly pinned."""
        await self.blobs.fetch_from(
            asker, content, deadline_s=deadline_s, size_bytes_max=size_bytes
        )
        root = await self.store.get_block(content)
        found_bytes = TreeNode.from_bytes(root).size_bytes if content.is_tree else len(root)
        if found_bytes != size_bytes:
            raise Malformed(f"the content has {found_bytes} bytes, not {size_bytes}")
        await self.store.soft_pin(content)
        # Something of it may have been evicted before the soft pin.
        if await self.store.missing(content, limit=1):
            raise _no_room()

    async def _bring_tree(
        self, asker: PeerId, root: UnixfsId, size_bytes: int, deadline_s: float
    ) -> None:
        """All of a published file or folder, here and softly pinned."""
        tree = UnixfsTree(root, size_bytes)
        with trio.move_on_after(deadline_s) as scope:
            while nodes := [it.block for it in tree.next_nodes(_NODES_AT_ONCE)]:
                await self.blobs.bring_blocks(dict.fromkeys(nodes), only=(asker,))
                await _take_all(tree, await self.store.get_blocks(nodes))
            # Before a leaf is fetched.
            if tree.counted_bytes != size_bytes:
                raise Malformed(f"it counts as {tree.counted_bytes} bytes, not {size_bytes}")
            self.store.soft_pin_all(root, tree.blocks)
            await self.blobs.bring_blocks(tree.leaves, only=(asker,))
            await self._check_leaves(tree)
        if scope.cancelled_caught:
            raise Refused(f"it did not arrive within {deadline_s:.0f} s", code=RefusalCode.BUSY)
        if not all(map(self.store.has, tree.blocks)):
            raise _no_room()

    async def _check_leaves(self, tree: UnixfsTree) -> None:
        """Malformed for a leaf of another size than was counted, which may have been here before.

        Else a folder of large blocks would count as one of small ones.
        """
        for number, (leaf, size_bytes) in enumerate(tree.leaves.items()):
            if number % _LEAVES_AT_ONCE == 0:
                await trio.lowlevel.checkpoint()
            if (found_bytes := self.store.size_of(leaf)) not in (None, size_bytes):
                raise Malformed(f"a block has {found_bytes} bytes, not {size_bytes}")

    async def _pin_tree(self, root: UnixfsId) -> None:
        """Pin again what is here of a tree."""
        tree = UnixfsTree(root)
        while nodes := [it.block for it in tree.next_nodes(_NODES_AT_ONCE)]:
            here = [it for it in nodes if self.store.has(it)]
            await _take_all(tree, await self.store.get_blocks(here))
        self.store.soft_pin_all(root, tree.blocks)

    async def run(self) -> None:
        """Pin again what is kept since before this start, then let go of what is over, for ever."""
        for content in list(self.kept_items.items):
            try:
                if isinstance(content, UnixfsId):
                    await self._pin_tree(content)
                else:
                    await self.store.soft_pin(content)
            except (StoreError, WireError):
                # Damaged meanwhile: what is left of it is evicted like anything else.
                continue
        while True:
            gone = self.kept_items.expire(self.blobs.peers.environment.wall_s())
            # What the owner's content has displaced is not counted any longer.
            gone += [it for it in self.kept_items.items if not self.store.has(_block_of(it))]
            await self._forget(gone)
            await trio.sleep(EXPIRE_EVERY_S)

    async def _forget(self, gone: list[KeptId]) -> None:
        for content in gone:
            self.kept_items.items.pop(content, None)
            self.store.soft_unpin(content)
        if not gone:
            return
        try:
            await self.store.commit(Write(rows=tuple(Row(Table.KEPT, it, None) for it in gone)))
        except StoreError:
            # The rows are out of date, and are found to be so at the next start.
            return


def _block_of(content: KeptId) -> ContentId:
    return content.block if isinstance(content, UnixfsId) else content


async def _take_all(tree: UnixfsTree, nodes: list[bytes]) -> None:
    for data in nodes:
        # A full node has thousands of links, which the loop would wait for.
        if len(data) > _INLINE_BYTES_MAX:
            await trio.to_thread.run_sync(tree.take, data)
        else:
            tree.take(data)
            await trio.lowlevel.checkpoint()


def _no_room() -> Refused:
    return Refused("there is no room for it now", code=RefusalCode.BUSY)
