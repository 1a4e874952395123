"""Handing the baton on: to the best peer, to the next best if that fails, within a deadline.

Whoever holds a task hands it on like this, the asker's own peer and every peer in between. The
holder lets go only when the next leg's receipts are in its hands and fit the task.
"""

import math
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

import trio

from node.engines.seam import Part
from node.events import Failed, LegDone, Offered, Streamed, Tell
from node.patience import Patience
from node.resuming import Shown
from node.route import Leg, Load, ranked
from p2p.peers import Peers
from p2p.reaching import PATIENCE_S
from p2p.score import Offence
from p2p.talk import refused
from wire import limits
from wire.chain import open_receipts
from wire.content import PeerId
from wire.errors import (
    BatonError,
    Malformed,
    Refused,
    RemoteProtocolError,
    TaskFailed,
    TooSlow,
    TransportError,
    WireError,
)
from wire.message import Accept, Offer, Piece, Progress, Refuse, Result
from wire.receipt import Receipt
from wire.signed import Signed
from wire.task import Stage, Task
from wire.tree import name_of

# A peer that neither accepts nor refuses within this is passed over.
ACCEPT_DEADLINE_S = 5.0
# How often to look again when nobody can take the leg now.
PAUSE_S = 0.25
# When everybody has refused for good, another peer may still come; for so long it is waited for.
NEWCOMER_S = 10.0
DELIVERED_KEPT = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Baton:
    """What is handed on: the task, what was done so far, the input if small, who not to ask."""

    task: Signed[Task]
    receipts: tuple[Signed[Receipt], ...] = ()
    input: bytes | None = None
    units: int = 1
    # What another peer streamed of the last leg before it failed.
    resume: Progress | None = None
    avoid: frozenset[PeerId] = frozenset()

    @property
    def stage(self) -> int:
        return len(self.receipts)

    @property
    def is_last(self) -> bool:
        return self.stage + 1 == len(self.task.record.stages)

    @property
    def leg(self) -> Stage:
        return self.task.record.stages[self.stage]


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivered:
    """Every leg's receipt, and the last leg's output and input if they came inline."""

    receipts: tuple[Signed[Receipt], ...]
    output: bytes | None
    source: bytes | None


Relay = Callable[[Part], Awaitable[None]]


