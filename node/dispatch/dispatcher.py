"""Handing the baton on: to the best peer, to the next best if that fails, within a deadline.

Whoever holds a task hands it on like this, the asker's own peer and every peer in between. The
holder lets go only when the next leg's receipts are in its hands and fit the task.
"""

import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import trio

from node.dispatch.failover import Failover
from node.dispatch.handoff import Handoff, LegResult, Relay
from node.dispatch.hedging import Hedging
from node.dispatch.measured import Measured
from node.dispatch.progress import StreamProgress
from node.dispatch.route import Candidate, Leg, PeerLoad, candidates, ranked
from node.dispatch.sitting import Sitting
from node.dispatch.trials import Trials
from node.engines.interface import Part
from node.task.events import EventSink, LegDone, Offered
from p2p import timeouts
from p2p.peers import Peers
from p2p.score import Offence, Standing
from p2p.typed_call import refused
from wire import limits
from wire.advert import Advert
from wire.chain import open_receipts
from wire.content import PeerId
from wire.errors import Malformed, Refused, RemoteProtocolError
from wire.message import Accept, Offer, Piece, Progress, Refuse, Result
from wire.signed import Signed
from wire.task import Stage
from wire.tree import name_of

__all__ = ["Dispatcher", "Handoff", "LegResult", "Relay"]

# A peer that neither accepts nor refuses within this is passed over.
ACCEPT_DEADLINE_S = 5.0
DELIVERED_KEPT = 1000


