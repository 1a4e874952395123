"""One handoff on its way: which peer is offered it next, and what came of earlier offers.

Two peers are asked for a quote, and the better one gets the leg. A peer that fails is not asked
again for the same task, unless all that failed was the connection to it.
"""

import math
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from statistics import median_high

import trio

from node.dispatch.backoff import Backoff
from node.dispatch.begun import Begun
from node.dispatch.directory import PeerDirectory
from node.dispatch.handoff import Handoff, LegResult, Relay
from node.dispatch.offer import offer_leg
from node.dispatch.overdue import later_legs_s, overdue_s
from node.dispatch.progress import StreamProgress
from node.dispatch.quotes import quotes
from node.dispatch.resuming import resumed
from node.dispatch.route import EAGERNESS, Candidate, drawn
from node.dispatch.sitting import sits, sits_after_s
from node.dispatch.trials import best, is_busy
from node.dispatch.try_out import try_out
from node.engines.interface import Part
from node.task.events import EventSink, Failed, Streamed
from node.task.refusals import ask_again_s
from node.task.units import streamed_max
from p2p.connect import PATIENCE_S, NotCalled
from p2p.score import Offence
from p2p.timeouts import stretched
from wire.content import PeerId
from wire.errors import (
    BatonError,
    Disconnected,
    Refused,
    RemoteProtocolError,
    TaskFailed,
    TooSlow,
    TransportError,
    Unreachable,
    WireError,
)
from wire.kinds import RefusalCode, Role

# Pause before the next try when no peer can take the leg now.
PAUSE_S = 0.25
# A peer that was not called, because nobody knows where it is yet, is looked at again after it.
NOT_CALLED_AGAIN_S = 1.0
# Whose connection broke is a candidate again once it says itself that it is there, so often.
BROKEN_AGAIN_S, BROKEN_MAX = 1.0, 5
# How often somebody else is looked for while the only peer that is known is overdue.
LOOK_S = 2.0
REASONS_KEPT = 4
# Time for a search: it goes from neighbour to neighbour, with a round trip for each.
SEEK_S = 3.0
# How long to wait for a new peer when all known peers have refused for good.
NEWCOMER_S = 10.0
# Quotes cost a round trip to two peers; a shorter leg is offered at once to the better candidate.
WORTH_ASKING_S = 0.05


