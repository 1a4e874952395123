"""Looking for a peer that the view does not hold: asked from neighbour to neighbour, in a few hops.

Views keep what is rare, so most of the time a neighbour, or one of its, knows. A search is a walk
in several places at once: those asked answer with who does it or, where they know nobody, with
others to ask. It is bounded in peers asked, in hops and in time.
"""

import math
from dataclasses import dataclass, field

import trio

from p2p.adverts import Advertiser
from p2p.connect import TROUBLES
from p2p.peer_rpc import PeerRpc
from p2p.score import Standing
from p2p.timeouts import stretched
from p2p.typed_call import TypedCall
from p2p.view import Hearing
from wire import limits
from wire.advert import Advert
from wire.content import ContentId, PeerId
from wire.kinds import Role
from wire.latest import Latest
from wire.message import Message, Newer, Seek
from wire.signed import Signed, open_signed

AT_ONCE = 4
HOPS_MAX = 6
# Enough for routing to choose among.
ENOUGH = 4
TOLD_MAX = 8
# No one answer is enough, nor leads all the way.
FOUND_PER_ANSWER = 2
NEXT_PER_ANSWER = 2
ASK_DEADLINE_S = 4.0
# The same is not sought again sooner, however many want it.
PAUSE_S = 2.0
SOUGHT_KEPT = 64


@dataclass(slots=True)
class Search:
    """Whom to ask next; pure. `found` are those who do it, in the order in which they were told."""

    role: Role
    model: ContentId | None
    asked: set[PeerId] = field(default_factory=set)
    found: dict[PeerId, Signed[Advert]] = field(default_factory=dict)
    hops: int = 0
    _next: list[PeerId] = field(default_factory=list)

    def begin(self, peers: list[PeerId]) -> None:
        """Start with these peers, nearest first."""
        self._next = list(peers)

    def round(self) -> list[PeerId]:
        """Whom to ask now, all at once; empty when the search is over."""
        if len(self.found) >= ENOUGH or (self.found and self.hops > 1) or self.hops >= HOPS_MAX:
            return []
        chosen = [it for it in dict.fromkeys(self._next) if it not in self.asked][:AT_ONCE]
        self._next = [it for it in self._next if it not in self.asked and it not in chosen]
        self.asked.update(chosen)
        self.hops += bool(chosen)
        return chosen

    def told(self, adverts: list[Signed[Advert]]) -> None:
        """What one of those asked has answered: a little of it, for it may have made it all up."""
        new = [it for it in adverts if it.signer not in self.found]
        fitting = [it for it in new if fits(it, self.role, self.model)][:FOUND_PER_ANSWER]
        self.found |= {it.signer: it for it in fitting}
        others = [
            it.signer for it in new if it.signer not in self.asked and it.signer not in self.found
        ]
        # The farther from us the likelier it knows others than we do.
        self._next[:0] = others[:NEXT_PER_ANSWER]


def fits(heard: Signed[Advert], role: Role, model: ContentId | None) -> bool:
    """Whether this peer says that it plays the role, with the model if one is named."""
    advert = heard.record
    return advert.plays(role) and (model is None or advert.offer_of(model) is not None)


@dataclass(slots=True)
class Discovery:
    """Asks, and answers, for one peer."""

    rpc: PeerRpc
    advertiser: Advertiser
    searches: int = 0
    _sought_at_s: Latest[tuple[Role, ContentId | None], float] = field(
        default_factory=lambda: Latest(SOUGHT_KEPT)
    )

    async def seek(
        self, role: Role, model: ContentId | None, *, deadline_s: float
    ) -> list[Signed[Advert]]:
        """Search until some are found or the deadline passes; they are in the view then.

        Empty too if the same was sought a moment ago.
        """
        now_at_s = trio.current_time()
        if now_at_s < self._sought_at_s.get((role, model), -math.inf) + PAUSE_S:
            return []
        self._sought_at_s[role, model] = now_at_s
        self.searches += 1
        search = Search(role, model)
        near = [
            it
            for it in sorted(self.rpc.connected())
            if self.rpc.standing(it) is not Standing.BANNED
        ]
        self.rpc.environment.random.shuffle(near)
        search.begin(near)
        with trio.move_on_after(deadline_s):
            while chosen := search.round():
                async with trio.open_nursery() as nursery:
                    for peer in chosen:
                        nursery.start_soon(self._ask, search, peer)
        return list(search.found.values())

    async def _ask(self, search: Search, peer: PeerId) -> None:
        try:
            async with self.rpc.call(peer, deadline_s=stretched(ASK_DEADLINE_S)) as call:
                await call.send(Seek(role=search.role, model=search.model))
                newer = await call.expect(Newer)
                adverts = [open_signed(raw, Advert) for raw in newer.adverts[:TOLD_MAX]]
        except TROUBLES as error:
            self.rpc.note_problem(str(peer), str(error))
            return
        for heard in adverts:
            if self.advertiser.take_in(heard, peer) is Hearing.FULL:
                # Its teller has had its share of our view; what we asked for has a way in besides.
                self.advertiser.take_in(heard)
        wall_s = self.rpc.environment.wall_s()
        search.told(
            [
                it
                for it in adverts
                if it.signer != self.rpc.me
                and not it.record.expired(wall_s)
                and not self.rpc.view.is_gone(it.signer[: limits.DIGEST_KEY_BYTES], it.record.seq)
            ]
        )

    async def on_seek(self, call: TypedCall, message: Message) -> None:
        assert isinstance(message, Seek)
        random, wall_s = self.rpc.environment.random, self.rpc.environment.wall_s()
        able = self.rpc.view.candidates(message.role, message.model, wall_s)
        mine = self.advertiser.mine(self.rpc.endpoint)
        if fits(mine, message.role, message.model):
            able.append(mine)
        known = [it for it in able or self.rpc.view.living(wall_s) if it.signer != call.peer]
        told = known if len(known) <= TOLD_MAX else random.sample(known, TOLD_MAX)
        await call.send(Newer(adverts=tuple(it.raw for it in told), wanted=b"", same_key=None))
