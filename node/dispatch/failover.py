"""The course of one baton: who is offered it next, and what became of those who were.

Two are asked, the better gets it. Whoever fails is not asked again for the same task.
"""

import math
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from statistics import median_high

import trio

from node.dispatch.backoff import Backoff
from node.dispatch.directory import PeerDirectory
from node.dispatch.handoff import Handoff, LegResult, Relay
from node.dispatch.offer import offer_leg
from node.dispatch.progress import StreamProgress
from node.dispatch.quotes import quotes
from node.dispatch.route import EAGERNESS, Candidate, drawn
from node.dispatch.sitting import sits
from node.dispatch.trials import best
from node.engines.interface import Part
from node.task.events import EventSink, Failed, Streamed
from node.task.refusals import ask_again_s
from node.task.units import PASSAGES_PER_LEG, streamed_max
from p2p.connect import PATIENCE_S
from p2p.score import Offence
from p2p.timeouts import stretched
from wire.content import PeerId
from wire.errors import (
    BatonError,
    Refused,
    RemoteProtocolError,
    TaskFailed,
    TooSlow,
    TransportError,
    WireError,
)
from wire.kinds import RefusalCode, Role
from wire.task import Stage

# How often to look again when nobody can take the leg now.
PAUSE_S = 0.25
REASONS_KEPT = 4
# A search goes from neighbour to neighbour, a round trip each.
SEEK_S = 3.0
# When everybody has refused for good, another peer may still come; for so long it is waited for.
NEWCOMER_S = 10.0
# Who took a leg and lets so much more time pass than it is likely to need is passed over, while
# there is another: it may have taken it to sit on it.
OVERDUE_S = 10.0
OVERDUE_TIMES = 5.0
# Asking costs a round trip to two peers; a leg that takes less is offered to the likelier at once.
WORTH_ASKING_S = 0.05