@dataclass(slots=True)
class Dispatcher:
    """Hands batons on for one peer, and remembers what it has under way with whom."""

    peers: Peers
    under_way: dict[PeerId, int] = field(default_factory=dict)
    # Peers that did a leg for us, the latest of them.
    delivered_before: dict[PeerId, None] = field(default_factory=dict)
    # Legs that one peer did not finish and that went to another.
    failed_over: int = 0
    # Legs that a second peer was given besides, since the first took long.
    hedged: int = 0
    measured: Measured = field(default_factory=Measured)
    hedging: Hedging = field(default_factory=Hedging)
    trials: Trials = field(default_factory=Trials)
    sitting: Sitting = field(default_factory=Sitting)

    def able(self, stage: Stage, avoid: frozenset[PeerId] = frozenset()) -> list[PeerId]:
        """Peers that could do `stage`, best first, without those to avoid."""
        adverts, loads = self._known(stage, avoid)
        return ranked(adverts, Leg(stage.model), loads, self.peers.environment.random)

    def anybody(self, stage: Stage) -> bool:
        """Whether `able` finds somebody, for less than it costs to put them in order."""
        return any(
            self.peers.standing(it.signer) is not Standing.BANNED for it in self._playing(stage)
        )

    def candidates(self, stage: Stage, units: int, avoid: frozenset[PeerId]) -> list[Candidate]:
        """As `able`, in no order, with what each would take."""
        adverts, loads = self._known(stage, avoid)
        return candidates(adverts, Leg(stage.model, units), loads)

    def _known(
        self, stage: Stage, avoid: frozenset[PeerId]
    ) -> tuple[list[Signed[Advert]], dict[PeerId, PeerLoad]]:
        now_s = trio.current_time()
        adverts = [it for it in self._playing(stage) if it.signer not in avoid]
        loads = {
            it.signer: PeerLoad(
                self.peers.standing(it.signer),
                self.under_way.get(it.signer, 0),
                self.measured.round_trip_s(it.signer),
                self.measured.observed(it.signer, stage.model, now_s),
                # Nobody has to prove anything to itself.
                it.signer == self.peers.me or self.measured.has_delivered(it.signer, stage.model),
                self.sitting.is_benched(it.signer, now_s),
            )
            for it in adverts
        }
        return adverts, loads

    def _playing(self, stage: Stage) -> list[Signed[Advert]]:
        """Who does such legs, as far as is known here; this peer too if it does."""
        found = self.peers.view.candidates(stage.role, stage.model, self.peers.environment.wall_s())
        mine = self.peers.mine()
        offer = mine.record
        if offer.plays(stage.role) and (stage.model is None or offer.offer_of(stage.model)):
            found.append(mine)
        return found

    async def hand_on(
        self,
        handoff: Handoff,
        on_event: EventSink,
        relay: Relay,
        *,
        deadline_at_s: float,
        patience_s: float = math.inf,
        shown: StreamProgress | None = None,
        failed: set[PeerId] | None = None,
    ) -> LegResult:
        """Have the rest of the legs done. TaskFailed once the deadline leaves nobody to ask.

        A peer that failed is not asked again; one that was only busy may be. Refused, to be tried
        again, when there was nobody to ask for `patience_s`. `shown` is how far the last leg was
        streamed already, `failed` are peers that failed in an earlier attempt; both are kept up.
        """
        failover = Failover(
            self,
            handoff,
            on_event,
            relay,
            deadline_at_s,
            shown if shown is not None else StreamProgress(),
            failed if failed is not None else set(),
        )
        return await failover.run(patience_s)

    async def offer(
        self,
        handoff: Handoff,
        peer: PeerId,
        on_event: EventSink,
        take: Callable[[Part], Awaitable[None]],
        resume: Progress | None,
        deadline_at_s: float,
    ) -> LegResult:
        """One peer's turn: what it delivered, or the error that says why it did not."""
        left_s = deadline_at_s - trio.current_time()
        offer = Offer(
            task=handoff.task.raw,
            stage=handoff.stage,
            receipts=tuple(it.raw for it in handoff.receipts),
            input=handoff.input,
            deadline_ms=max(1, int(left_s * 1000)),
            units=handoff.units,
            resume=resume,
            avoid=tuple(sorted(handoff.avoid))[: limits.AVOID_MAX],
        )
        self.under_way[peer] = at_once = self.under_way.get(peer, 0) + 1
        began_s = trio.current_time()
        try:
            async with self.peers.call(peer, deadline_s=left_s) as call:
                await call.send(offer)
                with timeouts.move_on_after(ACCEPT_DEADLINE_S) as patience:
                    await call.expect(Accept)
                if patience.cancelled_caught:
                    if handoff.is_own:
                        self.peers.offended(peer, Offence.SLOW)
                    raise Refused(f"no answer to the offer within {ACCEPT_DEADLINE_S:.0f} s")
                on_event(Offered(handoff.stage, handoff.leg.role, peer))
                while True:
                    match message := await call.receive():
                        case Piece():
                            await take(Part(message.position, message.units, message.data))
                        case Refuse():
                            raise refused(message)
                        case Result():
                            delivered = self._delivered(handoff, peer, message, on_event)
                            break
                        case _:
                            raise RemoteProtocolError("neither a piece nor a result")
        finally:
            self.under_way[peer] -= 1
            if not self.under_way[peer]:
                del self.under_way[peer]
        self.measured.did(peer, handoff.leg.model)
        self.sitting.delivered(peer)
        self.trials.delivered()
        # Whoever floods the view with fresh keys does not push out who works for us.
        self.peers.view.keep(peer)
        leg = delivered.receipts[-1].record
        if handoff.is_last and not leg.reused:
            begun = resume.units if resume is not None else 0
            # What we gave it at once, it had to share its time between.
            took_s = (trio.current_time() - began_s) / at_once
            units = max(1, leg.units - begun)
            self.measured.delivered(peer, leg.model, units, took_s, trio.current_time())
        return delivered

    def _delivered(
        self, handoff: Handoff, peer: PeerId, result: Result, on_event: EventSink
    ) -> LegResult:
        """Check what came back against what was asked; WireError if it does not fit."""
        receipts = open_receipts(handoff.task, result.receipts)
        if len(receipts) != len(handoff.task.record.stages):
            raise Malformed(f"{len(receipts)} receipts for {len(handoff.task.record.stages)} legs")
        if tuple(receipts[: handoff.stage]) != handoff.receipts:
            raise Malformed("the receipts of earlier legs were changed")
        if receipts[handoff.stage].signer != peer:
            raise Malformed("the leg was signed by another peer than the one that took it")
        if any(it.signer in handoff.avoid for it in receipts[handoff.stage :]):
            raise Malformed("a peer that was to be avoided signed a leg")
        last = receipts[-1].record
        if result.output is not None and name_of(result.output) != last.output:
            raise Malformed("the output is not the one its receipt names")
        source = result.source
        if source is not None and name_of(source) != last.input:
            raise Malformed("the input is not the one that the last receipt names")
        for receipt in receipts[handoff.stage :]:
            on_event(LegDone(receipt))
        self.delivered_before.pop(peer, None)
        self.delivered_before[peer] = None
        if len(self.delivered_before) > DELIVERED_KEPT:
            self.delivered_before.pop(next(iter(self.delivered_before)))
        return LegResult(receipts=tuple(receipts), output=result.output, source=source)
