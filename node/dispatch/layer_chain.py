"""The layers that this peer does not have: found in adverts, opened at peers, run in order.

A chain has one peer for each range that follows ours. Whatever goes wrong with one of them ends the
whole chain: the next pass opens another, with other peers where there are any, and whoever drives
reads everything once more. Peers that failed a while ago are taken only if there is no other.

When an answer has ended each peer signs what it gave for it. Of some answers, and of the first one
of each peer, the rows of one peer are run again by others, before the answer is given out.
"""

import math
from collections import defaultdict
from dataclasses import dataclass, field

import trio

from node.dispatch.layer_check import ROWS_LOOKED_MAX, LayerClaim, look_again
from node.dispatch.layer_link import LIFE_S, TROUBLES, LayerLink, Passage, Signing
from node.dispatch.layer_ranges import following, missing_words
from node.engines.other_layers import EndedRows, LayerPass, LayersLied, LayersLost
from p2p.peers import Peers
from p2p.score import Offence, Standing
from p2p.timeouts import stretched
from wire.content import ContentId, PeerId
from wire.errors import BatonError, Disconnected
from wire.kinds import Role
from wire.latest import Latest
from wire.layers import LayerRange, layers_id
from wire.stage import StageRows, StageSign

# How long a chain is tried to be opened, and with how many choices of peers.
FORM_S = 20.0
TRIES_MAX = 5
LOOK_EVERY_S = 0.5
SEEK_S = 4.0
SEEK_EVERY_S = 5.0
# Without a pass for so long it is closed: others may want the pages.
IDLE_S = 60.0
# One this old is closed as soon as there is a moment without a pass.
RENEW_AFTER_S, RENEWING_IDLE_S = 1800.0, 1.0
# A peer that failed is asked last for so long.
DOUBT_S = 60.0
FAILED_KEPT = 256
# Models of which the rest is sought at once.
SOUGHT_MAX = 16
# Of one in so many answers the rows of one peer are run again.
LOOKED_ONE_IN = 16
# Peers that are known to have given right rows once.
LOOKED_MAX = 256


@dataclass(slots=True, eq=False)
class LayerChain:
    """Links in the order of their layers. `run` is its life; then it is `ended`."""

    links: list[LayerLink]
    ended: trio.Event = field(default_factory=trio.Event)
    opened: trio.Event = field(default_factory=trio.Event)
    failed: PeerId | None = None
    error: BatonError | None = None
    used_at_s: float = field(default_factory=trio.current_time)

    @property
    def pages(self) -> int:
        """How many pages every one of them keeps."""
        return min(it.pages for it in self.links)

    async def run(self, pages: int) -> None:
        """Open all links; afterwards close them when nothing comes for a while, or one fails."""
        try:
            async with trio.open_nursery() as nursery:
                for link, after in zip(self.links, [*self.links[1:], None], strict=True):
                    nursery.start_soon(self._keep, link, after, pages)
                for link in self.links:
                    await link.opened.wait()
                self.opened.set()
                self.used_at_s = opened_at_s = trio.current_time()
                while (now_at_s := trio.current_time()) < opened_at_s + LIFE_S:
                    idle_s = IDLE_S if now_at_s < opened_at_s + RENEW_AFTER_S else RENEWING_IDLE_S
                    if now_at_s >= self.used_at_s + idle_s or self.ended.is_set():
                        break
                    await trio.sleep(LOOK_EVERY_S)
                for link in self.links:
                    link.close()
        finally:
            self.ended.set()
            self.opened.set()

    async def _keep(self, link: LayerLink, after: LayerLink | None, pages: int) -> None:
        try:
            await link.run(pages, after)
        except TROUBLES as error:
            if self.error is None:
                self.failed, self.error = link.peer, error
                self.ended.set()
                for it in self.links:
                    it.close()

    async def through(self, rows: StageRows, *, wait: bool) -> bytes:
        """Have rows go through; what comes back if somebody waits for it. BatonError."""
        self.used_at_s = trio.current_time()
        passage = Passage(rows)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._cancel_at_end, nursery.cancel_scope)
            await self.links[0].put(passage)
            if wait:
                await passage.done.wait()
            nursery.cancel_scope.cancel()
        if self.ended.is_set():
            raise self.error or Disconnected("the chain of layers was closed")
        return passage.rows.data if wait else b""

    async def signed(self, ended: EndedRows) -> tuple[bytes, ...]:
        """What each peer that signs signed of these rows. BatonError."""
        self.used_at_s = trio.current_time()
        wanted = StageSign(table=ended.table, rows=ended.rows)
        signings = [(link, Signing(wanted)) for link in self.links if link.signs]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._cancel_at_end, nursery.cancel_scope)
            for link, signing in signings:
                await link.put(signing)
            for _, signing in signings:
                await signing.done.wait()
            nursery.cancel_scope.cancel()
        if not all(signing.leg for _, signing in signings):
            raise self.error or Disconnected("the chain of layers was closed")
        return tuple(signing.leg for _, signing in signings)

    async def _cancel_at_end(self, scope: trio.CancelScope) -> None:
        await self.ended.wait()
        scope.cancel()


