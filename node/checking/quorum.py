"""Having a leg checked: draws the verifiers, asks them, and counts their verdicts.

The lottery's secret is revealed only here, after the receipt was signed. `needed` verifiers are
asked first, each for another part of the rows; more, in the order of the draw, only when some
disagree, refuse or fall silent. A row that one of them finds wrong is recomputed by the others too.
"""

from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial

import trio

from node.checking.asked_verifiers import Quorum
from node.checking.check_order import CheckOnOrder, CheckOrder, CheckOrders, PlacedCheck
from node.checking.check_request import CheckRequest, listed_of
from node.checking.commitments import LegCommitments, Shown, Tell
from node.checking.contributions import Contributions
from node.checking.known_verifiers import KnownVerifiers, SeenOwners
from node.checking.odds import raised_by
from node.checking.tally import Tally
from node.checking.ties import apart_first, one_of_each, tied_among
from node.checking.verdict import check_verdict
from node.checking.votes import Votes
from node.dispatch.backoff import Backoff
from node.task.events import Checked, EventSink, Failed
from node.task.refusals import ask_again_s
from p2p.peers import Peers
from p2p.score import Offence, Standing
from p2p.timeouts import stretched
from wire import limits
from wire.commitment import TellVerdict, VerdictCommitted
from wire.content import PeerId
from wire.counting import count_down, count_up, counted
from wire.errors import (
    BatonError,
    Refused,
    RemoteProtocolError,
    TransportError,
    WireError,
)
from wire.kinds import Role
from wire.lottery import Share
from wire.message import VerdictReply
from wire.receipt import Verdict
from wire.signed import Signed, open_signed
from wire.task import CheckPolicy as Terms

# A verifier recomputes a part of a leg that may have taken minutes.
CHECK_DEADLINE_S = 60.0
PAUSE_S = 0.25
# A guess: a verifier that is running answers within this; after it, another is asked too.
SLOW_AFTER_S = 5.0
# What nobody is left to decide is given up after this.
DISPUTE_LOST_AFTER_S = 5.0


@dataclass(slots=True)
class Checking(KnownVerifiers):
    """Asks verifiers for one peer."""

    # None where every check goes by a conversation of its own.
    orders: CheckOrders | None = None
    # None where the asker alone draws.
    contributions: Contributions | None = None
    # Checks that each verifier does for us now.
    under_way: dict[PeerId, int] = field(default_factory=dict)

    async def check(
        self,
        claimed: CheckRequest,
        on_event: EventSink,
        *,
        deadline_at_s: float,
        terms: Terms | None = None,
        rejected: int = 0,
        parts: int = 0,
    ) -> Tally:
        """Collect verdicts until enough agree, too many differ, or the deadline passes.

        The task's own terms apply if no others are given. After `rejected` attempts as many more
        verdicts are needed, where so many more verifiers are known. Verifiers are told of `parts`
        parts of the rows, or of as many as verdicts are needed.
        """
        terms = terms or claimed.task.record.checking
        more = raised_by(rejected, len(self.candidates(claimed)), terms.verifiers)
        more = min(more, limits.VERIFIERS_MAX - terms.verifiers)
        quorum = Quorum(Votes(terms.needed + more, terms.verifiers + more), parts)
        known = {} if claimed.drawn is None else dict(claimed.drawn.weights)
        owners = self.owners()
        return await _Check(self, claimed, on_event, deadline_at_s, quorum, known, owners).run()