@dataclass(slots=True)
class Failover:
    """One baton on its way. `shown` and `failed` are those of its task."""

    directory: PeerDirectory
    handoff: Handoff
    on_event: EventSink
    relay: Relay
    deadline_at_s: float
    shown: StreamProgress
    failed: set[PeerId]
    _patience: Backoff = field(default_factory=Backoff)
    _reasons: deque[str] = field(default_factory=lambda: deque(maxlen=REASONS_KEPT))
    # Nobody died or fell silent: all that failed so far was refused for good; and why.
    _declined: bool = True
    _codes: set[RefusalCode] = field(default_factory=set)
    # Who has the baton now: one, or two where the first took long.
    _running: dict[PeerId, trio.CancelScope] = field(default_factory=dict)

    async def run(self, patience_s: float) -> LegResult:
        """See `Dispatcher.hand_on`."""
        self._declined = not self.failed
        nobody_since_at_s = trio.current_time()
        while (now_at_s := trio.current_time()) < self.deadline_at_s:
            able = self._able()
            choices = self._ready(able)
            if not choices:
                waited_s = now_at_s - nobody_since_at_s
                if self.failed and self._declined and not able and waited_s > NEWCOMER_S:
                    # Everybody said no, for good: more time changes nothing.
                    raise TaskFailed(
                        self._nobody(),
                        todo="change what is asked for, or see who is there: python -m node peers",
                        # Where all say the same of the request, it is the request.
                        code=next(iter(self._codes)) if len(self._codes) == 1 else None,
                    )
                if waited_s > patience_s:
                    raise Refused(self._nobody(), retry_after_s=1.0, code=RefusalCode.FAILED)
                if not able:
                    await self._look_further()
                await trio.sleep(max(0.0, min(PAUSE_S, self.deadline_at_s - now_at_s)))
                continue
            nobody_since_at_s = now_at_s
            random = self.directory.peers.environment.random
            chosen = await self._better(self.directory.trials.to_ask(choices, random))
            if chosen is not None:
                delivered = await self._have_done(chosen, len(able) > 1)
                if delivered is not None:
                    return delivered
        raise TaskFailed(
            self._nobody() + " within the deadline",
            todo="give it more time (--deadline), or see who is there: python -m node peers",
        )

    # Choosing

    async def _look_further(self) -> None:
        """Beyond the view, for as long as the deadline allows."""
        left_s = self.deadline_at_s - trio.current_time()
        leg = self.handoff.leg
        await self.directory.peers.seek(
            leg.role, leg.model, deadline_s=min(stretched(SEEK_S), left_s)
        )

    def _able(self) -> list[Candidate]:
        avoid = self.handoff.avoid | self.failed | self._running.keys()
        if not self.handoff.is_own:
            # A stranger's leg that we would not take from it must not come in our own name.
            avoid |= {self.directory.peers.me}
        return self.directory.candidates(self.handoff.leg, self._units(), avoid)

    def _ready(self, able: Sequence[Candidate]) -> list[Candidate]:
        """Of those able, the ones to choose from now."""
        of = {it.peer: it for it in able}
        choices = [of[it] for it in self._patience.best(list(of), trio.current_time())]
        if self.failed:
            # Claims cost nothing. Once bitten, those who have delivered before come first.
            before = self.directory.delivered_before
            choices = [it for it in choices if it.peer in before] or choices
        return choices

    async def _better(self, two: Sequence[Candidate]) -> Candidate | None:
        """The one of them that says it will be done first; None if all of them say no."""
        # Bringing a text in takes no time to speak of, and nobody says how long.
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
                # Where we saw it take longer than it says, that counts; and so does what we gave
                # it while it answered.
                since = given.get(one.peer, 0) - before[one.peer]
                expected_s = max(said[one.peer], one.expected_s if one.observed else 0.0)
                rated.append(replace(one, expected_s=expected_s + since * one.work_s))
        # Nobody said a word: they may be busy, and one of them is tried.
        rated = rated or [it for it in two if it.peer not in heard]
        return best(rated)

    def _units(self) -> int:
        """All of the work: what was shown of it is only said to be done."""
        return max(1, self.handoff.units)

    # Handing on

    async def _have_done(self, first: Candidate, others: bool) -> LegResult | None:
        """What the first delivered, or one that was given the leg besides; None if all failed."""
        if not others or not self._may_hedge():
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

    async def _hedge(self, first: Candidate, give: Callable[[Candidate], None]) -> None:
        """Give the leg to one more besides, when it takes too long: one of a hundred legs.

        A stranger's leg as soon as it is overdue, and to another again while none has delivered.
        """
        directory, random = self.directory, self.directory.peers.environment.random
        # Who says that it takes long must not have the others wait for it.
        usual_s = median_high([first.expected_s, *[it.expected_s for it in self._able()]])
        expected_s, hedged = min(first.expected_s, usual_s), 0
        while (after_s := self._hedge_after_s(first, expected_s, hedged)) is not None:
            await trio.sleep(after_s)
            # Once a part was shown there is one stream, and nobody else's is of use.
            if self.shown.units or not self._running:
                return
            ready = self._ready(self._able())
            known = [it for it in ready if it.delivered and not it.unwelcome]
            # If it was a claim that misled us, the next claims are not to.
            spare = drawn(known or ready, random, 1, eagerness=EAGERNESS if known else 0.0)
            budget = directory.hedging if first.delivered else directory.trials
            if not spare or not budget.spend():
                return
            hedged += 1
            directory.hedged += 1
            give(spare[0])

    def _may_hedge(self) -> bool:
        return self.handoff.is_last and self.handoff.leg.role is Role.INFER and not self.shown.units

    def _hedge_after_s(self, first: Candidate, expected_s: float, hedged: int) -> float | None:
        if not first.delivered:
            return self.directory.trials.hedge_after_s(expected_s, hedged)
        return None if hedged else self.directory.hedging.after_s(first.expected_s)

    async def _hand_to(self, one: Candidate, others: bool) -> LegResult | None:
        """Offer the baton to one peer; None if it did not deliver, which is then noted."""
        began_at_s = trio.current_time()
        until_at_s = began_at_s + _share(self.handoff, others) * (self.deadline_at_s - began_at_s)
        overdue_s = self._overdue_s(one) if others else math.inf
        resume = self.shown.begin()
        # A piece now and then buys no time: there is one bound for all of the leg.
        scope = self._running[one.peer] = trio.CancelScope(
            deadline=min(until_at_s, began_at_s + overdue_s)
        )
        units_max = streamed_max(self.handoff.task.record.stages[-1])

        async def take(part: Part) -> None:
            if part.position + part.units > units_max:
                raise RemoteProtocolError(f"a piece beyond the {units_max} units of the leg")
            for peer in self._running.keys() - {one.peer}:
                # It was faster to begin with: there is one stream, and this is it.
                self.failed.add(peer)
                self._running[peer].cancel()
            for event in self.shown.apply(part):
                self.on_event(event)
                if isinstance(event, Streamed):
                    await self.relay(part)

        try:
            with scope:
                delivered = await offer_leg(
                    self.directory,
                    self.handoff,
                    one.peer,
                    self.on_event,
                    take,
                    resume,
                    self.deadline_at_s,
                )
                took_s = trio.current_time() - began_at_s
                if self.handoff.is_last:
                    self.directory.hedging.delivered(took_s, one.expected_s)
                return delivered
            took_s = trio.current_time() - began_at_s
            if trio.current_time() < scope.deadline:
                # Another was faster, which is no fault of this one; but it is not tried again soon.
                self._outrun(one, took_s)
                return None
            # Not where a client left it no time, nor by a holder in the middle, which knows only
            # what was said to it: that is no fault of the peer's.
            if took_s >= stretched(PATIENCE_S) and self.handoff.is_own:
                offence = Offence.UNANSWERED if took_s >= overdue_s else Offence.SLOW
                self.directory.peers.offended(one.peer, offence)
                self.directory.sitting.sat(one.peer, trio.current_time())
            raise TooSlow(f"it took the leg and was not done in {took_s:.0f} s")
        except (Refused, TransportError, WireError, RemoteProtocolError) as error:
            self._blame(one.peer, error)
            return None
        finally:
            del self._running[one.peer]

    def _outrun(self, one: Candidate, took_s: float) -> None:
        """It had the leg for so long and showed nothing of it when another was done."""
        if took_s < one.expected_s or not self.handoff.is_own:
            # Of a stranger's leg we know only what was said to us, and that may be to blame.
            return
        now_at_s, leg = trio.current_time(), self.handoff.leg
        self.directory.measured.outrun(one.peer, leg.model, self._units(), took_s, now_at_s)
        if not one.delivered or sits(took_s, one.expected_s):
            self.directory.sitting.sat(one.peer, now_at_s)

    def _overdue_s(self, one: Candidate) -> float:
        """How long one peer may take for a leg, while there is another."""
        expected_s = max(one.expected_s, one.work_s)
        if self.handoff.leg.role is Role.DATA:
            expected_s += sum(self._usual_s(it) for it in self._later())
        elif not self.handoff.is_last:
            # It has to hand on itself; nobody says how long that takes.
            return math.inf
        return stretched(OVERDUE_S + OVERDUE_TIMES * expected_s)

    def _later(self) -> Sequence[Stage]:
        return self.handoff.task.record.stages[self.handoff.stage + 1 :]

    def _usual_s(self, stage: Stage) -> float:
        """What a leg after this one takes with those that we know of."""
        units = max(self.handoff.units, PASSAGES_PER_LEG)
        able = self.directory.candidates(stage, units, self.handoff.avoid)
        return median_high(max(it.expected_s, it.work_s) for it in able) if able else math.inf

    def _blame(self, peer: PeerId, error: BatonError) -> None:
        """It said no, or failed: whether and when it may be asked again."""
        again_s = ask_again_s(error)
        refused = isinstance(error, Refused)
        if again_s is not None:
            self._patience.refused(peer, again_s, trio.current_time())
        else:
            self.failed.add(peer)
            self._declined = self._declined and refused
            self._codes.add(error.code)
        self.directory.failed_over += 1
        self._reasons.append(f"{peer.short}: {error.message}")
        role = self.handoff.leg.role.name.lower()
        code = error.code if refused else None
        self.on_event(Failed(role, peer, error.message, code, refused and again_s is None))

    def _nobody(self) -> str:
        tried = f" ({'; '.join(self._reasons)})" if self._reasons else ""
        return f"no peer finished the {self.handoff.leg.role.name.lower()} leg{tried}"


def _share(handoff: Handoff, others: bool) -> float:
    """How much of the time that is left one peer may take.

    Who takes a leg and falls silent leaves time for another, if there is one; the more legs are
    left, the longer its own failovers may take.
    """
    legs = len(handoff.task.record.stages) - handoff.stage
    return legs / (legs + 1) if others else 1.0