@dataclass(slots=True, eq=False)
class LayerChains:
    """See `node.engines.other_layers.OtherLayers`. Peers are there once `attach` was called."""

    # How often a chain was opened, and how often one broke.
    opened: int = 0
    broken: int = 0
    # How often rows were run again, and who was found to have given wrong ones.
    looked: int = 0
    named: Latest[PeerId, str] = field(default_factory=lambda: Latest(FAILED_KEPT))
    _peers: Peers | None = None
    _nursery: trio.Nursery | None = None
    _chains: dict[ContentId, LayerChain] = field(default_factory=dict)
    _failed_at_s: Latest[PeerId, float] = field(default_factory=lambda: Latest(FAILED_KEPT))
    _sought: Latest[ContentId, LayerRange] = field(default_factory=lambda: Latest(SOUGHT_MAX))
    _right: Latest[PeerId, bool] = field(default_factory=lambda: Latest(LOOKED_MAX))

    def attach(self, peers: Peers, nursery: trio.Nursery) -> None:
        """Use these peers from now on; chains live in `nursery`."""
        self._peers, self._nursery = peers, nursery
        nursery.start_soon(self._seek_forever, peers)

    def detach(self) -> None:
        """Use no peers any more: who asks is told so."""
        self._peers = self._nursery = None
        self._chains.clear()

    def missing(self, model: ContentId, here: LayerRange) -> str:
        self._sought[model] = here
        return missing_words(here, self._offers(model))

    def peers_of(self, model: ContentId) -> list[tuple[PeerId, LayerRange]]:
        """Who has which layers of the chain of a model that stands now."""
        chain = self._chains.get(model)
        if chain is None or chain.ended.is_set():
            return []
        return [(it.peer, it.layers) for it in chain.links]

    async def run(self, some: LayerPass) -> bytes:
        chain = self._chains.get(some.model)
        if chain is not None and chain.ended.is_set():
            self._forget(some.model, chain)
            chain = None
        begun = chain is None
        if chain is None:
            chain = await self._formed(some)
        if some.pages > chain.pages or (begun and not some.fresh):
            raise LayersLost("the other layers are begun anew", pages=chain.pages)
        try:
            return await chain.through(StageRows.from_bytes(some.rows), wait=some.wait)
        except TROUBLES as error:
            self._forget(some.model, chain)
            words = f"{chain.failed.short}: {error.message}" if chain.failed else error.message
            raise LayersLost(words) from error

    async def sign(self, ended: EndedRows) -> tuple[bytes, ...]:
        chain = self._chains.get(ended.model)
        if chain is None or chain.ended.is_set():
            return ()
        try:
            legs = await chain.signed(ended)
        except TROUBLES:
            # The next pass finds out that the chain is gone.
            legs = ()
        for link in self._to_look_at(chain):
            await self._look(chain, link, ended)
        return legs

    def _to_look_at(self, chain: LayerChain) -> list[LayerLink]:
        """Whose rows are run again: of all that are new, else what nobody can foresee."""
        if self._peers is None:
            return []
        random = self._peers.environment.random
        if unknown := [it for it in chain.links if it.peer not in self._right]:
            return unknown
        return [] if random.randrange(LOOKED_ONE_IN) else [random.choice(chain.links)]

    async def _look(self, chain: LayerChain, link: LayerLink, ended: EndedRows) -> None:
        """Have others run one peer's rows; LayersLied if they show that those were wrong."""
        rows = link.log.rows(ended.table, min(ended.rows, ROWS_LOOKED_MAX))
        peers = self._peers
        if not rows or peers is None:
            return
        others = [it for it in self._offers(ended.model)[link.layers] if it != link.peer]
        peers.environment.random.shuffle(others)
        self.looked += bool(others)
        claim = LayerClaim(link.peer, ended.model, link.layers, rows)
        found = await look_again(peers, claim, others)
        for peer in found.agreeing:
            self._right[peer] = True
        for peer in found.wrong:
            peers.offended(peer, Offence.WRONG_ANSWER)
            self.named[peer] = str(link.layers)
        if link.peer in found.wrong:
            chain.failed, chain.error = link.peer, Disconnected("it gave wrong rows")
            chain.ended.set()
            self._forget(ended.model, chain)
            agree = " and ".join(it.short for it in found.agreeing)
            raise LayersLied(f"{link.peer.short} gave wrong rows of {link.layers}: {agree} agree")

    def _forget(self, model: ContentId, chain: LayerChain) -> None:
        if self._chains.get(model) is chain:
            del self._chains[model]
        if chain.failed is not None:
            self.broken += 1
            self._failed_at_s[chain.failed] = trio.current_time()

    async def _formed(self, some: LayerPass) -> LayerChain:
        """A chain that stands; LayersLost for good if there is none in time."""
        words = "this peer has just started, or is leaving"
        tries = 0
        late_at_s = trio.current_time() + stretched(FORM_S)
        while self._peers is not None and self._nursery is not None and tries < TRIES_MAX:
            links = self._links(self._peers, some)
            if links is None:
                words = missing_words(some.here, self._offers(some.model))
                if trio.current_time() >= late_at_s:
                    break
                await self._peers.seek(Role.INFER, layers_id(some.model), deadline_s=SEEK_S)
                await trio.sleep(LOOK_EVERY_S)
                continue
            tries += 1
            chain = LayerChain(links)
            self._nursery.start_soon(chain.run, some.pages_max)
            await chain.opened.wait()
            if not chain.ended.is_set():
                self.opened += 1
                self._chains[some.model] = chain
                return chain
            self._forget(some.model, chain)
            words = "" if chain.error is None else chain.error.message
            # It may be that a peer does not know yet that we left.
            await trio.sleep(LOOK_EVERY_S * tries)
        raise LayersLost(f"{some.here} are here, and not the rest: {words}", final=True)

    def _links(self, peers: Peers, some: LayerPass) -> list[LayerLink] | None:
        """A peer for each range that follows, the likeliest to work; None where one is missing."""
        offers = self._offers(some.model)
        ranges = following(some.here, offers)
        if ranges is None:
            return None
        links = []
        for layers in ranges:
            able = list(offers[layers])
            peers.environment.random.shuffle(able)
            best = min(able, key=lambda it: self._doubt(peers, it))
            links.append(LayerLink(peers, best, some.model, layers))
        return links

    def _doubt(self, peers: Peers, peer: PeerId) -> tuple[bool, float]:
        """Sorts those whose standing is low last, and before them those that failed lately."""
        failed_at_s = self._failed_at_s.get(peer, -math.inf)
        if failed_at_s < trio.current_time() - DOUBT_S:
            failed_at_s = -math.inf
        return peers.standing(peer) is not Standing.GOOD, failed_at_s

    def _offers(self, model: ContentId) -> dict[LayerRange, list[PeerId]]:
        """Who offers which ranges of a model."""
        found: dict[LayerRange, list[PeerId]] = defaultdict(list)
        if self._peers is None:
            return found
        key, wall_s = layers_id(model), self._peers.environment.wall_s()
        for heard in self._peers.view.candidates(Role.INFER, key, wall_s):
            offer = heard.record.offer_of(key)
            layers = None if offer is None else LayerRange.read(offer.name)
            if layers is not None and self._peers.standing(heard.signer) is not Standing.BANNED:
                found[layers].append(heard.signer)
        return found

    async def _seek_forever(self, peers: Peers) -> None:
        """Look further than the view for layers that are missing here."""
        while True:
            await trio.sleep(SEEK_EVERY_S)
            for model, here in list(self._sought.items()):
                if missing_words(here, self._offers(model)):
                    await peers.seek(Role.INFER, layers_id(model), deadline_s=SEEK_S)