@dataclass(slots=True)
class _Check:
    """One leg that is being checked.

    Verifiers at which an order stands are asked without a task for each; most checks need none.
    """

    checking: Checking
    claimed: CheckRequest
    on_event: EventSink
    deadline_at_s: float
    quorum: Quorum
    # With the weights that they had in the first draw.
    known: dict[PeerId, int]
    owners: SeenOwners
    patience: Backoff = field(default_factory=Backoff)
    wake: trio.Event = field(default_factory=trio.Event)
    # Since when nobody is left who could decide a dispute, or give one more verdict than usual.
    lost_since_at_s: float | None = None
    commitments: LegCommitments = field(default_factory=LegCommitments)
    _on_orders: dict[PeerId, PlacedCheck] = field(default_factory=dict)
    # What is to be done in tasks.
    _to_start: list[Callable[[], Awaitable[None]]] = field(default_factory=list)

    @property
    def peers(self) -> Peers:
        return self.checking.peers

    @property
    def slow_after_s(self) -> float:
        # A verifier recomputes a part of the leg, on a machine that may be half as fast.
        return SLOW_AFTER_S + min(30.0, self.claimed.receipt.record.duration_ms / 1000)

    async def run(self) -> Tally:
        try:
            if not await self._until_decided(None):
                async with trio.open_nursery() as nursery:
                    await self._until_decided(nursery)
                    nursery.cancel_scope.cancel()
            self._blame_the_slow(trio.current_time())
        finally:
            for verifier, one in self._on_orders.items():
                one.order.leave(one.ordered)
                count_down(self.checking.under_way, verifier)
        votes = self.quorum.votes
        accepted, agree = votes.accepted, [it.signer for it in votes.agreeing]
        is_open = accepted is None and bool(votes.disputed)
        return Tally(
            # What nobody is left to decide is not accepted.
            agreed=False if is_open and self.lost_since_at_s is not None else accepted,
            verdicts=tuple(votes.in_order()),
            candidates=listed_of(
                self.claimed.order_of(self.known), votes.latest, self.claimed.drawn
            ),
            disputed=is_open,
            needed=votes.needed,
            ran_out=self.lost_since_at_s is not None,
            tied=tied_among(agree, self.checking.ties(agree)),
            owned=self.owners.told({self.peers.me, *self.claimed.doers, *votes.latest}, self.known),
            commitments=tuple(self.commitments.made),
            weights=self.known,
            drawn=self.claimed.drawn,
        )

    async def _until_decided(self, nursery: trio.Nursery | None) -> bool:
        """Ask until it is decided or time is up; False where that needs a nursery and has none."""
        votes = self.quorum.votes
        while votes.accepted is None and (now_at_s := trio.current_time()) < self.deadline_at_s:
            self._give_up_late(now_at_s)
            self._tell_if_due(now_at_s)
            self._ask_more(now_at_s)
            if self._is_lost(now_at_s):
                break
            for start in self._to_start:
                if nursery is None:
                    return False
                nursery.start_soon(start)
            self._to_start.clear()
            event = self.wake
            with trio.move_on_at(min(self.deadline_at_s, now_at_s + PAUSE_S)):
                await event.wait()
        return True

    def _blame_the_slow(self, now_at_s: float) -> None:
        under_way = self.quorum.under_way.items()
        slow = {it for it, at_s in under_way if at_s <= now_at_s - self.slow_after_s}
        for verifier in sorted(slow | self.quorum.stalling(now_at_s)):
            self.peers.offended(verifier, Offence.SLOW)

    # Asking

    def _ask_more(self, now_at_s: float) -> None:
        quorum, patience = self.quorum, self.patience
        # Who agreed without having looked at a row in dispute is asked to look.
        again = quorum.again()
        for verifier in patience.ready(list(again), now_at_s):
            self._begin(verifier, again[verifier], now_at_s)
        slow_since_at_s = now_at_s - self.slow_after_s
        wanted = quorum.wanted(slow_since_at_s)
        # Who is there, and their order, takes walks, and most times nobody more is wanted.
        unasked = self._unasked() if wanted else []
        ready = one_of_each(patience.ready(unasked, now_at_s), self.owners.owner_of)
        if wanted > len(ready):
            self._to_start.append(self._look_further)
        for verifier in ready[:wanted]:
            self._begin(verifier, quorum.next_share(slow_since_at_s), now_at_s)
        # Who is busy for ever must not keep the task here until its deadline.
        raised = wanted and quorum.votes.needed > self.claimed.task.record.checking.needed
        left = {*quorum.under_way, *again, *unasked} - quorum.stalling(now_at_s)
        if left or not (quorum.votes.disputed or raised):
            self.lost_since_at_s = None
        elif self.lost_since_at_s is None:
            self.lost_since_at_s = now_at_s

    def _unasked(self) -> list[PeerId]:
        """Who was not asked yet, in the order in which they are to be."""
        # Verifiers that became known during the wait are included: the draw is by key.
        found = self.checking.candidates(self.claimed, self.owners)
        self.known = {it: self.checking.weight(it) for it in found} | self.known
        quorum = self.quorum
        asked = quorum.asked.keys() | self.claimed.void
        heard = quorum.votes.latest.keys() | quorum.under_way.keys()
        taken = {self.owners.owner_of(it) for it in heard}
        left = [
            it
            for it in self.claimed.order_of(self.known)
            if it not in asked and self.owners.owner_of(it) not in taken
        ]
        # Who said no, or nothing, leaves its place to whoever is next.
        agree = {it.signer for it in quorum.votes.agreeing} | quorum.under_way.keys()
        left = apart_first(left, agree, self.checking.ties(self.known))
        # Peers that were silent before are asked last: waiting for them costs the most.
        left.sort(key=lambda it: self.peers.standing(it) is Standing.UNWELCOME)
        return left

    def _is_lost(self, now_at_s: float) -> bool:
        since_at_s = self.lost_since_at_s
        return since_at_s is not None and now_at_s - since_at_s >= DISPUTE_LOST_AFTER_S

    async def _look_further(self) -> None:
        model = self.claimed.receipt.record.model
        await self.peers.seek(Role.VERIFY, model, deadline_s=SLOW_AFTER_S)

    def _begin(self, verifier: PeerId, share: Share, now_at_s: float) -> None:
        self.quorum.asked[verifier] = share
        self.quorum.under_way[verifier] = now_at_s
        self.commitments.forget(verifier)
        orders = self.checking.orders
        order = (
            orders.standing_at(verifier) if orders is not None and self.claimed.is_at_hand else None
        )
        # Who cannot read it is refused again in `_ask`, where that is heard.
        with suppress(Refused):
            if order is not None:
                self._put_on(order, share)
                return
        self._to_start.append(partial(self._ask, verifier, share))

    def _left_s(self) -> float:
        """How long one verifier may take: a silent one must leave time for another."""
        left_s = max(0.0, self.deadline_at_s - trio.current_time())
        return min(stretched(CHECK_DEADLINE_S), left_s / 2)

    def _put_on(self, order: CheckOrder, share: Share) -> None:
        """Have the verifier of an order asked; `_order_ended` hears what came of it."""
        verifier, left_s = order.peer, self._left_s()
        message, share = self.claimed.message(order.version, share, left_s, commit=self._commit)
        count_up(self.checking.under_way, verifier)
        ordered = order.put(
            message, partial(self._order_ended, verifier), partial(self._committed_on, order)
        )
        late_at_s = ordered.since_at_s + left_s
        self._on_orders[verifier] = PlacedCheck(order, ordered, late_at_s, share)

    @property
    def _commit(self) -> bool:
        # One verdict alone has none that it could be made to fit.
        return self.quorum.parts > 1 and not self.commitments.are_full

    def _committed_on(self, order: CheckOrder, one: CheckOnOrder, commitment: bytes) -> None:
        late_at_s = self._on_orders[order.peer].late_at_s
        self._committed(order.peer, commitment, late_at_s, partial(order.tell, one))

    def _give_up_late(self, now_at_s: float) -> None:
        for verifier, one in list(self._on_orders.items()):
            if one.late_at_s <= now_at_s:
                self._order_ended(verifier, one.order.give_up(one.ordered))

    def _order_ended(self, verifier: PeerId, found: Signed[Verdict] | BatonError) -> None:
        one = self._on_orders.pop(verifier)
        count_down(self.checking.under_way, verifier)
        if isinstance(found, BatonError):
            self._failed(verifier, found)
            return
        try:
            check_verdict(self.claimed.receipt, self.claimed.secret, found, verifier, one.share)
        except WireError as error:
            # It is what the verifier says of this leg that does not fit; others go on.
            self.peers.offended(verifier, Offence.MALFORMED)
            self._failed(verifier, error)
        else:
            self._heard(found, one.share)

    async def _ask(self, verifier: PeerId, share: Share) -> None:
        """Ask a verifier at which no order stands."""
        try:
            await self._ask_alone(verifier, share)
        except (Refused, TransportError, WireError, RemoteProtocolError) as error:
            self._failed(verifier, error)

    async def _ask_alone(self, verifier: PeerId, share: Share) -> None:
        claimed, orders, version, left_s = self.claimed, self.checking.orders, 0, self._left_s()
        if claimed.needs_version or self._commit:
            version = await self.peers.neighbours.version_of(verifier, deadline_s=left_s)
        with counted(self.checking.under_way, verifier) as at_once:
            order = None
            if orders is not None and self.claimed.is_at_hand:
                order = await orders.at(verifier, left_s, at_once)
            if order is not None:
                self._put_on(order, share)
                return
            message, share = claimed.message(version, share, left_s, commit=self._commit)
            async with self.peers.call(verifier, deadline_s=left_s) as call:
                await call.send(message)
                if message.commit:
                    commitment = (await call.expect(VerdictCommitted)).digest
                    shown = await self._shown(verifier, commitment)
                    await call.send(TellVerdict(shown=shown.hash, count=shown.count))
                finding = await call.expect(VerdictReply)
                verdict = open_signed(finding.verdict, Verdict)
                check_verdict(claimed.receipt, claimed.secret, verdict, verifier, share)
        self._heard(verdict, share)

    # Hearing

    async def _shown(self, verifier: PeerId, commitment: bytes) -> Shown:
        """Note a commitment, and wait until its verdict is due; what the verifier is shown."""
        found: list[Shown] = []
        due = trio.Event()

        def tell(shown: Shown) -> None:
            found.append(shown)
            due.set()

        self._committed(verifier, commitment, trio.current_effective_deadline(), tell)
        await due.wait()
        return found[0]

    def _committed(self, verifier: PeerId, commitment: bytes, late_at_s: float, tell: Tell) -> None:
        self.commitments.add(verifier, commitment, trio.current_time(), late_at_s, tell)
        self._tell_if_due(trio.current_time())

    def _tell_if_due(self, now_at_s: float) -> None:
        slow_since_at_s, quorum = now_at_s - self.slow_after_s, self.quorum
        quorum.under_way |= dict.fromkeys(self.commitments.held, now_at_s)
        asked = [it for it, at_s in quorum.under_way.items() if at_s > slow_since_at_s]
        # Who looks at a row in dispute was asked because of a verdict, and waits for nobody.
        wanted = not quorum.votes.disputed and quorum.wanted(slow_since_at_s) > 0
        self.commitments.tell_if_due(now_at_s, asked, wanted=wanted)

    def _heard(self, verdict: Signed[Verdict], share: Share) -> None:
        if why := self.commitments.misfit(verdict):
            self.peers.offended(verdict.signer, Offence.WRONG_ANSWER)
            self.peers.note_problem(f"verdict of {verdict.signer}", why)
            self._failed(verdict.signer, RemoteProtocolError(why))
            return
        self.quorum.votes.add(verdict, share.part)
        self.peers.view.keep(verdict.signer)
        self.on_event(Checked(verdict))
        self._has_answered(verdict.signer)

    def _failed(self, verifier: PeerId, error: BatonError) -> None:
        code, again_s = None, None
        if isinstance(error, Refused):
            code, again_s, now_at_s = error.code, ask_again_s(error), trio.current_time()
            if self.checking.payer is not None:
                self.checking.payer.note_refused(verifier, error)
            if self.commitments.has(verifier):
                # It has had its turn: else commitments without verdicts would go on for ever.
                again_s = None
            if again_s is not None:
                self.quorum.is_busy(verifier, now_at_s)
                self.patience.refused(verifier, again_s, now_at_s)
        self.on_event(Failed("verify", verifier, error.message, code))
        self._has_answered(verifier, is_busy=again_s is not None)

    def _has_answered(self, verifier: PeerId, *, is_busy: bool = False) -> None:
        quorum, votes = self.quorum, self.quorum.votes
        if not is_busy:
            quorum.busy_since_at_s.pop(verifier, None)
        del quorum.under_way[verifier]
        self.commitments.forget(verifier)
        self._tell_if_due(now_at_s := trio.current_time())
        slow_since_at_s = now_at_s - self.slow_after_s
        if votes.accepted is not None or votes.disputed or quorum.wanted(slow_since_at_s):
            self.wake.set()
            self.wake = trio.Event()