@dataclass(slots=True)
class Handing:
    """Hands batons on for one peer, and remembers what it has under way with whom."""

    peers: Peers
    under_way: dict[PeerId, int] = field(default_factory=dict)
    # Peers that did a leg for us, the latest of them.
    delivered_before: dict[PeerId, None] = field(default_factory=dict)
    # Legs that one peer did not finish and that went to another.
    failed_over: int = 0

    def able(self, stage: Stage, avoid: frozenset[PeerId] = frozenset()) -> list[PeerId]:
        """Peers that could do `stage`, best first, without those to avoid."""
        return self._ranked(stage, 1, avoid)

    def _ranked(self, stage: Stage, units: int, avoid: frozenset[PeerId]) -> list[PeerId]:
        wall_s = self.peers.seams.wall_s()
        adverts = [
            it
            for it in self.peers.view.candidates(stage.role, stage.model, wall_s)
            if it.signer not in avoid and it.signer != self.peers.me
        ]
        loads = {
            it.signer: Load(self.peers.standing(it.signer), self.under_way.get(it.signer, 0))
            for it in adverts
        }
        leg = Leg(stage.model, units)
        return ranked(adverts, leg, loads, self.peers.seams.random)

    async def hand_on(
        self,
        baton: Baton,
        tell: Tell,
        relay: Relay,
        *,
        deadline_at_s: float,
        patience_s: float = math.inf,
        shown: Shown | None = None,
        failed: set[PeerId] | None = None,
    ) -> Delivered:
        """Have the rest of the legs done. TaskFailed once the deadline leaves nobody to ask.

        A peer that failed is not asked again; one that was only busy may be. Refused, to be tried
        again, when there was nobody to ask for `patience_s`. `shown` is how far the last leg was
        streamed already, `failed` are peers that failed in an earlier attempt; both are kept up.
        """
        nobody_since_s = trio.current_time()
        shown = shown if shown is not None else Shown()
        failed = failed if failed is not None else set()
        # Nobody died or fell silent: all that failed so far was refused for good.
        declined = True
        patience = Patience()
        reasons: list[str] = []
        while (now_s := trio.current_time()) < deadline_at_s:
            able = self._ranked(baton.leg, baton.units, baton.avoid | failed)
            choices = patience.ready(able, now_s)
            if failed:
                # Claims cost nothing. Once bitten, those who have delivered before come first.
                choices.sort(key=lambda it: it not in self.delivered_before)
            if not choices:
                waited_s = now_s - nobody_since_s
                if failed and declined and not able and waited_s > NEWCOMER_S:
                    # Everybody said no, for good: more time changes nothing.
                    raise TaskFailed(
                        _nobody(baton.leg, reasons),
                        todo="change what is asked for, or see who is there: python -m node peers",
                    )
                if waited_s > patience_s:
                    raise Refused(_nobody(baton.leg, reasons), retry_after_s=1.0)
                await trio.sleep(min(PAUSE_S, deadline_at_s - now_s))
                continue
            nobody_since_s = now_s
            peer = choices[0]
            until_s = now_s + _share(baton, choices) * (deadline_at_s - now_s)
            try:
                with trio.move_on_at(until_s):
                    return await self._offer(baton, peer, tell, relay, shown, deadline_at_s)
                if until_s - now_s >= PATIENCE_S:
                    # Not where a client left it no time: that is no fault of the peer's.
                    self.peers.offended(peer, Offence.SLOW)
                raise TooSlow(f"it took the leg and was not done in {until_s - now_s:.0f} s")
            except Refused as error:
                if error.retry_after_s is None:
                    failed.add(peer)
                else:
                    patience.refused(peer, error.retry_after_s, trio.current_time())
                why: BatonError = error
            except (TransportError, WireError, RemoteProtocolError) as error:
                failed.add(peer)
                declined = False
                why = error
            self.failed_over += 1
            reasons = [*reasons[-3:], f"{peer.short}: {why.message}"]
            tell(Failed(baton.leg.role.name.lower(), peer, why.message))
        raise TaskFailed(
            _nobody(baton.leg, reasons) + " within the deadline",
            todo="give it more time (--deadline), or see who is there: python -m node peers",
        )

    async def _offer(
        self,
        baton: Baton,
        peer: PeerId,
        tell: Tell,
        relay: Relay,
        shown: Shown,
        deadline_at_s: float,
    ) -> Delivered:
        left_s = deadline_at_s - trio.current_time()
        offer = Offer(
            task=baton.task.raw,
            stage=baton.stage,
            receipts=tuple(it.raw for it in baton.receipts),
            input=baton.input,
            deadline_ms=max(1, int(left_s * 1000)),
            units=baton.units,
            resume=shown.begin(),
            avoid=tuple(sorted(baton.avoid))[: limits.AVOID_MAX],
        )
        self.under_way[peer] = self.under_way.get(peer, 0) + 1
        try:
            async with self.peers.talk(peer, deadline_s=left_s) as talk:
                await talk.send(offer)
                with trio.move_on_after(ACCEPT_DEADLINE_S) as patience:
                    await talk.expect(Accept)
                if patience.cancelled_caught:
                    self.peers.offended(peer, Offence.SLOW)
                    raise Refused(f"no answer to the offer within {ACCEPT_DEADLINE_S:.0f} s")
                tell(Offered(baton.stage, baton.leg.role, peer))
                while True:
                    match message := await talk.receive():
                        case Piece():
                            part = Part(message.position, message.units, message.data)
                            for event in shown.take(part):
                                tell(event)
                                if isinstance(event, Streamed):
                                    await relay(part)
                        case Refuse():
                            raise refused(message)
                        case Result():
                            return self._delivered(baton, peer, message, tell)
                        case _:
                            raise RemoteProtocolError("neither a piece nor a result")
        finally:
            self.under_way[peer] -= 1
            if not self.under_way[peer]:
                del self.under_way[peer]

    def _delivered(self, baton: Baton, peer: PeerId, result: Result, tell: Tell) -> Delivered:
        """Check what came back against what was asked; WireError if it does not fit."""
        receipts = open_receipts(baton.task, result.receipts)
        if len(receipts) != len(baton.task.record.stages):
            raise Malformed(f"{len(receipts)} receipts for {len(baton.task.record.stages)} legs")
        if tuple(receipts[: baton.stage]) != baton.receipts:
            raise Malformed("the receipts of earlier legs were changed")
        if receipts[baton.stage].signer != peer:
            raise Malformed("the leg was signed by another peer than the one that took it")
        if any(it.signer in baton.avoid for it in receipts[baton.stage :]):
            raise Malformed("a peer that was to be avoided signed a leg")
        last = receipts[-1].record
        if result.output is not None and name_of(result.output) != last.output:
            raise Malformed("the output is not the one its receipt names")
        for receipt in receipts[baton.stage :]:
            tell(LegDone(receipt))
        self.delivered_before.pop(peer, None)
        self.delivered_before[peer] = None
        if len(self.delivered_before) > DELIVERED_KEPT:
            self.delivered_before.pop(next(iter(self.delivered_before)))
        source = result.source
        if source is not None and name_of(source) != last.input:
            raise Malformed("the input is not the one that the last receipt names")
        return Delivered(receipts=tuple(receipts), output=result.output, source=source)


def _share(baton: Baton, choices: Sequence[PeerId]) -> float:
    """How much of the time that is left the first choice may take.

    Who takes a leg and falls silent leaves time for another, if there is one; the more legs are
    left, the longer its own failovers may take.
    """
    legs = len(baton.task.record.stages) - baton.stage
    return legs / (legs + 1) if len(choices) > 1 else 1.0


def _nobody(leg: Stage, reasons: list[str]) -> str:
    tried = f" ({'; '.join(reasons)})" if reasons else ""
    return f"no peer finished the {leg.role.name.lower()} leg{tried}"
