"""The peers that could do a leg, and what this peer learned about them by working with them."""

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace

import trio

from node.dispatch.choices import Choices, Decision
from node.dispatch.handoff import Handoff
from node.dispatch.hedging import Hedging
from node.dispatch.lanes import Lanes
from node.dispatch.measured import Measured
from node.dispatch.orders import Orders
from node.dispatch.route import Candidate, Leg, PeerLoad, candidates, ranked
from node.dispatch.sitting import Sitting
from node.dispatch.trials import Trials
from node.paying.payer import Payer
from node.paying.pricing import LegUnits, units_at_most
from p2p.peers import Peers
from p2p.score import Standing
from wire.advert import Advert
from wire.content import ContentId, PeerId
from wire.kinds import Role
from wire.latest import Latest
from wire.signed import Signed
from wire.task import Stage

DELIVERED_KEPT = 1000
# That somebody is there is looked up once in so long for all tasks of a kind.
FOUND_FOR_S = 0.05
FOUND_KEPT = 256


@dataclass(slots=True)
class PeerDirectory:
    """The peers that legs may go to, and the legs that each is doing for us."""

    peers: Peers
    # Where strangers are tried out beside tasks that do not wait for them; None: only within tasks.
    background: trio.Nursery | None = None
    under_way: dict[PeerId, int] = field(default_factory=dict)
    # Peers that did a leg for us, the latest of them.
    delivered_before: Latest[PeerId, None] = field(default_factory=lambda: Latest(DELIVERED_KEPT))
    # Legs that one peer did not finish and that went to another.
    failed_over: int = 0
    # Legs that were also given to a second peer, since the first took long.
    hedged: int = 0
    measured: Measured = field(default_factory=Measured)
    hedging: Hedging = field(default_factory=Hedging)
    trials: Trials = field(default_factory=Trials)
    sitting: Sitting = field(default_factory=Sitting)
    # Why the latest tasks went where they went.
    choices: Choices = field(default_factory=Choices)
    # None where every leg goes by a conversation of its own.
    orders: Orders | None = None
    # None in a network without credits, where nobody asks for any.
    payer: Payer | None = None
    lanes: Lanes = field(init=False)
    # When somebody was last known for a role and a model.
    _found: Latest[tuple[Role, ContentId | None], float] = field(
        default_factory=lambda: Latest(FOUND_KEPT)
    )

    def __post_init__(self) -> None:
        self.lanes = Lanes(self.peers.environment.entropy)

    def able(self, stage: Stage, avoid: frozenset[PeerId] = frozenset()) -> list[PeerId]:
        """Peers that could do `stage`, best first, without those to avoid."""
        adverts, loads = self._known(stage, avoid)
        return ranked(adverts, Leg(stage.model), loads, self.peers.environment.random)

    def anybody(self, stage: Stage) -> bool:
        """Whether `able` would find a peer, or would have a moment ago."""
        now_at_s, key = trio.current_time(), (stage.role, stage.model)
        if self._found.get(key, -math.inf) > now_at_s - FOUND_FOR_S:
            return True
        found = any(
            self.peers.standing(it.signer) is not Standing.BANNED for it in self.playing(stage)
        )
        if found:
            self._found[key] = now_at_s
        return found

    def candidates(self, stage: Stage, units: int, avoid: frozenset[PeerId]) -> list[Candidate]:
        """As `able`, in no order, with the time that each would take."""
        adverts, loads = self._known(stage, avoid)
        return candidates(adverts, Leg(stage.model, units), loads)

    def able_for(self, handoff: Handoff, units: int, avoid: frozenset[PeerId]) -> list[Candidate]:
        """The candidates for the next leg of a handoff, that may be asked and paid for it."""
        able = self.candidates(handoff.leg, units, avoid)
        able = [it for it in able if handoff.may_go_to(it.peer)]
        if not handoff.is_own:
            return able
        most = units_at_most(handoff.leg, handoff.input, units)
        return self.affordable(able, handoff.leg, most, handoff.price_left)

    def affordable(
        self, able: Sequence[Candidate], stage: Stage, most: LegUnits, left: int
    ) -> list[Candidate]:
        """Those that do the leg for at most `left` millionths, each with its price."""
        if (payer := self.payer) is None:
            return list(able)
        found = []
        for one in able:
            price = payer.price_at(one.peer, stage, most, left)
            if price is not None:
                found.append(one if price == one.price else replace(one, price=price))
        return found

    def is_filling(self, stage: Stage, failed: Collection[PeerId]) -> bool:
        """Whether a peer that does such legs is about to be promised what they need.

        `failed` are those that do this one no more, whatever they are promised.
        """
        payer = self.payer
        return payer is not None and any(
            payer.channels.is_filling(it.signer)
            for it in self.playing(stage)
            if it.signer not in failed
        )

    async def pause(self, pause_s: float, *, filling: bool) -> None:
        """Wait so long; `filling`: or until a peer has been promised something."""
        if self.payer is None or not filling:
            await trio.sleep(pause_s)
            return
        with trio.move_on_after(pause_s):
            await self.payer.channels.filled.wait()

    def _known(
        self, stage: Stage, avoid: frozenset[PeerId]
    ) -> tuple[list[Signed[Advert]], dict[PeerId, PeerLoad]]:
        now_at_s = trio.current_time()
        adverts = [it for it in self.playing(stage) if it.signer not in avoid]
        loads = {
            it.signer: PeerLoad(
                self.peers.standing_at_work(it.signer),
                self.under_way.get(it.signer, 0),
                self.measured.round_trip_s(it.signer),
                self.measured.observed(it.signer, stage.model, now_at_s),
                # This peer trusts itself without a delivered leg.
                it.signer == self.peers.me or self.measured.has_delivered(it.signer, stage.model),
                self.sitting.is_benched(it.signer, now_at_s),
            )
            for it in adverts
        }
        return adverts, loads

    def playing(self, stage: Stage) -> list[Signed[Advert]]:
        """The peers known to do such legs; this peer too if it does them."""
        found = self.peers.view.candidates(stage.role, stage.model, self.peers.environment.wall_s())
        mine = self.peers.mine()
        offer = mine.record
        if offer.plays(stage.role) and (stage.model is None or offer.offer_of(stage.model)):
            found.append(mine)
        return found

    def note_choice(
        self,
        handoff: Handoff,
        able: Sequence[Candidate],
        asked: Sequence[Candidate],
        chosen: Candidate,
    ) -> None:
        """Keep who could do the next leg of a handoff, who was asked, and who got it."""
        decision = Decision(handoff.stage, able, asked, chosen.peer, trio.current_time())
        self.choices.note(handoff.task.id, decision)

    def note_delivered(self, peer: PeerId) -> None:
        """Note that `peer` did a leg for us."""
        self.delivered_before[peer] = None