@dataclass(slots=True)
class Failover:
    """One handoff on its way. `shown` and `failed` are those of its task."""

    directory: PeerDirectory
    handoff: Handoff
    on_event: EventSink
    relay: Relay
    deadline_at_s: float
    shown: StreamProgress
    failed: set[PeerId]
    begun: Begun = field(default_factory=Begun)
    _patience: Backoff = field(default_factory=Backoff)
    _reasons: deque[str] = field(default_factory=lambda: deque(maxlen=REASONS_KEPT))
    # Whether all failures so far were refusals for good, and their codes.
    _declined: bool = True
    _codes: set[RefusalCode] = field(default_factory=set)
    _broke: Counter[PeerId] = field(default_factory=Counter)
    # The peers that have the handoff now: one, or more if the first took long.
    _running: dict[PeerId, trio.CancelScope] = field(default_factory=dict)

    async def run(self, patience_s: float) -> LegResult:
        """See `Dispatcher.hand_on`."""
        self._declined = not self.failed
        for peer, error in self.begun.failures:
            self._blame(peer, error)
        if self.begun.candidate is not None:
            delivered = await self._have_done(self.begun.candidate, len(self._able()) > 1)
            if delivered is not None:
                return delivered
        two, nobody_since_at_s = self.begun.drawn, trio.current_time()
        while (now_at_s := trio.current_time()) < self.deadline_at_s:
            able = self._able()
            choices = self._ready(able)
            if not choices:
                waited_s = now_at_s - nobody_since_at_s
                if self.failed and self._declined and not able and waited_s > NEWCOMER_S:
                    # All peers refused for good: more time changes nothing.
                    raise TaskFailed(
                        self._nobody(),
                        todo="change what is asked for, or see who is there: python -m node peers",
                        # If all give the same code, the request itself is the cause.
                        code=next(iter(self._codes)) if len(self._codes) == 1 else None,
                    )
                if waited_s > patience_s:
                    raise Refused(self._nobody(), retry_after_s=1.0, code=RefusalCode.FAILED)
                filling = not able and self.directory.is_filling(self.handoff.leg, self.failed)
                if not able and not filling:
                    await self._look_further()
                left_s = max(0.0, self.deadline_at_s - now_at_s)
                await self.directory.pause(min(PAUSE_S, left_s), filling=filling)
                continue
            nobody_since_at_s = now_at_s
            random = self.directory.peers.environment.random
            asked = two or self.directory.trials.to_ask(choices, random)
            chosen, two = await self._better(asked), ()
            if chosen is not None:
                chosen = self._known_instead(chosen, choices)
                self.directory.note_choice(self.handoff, able, asked, chosen)
                delivered = await self._have_done(chosen, len(able) > 1)
                if delivered is not None:
                    return delivered
        raise TaskFailed(
            self._nobody() + " within the deadline",
            todo="give it more time (--deadline), or see who is there: python -m node peers",
        )

    # Choosing

    async def _look_further(self) -> None:
        """Search for peers beyond the view, for as long as the deadline allows."""
        left_s, leg = self.deadline_at_s - trio.current_time(), self.handoff.leg
        deadline_s = min(stretched(SEEK_S), left_s)
        await self.directory.peers.seek(leg.role, leg.model, deadline_s=deadline_s)

    def _able(self) -> list[Candidate]:
        avoid = self.handoff.avoid | self.failed | self._running.keys()
        if not self.handoff.is_own:
            # A stranger's leg that we would refuse must not come to us in our own name.
            avoid |= {self.directory.peers.me}
        return self.directory.able_for(self.handoff, self._units(), avoid)

    def _ready(self, able: Sequence[Candidate]) -> list[Candidate]:
        """Of the able peers, those to choose from now."""
        of = {it.peer: it for it in able}
        choices = [of[it] for it in self._patience.best(list(of), trio.current_time())]
        if self.failed:
            # Claims cost nothing: after a failure, peers that delivered before come first.
            before = self.directory.delivered_before
            choices = [it for it in choices if it.peer in before] or choices
        return choices

    async def _better(self, two: Sequence[Candidate]) -> Candidate | None:
        """The candidate that says it will be done first; None if all refuse."""
        # Fetching a text takes hardly any time, and data peers do not say how long.
        slight = self.handoff.leg.role is not Role.INFER
        if slight or len(two) < 2 or min(it.work_s for it in two) < WORTH_ASKING_S:
            return two[0]
        left_s = self.deadline_at_s - trio.current_time()
        given = self.directory.under_way
        before = {it.peer: given.get(it.peer, 0) for it in two}
        found = await quotes(
            self.directory.peers, list(before), self.handoff, self._units(), left_s
        )
        said: dict[PeerId, float] = {}
        for answer in found:
            if answer.error is not None:
                self._blame(answer.peer, answer.error)
                continue
            self.directory.measured.answered(answer.peer, answer.round_trip_s)
            said[answer.peer] = answer.expected_s
        heard = {it.peer for it in found}
        rated = []
        for one in two:
            if one.peer in said:
                # The time that we measured counts if it is longer than the quote. So does the work
                # that we gave the peer while it answered.
                since = given.get(one.peer, 0) - before[one.peer]
                expected_s = max(said[one.peer], one.expected_s if one.observed else 0.0)
                rated.append(replace(one, expected_s=expected_s + since * one.work_s))
        # A peer that did not answer may only be busy: one of these is tried.
        rated = rated or [it for it in two if it.peer not in heard]
        return best(rated)

    def _known_instead(self, chosen: Candidate, choices: Sequence[Candidate]) -> Candidate:
        """`chosen`; but for a stranger an idle peer that delivered, with the stranger beside it.

        The leg is done twice then, and the task does not wait for a stranger that may sit on it.
        """
        directory, stage = self.directory, self.handoff.leg
        known = [it for it in choices if it.delivered and not it.unwelcome and not is_busy(it)]
        alone = chosen.delivered or not known or directory.background is None
        alone = alone or self.handoff.is_paid
        if alone or self.shown.units or not (self.handoff.is_last or stage.role is Role.DATA):
            return chosen
        if not directory.trials.spend():
            return chosen
        last = self.handoff.is_last
        patience_s = (
            sits_after_s(chosen.expected_s)
            if last
            else overdue_s(self.directory, self.handoff, chosen)
        )
        until_at_s = min(self.deadline_at_s, trio.current_time() + stretched(patience_s))
        try_out(directory, self.handoff, chosen.peer, until_at_s, self.deadline_at_s)
        (instead,) = drawn(known, directory.peers.environment.random, 1)
        return instead

    def _units(self) -> int:
        """All of the work, including what was shown: nobody has checked that yet."""
        return max(1, self.handoff.units)

    # Handing on

    async def _have_done(self, first: Candidate, others: bool) -> LegResult | None:
        """The result of the first peer, or of one hedged with; None if all failed."""
        if not others:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._until_another, first)
                delivered = await self._hand_to(first, others)
                nursery.cancel_scope.cancel()
            return delivered
        if self.handoff.is_paid or not self._may_hedge(first):
            return await self._hand_to(first, others)
        trials, won = self.directory.trials, list[LegResult]()
        trials.under_way += not first.delivered
        try:
            async with trio.open_nursery() as nursery:
                hedging = trio.CancelScope()

                async def hand_to(one: Candidate) -> None:
                    delivered = await self._hand_to(one, others)
                    if delivered is not None:
                        won.append(delivered)
                        for scope in self._running.values():
                            scope.cancel()
                    if delivered is not None or not self._running:
                        hedging.cancel()

                nursery.start_soon(hand_to, first)
                with hedging:
                    await self._hedge(first, lambda spare: nursery.start_soon(hand_to, spare))
        finally:
            trials.under_way -= not first.delivered
        return won[0] if won else None

    async def _until_another(self, first: Candidate) -> None:
        """Take the leg from a peer that is overdue, once there is another."""
        await trio.sleep(overdue_s(self.directory, self.handoff, first))
        while not self._ready(self._able()):
            await trio.sleep(LOOK_S)
        if (scope := self._running.get(first.peer)) is not None:
            scope.deadline = trio.current_time()

    async def _hedge(self, first: Candidate, give: Callable[[Candidate], None]) -> None:
        """Give the leg to one more peer when it takes longer than 99 % of legs do.

        A stranger's leg is hedged as soon as it is overdue, and again while no peer delivers.
        """
        directory, random = self.directory, self.directory.peers.environment.random
        # A peer that claims to need long must not delay the hedge.
        usual_s = median_high([first.expected_s, *[it.expected_s for it in self._able()]])
        expected_s, hedged = min(first.expected_s, usual_s), 0
        if self.handoff.leg.role is Role.DATA:
            expected_s += later_legs_s(directory, self.handoff)
        while (after_s := self._hedge_after_s(first, expected_s, hedged)) is not None:
            await trio.sleep(after_s)
            # Once a part was shown, only that stream is used.
            if self.shown.units or not self._running:
                return
            ready = self._ready(self._able())
            known = [it for it in ready if it.delivered and not it.unwelcome]
            # The first peer's claim may have been false, so claims do not decide the next choice.
            spare = drawn(known or ready, random, 1, eagerness=EAGERNESS if known else 0.0)
            budget = directory.hedging if first.delivered else directory.trials
            if not spare or not budget.spend():
                return
            hedged += 1
            directory.hedged += 1
            give(spare[0])

    def _may_hedge(self, first: Candidate) -> bool:
        if self.handoff.leg.role is Role.DATA:
            # Of a data leg only the time of the legs after it is known, which is enough to tell
            # that a stranger sits on it.
            return not first.delivered and not self.shown.units
        return self.handoff.is_last and not self.shown.units

    def _hedge_after_s(self, first: Candidate, expected_s: float, hedged: int) -> float | None:
        if not first.delivered:
            return self.directory.trials.hedge_after_s(expected_s, hedged)
        return None if hedged else self.directory.hedging.after_s(first.expected_s)

    async def _hand_to(self, one: Candidate, others: bool) -> LegResult | None:
        """Offer the handoff to one peer; None if it did not deliver, which is then noted."""
        # What is begun at this peer goes on as it is.
        begun = self.begun if one is self.begun.candidate else None
        began_at_s = trio.current_time() if begun is None else begun.began_at_s
        until_at_s = began_at_s + self.handoff.share_of_time(others=others) * (
            self.deadline_at_s - began_at_s
        )
        late_s = overdue_s(self.directory, self.handoff, one)
        # Pieces do not extend the time: one deadline holds for the whole leg.
        scope = self._running[one.peer] = trio.CancelScope(
            deadline=min(until_at_s, began_at_s + (late_s if others else math.inf))
        )
        units_max = streamed_max(self.handoff.task.record.stages[-1])

        async def take(part: Part) -> None:
            if part.position + part.units > units_max:
                raise RemoteProtocolError(f"a piece beyond the {units_max} units of the leg")
            for peer in self._running.keys() - {one.peer}:
                # The first peer that streams wins: the others are cancelled.
                # They did not fail: should that stream break, they are asked again.
                self._patience.refused(peer, PAUSE_S, trio.current_time())
                self._running[peer].cancel()
            for event in self.shown.apply(part):
                self.on_event(event)
                if isinstance(event, Streamed):
                    # Only its asker knows who is to sign what it shows.
                    await self.relay(replace(part, segment=b""))
            # It was shown, whatever is signed of it.
            task, bill = self.handoff.task.id, self.handoff.bill
            is_signed = self.shown.take_segment(part, one.peer, task, self.handoff.stage)
            if is_signed and bill is not None:
                bill.sign(one.peer, self.shown.units)

        try:
            with scope:
                handoff, peers = self.handoff, self.directory.peers
                if begun is None:
                    handoff = await resumed(handoff, self.shown, peers, one.peer)
                delivered = await offer_leg(
                    *(self.directory, handoff, one.peer, self.on_event, take),
                    *(self.deadline_at_s, begun),
                )
                took_s = trio.current_time() - began_at_s
                if self.handoff.is_last:
                    self.directory.hedging.delivered(took_s, one.expected_s)
                return delivered
            took_s = trio.current_time() - began_at_s
            if trio.current_time() < scope.deadline:
                # Another peer was faster. That is no fault, but this one is not tried again soon.
                self._outrun(one, took_s)
                return None
            # The peer is not blamed if the client left it too little time, nor by a holder in the
            # middle, which knows only what it was sent.
            if took_s >= stretched(PATIENCE_S) and self.handoff.is_own:
                offence = Offence.UNANSWERED if took_s >= late_s else Offence.SLOW
                self.directory.peers.offended(one.peer, offence)
                self.directory.sitting.sat(one.peer, trio.current_time())
            raise TooSlow(f"it took the leg and was not done in {took_s:.0f} s")
        except (Refused, TransportError, WireError, RemoteProtocolError) as error:
            self._blame(one.peer, error)
            return None
        finally:
            del self._running[one.peer]

    def _outrun(self, one: Candidate, took_s: float) -> None:
        """Note that a peer had shown nothing after `took_s`, when another was done."""
        if took_s < one.expected_s or not self.handoff.is_own:
            # For a stranger's task we know only what we were sent, and that may be the cause.
            return
        now_at_s, leg = trio.current_time(), self.handoff.leg
        self.directory.measured.outrun(one.peer, leg.model, self._units(), took_s, now_at_s)
        if not one.delivered or sits(took_s, one.expected_s):
            self.directory.sitting.sat(one.peer, now_at_s)

    def _blame(self, peer: PeerId, error: BatonError) -> None:
        """Note that a peer refused or failed, and whether and when it may be asked again."""
        # Who has just come says where it is once others have called it back.
        again_s = NOT_CALLED_AGAIN_S if isinstance(error, NotCalled) else ask_again_s(error)
        if again_s is None and isinstance(error, Disconnected | Unreachable):
            # Its network may have changed, or its relay gone; it says itself that it is back.
            self._broke[peer] += 1
            again_s = BROKEN_AGAIN_S if self._broke[peer] <= BROKEN_MAX else None
        refused, role = isinstance(error, Refused), self.handoff.leg.role.name.lower()
        if again_s is not None:
            self._patience.refused(peer, again_s, trio.current_time())
        else:
            self.failed.add(peer)
            self._declined = self._declined and refused
            self._codes.add(error.code)
        self.directory.failed_over += 1
        if self.directory.payer is not None and self.handoff.is_own:
            self.directory.payer.note_refused(peer, error)
        self._reasons.append(f"{peer.short}: {error.message}")
        self.directory.choices.failed(self.handoff.task.id, peer, error.message)
        code = error.code if refused else None
        self.on_event(Failed(role, peer, error.message, code, refused and again_s is None))

    def _nobody(self) -> str:
        tried = f" ({'; '.join(self._reasons)})" if self._reasons else ""
        return f"no peer finished the {self.handoff.leg.role.name.lower()} leg{tried}"
