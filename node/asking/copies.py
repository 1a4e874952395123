"""How many copies there are of a content, and more of them: peers are asked to keep it.

A peer's word that it has something counts for nothing. It is asked for blocks drawn at random, and
only who gives them has a copy. What is not asked for may be missing all the same, and a peer may
let go of it the moment after.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import trio

from node.dispatch.directory import PeerDirectory
from node.paying.bill import Booking
from node.serving.kept_for_others import fetch_deadline_s
from p2p.blobs import Blobs
from p2p.connect import TROUBLES
from p2p.gather import gather
from p2p.peers import Peers
from p2p.score import Standing
from p2p.timeouts import stretched
from wire import limits
from wire.content import ContentId, PeerId
from wire.errors import InputError, Refused
from wire.kinds import RefusalCode, Role
from wire.message import Keep, Keeping
from wire.tree import TreeNode
from wire.unixfs_tree import UnixfsTree

# A content, or all of a published file or folder.
Copied = ContentId | UnixfsTree
COPIES_MAX = 16
# Peers that are asked whether they hold something, and for how long in all.
LOOK_PEERS_MAX = 32
LOOK_S = 10.0
# Blocks that one peer is asked for. Who lacks half of the blocks passes once in eight times.
SAMPLED_BLOCKS = 3
BLOCK_S = 10.0
# Peers that are asked to keep something, for one that is wanted.
TRIED_PER_COPY = 4
VERSION_S = 10.0
# What a peer may take to refuse after its fetch failed.
ANSWER_S = 30.0


@dataclass(slots=True)
class Copies:
    """What was found: other peers that hold a content, and until when each said that it keeps it.

    None: it said nothing of the kind, and may let go of it at any time. `refusals` are the peers
    that were asked to keep it and do not, with why.
    """

    asked: int = 0
    holders: dict[PeerId, float | None] = field(default_factory=dict)
    refusals: dict[PeerId, str] = field(default_factory=dict)
    # What was paid to whom, in millionths.
    paid: dict[PeerId, int] = field(default_factory=dict)

    @property
    def count(self) -> int:
        """Copies, with the one of this peer."""
        return 1 + len(self.holders)


@dataclass(slots=True)
class Copying:
    """Counts and makes copies of what this peer keeps."""

    blobs: Blobs
    directory: PeerDirectory

    @property
    def peers(self) -> Peers:
        """The other peers."""
        return self.blobs.peers

    async def find(self, content: Copied) -> Copies:
        """Which other peers hold it, of those that are likely to."""
        found = Copies()
        likely = [it for it in self.blobs.likely_sources() if self._is_asked(it)]

        async def look(peer: PeerId) -> None:
            found.asked += 1
            blocks = await self._sample(content)
            if await self.blobs.holds(peer, blocks, deadline_s=BLOCK_S):
                found.holders[peer] = None

        with trio.move_on_after(stretched(LOOK_S)):
            await gather(look, likely[:LOOK_PEERS_MAX])
        return found

    async def make(
        self, content: Copied, size_bytes: int, wanted: int, price_max: int = 0
    ) -> Copies:
        """Ask peers to keep it until there are `wanted` copies, or nobody is left to be asked.

        Who holds it is asked first: its copy may be one that it lets go of. Each copy may cost its
        part of `price_max`, in millionths; who keeps it is paid once it has given blocks of it.
        """
        found = await self.find(content)
        left = self._keepers(found)[: TRIED_PER_COPY * wanted]

        async def ask(peer: PeerId) -> None:
            price, payer = 0, self.directory.payer
            try:
                if payer is not None:
                    price = await payer.until_keepable(
                        peer, size_bytes, price_max // max(1, wanted - 1)
                    )
                until_wall_s, is_new = await self._promised(peer, content, size_bytes)
            except (*TROUBLES, InputError) as error:
                found.refusals[peer] = error.message
                return
            blocks = await self._sample(content)
            if await self.blobs.shows(peer, blocks, deadline_s=BLOCK_S):
                found.holders[peer] = until_wall_s
                if price and is_new and payer is not None:
                    found.paid[peer] = price
                    payer.book(peer, Booking(charged=price, tasks=1))
            else:
                found.holders.pop(peer, None)
                found.refusals[peer] = "it says that it keeps this, and gives no block of it"

        while left and self._kept(found) < wanted - 1:
            lacking = wanted - 1 - self._kept(found)
            now, left = left[:lacking], left[lacking:]
            await gather(ask, now, at_once=len(now))
        return found

    def _kept(self, found: Copies) -> int:
        # A holder that refused to promise has its copy all the same.
        asked = found.refusals.keys()
        return sum(until is not None or it in asked for it, until in found.holders.items())

    def _is_asked(self, peer: PeerId) -> bool:
        return self.peers.standing(peer) is not Standing.BANNED

    def _keepers(self, found: Copies) -> Sequence[PeerId]:
        wall_s = self.peers.environment.wall_s()
        adverts = self.peers.view.candidates(Role.STORE, None, wall_s)
        known = sorted({it.signer for it in adverts} - {self.peers.me})
        # Drawn, so that not everybody asks the same peers.
        self.peers.environment.random.shuffle(known)
        known.sort(key=lambda it: it not in found.holders)
        return [it for it in known if self._is_asked(it)]

    async def _promised(self, peer: PeerId, content: Copied, size_bytes: int) -> tuple[float, bool]:
        """Until when it says that it keeps this, by the wall clock, and whether it began only now.

        One of TROUBLES if it does not keep it.
        """
        neighbours = self.peers.neighbours
        version = await neighbours.version_of(peer, deadline_s=stretched(VERSION_S))
        tree = content if isinstance(content, UnixfsTree) else None
        why = ""
        if version < limits.KEEPS_VERSION:
            why = "which keeps nothing for others"
        elif tree is not None and version < limits.UNIXFS_KEEPS_VERSION:
            why = "which keeps no folders and no large files for others"
        if why:
            raise Refused(f"it speaks version {version}, {why}", code=RefusalCode.UNSUPPORTED)
        deadline_s = fetch_deadline_s(size_bytes)
        keep = Keep(
            content=content if isinstance(content, ContentId) else content.root.block,
            size_bytes=size_bytes,
            keep_s=limits.KEEP_S_MAX,
            deadline_ms=int(deadline_s * 1000),
            unixfs=tree is not None,
        )
        async with self.peers.call(peer, deadline_s=stretched(deadline_s + ANSWER_S)) as call:
            await call.send(keep)
            kept = await call.expect(Keeping)
        return self.peers.environment.wall_s() + kept.keep_s, kept.keep_s >= keep.keep_s

    async def _sample(self, content: Copied) -> list[ContentId]:
        if isinstance(content, UnixfsTree):
            blocks = content.blocks
            drawn = [self._drawn() % len(blocks) for _ in range(SAMPLED_BLOCKS)]
            return list(dict.fromkeys(blocks[it] for it in (0, *drawn)))
        sample = [await self._random_block(content) for _ in range(SAMPLED_BLOCKS)]
        if content.is_tree:
            sample.insert(0, content)
        return list(dict.fromkeys(sample))

    async def _random_block(self, content: ContentId) -> ContentId:
        block, offset_bytes = content, -1
        while block.is_tree:
            node = TreeNode.from_bytes(await self.blobs.store.get_block(block))
            if offset_bytes < 0:
                offset_bytes = self._drawn() % node.size_bytes
            block, offset_bytes = node.child_at(offset_bytes)
        return block

    def _drawn(self) -> int:
        # Nobody may foresee it, and the bias of a remainder does not matter.
        return int.from_bytes(self.peers.environment.entropy(8), "big")
